"""Futures of several chunks: each goes on where the one before ended, and seams, cameras and scale are told."""

from dataclasses import replace

import numpy as np
import pytest

from tiny_model import SIZE, tiny_config, tiny_model, tiny_observation
from xwam.core.cameras import invert, look_at
from xwam.core.depth import InverseDepthAlignment
from xwam.imagine.future import imagine_future
from xwam.scene.folder import read_clip, write_clip
from xwam.scene.pose_error import wrist_pose_errors
from xwam.scene.scale import align_to_measured, inverse_depth

STILL = np.zeros((16, 4), np.float32)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def long(model):
    return imagine_future(model, tiny_observation(), seed=3, chunks=3)


def test_one_chunk_is_the_dream_of_its_seed(model):
    dream, clip = model.imagine(tiny_observation(), 3), imagine_future(model, tiny_observation(), 3)
    for name in ("rgb", "depth_m", "intrinsics", "T_base_cam"):
        np.testing.assert_array_equal(getattr(clip.scene, name), getattr(dream.scene, name))
    np.testing.assert_array_equal(clip.actions, dream.chunk.actions)
    np.testing.assert_array_equal(clip.proprio, dream.proprio)
    assert clip.seams == () and clip.origin == "imagined" and clip.scene.depth_scale == "metric"


def test_chunks_are_joined_without_a_frame_twice(model, long):
    assert long.scene.rgb.shape[:2] == (3, 1 + 3 * 8) and long.actions.shape == (48, 4)
    assert long.proprio.shape == (25, 4) and long.seams == (8, 16)
    first = model.imagine(tiny_observation(), 3)
    np.testing.assert_array_equal(long.scene.rgb[:, :9], first.scene.rgb)
    np.testing.assert_array_equal(long.actions[:16], first.chunk.actions)


def test_a_chunk_goes_on_from_the_last_frame_and_state(model, long):
    """The later chunk is the dream of an observation made of what came before it, and of nothing else."""
    end = {name: long.scene.rgb[v, 8] for v, name in enumerate(long.scene.cameras)}
    known = {"intrinsics": tiny_observation().intrinsics, "T_base_cam": tiny_observation().T_base_cam}
    now = replace(tiny_observation(), images=end, proprio=long.proprio[8], **known)
    seed = int(np.random.SeedSequence([3, 1]).generate_state(1)[0])
    again = model.imagine(now, seed)
    np.testing.assert_array_equal(long.scene.rgb[:, 9:17], again.scene.rgb[:, 1:])
    np.testing.assert_array_equal(long.actions[16:32], again.chunk.actions)
    np.testing.assert_array_equal(long.proprio[9:17], again.proprio[1:])


def test_cameras_stand_still_or_follow_the_hand(long):
    poses, names = long.scene.T_base_cam, long.scene.cameras
    for name in ("left", "right"):
        np.testing.assert_array_equal(poses[names.index(name)], np.broadcast_to(np.eye(4), (25, 4, 4)))
    wrist = poses[names.index("wrist")]
    np.testing.assert_allclose(np.diff(wrist[:, :3, 3], axis=0), np.diff(long.proprio[:, :3], axis=0), atol=1e-6)
    np.testing.assert_array_equal(long.scene.intrinsics[:, -1], long.scene.intrinsics[:, 0])


def test_given_actions_are_what_happens(model):
    moving = np.tile(np.linspace(-0.8, 0.8, 32, dtype=np.float32)[:, None], (1, 4))
    clip = imagine_future(model, tiny_observation(), 3, chunks=2, actions=moving)
    np.testing.assert_array_equal(clip.actions, moving)
    assert clip.about["actions"] == "given"
    other = imagine_future(model, tiny_observation(), 3, chunks=2, actions=-moving)
    assert (clip.scene.rgb[:, 9:] != other.scene.rgb[:, 9:]).any()


def test_wrong_actions_and_chunks_are_refused(model):
    with pytest.raises(ValueError, match=r"shape \(16, 4\): 2 chunks of this model take 32 rows of 4, .'ee_delta.0'"):
        imagine_future(model, tiny_observation(), 0, chunks=2, actions=STILL)
    with pytest.raises(ValueError, match="0 chunks"):
        imagine_future(model, tiny_observation(), 0, chunks=0)


def test_what_was_imagined_is_not_cropped_again():
    """A model that sees nine tenths of an image goes on with the whole of its own frames, and at one zoom."""
    model = tiny_model(crop_ratio=0.9)
    clip = imagine_future(model, tiny_observation(), 3, chunks=2)
    np.testing.assert_allclose(clip.scene.intrinsics[:, -1], clip.scene.intrinsics[:, 0])
    assert clip.scene.intrinsics[0, 0, 0, 0] > 40 and model.transform.crop_ratio == 0.9


