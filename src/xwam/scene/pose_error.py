"""How far the cameras that move are from where they were foretold to be."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from xwam.core.cameras import pose_errors
from xwam.core.types import RGBDClip


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
    predicted, true = predicted.at(slice(frames)), true.at(slice(frames))
    distance_m, angle_rad = pose_errors(predicted.T_base_cam, true.T_base_cam)
    errors = zip(true.cameras, 1000 * distance_m, np.degrees(angle_rad), strict=True)
    still = predicted.standing() & true.standing()
    return {name: PoseError(mm, deg) for (name, mm, deg), stands in zip(errors, still, strict=True) if not stands}
