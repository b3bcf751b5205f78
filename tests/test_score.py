"""Scores of whole clips: against the dummy, by frame and view, of what is missing, and of what cannot be compared."""

import dataclasses

import numpy as np
import pytest

import raycast
from xwam.core.cameras import pose
from xwam.scene.baselines import move_with_gripper, repeat_last_frame
from xwam.scene.estimates import by_step, summarise
from xwam.scene.metrics import PSNR_OF_IDENTICAL_DB
from xwam.scene.score import ClipScores, Truth, evaluate


def test_the_dummy_is_perfect_where_nothing_moves():
    clip = raycast.clip(size=32, frames=3, speed=0)
    dummy = repeat_last_frame(clip)
    flat = evaluate(dummy, clip).flat()
    assert flat["all/every/psnr_db"] == PSNR_OF_IDENTICAL_DB
    assert flat["all/every/ssim"] == pytest.approx(1)
    assert flat["all/every/chamfer_m"] == 0 and flat["all/every/delta1"] == 1
    assert all(np.isnan(value) for name, value in flat.items() if name.startswith("changed"))


def test_the_dummy_flatters_on_all_pixels_and_not_on_changed_ones():
    clip = raycast.clip(size=48, frames=4, wrist=False)
    flat = evaluate(repeat_last_frame(clip), clip).flat()
    assert flat["changed/static/psnr_db"] < flat["all/static/psnr_db"] - 8
    assert flat["changed/static/ssim"] < flat["all/static/ssim"]
    assert flat["changed/every/abs_rel"] > 5 * flat["all/every/abs_rel"]
    assert flat["changed/every/chamfer_m"] > 5 * flat["all/every/chamfer_m"] > 0


def test_the_truth_is_perfect_and_frame_0_does_not_count():
    clip = raycast.clip(size=32, frames=3)
    rgb = clip.rgb.copy()
    rgb[:, 0] = 0
    result = evaluate(dataclasses.replace(clip, rgb=rgb), clip)
    assert all(len(values) == 2 for values in result.steps.values())
    flat = result.flat()
    assert flat["all/every/psnr_db"] == flat["changed/wrist/psnr_db"] == PSNR_OF_IDENTICAL_DB
    assert flat["changed/every/delta1"] == 1 and flat["all/every/rmse_m"] == 0
    assert flat["all/every/chamfer_m"] == flat["changed/every/chamfer_m"] == 0
    assert flat["all/every/f_score_1cm"] == 1 and flat["all/every/cross_view_m"] < 0.002
    assert flat["all/mounted/position_m"] == 0 and flat["all/wrist/rotation_rad"] == pytest.approx(0, abs=1e-6)
    assert "all/left/position_m" not in flat


def test_errors_are_told_of_the_frame_and_the_view_that_have_them():
    clip = raycast.clip(size=32, frames=3)
    rgb, depth_m, poses = clip.rgb.copy(), clip.depth_m.copy(), clip.T_base_cam.copy()
    rgb[1, 2] //= 2
    depth_m[1, 2] *= 1.1
    poses[2, 1] = poses[2, 1] @ pose([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [0.03, 0.04, 0])
    steps = evaluate(dataclasses.replace(clip, rgb=rgb, depth_m=depth_m, T_base_cam=poses), clip).steps
    assert (steps["all/left/psnr_db"] == PSNR_OF_IDENTICAL_DB).all()
    assert steps["all/right/psnr_db"][0] == PSNR_OF_IDENTICAL_DB > 30 > steps["all/right/psnr_db"][1]
    assert steps["all/right/abs_rel"] == pytest.approx([0, 0.1], abs=1e-6)
    assert steps["all/every/abs_rel"] == pytest.approx([0, 0.1 / 3], abs=1e-6)
    assert steps["all/mounted/position_m"] == pytest.approx([0.05, 0])
    assert steps["all/wrist/rotation_rad"] == pytest.approx([np.pi / 2, 0], abs=1e-6)


@pytest.mark.parametrize("share, scale", [(0, "metric"), (1, "relative")])
def test_a_prediction_without_metres_has_no_numbers_of_depth_rather_than_bad_ones(share, scale):
    clip = raycast.clip(size=32, frames=3)
    flat = evaluate(dataclasses.replace(clip, depth_m=share * clip.depth_m, depth_scale=scale), clip).flat()
    unknown = {name for name, value in flat.items() if np.isnan(value)}
    depth = ("abs_rel", "rmse_m", "delta1", "chamfer_m", "f_score_1cm", "f_score_5cm", "cross_view_m")
    assert unknown == {name for name in flat if name.endswith(depth)}


def test_a_frame_whose_cloud_is_empty_finds_nothing():
    clip = raycast.clip(size=32, frames=3)
    steps = evaluate(changed(clip, depth_m=lambda d: d[:, 1].fill(0)), clip).steps
    assert steps["all/every/f_score_5cm"].tolist() == [0, 1]
    assert np.isnan(steps["all/every/chamfer_m"][0]) and steps["all/every/chamfer_m"][1] == 0


def test_lpips_is_asked_of_every_view_and_frame():
    clip = raycast.clip(size=16, frames=3)
    asked = []

    def perceptual(ours, theirs):
        asked.append((ours.shape, theirs.shape))
        return np.arange(6.0)

    steps = Truth(clip, perceptual=perceptual).score(clip).steps
    assert asked == [((6, 16, 16, 3),) * 2]
    assert steps["all/left/lpips"].tolist() == [0, 1] and steps["all/wrist/lpips"].tolist() == [4, 5]
    assert steps["all/static/lpips"].tolist() == [1, 2]


def changed(clip, **parts):
    """The clip with a part changed at its first entry."""
    arrays = {name: getattr(clip, name).copy() for name in parts}
    for name, change in parts.items():
        change(arrays[name])
    return dataclasses.replace(clip, **arrays)


def in_millimetres(depth_m):
    depth_m *= 1000


def shift(poses):
    poses[:, :, :3, 3] += 0.5


def squeeze(poses):
    poses[0, 0, :3, :3] *= 0.9


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda clip: raycast.clip(size=16, frames=3), "same cameras, frames and size"),
        (lambda clip: raycast.clip(size=16, frames=2, wrist=False), "same cameras"),
        (lambda clip: dataclasses.replace(clip, period_s=0.1), "0.1 s apart, true ones 0.2 s"),
        (lambda clip: changed(clip, T_base_cam=shift), "starts 866 mm from where it is in the truth"),
        (lambda clip: changed(clip, T_base_cam=squeeze), "off a rotation"),
        (lambda clip: changed(clip, intrinsics=lambda K: K[0].__imul__([[1.1], [1.1], [1]])), "other intrinsics"),
        (lambda clip: changed(clip, intrinsics=lambda K: K[0, 0].fill(0)), "intrinsics are"),
        (lambda clip: changed(clip, depth_m=in_millimetres), "divide by 1000"),
        (lambda clip: changed(clip, depth_m=lambda d: d[0, 1].fill(np.nan)), "write 0 where depth is unknown"),
    ],
)
def test_clips_that_cannot_be_compared_are_refused(wrong, told):
    clip = raycast.clip(size=16, frames=2)
    with pytest.raises(ValueError, match=told):
        evaluate(wrong(clip), clip)


