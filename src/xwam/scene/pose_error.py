"""How far the cameras that move are from where they were foretold to be."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from xwam.core.cameras import pose_errors
from xwam.core.types import RGBDClip

# A camera moves if its pose leaves the first one by more than recording and rounding explain.
MOVED_M, MOVED_RAD = 1e-4, 1e-4


@dataclass(frozen=True)
class PoseError:
    """A camera's error at each frame that both clips have; at the first, which is given, it is 0 or calibration's."""

    position_mm: Float[np.ndarray, " T"]
    angle_deg: Float[np.ndarray, " T"]

    def told(self) -> str:
        """Mean over the foretold frames, and the last."""
        return (
            f"{self.position_mm[1:].mean():.1f} mm and {self.angle_deg[1:].mean():.2f} degrees on average, "
            f"{self.position_mm[-1]:.1f} mm and {self.angle_deg[-1]:.2f} degrees at the last frame"
        )


def wrist_pose_errors(predicted: RGBDClip, true: RGBDClip) -> dict[str, PoseError]:
    """The error of each camera that moves in either clip, over the frames of the shorter; both of the same rate."""
    if predicted.cameras != true.cameras or abs(predicted.period_s / true.period_s - 1) > 1e-3:
        raise ValueError(
            f"predicted cameras {predicted.cameras} every {predicted.period_s:.4g} s, true ones {true.cameras} every "
            f"{true.period_s:.4g} s: give both the same"
        )
    frames = min(predicted.T_base_cam.shape[1], true.T_base_cam.shape[1])
    if frames < 2:
        raise ValueError("a clip of one frame foretells no pose: give two or more")
    errors = {}
    for v, name in enumerate(true.cameras):
        ours, theirs = predicted.T_base_cam[v, :frames], true.T_base_cam[v, :frames]
        if _moves(ours) or _moves(theirs):
            distance_m, angle_rad = pose_errors(ours, theirs)
            errors[name] = PoseError(1000 * distance_m, np.degrees(angle_rad))
    return errors


def _moves(poses: Float[np.ndarray, "T 4 4"]) -> bool:
    distance_m, angle_rad = pose_errors(poses, poses[:1])
    return bool(distance_m.max() > MOVED_M or angle_rad.max() > MOVED_RAD)
