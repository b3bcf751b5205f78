"""Scene flow: where each point that a camera sees is a frame later, where it can be tracked.

Optical flow finds a pixel's place in the next image of the same camera, depth lifts both places, and the difference of
the two points is the flow, in metres in the base frame: what the camera's own motion does to the image cancels.
"""

from importlib.util import find_spec

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy.ndimage import uniform_filter

from xwam.core.cameras import lifted, pixel_grid, project, unproject
from xwam.core.types import RGBDClip
from xwam.scene.checks import check_scene
from xwam.scene.consistency import interpolated
from xwam.scene.surface import MAX_INCIDENCE_DEG, on_surface

SLACK_PIXELS = 1.0
"""A pixel that the way there and back brings further than this from where it began is not tracked."""
AROUND, TOLD_APART = 5, 2.0
"""Two places look different by the mean over so many pixels' rows and columns, and by so many levels of colour."""
STREAKS, MOVES_M = 40, 0.005
"""Along an image's shorter side so many pixels are looked at for streaks; what moves by less counts as still.

So does what moves by less than `SLACK_PIXELS` in the image: depth that flickers moves a point along its ray alone.
"""


def scene_flow(clip: RGBDClip, frame: int) -> Float32[np.ndarray, "V H W 3"]:
    """How far the point behind each pixel of `frame` moves until the next frame, in metres; NaN where nobody can tell.

    That is where depth is unknown or flies between two surfaces at either end, where the point leaves the image, where
    the flow back from the next image does not return to within `SLACK_PIXELS`, as where something hides it, and where
    a point that stood still would look the same, as on a bare table beside what moves.
    Raises ValueError if there is no next frame or cameras or depth are wrong, ImportError without OpenCV.
    """
    if not 0 <= frame < clip.rgb.shape[1] - 1:
        raise ValueError(f"frame {frame} of a clip that has {clip.rgb.shape[1]}: flow leads from one to the next")
    check_scene(clip.at(slice(frame, frame + 2)), f"frames {frame} and {frame + 1}")
    return np.stack([view_flow(clip, view, frame) for view in range(len(clip.cameras))])


def view_flow(clip: RGBDClip, view: int, frame: int) -> Float32[np.ndarray, "H W 3"]:
    """`scene_flow` of one view, of a clip that is known to be right."""
    here, there = (view, frame), (view, frame + 1)
    first, second = clip.rgb[here], clip.rgb[there]
    now_m, later_m = _on_surface_m(clip, *here), _on_surface_m(clip, *there)
    points_m = unproject(now_m, clip.intrinsics[here], clip.T_base_cam[here])
    still, _ = project(points_m, clip.intrinsics[there], clip.T_base_cam[there])
    places, returns = _tracked(first, second)
    told = np.linalg.norm(places - still, axis=-1) < SLACK_PIXELS / 2
    told |= _unlike(first, second, places) + TOLD_APART < _unlike(first, second, still)
    inverse, inside = interpolated(1 / later_m, places.reshape(-1, 2))
    depth_m = np.where(inside, 1 / inverse, np.nan).reshape(now_m.shape)
    moved_m = lifted(places, depth_m, clip.intrinsics[there], clip.T_base_cam[there])
    return np.where((returns & told)[..., None], moved_m - points_m, np.nan).astype(np.float32)


def streaks(clip: RGBDClip, view: int, frame: int) -> Float32[np.ndarray, "N 2 3"]:
    """Where some points of a view that move are now and a frame later, for drawing; none in the last frame."""
    if frame >= clip.rgb.shape[1] - 1:
        return np.zeros((0, 2, 3), np.float32)
    step = -(-min(clip.rgb.shape[2:4]) // STREAKS)
    few = slice(step // 2, None, step)
    points_m = unproject(clip.depth_m[view, frame], clip.intrinsics[view, frame], clip.T_base_cam[view, frame])
    begins_m, flow_m = points_m[few, few].reshape(-1, 3), view_flow(clip, view, frame)[few, few].reshape(-1, 3)
    ends_m, later = begins_m + flow_m, (view, frame + 1)
    begins, ends = (project(at, clip.intrinsics[later], clip.T_base_cam[later])[0] for at in (begins_m, ends_m))
    moves = np.linalg.norm(flow_m, axis=-1) > MOVES_M  # NaN compares as false
    moves &= np.linalg.norm(ends - begins, axis=-1) > SLACK_PIXELS
    return np.stack([begins_m, ends_m], axis=1)[moves].astype(np.float32)


def can_flow(clip: RGBDClip) -> bool:
    """Whether OpenCV is here, and the depth is of one scale over time."""
    return find_spec("cv2") is not None and clip.depth_scale != "relative"


def _on_surface_m(clip: RGBDClip, view: int, frame: int) -> Float[np.ndarray, "H W"]:
    """Depth, NaN where it is unknown or flies."""
    depth_m, intrinsics = clip.depth_m[view, frame], clip.intrinsics[view, frame]
    firm = (depth_m > 0) & on_surface(depth_m[None], intrinsics[None], MAX_INCIDENCE_DEG)[0]
    return np.where(firm, depth_m, np.nan)


def _tracked(
    first: UInt8[np.ndarray, "H W 3"], second: UInt8[np.ndarray, "H W 3"]
) -> tuple[Float[np.ndarray, "H W 2"], Bool[np.ndarray, "H W"]]:
    """Where each pixel of the first image is in the second, (x, y), and whether the way back agrees."""
    there, back = _optical_flow(first, second), _optical_flow(second, first)
    places = pixel_grid(*first.shape[:2]) + there
    (x, inside), (y, _) = (interpolated(back[..., axis], places.reshape(-1, 2)) for axis in (0, 1))
    gap = np.linalg.norm(there + np.stack([x, y], axis=-1).reshape(there.shape), axis=-1)
    return places, inside.reshape(gap.shape) & (gap <= SLACK_PIXELS)


def _unlike(
    first: UInt8[np.ndarray, "H W 3"], second: UInt8[np.ndarray, "H W 3"], places: Float[np.ndarray, "H W 2"]
) -> Float[np.ndarray, "H W"]:
    """Mean difference of colours, 0 .. 255, around each pixel and around its place in the second image."""
    planes = [interpolated(second[..., channel], places.reshape(-1, 2))[0] for channel in range(3)]
    found = np.stack(planes, axis=-1).reshape(first.shape)
    return uniform_filter(np.abs(found - first).mean(axis=-1), AROUND)


def _optical_flow(
    first: UInt8[np.ndarray, "H W 3"], second: UInt8[np.ndarray, "H W 3"]
) -> Float32[np.ndarray, "H W 2"]:
    """Dense inverse search (Kroeger et al., arXiv 1603.03590), as OpenCV has it: (x, y) in pixels."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError("scene flow needs OpenCV: pip install 'xwam[flow]'") from error
    grey = (cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (first, second))
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
