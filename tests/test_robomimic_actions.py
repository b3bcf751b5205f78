"""What robosuite's controllers say that the actions of robomimic's recordings mean."""

import h5py
import numpy as np
import pytest

import robomimic_files as files
from demonstrations import demonstrations
from robomimic_files import BASE_FRAME, DELTAS, GRIPPER, OSC_POSE, env_args, write_robomimic
from xwam.core.cameras import pose
from xwam.data.importers.robomimic import open_source
from xwam.data.importers.source import Claim, ImportSettings

SETTINGS = ImportSettings()


def controllers(arm: dict, **more) -> dict:
    return {"type": "BASIC", "body_parts": {"right": arm | {"gripper": {"type": "GRIP"}}}} | more


POSE = ("delta_position", "delta_rotation", "gripper")
TARGETS = ("target_position", "target_rotation", "gripper")
JOINTS = OSC_POSE | {"type": "JOINT_POSITION", "output_max": 0.05, "output_min": -0.05}
CONTROLLERS = {
    "until 1.4: in the world, which lies turned": (OSC_POSE | {"control_delta": True}, 7, POSE, (GRIPPER,)),
    "since 1.5: in the base": (BASE_FRAME, 7, POSE, (*DELTAS, GRIPPER)),
    "nested arms": ({"body_parts": {"arms": BASE_FRAME["body_parts"]}}, 7, POSE, (*DELTAS, GRIPPER)),
    "one for each robot": ([BASE_FRAME], 7, POSE, (*DELTAS, GRIPPER)),
    "told to be the world's": (controllers(OSC_POSE | {"input_ref_frame": "world"}), 7, POSE, (GRIPPER,)),
    "position only": (controllers(OSC_POSE | {"type": "OSC_POSITION"}), 4, (POSE[0], POSE[2]), (DELTAS[0], GRIPPER)),
    "absolute, in the world": (OSC_POSE | {"control_delta": False}, 7, TARGETS, (GRIPPER,)),
    "absolute, in the base": (
        controllers(OSC_POSE | {"input_type": "absolute"}),
        7,
        TARGETS,
        (
            Claim("target_position", "ee_position", "target"),
            Claim("target_rotation", "ee_orientation", "target"),
            GRIPPER,
        ),
    ),
    "joints": (
        JOINTS,
        8,
        ("delta_joints", "gripper"),
        (Claim("delta_joints", "joint_position", "delta", "base", 0.05), GRIPPER),
    ),
    "another scale": (
        controllers(OSC_POSE | {"input_max": 2, "input_min": -2}),
        7,
        POSE,
        (
            Claim(*POSE[:1], "ee_position", "delta", "base", 0.025),
            Claim(POSE[1], "ee_orientation", "delta", "base", 0.25),
            GRIPPER,
        ),
    ),
    "axes of different scales": (controllers(OSC_POSE | {"output_max": [0.1] + [0.05] * 5}), 7, POSE, (GRIPPER,)),
    "unknown": ({"type": "MAGIC"}, 7, ("control",), ()),
    "variable impedance": (OSC_POSE, 19, ("delta_position", "delta_rotation", "gripper"), DELTAS[:0]),
    "nothing told": ({}, 7, ("control",), ()),
    "nonsense": ({"body_parts": {"right": 3}}, 7, ("control",), ()),
}


@pytest.mark.parametrize("case", CONTROLLERS)
def test_controllers_tell_what_actions_mean(tmp_path, case):
    config, width, names, claims = CONTROLLERS[case]
    path = write_robomimic(tmp_path / "image.hdf5", config)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            rows = len(demo["actions"])
            del demo["actions"]
            demo["actions"] = np.full((rows, width), 0.25)
    source = open_source(path, SETTINGS)
    assert tuple(part.name for part in source.embodiment.action.parts) == names
    assert source.claims == claims
    np.testing.assert_array_equal(source.episode(0).actions, 0.25)


def test_two_robots_are_right_and_left(tmp_path):
    true = demonstrations()[0]
    content = files.robomimic_demo(true)
    content |= {
        key.replace("robot0", "robot1"): values
        for key, values in content.items()
        if "robot0" in key and "im" not in key
    }
    content["actions"] = np.concatenate([content["actions"]] * 2, axis=1)
    second = files.placed("body", "robot1_base", pose(np.eye(3), (2.0, 0, 0)), files.hand(1))
    described = {"model_file": files.model(true).replace("</worldbody>", f"{second}</worldbody>")}
    attributes = {"env_args": env_args("TwoArmTransport", BASE_FRAME, robots=["Panda", "Panda"])}
    source = open_source(files.write(tmp_path / "two.hdf5", attributes, {"demo_0": (content, described)}), SETTINGS)
    episode = source.episode(0)
    for arm in ("right", "left"):  # the same states, so the same place in the first robot's frame
        np.testing.assert_allclose(
            episode.proprio[:, source.embodiment.proprio.slice(f"{arm}_ee_position")], true.proprio[:, :3], atol=1e-6
        )
    assert {camera.mount for camera in source.embodiment.cameras} == {None, "right_ee"}
    # the second robot's deltas are in its own base's frame, which is turned
    assert [claim.action for claim in source.claims] == [
        "right_delta_position",
        "right_delta_rotation",
        "right_gripper",
        "left_gripper",
    ]
    assert source.spec.robot == "robosuite_panda_panda"
