"""The measures that people read: under which name they are scored, how they are written, and which way is better."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measure:
    """How a number of `ClipScores` is written; `key` is its name without the region."""

    key: str
    name: str
    unit: str
    scale: float
    digits: int
    higher_is_better: bool

    @property
    def title(self) -> str:
        return f"{self.name}{f', {self.unit}' if self.unit else ''} {'↑' if self.higher_is_better else '↓'}"

    def text(self, value: float, unit: bool = True) -> str:
        """The value in its unit, or a dash if there is none."""
        if np.isnan(value):
            return "–"
        return f"{value * self.scale:.{self.digits}f}" + (f" {self.unit}" if unit and self.unit else "")


MEASURES = (
    Measure("static/psnr_db", "PSNR", "dB", 1.0, 1, True),
    Measure("static/ssim", "SSIM", "", 1.0, 3, True),
    Measure("static/lpips", "LPIPS", "", 1.0, 3, False),
    Measure("every/abs_rel", "Depth AbsRel", "", 1.0, 3, False),
    Measure("every/rmse_m", "Depth RMSE", "mm", 1000.0, 1, False),
    Measure("every/delta1", "Depth δ1", "", 1.0, 3, True),
    Measure("every/chamfer_m", "Chamfer distance", "mm", 1000.0, 1, False),
    Measure("every/f_score_1cm", "F-score at 1 cm", "", 1.0, 3, True),
    Measure("every/f_score_5cm", "F-score at 5 cm", "", 1.0, 3, True),
    Measure("every/cross_view_m", "Views apart", "mm", 1000.0, 1, False),
    Measure("mounted/position_m", "Wrist position", "mm", 1000.0, 1, False),
    Measure("mounted/rotation_rad", "Wrist rotation", "deg", 180 / np.pi, 2, False),
)
