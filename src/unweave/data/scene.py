"""The room of Shapes3D, cast ray by ray: an object in the middle of a square room with an open sky.

The camera looks at the object from an orbit. Distances are in half room widths, x to the right and z towards the camera
at azimuth 0, y up. Geometry, light and shades were measured on the published frames.

R rays. Weights are how much a ray shows of floor, wall and object hue, of the sky, and of white.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

SIZE = 64
RAYS = 3  # per pixel and axis

FOCAL = 32 / np.tan(np.deg2rad(25.0))  # in pixels: a field of view of 50 degrees
ORBIT, EYE, WALL = 0.735, 0.2206, 0.592  # radius and height of the camera, height of the walls
LIGHT = np.array([-0.525, 2.5, -0.14])
AZIMUTHS = np.deg2rad(np.linspace(-30, 30, 15))
SCALES = np.linspace(0.75, 1.25, 8)

CUBE_HALF = 0.101
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.109, 0.218
SPHERE_RADIUS = 0.1235
CAPSULE_RADIUS, CAPSULE_LENGTH = 0.093, 0.199  # length of the straight part
REACH = 0.6  # neither the object nor its shadow goes further from the middle than this

SKY = np.array([153, 226, 249]) / 255
SHADOW = 0.341  # brightness of the floor in the object's shadow
GLOSS = 30 / 255  # white that the lit side of the object has on top of its hue

# brightness of a surface: 1, facing (cosine between normal and view), then powers of the place on it
FLOOR = np.array([0.9987, 0.3305, -0.2335, -0.8718, -0.3122, -0.6792, 0.0031, 0.4362, -0.2431, 0.0708, 0.3611])
BACK = np.array([0.1812, 0.8544, -0.1023, -0.1498, 0.2059, -0.0015, 0.2059, 0.0573, -0.1159])
LEFT = np.array([-0.9099, 1.9798, -0.3740, 0.0011, -0.0219])
RIGHT = np.array([-1.0970, 1.9747, -0.6313, -0.0451, -0.1183])
OBJECT = np.array([0.5226, 0.4378, 0.5339])


class Hits(NamedTuple):
    """Where rays meet a surface first: distance (R,), infinite where they miss, and the normal there (R, 3)."""

    distance: np.ndarray
    normal: np.ndarray


def cast(shape: int, scale: float, azimuth: float) -> np.ndarray:
    """Weights (192, 192, 5) of the scene, float32, with the object (0 cube, 1 cylinder, 2 sphere, 3 capsule)."""
    eye, rays = camera(azimuth)
    weights, ground, near = _room(azimuth)
    weights = weights.copy()
    weights[near[_meet(shape, scale, ground, LIGHT - ground).distance < np.inf], 0] = SHADOW

    around = np.flatnonzero(np.abs(_closest(eye, rays)) <= REACH / 2)
    hits = _meet(shape, scale, eye, rays[around])
    on = np.isfinite(hits.distance)
    seen, normal = rays[around[on]], hits.normal[on]
    to_light = _dot(normal, _unit(LIGHT - eye - hits.distance[on, None] * seen))
    weights[around[on]] = 0
    facing = _dot(normal, -_unit(seen))
    weights[around[on], 2] = np.stack([np.ones_like(facing), facing, np.maximum(to_light, 0)], 1) @ OBJECT
    weights[around[on], 4] = GLOSS * (to_light > 0)
    return weights.reshape(SIZE * RAYS, SIZE * RAYS, 5)


def camera(azimuth: float) -> tuple[np.ndarray, np.ndarray]:
    """The eye (3,) and the directions (R, 3) of the rays, row by row from the top left; not of unit length."""
    steps = (np.arange(SIZE * RAYS) + 0.5) / RAYS
    up, right = np.meshgrid((SIZE / 2 - steps) / FOCAL, (steps - SIZE / 2) / FOCAL, indexing="ij")
    sin, cos = np.sin(azimuth), np.cos(azimuth)
    rays = np.stack([right * cos - sin, up, -right * sin - cos], -1).reshape(-1, 3)
    return np.array([ORBIT * sin, EYE, ORBIT * cos]), rays


def _closest(eye: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """How far rays pass from the vertical axis through the middle of the room, with a sign (R,)."""
    return (eye[0] * rays[:, 2] - eye[2] * rays[:, 0]) / np.hypot(rays[:, 0], rays[:, 2])


@lru_cache(maxsize=len(AZIMUTHS))
def _room(azimuth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The empty room: weights (R, 5); the places (m, 3) on the floor near the middle, and which rays show them (m,)."""
    eye, rays = camera(azimuth)
    view = -_unit(rays)
    weights = np.zeros((len(rays), 5), np.float32)
    weights[:, 3] = 1
    nearest = np.full(len(rays), np.inf)
    surfaces = ((1, 0.0, _floor_shade), (2, -1.0, _back_shade), (0, -1.0, _left_shade), (0, 1.0, _right_shade))
    for axis, level, shade in surfaces:
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (level - eye[axis]) / rays[:, axis]
            place = eye + distance[:, None] * rays
        inside = (np.abs(place[:, [0, 2]]) <= 1 + 1e-9).all(1) & (place[:, 1] >= -1e-9) & (place[:, 1] <= WALL)
        seen = inside & (distance > 0) & (distance < nearest)
        nearest[seen] = distance[seen]
        weights[seen] = 0
        weights[seen, 0 if axis == 1 else 1] = shade(place[seen], np.abs(view[seen, axis]))
    floor = np.flatnonzero(weights[:, 0])
    ground = eye + nearest[floor, None] * rays[floor]
    near = np.hypot(ground[:, 0], ground[:, 2]) < REACH
    return weights, ground[near], floor[near]


