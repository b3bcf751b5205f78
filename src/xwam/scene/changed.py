"""What truly changed since frame 0: pixels and surface. Most of a tabletop never moves: doing nothing is right there.

Both are taken from the truth alone, so that no prediction chooses what judges it.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import KDTree

from xwam.core.types import RGBDClip
from xwam.scene.distances import Distances, distances

CHANGED_POINT_M = 0.02


def changed_mask(true: RGBDClip, rgb_step: int = 20, depth_step_m: float = 0.01) -> Bool[np.ndarray, "V T H W"]:
    """Pixels that truly differ from frame 0: any of RGB by more than `rgb_step` of 255, or depth by more than 1 cm.

    20 of 255 lies above the noise of compressed video, below a moving gripper or shadow. Depth counts where both
    frames know it. What a prediction invents elsewhere shows in `all`. A camera that moves changes nearly everywhere.
    Frame 0 has no changed pixel.
    """
    rgb = np.abs(true.rgb.astype(np.int16) - true.rgb[:, :1]).max(axis=-1) > rgb_step
    known = (true.depth_m > 0) & (true.depth_m[:, :1] > 0)
    return rgb | (known & (np.abs(true.depth_m - true.depth_m[:, :1]) > depth_step_m))


@dataclass(frozen=True)
class ChangedSurface:
    """Where surface appeared, true points further than `step_m` from the cloud before, and where some vanished."""

    appeared_m: Float[np.ndarray, "N 3"]
    vanished_m: Float[np.ndarray, "M 3"]
    step_m: float

    @classmethod
    def between(
        cls, before_m: Float[np.ndarray, "K 3"], true_m: Float[np.ndarray, "L 3"], step_m: float = CHANGED_POINT_M
    ) -> Self | None:
        """From frame 0's true cloud to another's; None if nothing changed, or if a cloud is empty."""
        found = distances(true_m, before_m)
        if found is None:
            return None
        appeared, vanished = true_m[found.a_to_b_m > step_m], before_m[found.b_to_a_m > step_m]
        return cls(appeared, vanished, step_m) if len(appeared) and len(vanished) else None

    def chamfer_m(self, predicted_m: Float[np.ndarray, "P 3"], to_true: Distances) -> float:
        """Chamfer distance over what changed and `step_m` around it; `to_true` is from the prediction to the truth.

        Half the sum of the mean distance from the true points that appeared to the prediction, and of that from the
        predicted points in the region to the truth. A still prediction keeps what vanished and lacks what appeared,
        and errs by more than `step_m` on both.
        """
        region = KDTree(np.concatenate([self.appeared_m, self.vanished_m]))
        near = np.isfinite(region.query(predicted_m, distance_upper_bound=self.step_m)[0])
        missed, _ = KDTree(predicted_m).query(self.appeared_m)
        # What is predicted nowhere in the region errs on that side as what appeared and was missed.
        wrong = to_true.a_to_b_m[near] if near.any() else missed
        return float((missed.mean() + wrong.mean()) / 2)
