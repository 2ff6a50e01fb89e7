"""The Shapes3D scene by ray casting: the surface that each ray of the camera hits, and its brightness.

The published images were rendered by MuJoCo, that is, by OpenGL's fixed pipeline, with three lights: an ambient one,
one that shines from the camera along its axis, and a lamp above the object that points straight down. The cone of the
lamp falls off with the 10th power of the cosine; the lamp alone casts shadows, and it adds a white gloss to all of the
object that it lights. OpenGL lights the corners of the facets of round objects and interpolates between them. Sizes and
strengths were measured on the published frames.

The room's axes: x to the right and z towards the viewer of orientation 7, y up, the origin under the object on the
floor. Lengths are in half-widths of the room. All compiled functions of the scene are in this file: numba's cache on
disk does not notice a change in a function that is imported from another.
"""

import numpy as np

from unweave.compiled import compiled

SKY, FLOOR, WALL, OBJECT = 0, 1, 2, 3

FOCAL, HORIZON = 69.54 / 64, 31.63 / 64  # in heights of the image; the horizon from its top
EYE, ORBIT = 0.2255, 0.7479  # height of the camera, and its distance from the middle of the room
WALL_HEIGHT = 0.575
SCALES = np.linspace(0.75, 1.25, 8)
ANGLES = np.radians(np.linspace(-30, 30, 15))

CUBE, CYLINDER, SPHERE, CAPSULE = 0, 1, 2, 3
CUBE_HALF = 0.1034
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.1103, 0.2218
SPHERE_RADIUS = 0.1251
CAPSULE_RADIUS, CAPSULE_LENGTH = 0.0955, 0.1924  # length of the straight part
RADII = np.array([np.inf, CYLINDER_RADIUS, SPHERE_RADIUS, CAPSULE_RADIUS])

AMBIENT, HEADLIGHT, LAMP = 0.3487, 0.6002, 0.9723
LAMP_X, LAMP_Y, LAMP_Z = -0.4254, 2.1815, -0.1334
GLOSS = 0.1475
SLICES, STACKS = 28, 16  # facets around a round object, and from its bottom to its top

TEXTURE = WALL_HEIGHT  # width of the square that floor and walls repeat: 5 by 8 pairs of hexagonal tiles
TEXTURE_MEAN, TEXTURE_WAVE, TEXTURE_DARK = 0.983, 0.02, 0.055


@compiled
def cast(shape, scale, angle, surface, shade, gloss):
    """Fills `surface`, `shade` and `gloss` (S, S), one ray each: what it shows, times which brightness, plus white."""
    size = len(surface)
    sin, cos = np.sin(angle), np.cos(angle)
    for row in range(size):
        up = (HORIZON - (row + 0.5) / size) / FOCAL
        for column in range(size):
            right = ((column + 0.5) / size - 0.5) / FOCAL
            seen = _see(shape, scale, sin, cos, right * cos - sin, up, -right * sin - cos)
            surface[row, column], shade[row, column], gloss[row, column] = seen


@compiled
def _see(shape, scale, sin, cos, dx, dy, dz):
    """What a ray from the camera along (dx, dy, dz) meets first: surface, brightness, white."""
    ox, oz = ORBIT * sin, ORBIT * cos
    t, nx, ny, nz = _hit(shape, scale, ox, EYE, oz, dx, dy, dz)
    if t < np.inf:
        lamp, gloss = _lamp_on_object(shape, scale, ox + t * dx, EYE + t * dy, oz + t * dz, nx, ny, nz)
        return OBJECT, AMBIENT + HEADLIGHT * max(nx * sin + nz * cos, 0.0) + lamp, gloss
    t, nx, nz = _hit_wall(ox, oz, dx, dz)
    x, y, z = ox + t * dx, EYE + t * dy, oz + t * dz
    if y > WALL_HEIGHT:
        return SKY, 1.0, 0.0
    if y >= 0:
        lamp, _ = _lamp(x, y, z, nx, 0.0, nz)
        along = x * abs(nz) - z * nx  # to the right, for someone who faces the wall
        light = AMBIENT + HEADLIGHT * max(nx * sin + nz * cos, 0.0) + lamp
        return WALL, light * _texture(along, y), 0.0
    t = -EYE / dy
    x, z = ox + t * dx, oz + t * dz
    lamp = 0.0
    if _hit(shape, scale, x, 0.0, z, LAMP_X - x, LAMP_Y, LAMP_Z - z)[0] == np.inf:
        lamp, _ = _lamp(x, 0.0, z, 0.0, 1.0, 0.0)
    return FLOOR, (AMBIENT + lamp) * _texture(z, x + TEXTURE / 2), 0.0


