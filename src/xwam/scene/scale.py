"""What the depth of a scene is worth: relative depth brought to measured depth, view by view, where there is some."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from xwam.core.depth import InverseDepthAlignment, align, check_depth
from xwam.core.types import RGBDClip


def inverse_depth(depth_m: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Nearer is larger; NaN where depth is unknown (0)."""
    return np.where(depth_m > 0, 1 / np.where(depth_m > 0, depth_m, 1), np.nan)


def align_to_measured(
    scene: RGBDClip, measured_m: Float[np.ndarray, "V H W"]
) -> tuple[RGBDClip, dict[str, InverseDepthAlignment]]:
    """The scene with `aligned` depth, and the fit of each camera: measured depth of the first frame, 0 where unknown.

    Each camera has one fit for all frames. Raises ValueError if the scene is not of relative depth, or, with the
    camera's name, if too little is measured or the fit makes no sense.
    """
    if scene.depth_scale != "relative":
        raise ValueError(f"depth is {scene.depth_scale} already: only relative depth is aligned")
    if measured_m.shape != scene.depth_m[:, 0].shape:
        raise ValueError(f"measured depth has shape {measured_m.shape}, the first frame {scene.depth_m[:, 0].shape}")
    fits = {}
    for v, name in enumerate(scene.cameras):
        check_depth(f"measured depth of camera {name!r}", measured_m[v][None])
        try:
            fits[name] = align(inverse_depth(scene.depth_m[v, 0]), measured_m[v], measured_m[v] > 0)
        except ValueError as error:
            raise ValueError(f"depth of camera {name!r} cannot be aligned: {error}") from error
    depth_m = [fits[name].apply(inverse_depth(scene.depth_m[v])) for v, name in enumerate(scene.cameras)]
    return replace(scene, depth_m=np.stack(depth_m), depth_scale="aligned"), fits
