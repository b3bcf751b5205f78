"""Metrics on values that can be worked out by hand, and against torchmetrics."""

import numpy as np
import pytest

from xwam.scene import metrics


def images(seed=0, size=40):
    random = np.random.default_rng(seed)
    true = random.integers(0, 256, (size, size, 3)).astype(np.uint8)
    noisy = np.clip(true + random.normal(0, 20, true.shape), 0, 255).astype(np.uint8)
    return noisy, true


def test_psnr_of_a_known_error():
    true = np.full((8, 8, 3), 100, dtype=np.uint8)
    assert metrics.psnr(true + 10, true) == pytest.approx(20 * np.log10(255 / 10))
    assert metrics.psnr(true, true) == metrics.PSNR_OF_IDENTICAL_DB


def test_masked_psnr_sees_the_mask_alone():
    true = np.zeros((8, 8, 3), dtype=np.uint8)
    predicted, mask = true.copy(), np.zeros((8, 8), dtype=bool)
    predicted[:2], mask[:2] = 51, True
    assert metrics.psnr(predicted, true, mask) == pytest.approx(20 * np.log10(5))
    assert metrics.psnr(predicted, true, ~mask) == metrics.PSNR_OF_IDENTICAL_DB
    assert np.isnan(metrics.psnr(predicted, true, np.zeros_like(mask)))


def test_ssim_is_one_of_the_same_and_falls_with_noise():
    noisy, true = images()
    assert metrics.ssim(true, true) == pytest.approx(1)
    assert 0 < metrics.ssim(noisy, true) < 0.99


def test_masked_ssim_is_the_mean_of_the_map():
    noisy, true = images()
    mask = np.zeros(true.shape[:2], dtype=bool)
    mask[20:30, 10:20] = True
    assert metrics.ssim(noisy, true, mask) == pytest.approx(metrics.ssim_map(noisy, true)[20:30, 10:20].mean())
    assert np.isnan(metrics.ssim(noisy, true, np.zeros_like(mask)))


def test_psnr_and_ssim_agree_with_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    noisy, true = images()
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[None].double() for image in (noisy, true))
    theirs = functional.structural_similarity_index_measure(x, y, data_range=255.0)
    assert metrics.ssim(noisy, true) == pytest.approx(float(theirs), abs=1e-5)
    theirs = functional.peak_signal_noise_ratio(x, y, data_range=255.0)
    assert metrics.psnr(noisy, true) == pytest.approx(float(theirs), abs=1e-4)


def test_depth_metrics_on_known_values():
    true = np.array([[1.0, 2.0, 0.0, 4.0]], dtype=np.float32)
    predicted = np.array([[1.1, 3.0, 9.0, 0.0]], dtype=np.float32)
    assert metrics.abs_rel(predicted, true) == pytest.approx((0.1 + 0.5 + 1.0) / 3)
    assert metrics.delta1(predicted, true) == pytest.approx(1 / 3)
    assert metrics.rmse_m(predicted, true) == pytest.approx(np.sqrt((0.01 + 1 + 16) / 3))
    first = np.array([[True, False, True, False]])
    assert metrics.abs_rel(predicted, true, first) == pytest.approx(0.1)
    assert metrics.rmse_m(predicted, true, first) == pytest.approx(0.1)
    assert metrics.delta1(predicted, true, first) == 1