@compiled
def _hit_wall(ox, oz, dx, dz):
    """Where a ray from inside meets the walls: distance, and x and z of the inward normal."""
    side, back = -np.copysign(1.0, dx), -np.copysign(1.0, dz)
    tx = (-side - ox) / dx if dx != 0 else np.inf
    tz = (-back - oz) / dz if dz != 0 else np.inf
    if tx < tz:
        return tx, side, 0.0
    return tz, 0.0, back


@compiled
def _lamp(x, y, z, nx, ny, nz):
    """The lamp's light on a point with its normal, and the gloss if the point is glossy."""
    lx, ly, lz = LAMP_X - x, LAMP_Y - y, LAMP_Z - z
    length = np.sqrt(lx * lx + ly * ly + lz * lz)
    facing = (nx * lx + ny * ly + nz * lz) / length
    if facing <= 0:
        return 0.0, 0.0
    cone = (ly / length) ** 10
    return LAMP * facing * cone, GLOSS * cone


@compiled
def _lamp_on_object(shape, scale, x, y, z, nx, ny, nz):
    """As `_lamp`; on a round object interpolated between the four corners of the facet."""
    if shape == CUBE or (shape == CYLINDER and ny != 0):
        return _lamp(x, y, z, nx, ny, nz)
    radius = RADII[shape] * scale
    centre = y - radius * ny  # its height
    around = np.arctan2(nz, nx) / (2 * np.pi) * SLICES
    up = np.arcsin(min(max(ny, -1.0), 1.0)) / np.pi * STACKS
    first, lowest = np.floor(around), np.floor(up)
    light, gloss = 0.0, 0.0
    for i in range(2):
        azimuth = (first + i) * 2 * np.pi / SLICES
        for j in range(2):
            elevation = (lowest + j) * np.pi / STACKS
            weight = (1 - abs(around - first - i)) * (1 - abs(up - lowest - j))
            cx, cy, cz = np.cos(azimuth) * np.cos(elevation), np.sin(elevation), np.sin(azimuth) * np.cos(elevation)
            corner = _lamp(radius * cx, centre + radius * cy, radius * cz, cx, cy, cz)
            light += weight * corner[0]
            gloss += weight * corner[1]
    return light, gloss


@compiled
def _texture(u, v):
    """Brightness of the tiles: each lighter in its middle, five of them dark in each square."""
    x, y = u / TEXTURE * 5, v / TEXTURE * 8  # centres are where both are whole or both are halves
    i, j = np.rint(x), np.rint(y)
    k, m = np.floor(x) + 0.5, np.floor(y) + 0.5
    if ((x - k) / 5) ** 2 + ((y - m) / 8) ** 2 < ((x - i) / 5) ** 2 + ((y - j) / 8) ** 2:
        i, j = k, m
    column, row = int(2 * i) % 10, int(2 * j) % 16
    if (column == 0 and row in (8, 10)) or (column == 1 and row in (7, 9)) or (column == 2 and row == 6):
        return TEXTURE_MEAN * (1 - TEXTURE_DARK)
    return TEXTURE_MEAN * (1 + TEXTURE_WAVE * np.cos(2 * np.pi * x) * np.cos(2 * np.pi * y))


