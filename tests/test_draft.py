"""Robots drafted from column names: of the robots that people have, and of names that say nothing."""

import numpy as np
import pytest

from xwam.core.depth import StoredDepth
from xwam.core.embodiment_file import embodiment_text, read_embodiment
from xwam.data.importers.draft import draft_embodiment, draft_remarks, drafted_parts
from xwam.data.layout import DatasetSpec, StoredCamera

ALOHA = [
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
]
ROBOTS = {
    "SO-100": (
        "shoulder_pan.pos shoulder_lift.pos elbow_flex.pos wrist_flex.pos wrist_roll.pos gripper.pos",
        [("joints", "joint", 5), ("gripper", "gripper", 1)],
    ),
    "ALOHA": (
        " ".join(ALOHA),
        [
            ("left_joints", "joint", 6),
            ("left_gripper", "gripper", 1),
            ("right_joints", "joint", 6),
            ("right_gripper", "gripper", 1),
        ],
    ),
    "DROID": (
        "joint_0 joint_1 joint_2 joint_3 joint_4 joint_5 joint_6 gripper",
        [("joints", "joint", 7), ("gripper", "gripper", 1)],
    ),
    "Open X-Embodiment": (
        "x y z roll pitch yaw pad gripper",
        [("ee_position", "position", 3), ("ee_euler", "other", 3), ("pad", "other", 1), ("gripper", "gripper", 1)],
    ),
    "LIBERO": (
        "x y z axis_angle1 axis_angle2 axis_angle3 gripper.0 gripper.1",
        [("ee_position", "position", 3), ("ee_rotation", "rotation_vector", 3), ("gripper", "gripper", 2)],
    ),
    "LeKiwi": (
        "arm_shoulder_pan.pos arm_wrist_roll.pos arm_gripper.pos x.vel y.vel theta.vel",
        [("arm_joints", "joint", 2), ("gripper", "gripper", 1), ("velocity", "velocity", 3)],
    ),
    "two arms on a base": (
        "left_arm_joint_1 left_arm_joint_2 left_gripper right_arm_joint_1 right_arm_joint_2 base_vx base_vy base_omega",
        [
            ("left_arm_joints", "joint", 2),
            ("left_gripper", "gripper", 1),
            ("right_arm_joints", "joint", 2),
            ("base_velocity", "velocity", 3),
        ],
    ),
    "humanoid": (
        "kLeftShoulderPitch kLeftElbow kRightShoulderPitch kLeftHandThumb0 kLeftHandIndex0 head_pitch",
        [
            ("left_joints", "joint", 2),
            ("right_joints", "joint", 1),
            ("left_hand_joints", "joint", 2),
            ("head_joints", "joint", 1),
        ],
    ),
    "deltas": (
        "delta_x delta_y delta_z droll dpitch dyaw",
        [("ee_delta_position", "delta_position", 3), ("ee_delta_euler", "delta_rotation", 3)],
    ),
    "more than the state": (
        "joint_velocities.0 joint_velocities.1 eef_force.0 robot0_eef_pos.0 robot0_eef_pos.1 robot0_eef_pos.2",
        [("joint_velocity", "velocity", 2), ("force", "other", 1), ("ee_position", "position", 3)],
    ),
    "motors": ("motor_0 motor_1", [("joints", "joint", 2)]),
    "names that say nothing": ("0 1 2", [("unnamed", "other", 3)]),
    "names in no Latin letters": ("关节 夹爪", [("unnamed", "other", 2)]),
}


@pytest.mark.parametrize("robot", ROBOTS)
def test_parts_of_known_robots(robot):
    columns, wanted = ROBOTS[robot]
    parts = drafted_parts(columns.split())
    assert [(part.name, part.kind, part.size) for part in parts] == wanted


def test_every_column_is_named_once():
    for columns, _ in ROBOTS.values():
        named = [name for part in drafted_parts(columns.split()) for name in part.columns]
        assert sorted(named) == sorted(columns.split())


