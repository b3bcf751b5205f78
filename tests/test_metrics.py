"""Metrics on values that can be worked out by hand, against torchmetrics, and against the dummy."""

import dataclasses

import numpy as np
import pytest

import raycast
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
    first = np.array([[True, False, True, False]])
    assert metrics.abs_rel(predicted, true, first) == pytest.approx(0.1)
    assert metrics.delta1(predicted, true, first) == 1


def test_chamfer_is_the_mean_of_both_ways_in_metres():
    a = np.array([[0.0, 0, 0], [1, 0, 0]])
    b = np.array([[0.0, 0, 0]])
    assert metrics.chamfer(a, b) == pytest.approx((0.5 + 0.0) / 2) == metrics.chamfer(b, a)
    assert metrics.chamfer(a, a) == 0
    assert np.isnan(metrics.chamfer(a, a[:0]))


def test_changed_pixels_are_where_the_ball_was_and_is():
    clip = raycast.clip(size=48, frames=3, wrist=False)
    changed = metrics.changed_mask(clip)
    assert not changed[:, 0].any()
    assert 0.005 < changed[:, 2].mean() < 0.2
    # Every pixel that shows the ball in frame 2 and did not in frame 0 has changed.
    red = (clip.rgb[..., 0].astype(int) - clip.rgb[..., 2]) > 80
    assert changed[:, 2][red[:, 2] & ~red[:, 0]].all()


def test_a_depth_step_alone_is_a_change():
    clip = raycast.clip(size=16, frames=2, speed=0, wrist=False)
    depth_m = clip.depth_m.copy()
    depth_m[0, 1, 8, 8] += 0.02
    depth_m[0, 1, 8, 9] += 0.005
    changed = metrics.changed_mask(dataclasses.replace(clip, depth_m=depth_m))
    assert changed.sum() == 1 and changed[0, 1, 8, 8]


def test_the_static_cameras_are_found():
    assert metrics.static_views(raycast.clip(size=8, frames=3)).tolist() == [True, True, False]


def test_the_dummy_is_perfect_where_nothing_moves():
    clip = raycast.clip(size=32, frames=3, speed=0)
    dummy = metrics.repeat_last_frame(clip)
    flat = metrics.evaluate(dummy, clip).flat()
    assert flat["all/every/psnr_db"] == metrics.PSNR_OF_IDENTICAL_DB
    assert flat["all/every/ssim"] == pytest.approx(1)
    assert flat["all/every/chamfer_m"] == 0 and flat["all/every/delta1"] == 1
    assert all(np.isnan(value) for name, value in flat.items() if name.startswith("changed"))


def test_the_dummy_flatters_on_all_pixels_and_not_on_changed_ones():
    clip = raycast.clip(size=48, frames=4, wrist=False)
    flat = metrics.evaluate(metrics.repeat_last_frame(clip), clip).flat()
    assert flat["changed/static/psnr_db"] < flat["all/static/psnr_db"] - 8
    assert flat["changed/static/ssim"] < flat["all/static/ssim"]
    assert flat["changed/every/abs_rel"] > 5 * flat["all/every/abs_rel"]
    assert flat["changed/every/chamfer_m"] > 5 * flat["all/every/chamfer_m"] > 0


def test_the_truth_is_perfect_and_frame_0_does_not_count():
    clip = raycast.clip(size=32, frames=3)
    rgb = clip.rgb.copy()
    rgb[:, 0] = 0
    result = metrics.evaluate(dataclasses.replace(clip, rgb=rgb), clip)
    assert (result.all.psnr_db == metrics.PSNR_OF_IDENTICAL_DB).all()
    assert (result.changed.delta1 == 1).all() and result.changed.chamfer_m == 0


def test_clips_that_cannot_be_compared_are_refused():
    clip = raycast.clip(size=16, frames=2)
    with pytest.raises(ValueError, match="same cameras"):
        metrics.evaluate(raycast.clip(size=16, frames=3), clip)
    with pytest.raises(ValueError, match="aligned"):
        metrics.evaluate(dataclasses.replace(clip, depth_scale="relative"), clip)


def test_summary_is_a_mean_with_an_interval():
    clip = raycast.clip(size=24, frames=2)
    one = metrics.evaluate(metrics.repeat_last_frame(clip), clip)
    varied = [dataclasses.replace(one, all=dataclasses.replace(one.all, chamfer_m=x)) for x in (0.1, 0.2, 0.3, np.nan)]
    estimate = metrics.summarise(varied)["all/every/chamfer_m"]
    assert estimate.mean == pytest.approx(0.2) and estimate.count == 3
    assert 0.1 <= estimate.low < 0.2 < estimate.high <= 0.3
    assert metrics.summarise(varied)["all/every/chamfer_m"] == estimate
    with pytest.raises(ValueError, match="no metrics"):
        metrics.summarise([])


def block(left_m: float) -> np.ndarray:
    """A cube of 6 cm, in points a centimetre apart, on a table of 40 cm."""
    table = np.stack(np.meshgrid(np.arange(0, 0.4, 0.01), np.arange(0, 0.4, 0.01), [0.0]), -1).reshape(-1, 3)
    cube = np.stack(np.meshgrid(*[np.arange(0.0, 0.06, 0.01)] * 3), -1).reshape(-1, 3)
    return np.concatenate([table, cube + [left_m, 0.1, 0.01]])


def test_changed_points_judge_what_moved_and_nothing_else():
    before, true = block(0.05), block(0.2)
    still = metrics.chamfer_of_changed(before, true, before)
    assert still > metrics.CHANGED_POINT_M
    assert metrics.chamfer_of_changed(true, true, before) == 0
    off = metrics.chamfer_of_changed(block(0.21), true, before)
    assert 0 < off < still
    far_noise = np.random.default_rng(0).uniform(1, 2, (100, 3))
    assert metrics.chamfer_of_changed(np.concatenate([true, far_noise]), true, before) == 0
    table_only = true[:1600]
    assert metrics.chamfer_of_changed(table_only, true, before) > 0.01


def test_nothing_changed_is_no_number():
    assert np.isnan(metrics.chamfer_of_changed(block(0.1), block(0.1), block(0.1)))
    assert np.isnan(metrics.chamfer_of_changed(block(0.1)[:0], block(0.2), block(0.1)))
