"""Metres to the image that the autoencoder sees and to the codes of a video, and back; what depth may not be.

The network's code is affine in inverse depth, as in X-WAM (arXiv 2604.26694), with a written range per camera, so that
coded depth stays `metric`: code = 2 * (1/d - 1/far) / (1/near - 1/far) - 1, near -> 1, far -> -1.
Published X-WAM depth has no known formula; such depth is `relative` until `align` fits it to measured depth,
and `aligned` afterwards, never metric.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from jaxtyping import Bool, Float, UInt16
from pydantic import model_validator

from xwam.core.config import Frozen

DepthScale = Literal["metric", "aligned", "relative"]
DEPTH_CODES = 4095
# No robot's camera looks on average this far: such numbers are millimetres.
FARTHEST_MEDIAN_M = 100.0
# What an alignment asks for, and how many standard deviations from it a pixel may lie.
LEAST_PIXELS, TRIM = 16, 2.5


def check_depth(where: str, depth_m: Float[np.ndarray, "T H W"], scale: DepthScale = "metric") -> None:
    """Raises a ValueError that names `where`, the pixel and the mend if this cannot be depth, 0 being unknown."""
    wrong = ~(np.isfinite(depth_m) & (depth_m >= 0))
    if wrong.any():
        place = np.argwhere(wrong)[0]
        t, row, column = place
        raise ValueError(
            f"{where}: {wrong.sum()} of {wrong.size} pixels hold no depth, the first {depth_m[tuple(place)]} at frame "
            f"{t}, row {row}, column {column}: write 0 where depth is unknown"
        )
    known = depth_m[depth_m > 0]
    if scale != "relative" and known.size and (median := np.median(known)) > FARTHEST_MEDIAN_M:
        raise ValueError(f"{where}: its median is {median:.0f} m, as of millimetres taken for metres: divide by 1000")


@dataclass(frozen=True)
class DepthCoding:
    """Range of one camera in metres; what lies outside is clipped to it, unknown depth (0) is coded as far."""

    near_m: float
    far_m: float

    def __post_init__(self):
        if not 0 < self.near_m < self.far_m:
            raise ValueError(f"depth range {self.near_m} .. {self.far_m} m: need 0 < near < far")

    def encode(self, depth_m: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Code in [-1, 1] of depth in metres."""
        known = np.where(depth_m > 0, depth_m, self.far_m)
        inverse = 1.0 / np.clip(known, self.near_m, self.far_m)
        return (2 * (inverse - 1 / self.far_m) / (1 / self.near_m - 1 / self.far_m) - 1).astype(np.float32)

    def decode(self, code: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Depth in metres of a code; codes beyond [-1, 1] are clipped."""
        share = (np.clip(code, -1, 1) + 1) / 2
        return (1.0 / (share * (1 / self.near_m - 1 / self.far_m) + 1 / self.far_m)).astype(np.float32)


class StoredDepth(Frozen):
    """Depth as codes of 12 bits or 16, logarithmic in metres, with 0 for unknown.

    code = rint(codes * log((d + shift) / (min + shift)) / log((max + shift) / (min + shift))). Nearer than `min_m` is
    clipped to it; beyond `max_m` becomes unknown, so that no false wall stands there.

    `scale` says what the numbers are worth (docs/conventions.md); depth that was estimated is `relative`, and what is
    called metres here is then nothing but the inverse of the estimated inverse depth.
    """

    min_m: float
    max_m: float
    shift_m: float = 0.0
    scale: DepthScale = "metric"
    bits: Literal[12, 16] = 12

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.min_m + self.shift_m < self.max_m + self.shift_m:
            raise ValueError(f"depth range {self.min_m} .. {self.max_m} m, shift {self.shift_m} m: need 0 < min < max")
        return self

    def encode(self, depth_m: Float[np.ndarray, "*n"]) -> UInt16[np.ndarray, "*n"]:
        """Codes of depth in metres; 0, NaN, infinite and negative depth is unknown."""
        known = np.isfinite(depth_m) & (depth_m > 0) & (depth_m <= self.max_m)
        clipped = np.where(known, depth_m, self.max_m).clip(self.min_m, self.max_m)
        code = np.rint(np.log((clipped + self.shift_m) / (self.min_m + self.shift_m)) / self._log_step)
        return np.where(known, code.clip(1, self.codes), 0).astype(np.uint16)

    def decode(self, code: UInt16[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Metres of codes; unknown is 0."""
        codes = np.arange(self.codes + 1)
        depth_m = (self.min_m + self.shift_m) * np.exp(codes * self._log_step) - self.shift_m
        depth_m[0] = 0.0
        return np.take(depth_m.astype(np.float32), code)

    @property
    def codes(self) -> int:
        """The largest code."""
        return 2**self.bits - 1

    @property
    def _log_step(self) -> float:
        return np.log((self.max_m + self.shift_m) / (self.min_m + self.shift_m)) / self.codes


@dataclass(frozen=True)
class InverseDepthAlignment:
    """inverse depth = scale * code + shift, in 1/m, as fitted by `align`.

    `residual` is the fit's root mean square error in 1/m over the `kept` share of `pixels`; the rest was trimmed.
    """

    scale: float
    shift: float
    residual: float = 0.0
    kept: float = 1.0
    pixels: int = 0

    def apply(self, code: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Depth in metres, `aligned`; 0 where the code is none, or the fit gives no positive inverse depth."""
        inverse = np.nan_to_num(self.scale * code + self.shift, nan=0.0)
        return np.where(inverse > 1e-6, 1.0 / np.maximum(inverse, 1e-6), 0.0).astype(np.float32)


def align(
    code: Float[np.ndarray, "*n"], depth_m: Float[np.ndarray, "*n"], valid: Bool[np.ndarray, "*n"], rounds: int = 20
) -> InverseDepthAlignment:
    """Fits measured depth by an affine map of the code in inverse depth, where larger code is nearer.

    Least trimmed squares: of many lines through two pixels the one with the least median error, then least squares
    over the pixels within `TRIM` of its spread, again and again (Rousseeuw, Least median of squares regression, 1984).
    Raises ValueError if too few pixels are measured, or if they ask for no positive scale.
    """
    known = valid & (depth_m > 0) & np.isfinite(code)
    if known.sum() < LEAST_PIXELS:
        raise ValueError(f"only {known.sum()} pixels have measured depth: alignment needs {LEAST_PIXELS} or more")
    x, y = code[known].astype(np.float64), 1.0 / depth_m[known].astype(np.float64)
    scale, shift = _first_line(x, y)
    keep = np.ones_like(x, bool)
    for _ in range(rounds):
        error = np.abs(scale * x + shift - y)
        within = error <= TRIM * 1.4826 * np.median(error) + 1e-9
        scale, shift = _least_squares(x[within], y[within])
        if np.array_equal(within, keep):
            break
        keep = within
    if not scale > 0:
        raise ValueError(
            f"the fit of {known.sum()} pixels has scale {scale:.4g}, so nearer would be farther: the code must grow "
            "towards the camera and differ between pixels, and measured depth must belong to this image"
        )
    residual = float(np.sqrt(np.mean((scale * x[keep] + shift - y[keep]) ** 2)))
    return InverseDepthAlignment(float(scale), float(shift), residual, float(keep.mean()), int(known.sum()))


def _first_line(x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """Of lines through two pixels the one with the least median error."""
    random = np.random.default_rng(0)
    some = random.permutation(len(x))[:2000]
    one, other = random.integers(len(x), size=(2, 200))
    apart = np.abs(x[one] - x[other]) > 1e-9
    if not apart.any():
        return 0.0, float(np.median(y))
    one, other = one[apart], other[apart]
    scales = (y[one] - y[other]) / (x[one] - x[other])
    shifts = y[one] - scales * x[one]
    errors = np.median(np.abs(scales[:, None] * x[some] + shifts[:, None] - y[some]), axis=1)
    return float(scales[np.argmin(errors)]), float(shifts[np.argmin(errors)])


def _least_squares(x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"]) -> tuple[float, float]:
    spread = x - x.mean()
    square = spread @ spread
    scale = float(spread @ y / square) if square > 1e-12 else 0.0
    return scale, float(y.mean() - scale * x.mean())
