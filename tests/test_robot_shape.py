"""A robot's shape from its URDF, against what geometry says of spheres and boxes."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from world_clips import world_clip
from xwam.core.cameras import intrinsics_of_fovy, look_at, unproject
from xwam.core.types import BACKGROUND, OBJECT, ROBOT
from xwam.scene.robot_shape import RobotShape, mark_robot

# A base that looks like a box, an upright hinge with a ball on an arm of 0.4 m, two fingers of which one mimics.
URDF = """<robot name="toy">
  <link name="base"><visual><geometry><box size="0.2 0.2 0.1"/></geometry></visual></link>
  <link name="arm">
    <visual><geometry><sphere radius="0.3"/></geometry></visual>
    <collision><origin xyz="0.4 0 0.3"/><geometry>{ball}</geometry></collision>
  </link>
  <link name="left"><collision><geometry><sphere radius="0.02"/></geometry></collision></link>
  <link name="right"><collision><geometry><sphere radius="0.02"/></geometry></collision></link>
  <joint name="hinge" type="revolute"><parent link="base"/><child link="arm"/><axis xyz="0 0 1"/>
    <limit lower="-3" upper="3" effort="1" velocity="1"/></joint>
  <joint name="finger" type="prismatic"><parent link="base"/><child link="left"/><origin xyz="0 0 0.8"/>
    <axis xyz="0 1 0"/><limit lower="0" upper="1" effort="1" velocity="1"/></joint>
  <joint name="other" type="prismatic"><parent link="base"/><child link="right"/><origin xyz="0 0 0.8"/>
    <axis xyz="0 1 0"/><limit lower="-1" upper="1" effort="1" velocity="1"/>
    <mimic joint="finger" multiplier="-1"/></joint>
