"""Views of relative depth, each of its own scale and shift, come to one by what they see alike."""

from dataclasses import replace

import numpy as np
import pytest

from raycast import clip
from xwam.scene.overlap import align_views
from xwam.scene.scale import inverse_depth

TRUE = clip(size=64, frames=2)


def coded(scales: list[float], shifts: list[float]) -> np.ndarray:
    """Depth of which the inverse, scaled and shifted, is the true one; 0 where it is unknown."""
    code = (inverse_depth(TRUE.depth_m) - np.reshape(shifts, (3, 1, 1, 1))) / np.reshape(scales, (3, 1, 1, 1))
    return np.where(code > 0.02, 1 / np.where(code > 0.02, code, 1), 0).astype(np.float32)


def medians(depth_m: np.ndarray) -> np.ndarray:
    """Depth over the true one, in the median of each view."""
    both = (depth_m > 0) & (TRUE.depth_m > 0)
    return np.array([np.median(depth_m[v][both[v]] / TRUE.depth_m[v][both[v]]) for v in range(3)])


def test_views_come_to_the_scale_of_their_poses():
    relative = replace(TRUE, depth_m=coded([0.5, 0.8, 1.5], [0.1, -0.1, 0.15]), depth_scale="relative")
    scene, fits = align_views(relative)
    assert scene.depth_scale == "relative" and set(fits) == set(TRUE.cameras)
    np.testing.assert_allclose(medians(scene.depth_m), 1, atol=0.06)
    assert np.abs(medians(relative.depth_m) - 1).min() > 0.2
    for v, fit in enumerate(fits.values()):
        np.testing.assert_allclose(fit.apply(inverse_depth(relative.depth_m[v])), scene.depth_m[v])


def test_outliers_leave_views_in_agreement():
    """One pixel in twenty wrong spoils one patch in five, and may move all views together, not one from another."""
    relative = replace(TRUE, depth_m=coded([2.5, 1.4, 2.0], [-0.2, 0, 0]), depth_scale="relative")
    random = np.random.default_rng(0)
    wrong = random.random(relative.depth_m.shape) < 0.05
    relative.depth_m[wrong] *= random.uniform(0.5, 2, wrong.sum())
    ratios = medians(align_views(relative)[0].depth_m)
    assert ratios.max() / ratios.min() < 1.1
    assert medians(relative.depth_m).max() / medians(relative.depth_m).min() > 1.4


def test_views_that_cannot_agree_are_refused():
    depth_m = coded([1, 1, 1], [0, 0, 0])
    noise = np.random.default_rng(0).uniform(0.3, 3, depth_m.shape).astype(np.float32)
    with pytest.raises(ValueError, match="camera 'left' shows surfaces in . pixels.*too rough"):
        align_views(replace(TRUE, depth_m=noise, depth_scale="relative"))
    away = TRUE.T_base_cam.copy()
    away[:, :, :3, 3] += 50 * np.arange(3)[:, None, None]
    with pytest.raises(ValueError, match="the views overlap too little"):
        align_views(replace(TRUE, depth_m=depth_m, T_base_cam=away, depth_scale="relative"))
    y, x = np.mgrid[:64, :64] / 64
    walls = np.stack([1 + 0.5 * np.sin(7 * x) * np.cos(9 * y), 2 - x, 1 + 0.3 * np.cos(20 * x * y)])
    walls = np.repeat(walls[:, None], 2, axis=1).astype(np.float32)
    with pytest.raises(ValueError, match="not of one scene"):
        align_views(replace(TRUE, depth_m=walls, depth_scale="relative"))
    depth_m[1] = 0
    with pytest.raises(ValueError, match="camera 'right' shows surfaces in 0 pixels"):
        align_views(replace(TRUE, depth_m=depth_m, depth_scale="relative"))
    with pytest.raises(ValueError, match="metric depth of 3 cameras"):
        align_views(TRUE)
