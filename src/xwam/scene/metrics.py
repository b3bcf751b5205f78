"""Measures of one image and one depth image against the truth, over all pixels or those of a mask."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import gaussian_filter

PSNR_OF_IDENTICAL_DB = 100.0
"""A finite stand-in for infinity, so that a mean over frames stays a number."""


def psnr(
    predicted: UInt8[np.ndarray, "H W 3"], true: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE), the MSE over the pixels of the mask and RGB."""
    squared = (predicted.astype(np.float64) - true) ** 2
    error = masked_mean(squared.mean(axis=-1), mask)
    return PSNR_OF_IDENTICAL_DB if error == 0 else 10 * float(np.log10(255.0**2 / error))


def ssim(
    predicted: UInt8[np.ndarray, "H W 3"], true: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Structural similarity: mean of `ssim_map` over the mask."""
    return masked_mean(ssim_map(predicted, true), mask)


def ssim_map(predicted: UInt8[np.ndarray, "H W 3"], true: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """Structural similarity around every pixel (Wang et al. 2004, eq. 13; K1 0.01, K2 0.03), mean over RGB.

    Windows are 11 x 11, Gaussian of sigma 1.5; the image is mirrored at its border, as in torchmetrics.
    """
    x, y = predicted.astype(np.float64), true.astype(np.float64)

    def window(image: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
        return gaussian_filter(image, sigma=1.5, radius=5, axes=(0, 1), mode="mirror")

    mean_x, mean_y = window(x), window(y)
    var_x, var_y = window(x * x) - mean_x**2, window(y * y) - mean_y**2
    covariance = window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean(axis=-1)


def abs_rel(
    predicted_m: Float[np.ndarray, "H W"], true_m: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Mean of |predicted - true| / true over known true depth; a prediction left unknown (0) errs by 1."""
    known = true_m > 0
    error = np.abs(predicted_m - true_m) / np.where(known, true_m, 1.0)
    return masked_mean(error, known if mask is None else known & mask)


def rmse_m(
    predicted_m: Float[np.ndarray, "H W"], true_m: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Root of the mean squared error in metres over known true depth; a prediction left unknown errs by the truth."""
    known = true_m > 0
    squared = (predicted_m.astype(np.float64) - true_m) ** 2
    return float(np.sqrt(masked_mean(squared, known if mask is None else known & mask)))


def delta1(
    predicted_m: Float[np.ndarray, "H W"], true_m: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Share of known true depth with max(predicted / true, true / predicted) < 1.25; an unknown prediction fails."""
    known = true_m > 0
    near = (predicted_m < 1.25 * true_m) & (true_m < 1.25 * predicted_m)
    return masked_mean(near, known if mask is None else known & mask)


def masked_mean(
    values: Float[np.ndarray, "H W"] | Bool[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"] | None
) -> float:
    """Mean over the pixels of the mask; NaN if it has none."""
    chosen = values if mask is None else values[mask]
    return float(chosen.mean()) if chosen.size else float("nan")
