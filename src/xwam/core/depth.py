"""Metres to the image that the autoencoder sees, and back.

The code is affine in inverse depth, as in X-WAM (arXiv 2604.26694), with a written range per camera, so that
coded depth stays `metric`: code = 2 * (1/d - 1/far) / (1/near - 1/far) - 1, near -> 1, far -> -1.
Published X-WAM depth has no known formula; such depth is `relative` until `align` fits it to measured depth,
and `aligned` afterwards, never metric.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


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


@dataclass(frozen=True)
class InverseDepthAlignment:
    """inverse depth = scale * code + shift, in 1/m, as fitted by `align`."""

    scale: float
    shift: float

    def apply(self, code: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Depth in metres, `aligned`; 0 where the fit gives no positive inverse depth."""
        inverse = self.scale * code + self.shift
        return np.where(inverse > 1e-6, 1.0 / np.maximum(inverse, 1e-6), 0.0).astype(np.float32)


def align(
    code: Float[np.ndarray, "*n"], depth_m: Float[np.ndarray, "*n"], valid: Bool[np.ndarray, "*n"], rounds: int = 10
) -> InverseDepthAlignment:
    """Fits measured depth by an affine map of the code in inverse depth, robustly (Huber weights, median scale)."""
    known = valid & (depth_m > 0) & np.isfinite(code)
    if known.sum() < 16:
        raise ValueError(f"only {known.sum()} pixels have measured depth: alignment needs 16 or more")
    x, y = code[known].astype(np.float64), 1.0 / depth_m[known].astype(np.float64)
    design, weight = np.stack([x, np.ones_like(x)], axis=1), np.ones_like(x)
    for _ in range(rounds):
        root = np.sqrt(weight)
        (scale, shift), *_ = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)
        residual = np.abs(design @ (scale, shift) - y)
        limit = 1.345 * 1.4826 * np.median(residual) + 1e-9
        weight = np.minimum(1.0, limit / np.maximum(residual, 1e-12))
    return InverseDepthAlignment(float(scale), float(shift))