def test_a_truth_that_cannot_judge_is_refused():
    clip = raycast.clip(size=16, frames=2)
    with pytest.raises(ValueError, match="only metric depth can judge"):
        Truth(dataclasses.replace(clip, depth_scale="aligned"))
    with pytest.raises(ValueError, match="no surface in frame 0"):
        Truth(changed(clip, depth_m=lambda d: d[:, 0].fill(0)))
    with pytest.raises(ValueError, match="give two frames or more"):
        one = raycast.clip(size=16, frames=1)
        evaluate(one, one)


def scored(value, episode):
    return ClipScores(np.array([True]), {"all/every/x": np.array([value, value + 1])}, episode)


def test_summary_is_a_mean_over_episodes_with_an_interval():
    """Ten moments of one episode are one sample: its mean."""
    scores = [scored(1.0, "a"), scored(3.0, "b"), *[scored(4.0 + k % 3, "c") for k in range(9)], scored(np.nan, "d")]
    estimate = summarise(scores)["all/every/x"]
    assert estimate.mean == pytest.approx((1.5 + 3.5 + 5.5) / 3) and estimate.count == 3
    assert 1.5 <= estimate.low < estimate.mean < estimate.high <= 5.5
    assert summarise(scores)["all/every/x"] == estimate
    first, second = by_step(scores)["all/every/x"]
    assert (first.mean, second.mean) == pytest.approx((3, 4)) and first.count == 3
    with pytest.raises(ValueError, match="no scores"):
        summarise([])


def gripper(frames, shift_m):
    """A gripper at the ball that moves along x by so much a frame."""
    return np.stack([pose(np.eye(3), raycast.ball_centre(0) + [shift_m * t, 0, 0]) for t in range(frames)])[None]


def test_a_gripper_that_stands_still_leaves_all_as_it_is():
    clip = raycast.clip(size=48, frames=3)
    still = np.repeat(clip.T_base_cam[:, :1], 3, axis=1)
    moved, dummy = move_with_gripper(clip, gripper(3, 0.0), still), repeat_last_frame(clip)
    np.testing.assert_array_equal(moved.rgb, dummy.rgb)
    np.testing.assert_allclose(moved.depth_m, dummy.depth_m, rtol=1e-5)


def test_what_is_near_the_gripper_moves_with_it_and_the_rest_stays():
    """A ball that rolls 5 cm a frame, held by a gripper that moves so: nearly the truth."""
    clip = raycast.clip(size=64, frames=3, wrist=False)
    moved = move_with_gripper(clip, gripper(3, 0.05), clip.T_base_cam, reach_m=raycast.BALL_RADIUS_M + 0.001)
    ours, theirs = evaluate(moved, clip).flat(), evaluate(repeat_last_frame(clip), clip).flat()
    assert ours["changed/static/psnr_db"] > theirs["changed/static/psnr_db"] + 3
    assert ours["changed/every/abs_rel"] < 0.5 * theirs["changed/every/abs_rel"]
    assert ours["changed/every/chamfer_m"] < 0.6 * theirs["changed/every/chamfer_m"]


def test_a_camera_that_moves_sees_the_old_cloud_from_its_new_place():
    clip = raycast.clip(size=48, frames=2)
    moved = move_with_gripper(clip, gripper(2, 0.05), clip.T_base_cam, reach_m=raycast.BALL_RADIUS_M + 0.001)
    ours, theirs = evaluate(moved, clip).flat(), evaluate(repeat_last_frame(clip), clip).flat()
    assert ours["all/wrist/psnr_db"] > theirs["all/wrist/psnr_db"] + 3
    assert ours["all/mounted/position_m"] == 0 < theirs["all/mounted/position_m"]
