"""Meta-World's tasks, with upright cameras, exact calibration, and its scripted experts.

The base frame is MuJoCo's world frame. Proprio is the gripper's position and opening; the gripper never turns.
Actions are the controller's own: displacement of the gripper's target (1 is `STEP_M`) and gripper effort, -1 .. 1.
"""

import ctypes.util
import os
import warnings

import numpy as np
from jaxtyping import Float, UInt8

from xwam.core.cameras import intrinsics_of_fovy, look_at
from xwam.core.embodiment import CameraSpec, Embodiment, Part, VectorSpec
from xwam.core.types import BACKGROUND, OBJECT, ROBOT, Observation
from xwam.sim.metaworld_tasks import DIFFICULTIES as DIFFICULTIES
from xwam.sim.metaworld_tasks import GROUPS as GROUPS
from xwam.sim.metaworld_tasks import INSTRUCTIONS
from xwam.sim.offscreen import OffscreenRenderer

STEP_M = 0.01
MAX_STEPS = 500
# The fixed cameras' eyes and the point that they look at, in metres: upright, a quarter turn apart, and near enough
# for a goal marker of 2 cm radius to cover some tens of pixels of 128 x 128.
FIXED_EYES = {"left": (-0.78, 0.58, 0.52), "right": (0.66, 0.18, 0.60)}
FIXED_TARGET = (0.0, 0.72, 0.15)
FIXED_FOVY_DEG = 46.0
# The wrist camera keeps its orientation, as the gripper does; relative to the gripper's position.
WRIST_EYE, WRIST_TARGET, WRIST_FOVY_DEG = (0.07, -0.18, 0.13), (0.02, 0.08, -0.03), 75.0
WRIST_MODEL_CAMERA = "gripperPOV"
FIXED_MODEL_CAMERAS = {"left": "topview", "right": "corner"}
# Outermost bodies of the model: the robot's with its pedestal, and what is in every task; all others are the task's.
ROBOT_BODY, FURNITURE = "base", ("world", "tablelink", "RetainingWall", "mocap")
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0])


def embodiment() -> Embodiment:
    """Meta-World's Sawyer, without statistics."""
    proprio = (
        Part(name="ee_position", kind="position", size=3, unit="m"),
        Part(name="gripper_opening", kind="gripper", size=1, unit="share of fully open"),
    )
    action = (
        Part(name="ee_delta", kind="delta_position", size=3, unit=f"share of {STEP_M} m"),
        Part(name="gripper_effort", kind="gripper", size=1, unit="-1 opens, 1 closes"),
    )
    fixed = tuple(CameraSpec(name=name, near_m=0.35, far_m=2.5) for name in FIXED_EYES)
    wrist = CameraSpec(
        name="wrist", near_m=0.04, far_m=1.0, mount="ee", T_ee_cam=look_at(WRIST_EYE, WRIST_TARGET).tolist()
    )
    return Embodiment(
        name="metaworld_sawyer",
        cameras=(*fixed, wrist),
        proprio=VectorSpec(parts=proprio, width=4),
        action=VectorSpec(parts=action, width=4),
        action_period_s=0.0125,
        actions_per_frame=2,
        action_low=-1.0,
        action_high=1.0,
    )


