"""Real episodes in robomimic's HDF5 layout, as robomimic, LIBERO and RoboCasa write it, with a model of the scene."""

import json
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from demonstrations import demonstrations
from xwam.core.cameras import invert, pose, transform
from xwam.data.episodes import Episode
from xwam.data.importers.source import Claim

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
# The robot stands somewhere in the world, turned by a quarter, with its hand turned and 9.7 cm before the grip site.
T_WORLD_BASE = pose(Rotation.from_euler("z", 90, degrees=True).as_matrix(), (-0.56, 0.1, 0.9))
HAND = Rotation.from_euler("xyz", (3.0, 0.2, -0.8))
GRIP_SITE_M = (0.0, 0.0, 0.097)
OSC_POSE = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
}

BASE_FRAME = {"type": "BASIC", "body_parts": {"right": OSC_POSE | {"input_type": "delta", "input_ref_frame": "base"}}}
# What they mean.
DELTAS = (
    Claim("delta_position", "ee_position", "delta", "base", 0.05),
    Claim("delta_rotation", "ee_orientation", "delta", "base", 0.5),
)
GRIPPER = Claim("gripper", "gripper_opening", "target", "base", -1.0)


def env_args(name: str, controllers: object, **kwargs) -> str:
    kwargs = {"robots": ["Panda"], "control_freq": 20, "reward_shaping": False} | kwargs
    described = {"env_name": name, "env_version": "1.5.1", "type": 1}
    return json.dumps(described | {"env_kwargs": kwargs | {"controller_configs": controllers}})


# ---- the scene ---------------------------------------------------------------------------------------------------


def placed(tag: str, name: str, T: np.ndarray, inner: str = "", **attributes: object) -> str:
    """An element at a pose, as MuJoCo writes it."""
    quaternion = Rotation.from_matrix(T[:3, :3]).as_quat(scalar_first=True)
    told = {"name": name, "pos": numbers(T[:3, 3]), "quat": numbers(quaternion)} | attributes
    written = " ".join(f'{key}="{value}"' for key, value in told.items())
    return f"<{tag} {written}>{inner}</{tag}>"


def numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(x)) for x in values)


def camera(name: str, T_parent_cam: np.ndarray, intrinsics: np.ndarray) -> str:
    fovy = np.rad2deg(2 * np.arctan(intrinsics[1, 2] / intrinsics[1, 1]))
    return placed("camera", name, T_parent_cam @ OPENGL, fovy=repr(float(fovy)))


def hand(robot: int, cameras: str = "", gripper: str = "gripper{}_right") -> str:
    """A jointed arm with its hand, and in it cameras and the gripper."""
    site = f'<site name="{gripper.format(robot)}_grip_site" size="0.01"/>'
    grip = placed("body", f"{gripper.format(robot)}_eef", pose(np.eye(3), GRIP_SITE_M), site)
    inner = f"{cameras}{grip}"
    return f'<body name="robot{robot}_link1"><joint name="robot{robot}_joint1"/>{named_hand(robot, inner)}</body>'


def named_hand(robot: int, inner: str) -> str:
    return f'<body name="robot{robot}_right_hand" pos="0 0 0.1">{inner}</body>'


def T_hand_cam(episode: Episode) -> np.ndarray:
    """Where the wrist camera is on the hand, whose grip site is at the recorded position."""
    T_base_grip = pose(HAND.as_matrix(), episode.proprio[0, :3].astype(np.float64))
    return pose(np.eye(3), GRIP_SITE_M) @ invert(T_base_grip) @ episode.T_base_cam["wrist"][0]


def model(episode: Episode, extra: str = "", gripper: str = "gripper{}_right") -> str:
    """The scene of a robot with a fixed base: two cameras beside it, one on its hand."""
    world = "".join(
        camera(name, T_WORLD_BASE @ episode.T_base_cam[of][0], episode.intrinsics[of][0])
        for name, of in (("agentview", "left"), ("sideview", "right"))
    )
    wrist = camera("robot0_eye_in_hand", T_hand_cam(episode), episode.intrinsics["wrist"][0])
    base = placed("body", "robot0_base", T_WORLD_BASE, hand(0, wrist, gripper))
    return f"<mujoco>{extra}<worldbody>{world}{base}</worldbody></mujoco>"


