"""What a depth image says of the surface behind each pixel: whether it is one, and how it is turned."""

import numpy as np
from jaxtyping import Bool, Float

MAX_INCIDENCE_DEG = 80.0


def on_surface(
    depth_m: Float[np.ndarray, "V H W"], intrinsics: Float[np.ndarray, "V 3 3"], max_incidence_deg: float
) -> Bool[np.ndarray, "V H W"]:
    """False for flying pixels: where depth jumps, interpolated and decoded depth hangs in the air.

    Between two neighbours the surface moves by the depth step along the ray and by one pixel's width, depth / focal,
    across it. Their ratio is the tangent of the angle between the ray and the surface's normal, whatever the distance
    and the resolution. A pixel goes if the angle to any of its four neighbours exceeds the limit, or a neighbour is
    unknown: at 80 degrees a table top stays, a silhouette goes.
    """
    limit = np.tan(np.deg2rad(max_incidence_deg))
    flying = np.zeros(depth_m.shape, dtype=bool)
    for axis, focal in ((2, intrinsics[:, 0, 0]), (1, intrinsics[:, 1, 1])):
        depth, jump = np.moveaxis(depth_m, axis, -1), np.moveaxis(flying, axis, -1)
        near = np.minimum(depth[..., 1:], depth[..., :-1])
        # An unknown neighbour makes `near` 0, so that any step exceeds the limit.
        steep = np.abs(np.diff(depth, axis=-1)) > limit * near / focal[:, None, None]
        jump[..., 1:] |= steep
        jump[..., :-1] |= steep
    return ~flying


def normals(
    points_m: Float[np.ndarray, "V H W 3"], known: Bool[np.ndarray, "V H W"], eyes_m: Float[np.ndarray, "V 3"]
) -> Float[np.ndarray, "V H W 3"]:
    """Unit normals of lifted pixels, turned to the eye of their view; 0 where a neighbour is unknown.

    The normal is the cross product of the surface's directions along columns and rows, each the central difference of
    both neighbours, or one of them at the image's border.
    """
    places = np.where(known[..., None], points_m, np.nan)
    normal = np.cross(np.gradient(places, axis=2), np.gradient(places, axis=1))
    away = ((places - eyes_m[:, None, None]) * normal).sum(axis=-1, keepdims=True) > 0
    normal = np.where(away, -normal, normal)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.nan_to_num(normal / np.where(length > 0, length, np.nan))
