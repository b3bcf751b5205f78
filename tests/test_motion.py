"""Errors of actions by hand, in mm and degrees where the unit is one of length or angle; grippers by their names."""

import numpy as np
import pytest

from xwam.scene.motion import action_errors, gripper_poses, parts_of
from xwam.sim.metaworld import embodiment

NAMES = ("ee_delta.0", "ee_delta.1", "ee_delta.2", "turn x", "turn y", "turn z", "effort")
UNITS = ("share of 0.01 m",) * 3 + ("rad",) * 3 + ("-1 opens, 1 closes",)


def test_errors_are_by_part_and_frame_in_units_that_people_know():
    true, predicted = np.zeros((4, 7)), np.zeros((4, 7))
    predicted[0, :3] = [0.3, 0.4, 0]  # 5 mm at the first of the two actions that lead to the first frame
    predicted[2:, 4] = np.pi / 2
    predicted[3, 6] = -0.5
    found = action_errors(predicted, true, NAMES, UNITS, frames=2)
    assert list(found) == ["ee_delta, mm", "turn, deg", "effort, -1 opens, 1 closes"]
    assert found["ee_delta, mm"] == pytest.approx([2.5, 0])
    assert found["turn, deg"] == pytest.approx([0, 90])
    assert found["effort, -1 opens, 1 closes"] == pytest.approx([0, 0.25])


def test_lengths_in_metres_are_told_in_mm():
    found = action_errors(np.full((1, 1), 0.25), np.zeros((1, 1)), ["lift"], ["m"], frames=1)
    assert found == {"lift, mm": pytest.approx([250])}


@pytest.mark.parametrize(
    ("shape", "frames", "told"), [((4, 6), 2, "same robot"), ((4, 7), 3, "4 actions lead through 3 frames")]
)
def test_actions_that_do_not_fit_are_refused(shape, frames, told):
    with pytest.raises(ValueError, match=told):
        action_errors(np.zeros(shape), np.zeros(shape), NAMES, UNITS, frames)


def test_the_grippers_of_a_robot_are_found_by_its_parts():
    robot = embodiment()
    proprio = np.array([[0.1, 0.6, 0.2, 1.0], [0.1, 0.7, 0.2, 0.0]])
    found = gripper_poses(proprio, robot.proprio.column_names)
    np.testing.assert_allclose(found[0], robot.T_base_ee(proprio))
    assert gripper_poses(proprio, ("a", "b", "c", "d")).shape == (0, 2, 4, 4)


def test_two_arms_with_orientations():
    names = [
        f"{arm}_{part}.{k}"
        for arm in ("left", "right")
        for part, n in (("position", 3), ("orientation", 4))
        for k in range(n)
    ]
    row = [1, 2, 3, 1, 0, 0, 0, 4, 5, 6, np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
    left, right = gripper_poses(np.array([row]), names)[:, 0]
    np.testing.assert_allclose(left[:3, 3], [1, 2, 3])
    np.testing.assert_allclose(left[:3, :3], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(right[:3, :3] @ [1, 0, 0], [0, 1, 0], atol=1e-9)
    assert parts_of(["grip"]) == {"grip": [0]}