class MetaWorld:
    """One task of Meta-World; see `xwam.sim.env.Environment`."""

    max_steps = MAX_STEPS

    def __init__(self, task: str, height: int, width: int):
        _require_gl()
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP

        if task not in INSTRUCTIONS:
            raise ValueError(f"Meta-World has no task {task!r}; it has {sorted(INSTRUCTIONS)}")
        self.name = f"metaworld/{task}"
        self.embodiment = embodiment()
        self.instructions = INSTRUCTIONS[task]
        self._expert = ENV_POLICY_MAP[task]()
        self._env = ALL_V3_ENVIRONMENTS[task]()
        # The expert reads the goal from the state; policies see images only. Its bounds are cached with the goal at 0.
        self._env._partially_observable = False
        self._env.__dict__.pop("sawyer_observation_space", None)
        self._env._freeze_rand_vec = False
        # Else the initial state is drawn from numpy's global generator, whatever the seed.
        self._env.seeded_rand_vec = True
        self._env._set_task_called = True
        self._fast_rendering()
        self._place_cameras()
        self._renderer = OffscreenRenderer(self._env.model, height, width)
        self._size = (height, width)
        self._state = np.zeros(39)

    def reset(self, seed: int) -> None:
        import mujoco

        self._env.seed(seed)
        self._env.reset()
        # Meta-World moves the task's objects and goal last, so until this they are seen where they were before.
        mujoco.mj_forward(self._env.model, self._env.data)
        self._state = self._env._get_obs()

    def step(self, action: Float[np.ndarray, " 4"]) -> bool:
        if not np.all(np.isfinite(action)):
            raise ValueError(f"action {action} is not finite: it would be sent to the motors as it is")
        self._state, _, _, _, info = self._env.step(np.clip(action, -1.0, 1.0))
        return bool(info["success"])

    def observe(self, depth: bool = False) -> Observation:
        names = (*FIXED_EYES, "wrist")
        proprio = self._state[:4].astype(np.float32)
        data, draw = self._env.data, self._renderer.rgb_and_depth_m if depth else self._renderer.rgb
        drawn = {name: draw(data, self._index(name)) for name in names}
        images = {name: view[0] for name, view in drawn.items()} if depth else drawn
        depths = {name: view[1] for name, view in drawn.items()} if depth else {}
        intrinsics = {name: self._intrinsics(name) for name in names}
        poses = {name: self._pose(name) for name in names}
        return Observation(images, proprio, self.instructions[0], depths, intrinsics, poses)

    def layers(self) -> dict[str, UInt8[np.ndarray, "H W"]]:
        model = self._env.model
        kinds = {ROBOT_BODY: ROBOT} | dict.fromkeys(FURNITURE, BACKGROUND)
        outermost = [model.body(model.body_rootid[body]).name for body in model.geom_bodyid]
        # -1, no geom, finds the last entry
        of_geom = np.array([*(kinds.get(name, OBJECT) for name in outermost), BACKGROUND], np.uint8)
        names = (*FIXED_EYES, "wrist")
        return {name: of_geom[self._renderer.geoms(self._env.data, self._index(name))] for name in names}

    def expert_action(self) -> Float[np.ndarray, " 4"]:
        with warnings.catch_warnings():  # experts ask for more than 1 on purpose, and warn of it
            warnings.simplefilter("ignore")
            return np.clip(self._expert.get_action(self._state), -1.0, 1.0).astype(np.float32)

    def close(self) -> None:
        """Frees the renderer's GL context; call it before the process ends."""
        self._renderer.close()

    def _fast_rendering(self) -> None:
        """Without shadows, mirrors and multisampling, software rendering is 10 times faster."""
        model = self._env.model
        model.vis.quality.offsamples = 0
        model.light_castshadow[:] = 0
        model.mat_reflectance[:] = 0

    def _place_cameras(self) -> None:
        import mujoco

        model = self._env.model
        for name, eye in FIXED_EYES.items():
            T_world_cam, index = look_at(eye, FIXED_TARGET), self._index(name)
            model.cam_pos[index] = T_world_cam[:3, 3]
            mujoco.mju_mat2Quat(model.cam_quat[index], (T_world_cam[:3, :3] @ OPENGL_FROM_OPENCV).flatten())
            model.cam_mode[index] = mujoco.mjtCamLight.mjCAMLIGHT_FIXED
            model.cam_fovy[index] = FIXED_FOVY_DEG
        # A tracking camera follows its body's position with the world orientation and offset stored here.
        T_ee_cam, index = look_at(WRIST_EYE, WRIST_TARGET), self._index("wrist")
        model.cam_mode[index] = mujoco.mjtCamLight.mjCAMLIGHT_TRACK
        model.cam_pos0[index] = T_ee_cam[:3, 3]
        model.cam_mat0[index] = (T_ee_cam[:3, :3] @ OPENGL_FROM_OPENCV).flatten()
        model.cam_fovy[index] = WRIST_FOVY_DEG

    def _index(self, name: str) -> int:
        model_name = FIXED_MODEL_CAMERAS.get(name, WRIST_MODEL_CAMERA)
        return self._env.model.camera(model_name).id

    def _intrinsics(self, name: str) -> Float[np.ndarray, "3 3"]:
        return intrinsics_of_fovy(np.deg2rad(self._env.model.cam_fovy[self._index(name)]), *self._size)

    def _pose(self, name: str) -> Float[np.ndarray, "4 4"]:
        data, index = self._env.data, self._index(name)
        matrix = np.eye(4)
        matrix[:3, :3] = data.cam_xmat[index].reshape(3, 3) @ OPENGL_FROM_OPENCV
        matrix[:3, 3] = data.cam_xpos[index]
        return matrix


def make(task: str, height: int, width: int) -> MetaWorld:
    """`task` as Meta-World names it, such as `reach-v3`."""
    return MetaWorld(task, height, width)


def _require_gl() -> None:
    """Chooses a GL library before MuJoCo is imported, and says what is missing if there is none."""
    if "MUJOCO_GL" in os.environ:
        return
    for variable, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = variable
            os.environ.setdefault("PYOPENGL_PLATFORM", variable)
            return
    raise RuntimeError(
        "no GL library to render with: sudo apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri "
        "(or libosmesa6), then run again"
    )
