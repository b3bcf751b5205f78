"""A robot as data: normalisation and its inverse, named parts, cameras that ride along, checks between robots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from xwam.core.cameras import look_at, pose
from xwam.core.embodiment import CameraSpec, Embodiment, Part, VectorSpec

POSITION = Part(name="ee_position", kind="position", size=3, unit="m")
ORIENTATION = Part(name="ee_orientation", kind="quaternion", size=4, unit="wxyz")
GRIPPER = Part(name="gripper", kind="gripper", size=1, unit="share")
DELTA = Part(name="delta", kind="delta_position", size=3, unit="m")
TURN = Part(name="turn", kind="delta_rotation", size=3, unit="rad")
HAND_EYE = look_at((0.05, 0, 0.1), (0.2, 0.05, -0.1))


def robot(proprio=(POSITION, ORIENTATION, GRIPPER), action=(DELTA, TURN, GRIPPER), **changes):
    wrist = CameraSpec(name="wrist", near_m=0.05, far_m=1, mount="ee", T_ee_cam=HAND_EYE.tolist())
    content = {
        "name": "toy",
        "cameras": (CameraSpec(name="front", near_m=0.3, far_m=2), wrist),
        "proprio": VectorSpec(parts=proprio, width=10),
        "action": VectorSpec(parts=action, width=8),
        "action_period_s": 0.05,
        "actions_per_frame": 4,
    }
    return Embodiment(**(content | changes))


def fitted(spec, seed=0):
    low, high = np.sort(np.random.default_rng(seed).uniform(-2, 2, (2, spec.size)), axis=0)
    return spec.fit(low, high + 0.1)


seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(seeds, st.sampled_from(["proprio", "action"]))
def test_denormalising_undoes_normalising(seed, vector):
    spec = fitted(getattr(robot(), vector), seed)
    x = np.random.default_rng(seed).uniform(-3, 3, (2, 5, spec.size))
    np.testing.assert_allclose(spec.denormalise(spec.normalise(x)), x, atol=1e-5)


@settings(deadline=None)
@given(seeds)
def test_quantiles_of_absolute_parts_become_minus_one_and_one(seed):
    low, high = np.sort(np.random.default_rng(seed).uniform(-2, 2, (2, 4)), axis=0)
    spec = VectorSpec(parts=(POSITION, GRIPPER), width=4).fit(low, high + 0.1)
    np.testing.assert_allclose(spec.normalise(np.stack([low, high + 0.1])), [[-1] * 4, [1] * 4], atol=1e-5)


def test_padding_is_zero_and_not_valid():
    spec = fitted(robot().proprio)
    assert spec.valid.tolist() == [True] * 8 + [False] * 2
    normalised = spec.normalise(np.ones((3, 8)))
    assert normalised.shape == (3, 10) and normalised.dtype == np.float32
    assert not normalised[:, 8:].any() and normalised[:, :8].all()
    normalised[:, 8:] = 7.0
    assert spec.denormalise(normalised).shape == (3, 8)


@settings(deadline=None)
@given(seeds)
def test_no_motion_is_zero_on_both_sides(seed):
    spec = fitted(robot().action, seed)
    still = spec.normalise(np.zeros(7))
    assert np.abs(still[:6]).max() < 1e-6
    assert np.abs(spec.denormalise(np.zeros(8))[:6]).max() < 1e-6


def test_the_larger_side_of_a_delta_decides_on_its_range():
    spec = VectorSpec(parts=(DELTA,), width=3).fit(np.array([-0.4, 0.1, -0.2]), np.array([0.1, 0.3, -0.1]))
    assert spec.q99 == (0.4, 0.3, 0.2)
    assert spec.q01 == (-0.4, -0.3, -0.2)


@settings(deadline=None)
@given(seeds)
def test_quaternions_stay_as_they_are(seed):
    spec = fitted(robot().proprio, seed)
    x = np.random.default_rng(seed).uniform(-1, 1, 8)
    x[3:7] = Rotation.random(rng=np.random.default_rng(seed)).as_quat(scalar_first=True)
    np.testing.assert_allclose(spec.normalise(x)[3:7], x[3:7], atol=1e-6)


def test_an_entry_that_never_moves_does_not_divide_by_zero():
    spec = VectorSpec(parts=(POSITION,), width=3).fit(np.zeros(3), np.array([0.0, 1.0, 1.0]))
    x = np.array([0.0, 0.5, 1.0])
    assert np.isfinite(spec.normalise(x)).all()
    np.testing.assert_allclose(spec.denormalise(spec.normalise(x)), x, atol=1e-6)


@pytest.mark.parametrize("verb", ["normalise", "denormalise"])
def test_missing_statistics_say_how_to_get_them(verb):
    with pytest.raises(ValueError, match="no statistics: run `xwam stats"):
        getattr(robot().action, verb)(np.zeros(7))


def test_a_vector_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="vector of 6 entries.*parts have 8"):
        fitted(robot().proprio).normalise(np.zeros(6))


def test_parts_are_found_by_name():
    spec = robot().proprio
    assert spec.slice("ee_orientation") == slice(3, 7)
    assert spec.slice("gripper") == slice(7, 8)
    with pytest.raises(ValueError, match=r"no part 'griper'.*'ee_position', 'ee_orientation', 'gripper'"):
        spec.slice("griper")


def test_parts_must_fit_the_width_and_statistics_the_parts():
    with pytest.raises(ValidationError, match="8 entries, more than width 6"):
        VectorSpec(parts=(POSITION, ORIENTATION, GRIPPER), width=6)
    with pytest.raises(ValidationError, match="q99 has 2 entries, the parts have 3"):
        VectorSpec(parts=(POSITION,), width=3, q01=(0, 0, 0), q99=(1, 1))


def test_static_cameras_stay_and_mounted_ones_turn_with_the_end_effector():
    rng = np.random.default_rng(0)
    turns, positions = Rotation.random(3, rng=rng), rng.uniform(-1, 1, (3, 3))
    proprio = np.concatenate([positions, 2 * turns.as_quat(scalar_first=True), np.zeros((3, 1))], axis=1)
    front = look_at((1, 1, 1), (0, 0, 0))
    poses = robot().camera_poses(proprio, {"front": front})
    assert poses.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(poses[0], np.stack([front] * 3))
    for frame in range(3):
        T_base_ee = pose(turns[frame].as_matrix(), positions[frame])
        np.testing.assert_allclose(poses[1, frame], T_base_ee @ HAND_EYE, atol=1e-12)


def test_without_orientation_a_mounted_camera_follows_without_turning():
    positions = np.random.default_rng(0).uniform(-1, 1, (3, 3))
    proprio = np.concatenate([positions, np.zeros((3, 1))], axis=1)
    wrist = robot(proprio=(POSITION, GRIPPER)).camera_poses(proprio, {"front": np.eye(4)})[1]
    np.testing.assert_allclose(wrist[:, :3, :3], np.stack([HAND_EYE[:3, :3]] * 3), atol=1e-12)
    np.testing.assert_allclose(wrist[:, :3, 3], positions + HAND_EYE[:3, 3], atol=1e-12)


def test_a_mounted_camera_needs_its_hand_eye_calibration():
    with pytest.raises(ValidationError, match="'wrist'.*T_ee_cam"):
        CameraSpec(name="wrist", near_m=0.05, far_m=1, mount="ee")


def test_frames_are_as_long_as_their_actions():
    assert robot().frame_period_s == pytest.approx(0.2)


def test_the_same_robot_with_other_statistics_is_the_same_robot():
    robot().check_same_robot(robot(name="twin"))
    robot().check_same_robot(robot().model_copy(update={"action": fitted(robot().action)}))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cameras": robot().cameras[:1]}, r"camera_names is \('front',\).*'front', 'wrist'.*for 'toy'"),
        ({"actions_per_frame": 2}, "actions_per_frame is 2 in the checkpoint of 'toy', 4"),
        ({"proprio": (POSITION, GRIPPER)}, r"proprio parts are .*ee_orientation"),
        ({"action": (DELTA, GRIPPER)}, r"action parts are .*turn"),
    ],
)
def test_another_robot_is_told_apart_by_what_differs(changes, message):
    with pytest.raises(ValueError, match=message):
        robot().check_same_robot(robot(**changes))


def test_parts_of_equal_names_that_differ_are_told_apart_in_the_message():
    absolute = DELTA.model_copy(update={"kind": "position"})
    with pytest.raises(ValueError, match="3 of position in m.*3 of delta_position in m"):
        robot().check_same_robot(robot(action=(absolute, TURN, GRIPPER)))


def test_json_holds_all_of_it():
    whole = robot(action_low=-1.0, action_high=1.0).model_copy(update={"proprio": fitted(robot().proprio)})
    assert Embodiment.model_validate_json(whole.model_dump_json()) == whole
    assert Embodiment.parse(whole.model_dump(mode="json")) == whole