</robot>"""
BALL_M = 0.1
K = intrinsics_of_fovy(1.0, 96, 128)
T_BASE_CAM = look_at((1.2, -0.9, 0.8), (0.0, 0.0, 0.3))


def written(folder, ball: str = f'<sphere radius="{BALL_M}"/>') -> RobotShape:
    path = folder / "robot.urdf"
    path.write_text(URDF.format(ball=ball))
    return RobotShape(path)


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    return written(tmp_path_factory.mktemp("urdf"))


def seen(shape: RobotShape, **positions: float) -> np.ndarray:
    return shape.depth_m(positions, K, T_BASE_CAM, 96, 128)


def points(depth_m: np.ndarray) -> np.ndarray:
    lifted = unproject(np.where(np.isfinite(depth_m), depth_m, 0), K, T_BASE_CAM)
    return lifted[np.isfinite(depth_m)]


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.4])
def test_every_pixel_is_on_the_surface_of_a_link(shape, angle):
    assert shape.joints == ("hinge", "finger")
    where = points(seen(shape, hinge=angle, finger=0.3))
    ball = [0.4 * np.cos(angle), 0.4 * np.sin(angle), 0.3]
    spheres = [(ball, BALL_M), ([0, 0.3, 0.8], 0.02), ([0, -0.3, 0.8], 0.02)]
    gaps = [np.abs(np.linalg.norm(where - centre, axis=-1) - radius) for centre, radius in spheres]
    box = np.abs(np.max(np.abs(where) - [0.1, 0.1, 0.05], axis=-1))
    on = np.stack([*gaps, box]) < 1e-5
    assert on.any(axis=0).all() and (on.sum(axis=1) > 3).all()


def test_a_mesh_is_found_in_its_package(tmp_path):
    (tmp_path / "toy" / "meshes").mkdir(parents=True)
    (tmp_path / "toy" / "urdf").mkdir()
    trimesh.creation.icosphere(subdivisions=4, radius=BALL_M).export(tmp_path / "toy" / "meshes" / "ball.stl")
    ball = '<mesh filename="package://toy/meshes/ball.stl"/>'
    meshed, round_one = written(tmp_path / "toy" / "urdf", ball), written(tmp_path)
    one, other = seen(meshed, hinge=0.7), seen(round_one, hinge=0.7)
    both = np.isfinite(one) & np.isfinite(other)
    assert both.sum() > 200 and (np.isfinite(one) != np.isfinite(other)).sum() < 0.1 * both.sum()
    assert np.abs(one[both] - other[both]).max() < 0.01


def clip_of(shape: RobotShape, frames: int = 3):
    """A floor, an object, and the robot as it turns, seen by two cameras; states are its hinge and a finger."""
    clip = world_clip(frames=frames, height=96, width=128)
    scene, angles = clip.scene, np.linspace(0, 1, frames)
    poses = np.broadcast_to(T_BASE_CAM, (2, frames, 4, 4)).copy()
    intrinsics = np.broadcast_to(K, (2, frames, 3, 3)).copy()
    robot_m = np.stack([[seen(shape, hinge=angle, finger=0.1) for angle in angles]] * 2)
    depth_m = np.minimum(robot_m, 3.0).astype(np.float32)
    layers = np.where(np.arange(128) < 20, OBJECT, BACKGROUND) * np.ones(depth_m.shape, np.uint8)
    scene = replace(scene, depth_m=depth_m, intrinsics=intrinsics, T_base_cam=poses, layers=layers.astype(np.uint8))
    proprio = np.stack([angles, np.full(frames, 0.1)], axis=1).astype(np.float32)
    names = {"proprio_names": ("joint_position.0", "joint_position.1"), "proprio_units": ("rad", "m")}
    return replace(clip, scene=scene, proprio=proprio, **names), np.isfinite(robot_m)


def test_pixels_of_the_robot_are_marked_and_others_keep_their_layer(shape):
    clip, robot = clip_of(shape)
    marked = mark_robot(clip, shape, ["joint_position"]).scene.layers
    assert robot.sum() > 1000 and ((marked == ROBOT) == robot).all()
    assert (marked[~robot] == clip.scene.layers[~robot]).all()
    bare = replace(clip, scene=replace(clip.scene, layers=None))
    assert set(np.unique(mark_robot(bare, shape, ["joint_position"]).scene.layers)) == {BACKGROUND, ROBOT}


def test_what_is_before_or_behind_the_robot_is_not_it(shape):
    clip, robot = clip_of(shape)
    depth_m = clip.scene.depth_m.copy()
    depth_m[0][robot[0]] -= 0.1  # something held before it
    depth_m[1][robot[1]] = 0  # the sensor tells nothing there
    marked = mark_robot(replace(clip, scene=replace(clip.scene, depth_m=depth_m)), shape, ["joint_position"])
    assert not (marked.scene.layers[0] == ROBOT).any()
    assert ((marked.scene.layers[1] == ROBOT) == robot[1]).all()


def test_states_that_are_called_as_joints_are_found(shape):
    clip, robot = clip_of(shape)
    named = replace(clip, proprio_names=("hinge", "finger"))
    assert ((mark_robot(named, shape).scene.layers == ROBOT) == robot).all()
    with pytest.raises(
        ValueError, match="as one of the robot's joints, hinge, finger: name the parts .* joint_position"
    ):
        mark_robot(clip, shape)
    with pytest.raises(ValueError, match="no part 'arms'; they have joint_position"):
        mark_robot(clip, shape, ["arms"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<robot", "cannot be read as URDF"),
        ("<mujoco/>", "is a <mujoco>, no <robot>: expand xacro"),
        (
            URDF.format(ball='<mesh filename="package://toy/ball.stl"/>'),
            "names the mesh package://toy/ball.stl, which is not",
        ),
        (URDF.format(ball='<mesh filename="ball.dae"/>'), "convert it to one of .stl"),
        (URDF.format(ball='<mesh filename="broken.stl"/>'), "MuJoCo does not take it"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, text, told):
    (tmp_path / "ball.dae").write_text("<COLLADA/>")
    (tmp_path / "broken.stl").write_bytes(b"no mesh")
    (tmp_path / "robot.urdf").write_text(text)
    with pytest.raises(ValueError, match=told):
        RobotShape(tmp_path / "robot.urdf")