def mobile_model(episode: Episode) -> str:
    """The scene of a mobile base: joints below its support, on which the cameras are that RoboCasa then moves."""
    wrist = camera("robot0_eye_in_hand", T_hand_cam(episode), episode.intrinsics["wrist"][0])
    agent = camera("robot0_agentview_left", np.eye(4), episode.intrinsics["right"][0])
    support = f'<joint type="slide"/><site name="mobilebase0_center"/>{agent}{hand(0, wrist)}'
    support = f'<body name="mobilebase0_support" pos="0.05 0 0.2">{support}</body>'
    base = f'<body name="mobilebase0_base"><joint type="slide"/><joint/>{support}</body>'
    return f'<mujoco><worldbody><body name="robot0_base">{base}</body></worldbody></mujoco>'


def cam_configs(episode: Episode) -> dict:
    """RoboCasa's cameras: one moved from where the model has it, one that the model lacks, one of another robot."""
    configs = {"robot0_elsewhere": {"pos": [0, 0, 0], "quat": [1, 0, 0, 0], "parent_body": "robot9_head"}}
    for name, of in (("robot0_agentview_left", "left"), ("robot0_agentview_right", "right")):
        T = episode.T_base_cam[of][0] @ OPENGL
        fovy = np.rad2deg(2 * np.arctan(episode.intrinsics[of][0, 1, 2] / episode.intrinsics[of][0, 1, 1]))
        quaternion = Rotation.from_matrix(T[:3, :3]).as_quat(scalar_first=True)
        configs[name] = {"pos": T[:3, 3].tolist(), "quat": quaternion.tolist(), "parent_body": "mobilebase0_support"}
        configs[name]["camera_attribs"] = {"fovy": repr(float(fovy))}
    return configs


# ---- what is recorded --------------------------------------------------------------------------------------------


def joints(episode: Episode, count: int = 7) -> np.ndarray:
    """Angles that differ from row to row and between episodes."""
    return np.sin(0.1 * np.arange(episode.length)[:, None] + np.arange(count)) + episode.actions[0, 0]


def fingers(episode: Episode) -> np.ndarray:
    """Panda's two joints, whose difference is the opening."""
    opening = 0.08 * episode.proprio[:, 3:4]
    return np.concatenate([opening / 2, -opening / 2], axis=1)


def turning(episode: Episode) -> Rotation:
    """The hand's orientation in the base frame. It stays, as that of the hand which really held the camera."""
    return Rotation.concatenate([HAND] * episode.length)