@compiled
def _hit(shape, scale, ox, oy, oz, dx, dy, dz):
    """Where a ray from (ox, oy, oz) along (dx, dy, dz) first meets the object: distance, outward normal.

    The distance is in units of the ray's length, and infinite where the ray misses.
    """
    ox, oy, oz = ox / scale, oy / scale, oz / scale  # an object of scale 1 in a room that is 1 / scale as large
    dx, dy, dz = dx / scale, dy / scale, dz / scale
    if shape == CUBE:
        return _hit_cube(ox, oy - CUBE_HALF, oz, dx, dy, dz)
    if shape == CYLINDER:
        return _hit_cylinder(ox, oy, oz, dx, dy, dz)
    if shape == SPHERE:
        return _hit_ball(ox, oy - SPHERE_RADIUS, oz, dx, dy, dz, SPHERE_RADIUS)
    return _hit_capsule(ox, oy, oz, dx, dy, dz)


@compiled
def _hit_cube(ox, oy, oz, dx, dy, dz):
    """A cube around the origin, its faces across the axes."""
    near, far, nx, ny, nz = -np.inf, np.inf, 0.0, 0.0, 0.0
    for axis in range(3):
        o, d = (ox, dx) if axis == 0 else (oy, dy) if axis == 1 else (oz, dz)
        if d == 0:
            if abs(o) > CUBE_HALF:
                return np.inf, 0.0, 0.0, 0.0
            continue
        sign = -np.copysign(1.0, d)  # of the face where the ray comes in
        enter, leave = (sign * CUBE_HALF - o) / d, (-sign * CUBE_HALF - o) / d
        if enter > near:
            near = enter
            nx, ny, nz = sign * (axis == 0), sign * (axis == 1), sign * (axis == 2)
        far = min(far, leave)
    if near > far or near <= 0:
        return np.inf, 0.0, 0.0, 0.0
    return near, nx, ny, nz


@compiled
def _hit_cylinder(ox, oy, oz, dx, dy, dz):
    best = _hit_tube(ox, oy, oz, dx, dy, dz, CYLINDER_RADIUS, 0.0, CYLINDER_HEIGHT)
    for y, up in ((0.0, -1.0), (CYLINDER_HEIGHT, 1.0)):
        if dy * up < 0:
            t = (y - oy) / dy
            x, z = ox + t * dx, oz + t * dz
            if 0 < t < best[0] and x * x + z * z <= CYLINDER_RADIUS * CYLINDER_RADIUS:
                best = (t, 0.0, up, 0.0)
    return best


@compiled
def _hit_capsule(ox, oy, oz, dx, dy, dz):
    low, high = CAPSULE_RADIUS, CAPSULE_RADIUS + CAPSULE_LENGTH
    best = _hit_tube(ox, oy, oz, dx, dy, dz, CAPSULE_RADIUS, low, high)
    for y in (low, high):
        ball = _hit_ball(ox, oy - y, oz, dx, dy, dz, CAPSULE_RADIUS)
        if ball[0] < best[0]:
            best = ball
    return best


@compiled
def _hit_tube(ox, oy, oz, dx, dy, dz, radius, low, high):
    """The side of an upright cylinder."""
    a = dx * dx + dz * dz
    b = ox * dx + oz * dz
    c = ox * ox + oz * oz - radius * radius
    root = b * b - a * c
    if root <= 0 or a == 0:
        return np.inf, 0.0, 0.0, 0.0
    t = (-b - np.sqrt(root)) / a
    y = oy + t * dy
    if t <= 0 or y < low or y > high:
        return np.inf, 0.0, 0.0, 0.0
    return t, (ox + t * dx) / radius, 0.0, (oz + t * dz) / radius


@compiled
def _hit_ball(ox, oy, oz, dx, dy, dz, radius):
    """A sphere around the origin."""
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - radius * radius
    root = b * b - a * c
    if root <= 0:
        return np.inf, 0.0, 0.0, 0.0
    t = (-b - np.sqrt(root)) / a
    if t <= 0:
        return np.inf, 0.0, 0.0, 0.0
    return t, (ox + t * dx) / radius, (oy + t * dy) / radius, (oz + t * dz) / radius