def test_every_step_is_told(model):
    steps = []
    imagine_future(model, tiny_observation(), 0, chunks=2, on_step=lambda step, _: steps.append(step))
    assert len(steps) == 2 * model.config.noise.video_steps


def relative_model():
    robot = tiny_config().embodiment
    cameras = tuple(camera.model_copy(update={"depth_scale": "relative"}) for camera in robot.cameras)
    return tiny_model(embodiment=robot.model_copy(update={"cameras": cameras}))


def test_relative_depth_stays_so_until_it_is_measured():
    model, seen = relative_model(), tiny_observation()
    nominal = imagine_future(model, seen, 3, chunks=2)
    assert nominal.scene.depth_scale == "relative" and nominal.alignments == {}
    truth = InverseDepthAlignment(0.5, 0.3)
    measured = truth.apply(inverse_depth(nominal.scene.depth_m[:, 0]))
    depths_m = dict(zip(nominal.scene.cameras, measured, strict=True))
    clip = imagine_future(model, replace(seen, depths_m=depths_m), 3, chunks=2)
    assert clip.scene.depth_scale == "aligned" and set(clip.alignments) == set(clip.scene.cameras)
    for fit in clip.alignments.values():
        np.testing.assert_allclose([fit.scale, fit.shift], [0.5, 0.3], rtol=1e-3)
    np.testing.assert_allclose(
        clip.scene.depth_m, truth.apply(inverse_depth(nominal.scene.depth_m)), rtol=1e-3, atol=1e-4
    )
    partly = {"left": depths_m["left"]}
    assert imagine_future(model, replace(seen, depths_m=partly), 3).scene.depth_scale == "relative"


def test_depth_that_cannot_be_aligned_says_why():
    seen = tiny_observation()
    nothing = {name: np.zeros((SIZE, SIZE), np.float32) for name in seen.images}
    clip = imagine_future(relative_model(), replace(seen, depths_m=nothing), 3)
    assert clip.scene.depth_scale == "relative"
    assert "camera 'left' cannot be aligned: only 0 pixels" in clip.about["not_aligned"]


def test_a_video_prior_has_no_actions(tmp_path):
    config = tiny_config().transformer
    prior = tiny_model(transformer=config.model_copy(update={"action_width": 0, "proprio_width": 0, "depth_blocks": 0}))
    clip = imagine_future(prior, tiny_observation(), 0, chunks=2)
    assert clip.actions is None and not clip.scene.depth_m.any()
    assert read_clip(write_clip(tmp_path / "clip", clip)).seams == (8,)


def test_a_future_survives_its_folder(long, tmp_path):
    back = read_clip(write_clip(tmp_path / "clip", long))
    assert back.seams == long.seams and back.about == long.about and back.action_names == long.action_names
    np.testing.assert_array_equal(back.scene.T_base_cam, long.scene.T_base_cam)


def test_the_error_of_foretold_wrist_poses(long):
    """A known shift and turn of the wrist camera are found; still cameras have no error to tell."""
    wrist = long.scene.cameras.index("wrist")
    turn = invert(look_at((0, 0, 0), (1, 0, 0))) @ look_at((0, 0, 0), (1, np.tan(np.radians(2.0)), 0))
    turn[:3, 3] = [0.003, 0.0, 0.004]
    poses = long.scene.T_base_cam.copy()
    poses[wrist, 1:] = poses[wrist, 1:] @ turn
    errors = wrist_pose_errors(replace(long.scene, T_base_cam=poses), long.scene)
    assert list(errors) == ["wrist"]
    np.testing.assert_allclose(errors["wrist"].position_mm, [0] + [5.0] * 24, atol=1e-6)
    np.testing.assert_allclose(errors["wrist"].angle_deg, [0] + [2.0] * 24, atol=1e-5)
    assert errors["wrist"].told().startswith("5.0 mm and 2.00 degrees on average")
    shorter = replace(long.scene, **{name: getattr(long.scene, name)[:, :9] for name in
                                     ("rgb", "depth_m", "intrinsics", "T_base_cam")})  # fmt: skip
    assert len(wrist_pose_errors(long.scene, shorter)["wrist"].position_mm) == 9
    with pytest.raises(ValueError, match="give both the same"):
        wrist_pose_errors(long.scene, replace(long.scene, period_s=0.1))


def test_only_relative_depth_is_aligned(long):
    with pytest.raises(ValueError, match="metric already"):
        align_to_measured(long.scene, long.scene.depth_m[:, 0])
    with pytest.raises(ValueError, match="measured depth has shape"):
        align_to_measured(replace(long.scene, depth_scale="relative"), long.scene.depth_m[:, 0, :8])