def test_quaternions_and_positions_are_ordered_by_name():
    parts = drafted_parts("ee_pose.z ee_pose.x ee_pose.y ee_pose.qx ee_pose.qy ee_pose.qz ee_pose.qw".split())
    assert parts[0].columns == ("ee_pose.x", "ee_pose.y", "ee_pose.z")
    assert parts[1].columns == ("ee_pose.qw", "ee_pose.qx", "ee_pose.qy", "ee_pose.qz")
    assert [part.kind for part in parts] == ["position", "quaternion"]


def test_an_order_that_no_name_tells_is_not_guessed():
    [part] = drafted_parts([f"eef_quat_{k}" for k in range(4)])
    assert part.kind == "other" and part.unit == "unknown: a rotation whose entries nobody names"


def test_units_that_names_tell_and_those_they_do_not():
    told = {
        part.name: part.unit for part in drafted_parts("left_joint_1_rad eef_pos_x_m eef_pos_y_m elbow.pos".split())
    }
    assert told["left_joints"] == "rad" and told["ee_position"] == "m"
    assert told["joints"].startswith("unknown")


def test_parts_of_one_name_are_numbered():
    parts = drafted_parts("x y z gripper x y z".split())
    assert [part.name for part in parts] == ["ee_position", "gripper", "ee_position_2"]


def spec(fps: int = 30, depth: StoredDepth | None = None) -> DatasetSpec:
    cameras = (StoredCamera(name="top", height=48, width=64, depth=depth),)
    return DatasetSpec(robot="so100", fps=fps, cameras=cameras, proprio=("joint_0", "gripper"), action=("x", "y"))


@pytest.mark.parametrize(("fps", "actions"), [(3, 1), (5, 1), (10, 2), (30, 6), (50, 10)])
def test_a_frame_is_about_a_fifth_of_a_second(fps, actions):
    robot = draft_embodiment(spec(fps))
    assert robot.actions_per_frame == actions and robot.action_period_s == 1 / fps
    assert robot.proprio.width == 2 and robot.action.size == 2


def test_a_camera_without_depth_is_relative():
    [camera] = draft_embodiment(spec()).cameras
    assert camera.depth_scale == "relative" and camera.near_m < camera.far_m


def test_a_camera_with_depth_has_its_range():
    depth = StoredDepth(min_m=0.2, max_m=6.0)
    [camera] = draft_embodiment(spec(depth=depth)).cameras
    assert (camera.near_m, camera.far_m, camera.depth_scale) == (0.2, 6.0, "metric")
    seen = {"observation.images.top_depth": {"q01": [[[0.4]]], "q99": [[[2.5]]]}}
    [camera] = draft_embodiment(spec(depth=depth), seen).cameras
    assert (camera.near_m, camera.far_m) == (0.4, 2.5)
    holes = {"observation.images.top_depth": {"q01": [[[0.0]]], "q99": [[[2.5]]]}}
    [camera] = draft_embodiment(spec(depth=depth), holes).cameras
    assert (camera.near_m, camera.far_m) == (0.2, 2.5)
    estimated = depth.model_copy(update={"scale": "relative"})
    assert draft_embodiment(spec(depth=estimated)).cameras[0].depth_scale == "relative"


def test_a_draft_survives_its_file_and_finds_its_columns(tmp_path):
    robot = draft_embodiment(spec())
    (tmp_path / "embodiment.yaml").write_text(embodiment_text(robot, tuple(draft_remarks(robot).values())))
    assert read_embodiment(tmp_path / "embodiment.yaml") == robot
    assert np.array_equal(robot.proprio.columns_in(("gripper", "joint_0")), [1, 0])


def test_remarks_name_what_to_check():
    remarks = draft_remarks(draft_embodiment(spec()))
    assert "joints" in remarks["units"] and "ee_position" in remarks["units"] and "gripper" in remarks
    assert "kinds" not in remarks
