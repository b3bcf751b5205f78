"""Pinhole cameras: intrinsics, poses, and the way between pixels and points.

Camera axes are OpenCV's: x right, y down, z forward. The centre of the pixel in column u and row v
lies at (u + 0.5, v + 0.5). Depth is z, not the length of the ray.
"""

import numpy as np
from jaxtyping import Float


def intrinsics_of_fovy(fovy_rad: float, height: int, width: int) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of a camera with square pixels, its centre in the image's, and this vertical field of view."""
    focal = 0.5 * height / np.tan(0.5 * fovy_rad)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def pixel_grid(height: int, width: int) -> Float[np.ndarray, "H W 2"]:
    """(x, y) of every pixel centre."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], axis=-1)


def unproject(
    depth_m: Float[np.ndarray, "*n H W"],
    intrinsics: Float[np.ndarray, "*n 3 3"],
    T_frame_cam: Float[np.ndarray, "*n 4 4"],
) -> Float[np.ndarray, "*n H W 3"]:
    """The point that every pixel shows, in metres, in the frame that `T_frame_cam` leads to."""
    pixels = pixel_grid(*depth_m.shape[-2:])
    focal = np.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], axis=-1)[..., None, None, :]
    centre = intrinsics[..., None, None, :2, 2]
    xy = (pixels - centre) / focal * depth_m[..., None]
    points = np.concatenate([xy, depth_m[..., None]], axis=-1)
    return transform(T_frame_cam[..., None, None, :, :], points)


def project(
    points: Float[np.ndarray, "*n 3"], intrinsics: Float[np.ndarray, "3 3"], T_frame_cam: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "*n 2"], Float[np.ndarray, "*n"]]:
    """Pixel coordinates (x, y) and depth in metres of points; the inverse of `unproject`."""
    in_camera = transform(invert(T_frame_cam), points)
    z = in_camera[..., 2]
    focal, centre = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    return in_camera[..., :2] / z[..., None] * focal + centre, z


def transform(T_a_b: Float[np.ndarray, "*n 4 4"], points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Points given in frame b, in frame a."""
    return np.einsum("...ij,...j->...i", T_a_b[..., :3, :3], points) + T_a_b[..., :3, 3]


def invert(T_a_b: Float[np.ndarray, "*n 4 4"]) -> Float[np.ndarray, "*n 4 4"]:
    """T_b_a, for rigid motions."""
    rotation = np.swapaxes(T_a_b[..., :3, :3], -1, -2)
    return pose(rotation, -np.einsum("...ij,...j->...i", rotation, T_a_b[..., :3, 3]))


def pose(rotation: Float[np.ndarray, "*n 3 3"], position: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 4 4"]:
    """The 4x4 matrix of a rotation and a position in metres."""
    position = np.asarray(position, dtype=np.float64)
    matrix = np.zeros((*position.shape[:-1], 4, 4))
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = position
    matrix[..., 3, 3] = 1.0
    return matrix


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray = (0.0, 0.0, 1.0)) -> Float[np.ndarray, "4 4"]:
    """Pose T_world_cam of an upright camera at `eye` that looks at `target`; metres."""
    eye, target, up = (np.asarray(x, dtype=np.float64) for x in (eye, target, up))
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return pose(np.stack([right, np.cross(forward, right), forward], axis=-1), eye)


def quaternion_to_matrix(quaternion: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotation matrix of a quaternion wxyz, normalised first: a predicted one is never exactly unit."""
    norm = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if np.any(norm < 1e-6):
        raise ValueError("a quaternion of length 0 has no rotation: check the proprio parts and their order (wxyz)")
    w, x, y, z = np.moveaxis(quaternion / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def crop_intrinsics(intrinsics: Float[np.ndarray, "*n 3 3"], top: float, left: float) -> Float[np.ndarray, "*n 3 3"]:
    """Intrinsics after the first `top` rows and `left` columns are cut away."""
    moved = intrinsics.copy()
    moved[..., 0, 2] -= left
    moved[..., 1, 2] -= top
    return moved


def resize_intrinsics(
    intrinsics: Float[np.ndarray, "*n 3 3"], scale_y: float, scale_x: float
) -> Float[np.ndarray, "*n 3 3"]:
    """Intrinsics after the image grew by these factors (new size over old)."""
    return intrinsics * np.array([scale_x, scale_y, 1.0])[:, None]