def _floor_shade(place: np.ndarray, facing: np.ndarray) -> np.ndarray:
    x, _, z = place.T
    powers = [x**i * z**j for i in range(4) for j in range(4) if 0 < i + j <= 3]
    return np.stack([np.ones_like(x), facing, *powers], 1) @ FLOOR


def _back_shade(place: np.ndarray, facing: np.ndarray) -> np.ndarray:
    x, y, _ = place.T
    return np.stack([np.ones_like(x), facing, x, y, x * x, x * y, y * y, x**3, x**4], 1) @ BACK


def _left_shade(place: np.ndarray, facing: np.ndarray) -> np.ndarray:
    return _side(place, facing) @ LEFT


def _right_shade(place: np.ndarray, facing: np.ndarray) -> np.ndarray:
    return _side(place, facing) @ RIGHT


def _side(place: np.ndarray, facing: np.ndarray) -> np.ndarray:
    _, y, z = place.T
    return np.stack([np.ones_like(z), facing, z, y, z * z], 1)


def _meet(shape: int, scale: float, origin: np.ndarray, rays: np.ndarray) -> Hits:
    """Where rays (R, 3) from `origin`, (3,) or (R, 3), first meet the object."""
    origin = np.broadcast_to(origin, rays.shape) / scale  # an object of scale 1 in a room that is 1 / scale as large
    with np.errstate(divide="ignore", invalid="ignore"):
        if shape == 0:
            parts = [_box(origin, rays, CUBE_HALF)]
        elif shape == 1:
            side = _tube(origin, rays, CYLINDER_RADIUS, 0, CYLINDER_HEIGHT)
            parts = [side, _disc(origin, rays, CYLINDER_RADIUS, CYLINDER_HEIGHT)]
        elif shape == 2:
            parts = [_ball(origin, rays, SPHERE_RADIUS, SPHERE_RADIUS)]
        else:
            top = CAPSULE_RADIUS + CAPSULE_LENGTH
            ends = [_ball(origin, rays, CAPSULE_RADIUS, height) for height in (CAPSULE_RADIUS, top)]
            parts = [*ends, _tube(origin, rays, CAPSULE_RADIUS, CAPSULE_RADIUS, top)]
    distances = np.stack([part.distance for part in parts])
    first = distances.argmin(0)
    normals = np.take_along_axis(np.stack([part.normal for part in parts]), first[None, :, None], 0)[0]
    return Hits(distances.min(0) * scale, normals)


def _box(origin: np.ndarray, rays: np.ndarray, half: float) -> Hits:
    """A cube that stands on the floor."""
    low, high = (np.array([-half, 0, -half]) - origin) / rays, (np.array([half, 2 * half, half]) - origin) / rays
    enter, leave = np.minimum(low, high), np.maximum(low, high)
    axis, rows = enter.argmax(1), np.arange(len(rays))
    distance, normal = enter.max(1), np.zeros_like(rays)
    normal[rows, axis] = -np.sign(rays[rows, axis])
    return Hits(np.where((distance > 0) & (distance <= leave.min(1)), distance, np.inf), normal)


def _tube(origin: np.ndarray, rays: np.ndarray, radius: float, bottom: float, top: float) -> Hits:
    """The side of an upright cylinder."""
    flat = np.array([1.0, 0.0, 1.0])
    distance = _quadratic(_dot(rays * flat, rays), _dot(origin * flat, rays), _dot(origin * flat, origin) - radius**2)
    place = origin + distance[:, None] * rays
    on = (place[:, 1] >= bottom) & (place[:, 1] <= top)
    return Hits(np.where(on, distance, np.inf), place * flat / radius)


def _disc(origin: np.ndarray, rays: np.ndarray, radius: float, height: float) -> Hits:
    """The top of a cylinder."""
    distance = (height - origin[:, 1]) / rays[:, 1]
    place = origin + distance[:, None] * rays
    on = (distance > 0) & (place[:, 0] ** 2 + place[:, 2] ** 2 <= radius**2)
    return Hits(np.where(on, distance, np.inf), np.broadcast_to([0.0, 1.0, 0.0], rays.shape))


def _ball(origin: np.ndarray, rays: np.ndarray, radius: float, height: float) -> Hits:
    """A sphere whose centre is at a height above the middle of the room."""
    from_centre = origin - np.array([0.0, height, 0.0])
    distance = _quadratic(_dot(rays, rays), _dot(from_centre, rays), _dot(from_centre, from_centre) - radius**2)
    return Hits(distance, (from_centre + distance[:, None] * rays) / radius)


def _quadratic(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The smaller root of a t^2 + 2 b t + c, infinite where there is none or it is not positive."""
    distance = (-b - np.sqrt(b * b - a * c)) / a
    return np.where(distance > 0, distance, np.inf)  # NaN is not positive either


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
