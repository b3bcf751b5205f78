"""A small analytic world for tests: a table top, a box that rests or slides, a rolling ball, seen by ray-casting.

Depth is exact, so what is lifted from one camera can be checked against geometry and against the other cameras.
"""

import numpy as np

from xwam.core.cameras import intrinsics_of_fovy, look_at, pixel_grid
from xwam.core.types import RGBDClip

BALL_RADIUS_M = 0.1
LIGHT = np.array([0.4, -0.2, 0.9]) / np.linalg.norm([0.4, -0.2, 0.9])
BOX_LOW_M, BOX_HIGH_M = np.array([-0.35, 0.1, 0.0]), np.array([-0.15, 0.3, 0.2])
RESTING = np.zeros(3)


def ball_centre(frame: int) -> np.ndarray:
    """Where the ball is: it rolls along x, 5 cm a frame."""
    return np.array([-0.15 + 0.05 * frame, -0.1, BALL_RADIUS_M])


def box_shift(frame: int) -> np.ndarray:
    """Where a sliding box is: 4 cm a frame along y."""
    return np.array([0.0, 0.04 * frame, 0.0])


def clip(size: int = 48, frames: int = 3, speed: float = 1.0, wrist: bool = True, slide: float = 0.0) -> RGBDClip:
    """Two static cameras, and one that follows the ball from above; ball and box move `speed` and `slide` as fast."""
    left = [look_at((0.9, -0.8, 0.7), (0, 0, 0.05))] * frames
    right = [look_at((0.9, 0.8, 0.7), (0, 0, 0.05))] * frames
    follow = [look_at(ball_centre(t * speed) + (0.25, 0, 0.5), ball_centre(t * speed)) for t in range(frames)]
    poses = np.array([left, right, follow] if wrist else [left, right])
    cameras = ("left", "right", "wrist") if wrist else ("left", "right")
    K = intrinsics_of_fovy(np.deg2rad(50), size, size)
    moved = [(ball_centre(t * speed), box_shift(t * slide)) for t in range(frames)]
    images = [[render(K, poses[v, t], size, *moved[t]) for t in range(frames)] for v in range(len(poses))]
    rgb = np.array([[image[0] for image in row] for row in images])
    depth_m = np.array([[image[1] for image in row] for row in images])
    return RGBDClip(cameras, rgb, depth_m, np.tile(K, (len(poses), frames, 1, 1)), poses, period_s=0.2)


def render(
    K: np.ndarray, T_base_cam: np.ndarray, size: int, ball: np.ndarray, box: np.ndarray = RESTING
) -> tuple[np.ndarray, np.ndarray]:
    """RGB and exact depth of one camera."""
    rays = np.concatenate([(pixel_grid(size, size) - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones((size, size, 1))], axis=-1)
    origin, rays = T_base_cam[:3, 3], rays @ T_base_cam[:3, :3].T
    hits = [_table(origin, rays), _ball(origin, rays, ball), _box(origin - box, rays)]
    depth = np.stack([hit[0] for hit in hits])
    nearest = depth.argmin(axis=0)
    colour = np.take_along_axis(np.stack([hit[1] for hit in hits]), nearest[None, ..., None], axis=0)[0]
    depth = depth.min(axis=0)
    seen = depth < 5.0
    colour[~seen] = (205, 214, 224)
    return colour.astype(np.uint8), np.where(seen, depth, 0.0).astype(np.float32)


def points_of(depth: np.ndarray, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    return origin + rays * depth[..., None]


def surface_distance(points: np.ndarray, ball: np.ndarray, box: np.ndarray = RESTING) -> np.ndarray:
    """Distance of points in metres to the nearest of the three surfaces."""
    to_ball = np.abs(np.linalg.norm(points - ball, axis=-1) - BALL_RADIUS_M)
    inside = np.minimum(points - box - BOX_LOW_M, BOX_HIGH_M - points + box)
    outside = np.linalg.norm(np.maximum(-inside, 0), axis=-1)
    to_box = np.where(outside > 0, outside, inside.min(axis=-1))
    return np.minimum(np.minimum(np.abs(points[..., 2]), to_ball), to_box)


def _table(origin, rays):
    down = np.where(rays[..., 2] < -1e-9, rays[..., 2], -1e-9)
    depth = -origin[2] / down
    place = points_of(np.minimum(depth, 50), origin, rays)
    checker = (np.floor(place[..., :2] / 0.1).sum(axis=-1) % 2)[..., None]
    depth = np.where(np.abs(place[..., :2]).max(axis=-1) < 0.7, depth, np.inf)
    return depth, np.array([186, 156, 120]) + checker * np.array([24, 24, 24])


def _ball(origin, rays, centre):
    to = origin - centre
    a, b, c = (rays**2).sum(-1), rays @ to, to @ to - BALL_RADIUS_M**2
    root = b * b - a * c
    depth = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    depth = np.where(depth > 0, depth, np.inf)
    normal = (points_of(np.where(np.isfinite(depth), depth, 0), origin, rays) - centre) / BALL_RADIUS_M
    light = 0.45 + 0.55 * np.clip(normal @ LIGHT, 0, 1)
    return depth, light[..., None] * np.array([226, 74, 60])


def _box(origin, rays):
    safe = np.where(np.abs(rays) < 1e-12, 1e-12, rays)
    a, b = (BOX_LOW_M - origin) / safe, (BOX_HIGH_M - origin) / safe
    enter, leave = np.minimum(a, b), np.maximum(a, b)
    depth = np.where(enter.max(-1) < leave.min(-1), enter.max(-1), np.inf)
    light = np.array([0.7, 0.85, 1.0])[enter.argmax(-1)]
    return np.where(depth > 0, depth, np.inf), light[..., None] * np.array([70, 120, 210])
