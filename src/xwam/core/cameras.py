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


# How far the product of a rotation with its transpose may be from identity.
RIGID_TOLERANCE = 1e-3
# Of an image's width: a fisheye has about 0.3, a telephoto lens 5.
FOCAL_RANGE = (0.2, 6.0)


def check_intrinsics(where: str, intrinsics: Float[np.ndarray, "*n 3 3"], height: int, width: int) -> None:
    """Raises a ValueError that names `where`, the value and the mend unless these are a pinhole camera's of this image.

    That is [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, with the centre no further outside than the image is large.
    """
    flat = _finite(f"{where}: intrinsics", intrinsics)
    focal, centre = flat[:, [0, 1], [0, 1]], flat[:, :2, 2]
    pinhole = np.zeros_like(flat)
    pinhole[:, [0, 1], [0, 1]], pinhole[:, :2, 2], pinhole[:, 2, 2] = focal, centre, 1.0
    if (off := np.abs(flat - pinhole).max((1, 2)) > 1e-4).any():
        told = np.round(flat[np.argmax(off)], 4).tolist()
        raise ValueError(f"{where}: intrinsics are {told}: give [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], undistorted")
    low, high = (share * width for share in FOCAL_RANGE)
    if (off := ((focal < low) | (focal > high)).any(1)).any():
        told = focal[np.argmax(off)].round(4).tolist()
        raise ValueError(
            f"{where}: focal lengths are {told} px in an image of {height} x {width}, need {low:.0f} .. {high:.0f}: "
            "give intrinsics in pixels of this image, not normalised and not 0"
        )
    size = np.array([width, height])
    if (off := ((centre < -size) | (centre > 2 * size)).any(1)).any():
        told = centre[np.argmax(off)].round(1).tolist()
        raise ValueError(
            f"{where}: the optical centre is {told} px, far outside of an image of {height} x {width}: "
            "give the intrinsics of this image's size"
        )


def check_poses(where: str, T_a_b: Float[np.ndarray, "*n 4 4"]) -> None:
    """Raises a ValueError that names `where`, the place and the mend unless these are rigid motions."""
    flat = _finite(f"{where}: the pose", T_a_b)
    rotation = flat[:, :3, :3]
    skew = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max((1, 2))
    mirrored = np.linalg.det(rotation) < 0
    foot = np.abs(flat[:, 3] - [0, 0, 0, 1]).max(1) > 1e-6
    if (off := (skew > RIGID_TOLERANCE) | mirrored | foot).any():
        k = int(np.argmax(off))
        why = "is a mirror image" if mirrored[k] else f"is off a rotation by {skew[k]:.4g}"
        why = f"has the last row {flat[k, 3].tolist()}" if foot[k] else why
        raise ValueError(
            f"{where}: pose {k} of {len(flat)} {why}: give a rotation and a shift in metres, "
            "as [[R, t], [0, 0, 0, 1]] without scale"
        )


def _finite(what: str, matrices: Float[np.ndarray, "*n r c"]) -> Float[np.ndarray, "m r c"]:
    """The matrices in a row, unless some entry is no number."""
    flat = np.asarray(matrices, np.float64).reshape(-1, *matrices.shape[-2:])
    if (bad := ~np.isfinite(flat).all((1, 2))).any():
        k = int(np.argmax(bad))
        raise ValueError(f"{what} {k} of {len(flat)} holds {flat[k][~np.isfinite(flat[k])][0]}: give finite numbers")
    return flat


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
    return lifted(pixel_grid(*depth_m.shape[-2:]), depth_m, intrinsics, T_frame_cam)


def lifted(
    pixels: Float[np.ndarray, "H W 2"],
    depth_m: Float[np.ndarray, "*n H W"],
    intrinsics: Float[np.ndarray, "*n 3 3"],
    T_frame_cam: Float[np.ndarray, "*n 4 4"],
) -> Float[np.ndarray, "*n H W 3"]:
    """As `unproject`, but of an image's places (x, y), wherever they are, and the depth there."""
    focal = np.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], axis=-1)[..., None, None, :]
    centre = intrinsics[..., None, None, :2, 2]
    xy = (pixels - centre) / focal * depth_m[..., None]
    points = np.concatenate([xy, depth_m[..., None]], axis=-1)
    return transform(T_frame_cam[..., None, None, :, :], points)


def project(
    points: Float[np.ndarray, "*n 3"], intrinsics: Float[np.ndarray, "3 3"], T_frame_cam: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "*n 2"], Float[np.ndarray, "*n"]]:
    """Pixel coordinates (x, y) and depth in metres of points; the inverse of `unproject`.

    Points in the camera's own plane, at depth 0, are infinitely far outside of its image, or NaN.
    """
    in_camera = transform(invert(T_frame_cam), points)
    z = in_camera[..., 2]
    focal, centre = intrinsics[[0, 1], [0, 1]], intrinsics[:2, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
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


def pose_errors(
    T_a_b: Float[np.ndarray, "*n 4 4"], true_T_a_b: Float[np.ndarray, "*n 4 4"]
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    """How far poses lie from the true ones: the distance in metres, and the angle between them in radians."""
    distance_m = np.linalg.norm(T_a_b[..., :3, 3] - true_T_a_b[..., :3, 3], axis=-1)
    between = np.swapaxes(true_T_a_b[..., :3, :3], -1, -2) @ T_a_b[..., :3, :3]
    # of a small angle the cosine tells little, of a large one the sine: the axis times 2 sin, and 2 cos
    axis = np.stack([between[..., i, j] - between[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))], axis=-1)
    return distance_m, np.arctan2(np.linalg.norm(axis, axis=-1), np.trace(between, axis1=-2, axis2=-1) - 1)


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