def world_hand(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """Position and quaternion xyzw, of either sign, in the world."""
    position = transform(T_WORLD_BASE, episode.proprio[:, :3].astype(np.float64))
    quaternion = (Rotation.from_matrix(T_WORLD_BASE[:3, :3]) * turning(episode)).as_quat()
    return position, np.where(np.arange(episode.length) % 5 < 2, -1.0, 1.0)[:, None] * quaternion


def osc_actions(episode: Episode) -> np.ndarray:
    """Seven numbers: the episode's three, three of turning, its gripper's."""
    turns = 0.1 * np.cos(np.arange(episode.length)[:, None] / 7 + np.arange(3))
    return np.concatenate([episode.actions[:, :3], turns, episode.actions[:, 3:]], axis=1).astype(np.float64)


def states(episode: Episode) -> np.ndarray:
    """The simulator's: time, the robot's joints, its fingers, the velocities."""
    time = np.arange(episode.length)[:, None] / 20
    return np.concatenate([time, joints(episode), fingers(episode), np.zeros((episode.length, 9))], axis=1)


def robomimic_demo(episode: Episode) -> dict[str, np.ndarray]:
    position, quaternion = world_hand(episode)
    found = {
        "actions": osc_actions(episode),
        "states": states(episode),
        "rewards": np.zeros(episode.length),
        "dones": np.zeros(episode.length, dtype=np.int64),
        "obs/robot0_eef_pos": position,
        "obs/robot0_eef_quat": quaternion,
        "obs/robot0_gripper_qpos": fingers(episode),
        "obs/robot0_joint_pos": joints(episode),
        "obs/object": np.zeros((episode.length, 10)),
    }
    found["rewards"][-1] = 1.0
    for name, of in (("agentview", "left"), ("sideview", "right"), ("robot0_eye_in_hand", "wrist")):
        found[f"obs/{name}_image"] = episode.rgb[of]
        found[f"obs/{name}_depth"] = episode.depth_m[of][..., None]
    return found | {f"next_{key}": np.roll(values, -1, 0) for key, values in found.items() if key.startswith("obs")}


def libero_demo(episode: Episode, afterwards: bool = True) -> dict[str, np.ndarray]:
    """Rows of an action, the state before it, and what was seen after it, or, as in copies by others, before it."""
    position, quaternion = world_hand(episode)
    seen = {
        "ee_pos": position,
        "ee_ori": Rotation.from_quat(quaternion).as_rotvec(),
        "gripper_states": fingers(episode),
        "joint_states": joints(episode),
        "agentview_rgb": episode.rgb["left"][:, ::-1],
        "eye_in_hand_rgb": episode.rgb["wrist"][:, ::-1],
    }
    seen["ee_states"] = np.concatenate([seen["ee_pos"], seen["ee_ori"]], axis=1)
    taken = {"actions": osc_actions(episode), "states": states(episode), "robot_states": np.zeros((episode.length, 9))}
    if afterwards:
        taken = {key: values[:-1] for key, values in taken.items()}
        seen = {key: values[1:] for key, values in seen.items()}
    rewards = np.zeros(len(taken["actions"]), dtype=np.uint8)
    rewards[-1] = 1
    return taken | {"rewards": rewards, "dones": rewards} | {f"obs/{key}": values for key, values in seen.items()}


def robocasa_demo(episode: Episode) -> dict[str, np.ndarray]:
    base = np.arange(episode.length)[:, None] * [0.01, 0.002, 0.0]
    turned = Rotation.from_rotvec(np.arange(episode.length)[:, None] * [0.0, 0.0, 0.01])
    position = episode.proprio[:, :3].astype(np.float64)
    driven = np.tile([0.1, 0.2, 0.3, 0.0, -1.0], (episode.length, 1))
    found = {
        "actions": np.concatenate([osc_actions(episode), driven], axis=1),
        "states": states(episode),
        "rewards": np.zeros(episode.length),
        "dones": np.zeros(episode.length, dtype=np.int64),
        "obs/robot0_base_to_eef_pos": position,
        "obs/robot0_base_to_eef_quat": turning(episode).as_quat(),
        "obs/robot0_eef_pos": turned.apply(position) + base,
        "obs/robot0_eef_quat": (turned * turning(episode)).as_quat(),
        "obs/robot0_base_pos": base,
        "obs/robot0_base_quat": turned.as_quat(),
        "obs/robot0_gripper_qpos": fingers(episode),
        "obs/robot0_joint_pos": joints(episode),
    }
    cameras = {"robot0_agentview_left": "left", "robot0_agentview_right": "right", "robot0_eye_in_hand": "wrist"}
    return found | {f"obs/{name}_image": episode.rgb[of] for name, of in cameras.items()}


def write(path: Path, attributes: dict[str, str], demos: dict[str, tuple[dict, dict]]) -> Path:
    """A file of demos: by name, what each holds, and its attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update(attributes)
        for name, (content, described) in demos.items():
            demo = data.create_group(name)
            demo.attrs["num_samples"] = len(content["actions"])
            demo.attrs.update(described)
            for key, values in content.items():
                demo.create_dataset(key, data=values, compression="gzip" if "image" in key else None)
        file["mask/train"] = np.array([name.encode() for name in demos])
    return path


def write_robomimic(path: Path, controllers: object = BASE_FRAME, **kwargs) -> Path:
    """Demos 2 and 10, which lie in another order by their names than by their numbers."""
    demos = {
        f"demo_{number}": (robomimic_demo(episode), {"model_file": model(episode)})
        for number, episode in zip((2, 10), demonstrations(), strict=True)
    }
    return write(path, {"env_args": env_args("PickPlaceCan", controllers, **kwargs)}, demos)


def write_libero(path: Path, afterwards: bool = True, bare: bool = False) -> Path:
    """`bare` as copies by others are: without the attributes that LIBERO writes."""
    problem = {"problem_name": "libero_tabletop", "language_instruction": "close the drawer"}
    attributes = {
        "env_args": env_args("Libero_Tabletop", OSC_POSE | {"control_delta": True}, reward_shaping=True),
        "problem_info": json.dumps(problem),
        "bddl_file_name": "chiliocosm/bddl_files/libero_goal/close_the_drawer.bddl",
        "macros_image_convention": "opengl",
    }
    demos = {}
    for number, episode in enumerate(demonstrations()):
        described = {} if bare else {"model_file": model(episode, gripper="gripper{}")}
        demos[f"demo_{number}"] = libero_demo(episode, afterwards), described
    return write(path, {} if bare else attributes, demos)


def write_robocasa(path: Path, **kwargs) -> Path:
    demos = {}
    for number, episode in enumerate(demonstrations()):
        meta = {"layout_id": 3, "lang": f"close drawer {number}", "cam_configs": cam_configs(episode)}
        described = {"model_file": mobile_model(episode), "ep_meta": json.dumps(meta)}
        demos[f"demo_{number}"] = robocasa_demo(episode), described
    args = env_args("CloseDrawer", OSC_POSE | {"control_delta": True}, robots="PandaMobile", **kwargs)
    return write(path, {"env_args": args}, demos)
