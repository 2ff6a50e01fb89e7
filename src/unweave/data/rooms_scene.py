"""The Shapes3D scene seen from one orientation, by ray casting: what every pixel shows, and how brightly.

Axes follow the camera: x to the right, y up, z towards the viewer, the origin under the object on the floor. The room
turns, and a cube with it; the camera and the light stay. Lengths are in half-widths of the room.
"""

import numpy as np

from unweave.compiled import compiled

SIZE = 64
SAMPLES = 3  # rays per pixel and axis
FOCAL = 68.1  # in pixels: 50 degrees across
HORIZON = 31.6  # in pixels from the top
CAMERA_HEIGHT, CAMERA_DISTANCE = 0.229, 0.7426
WALL_HEIGHT = 0.587
SCALES = np.linspace(0.75, 1.25, 8)
ANGLES = np.radians(np.linspace(-30, 30, 15))
CUBE, CYLINDER, SPHERE, CAPSULE = 0, 1, 2, 3
LEVELS = 6  # a channel of a fully saturated hue k/10 is one of 0, 1/5, ... 1
SKY, FLOOR, WALL, OBJECT = 0, 1, 1 + LEVELS, 1 + 2 * LEVELS
LAYERS = 1 + 3 * LEVELS

CUBE_HALF = 0.1048
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.111, 0.2268
SPHERE_RADIUS = 0.1268
CAPSULE_RADIUS, CAPSULE_HALF = 0.0968, 0.0979

LAMP_X, LAMP_Y, LAMP_Z = -0.452, 2.309, -0.13  # in the room's axes: a spot above the object, pointing down
LAMP_EXPONENT = 11.1  # of the cosine to the spot's axis
LAMP, HEADLIGHT, AMBIENT = 0.9645, 0.5894, 0.3523
WHITE = 0.102  # the lamp's reflection in the object, wherever it is lit


@compiled
def draw(scale, shape, angle, layers):
    """Fills `layers` (LAYERS, 64, 64), each in [0, 1]: share of sky, then floor, wall and object at each level."""
    layers[:] = 0.0
    for row in range(SIZE):
        for column in range(SIZE):
            for i in range(SAMPLES * SAMPLES):
                dx = (column + (i % SAMPLES + 0.5) / SAMPLES - SIZE / 2) / FOCAL
                dy = (HORIZON - row - (i // SAMPLES + 0.5) / SAMPLES) / FOCAL
                _shade(scale, shape, angle, dx, dy, layers[:, row, column])
    layers /= SAMPLES * SAMPLES


@compiled
def _shade(scale, shape, angle, dx, dy, pixel):
    """Adds what the ray through one point of the image plane sees."""
    t, nx, ny, nz = _hit(scale, shape, angle, 0.0, CAMERA_HEIGHT, CAMERA_DISTANCE, dx, dy, -1.0)
    if t < np.inf:
        lamp = _lamp(angle, t * dx, CAMERA_HEIGHT + t * dy, CAMERA_DISTANCE - t, nx, ny, nz)
        _add(pixel, OBJECT, AMBIENT + HEADLIGHT * max(nz, 0.0) + LAMP * lamp, WHITE if lamp > 0 else 0.0)
        return
    t, nx, nz = _hit_wall(angle, dx)
    y = CAMERA_HEIGHT + t * dy
    if y > WALL_HEIGHT:
        pixel[SKY] += 1.0
    elif y >= 0:
        lamp = _lamp(angle, t * dx, y, CAMERA_DISTANCE - t, nx, 0.0, nz)
        _add(pixel, WALL, AMBIENT + HEADLIGHT * max(nz, 0.0) + LAMP * lamp, 0.0)
    else:
        t = -CAMERA_HEIGHT / dy
        x, z = t * dx, CAMERA_DISTANCE - t
        lx, ly, lz = _to_lamp(angle, x, 0.0, z)
        lamp = 0.0
        if _hit(scale, shape, angle, x, 0.0, z, lx, ly, lz)[0] == np.inf:
            lamp = _lamp(angle, x, 0.0, z, 0.0, 1.0, 0.0)
        _add(pixel, FLOOR, AMBIENT + LAMP * lamp, 0.0)


@compiled
def _to_lamp(angle, x, y, z):
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * LAMP_X - sin * LAMP_Z - x, LAMP_Y - y, sin * LAMP_X + cos * LAMP_Z - z


@compiled
def _lamp(angle, x, y, z, nx, ny, nz):
    """The lamp's light on a surface: Lambert's cosine times the spot's, as OpenGL has it."""
    lx, ly, lz = _to_lamp(angle, x, y, z)
    length = np.sqrt(lx * lx + ly * ly + lz * lz)
    return max(nx * lx + ny * ly + nz * lz, 0.0) / length * (ly / length) ** LAMP_EXPONENT


@compiled
def _hit_wall(angle, dx):
    """Where a ray meets the walls: distance and the wall's normal (x and z)."""
    cos, sin = np.cos(angle), np.sin(angle)
    rx, rz = cos * dx - sin, -sin * dx - cos  # the ray in the room's axes
    side, back = -np.copysign(1.0, rx), -np.copysign(1.0, rz)
    tx = (-side - sin * CAMERA_DISTANCE) / rx if rx != 0 else np.inf
    tz = (-back - cos * CAMERA_DISTANCE) / rz
    if tx < tz:
        return tx, cos * side, sin * side
    return tz, -sin * back, cos * back


@compiled
def _add(pixel, first, shade, white):
    for level in range(LEVELS):
        pixel[first + level] += min(shade * level / (LEVELS - 1) + white, 1.0)


@compiled
def _hit(scale, shape, angle, ox, oy, oz, dx, dy, dz):
    """Where a ray meets the object first: distance along it (inf if nowhere) and the surface's outward normal."""
    ox, oy, oz = ox / scale, oy / scale, oz / scale
    dx, dy, dz = dx / scale, dy / scale, dz / scale
    if shape == CUBE:
        cos, sin = np.cos(angle), np.sin(angle)
        t, nx, ny, nz = _hit_cube(
            cos * ox + sin * oz, oy - CUBE_HALF, cos * oz - sin * ox, cos * dx + sin * dz, dy, cos * dz - sin * dx
        )
        return t, cos * nx - sin * nz, ny, sin * nx + cos * nz
    if shape == CYLINDER:
        return _hit_cylinder(ox, oy, oz, dx, dy, dz)
    if shape == SPHERE:
        return _hit_ball(ox, oy - SPHERE_RADIUS, oz, dx, dy, dz, SPHERE_RADIUS)
    return _hit_capsule(ox, oy, oz, dx, dy, dz)


@compiled
def _hit_ball(ox, oy, oz, dx, dy, dz, radius):
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
    low, high = CAPSULE_RADIUS, CAPSULE_RADIUS + 2 * CAPSULE_HALF
    best = _hit_tube(ox, oy, oz, dx, dy, dz, CAPSULE_RADIUS, low, high)
    for y in (low, high):
        ball = _hit_ball(ox, oy - y, oz, dx, dy, dz, CAPSULE_RADIUS)
        if ball[0] < best[0]:
            best = ball
    return best


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
