"""A robot's shape by its URDF: how far from a camera it is at every pixel, and so which pixels show it.

MuJoCo places the links and casts a ray through every pixel, so that any camera will do, and nothing is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Float

from xwam.core.cameras import pixel_grid
from xwam.core.types import BACKGROUND, ROBOT, WorldClip
from xwam.scene.motion import parts_of

MARGIN_M = 0.03
"""How far a pixel's depth may be from the robot's surface and still show it: what depth and calibration err by."""
FARTHEST_M = 100.0
MOVING = ("revolute", "continuous", "prismatic")
MESHES = (".stl", ".obj", ".msh")
# Every link has some weight, for MuJoCo to take it; nothing here falls.
INERTIA = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'


class RobotShape:
    """The links of a URDF, each as its collision geometry, or where it has none as it looks.

    `joints` are those that move and mimic no other, in the file's order. Raises ValueError if the file or a mesh cannot
    be read, ImportError without MuJoCo.
    """

    def __init__(self, urdf: Path):
        try:
            import mujoco
        except ImportError as error:
            raise ImportError("a robot's shape needs MuJoCo: pip install 'xwam[urdf]'") from error
        try:
            root = ElementTree.fromstring(urdf.read_bytes())
        except (OSError, ElementTree.ParseError) as error:
            raise ValueError(f"{urdf} cannot be read as URDF: {error}") from error
        if root.tag != "robot":
            raise ValueError(f"{urdf} is a <{root.tag}>, no <robot>: expand xacro files first, `xacro IN > robot.urdf`")
        moving = [joint for joint in root.findall("joint") if joint.get("type") in MOVING]
        self.joints = tuple(joint.get("name") for joint in moving if joint.find("mimic") is None)
        self._mimics = {joint.get("name"): joint.find("mimic") for joint in moving if joint.find("mimic") is not None}
        meshes = _prepare(root, urdf)
        try:
            self._model = mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"), meshes)
        except ValueError as error:
            raise ValueError(f"{urdf}: MuJoCo does not take it: {error}") from error
        self._mujoco, self._data = mujoco, mujoco.MjData(self._model)

    def depth_m(
        self,
        positions: Mapping[str, float],
        intrinsics: Float[np.ndarray, "3 3"],
        T_base_cam: Float[np.ndarray, "4 4"],
        height: int,
        width: int,
    ) -> Float[np.ndarray, "H W"]:
        """Depth of the robot's surface, infinite where a pixel's ray misses it.

        `positions` are of its joints, in radians or metres; others are at 0. The base frame is that of the root link.
        """
        for name, position in (*positions.items(), *self._mimicked(positions)):
            self._data.qpos[self._model.joint(name).qposadr] = position
        self._mujoco.mj_kinematics(self._model, self._data)
        rays = np.ones((height, width, 3))
        rays[..., :2] = (pixel_grid(height, width) - intrinsics[:2, 2]) / intrinsics[[0, 1], [0, 1]]
        rays = (rays @ T_base_cam[:3, :3].T).reshape(-1)
        distance, geom = np.zeros(height * width), np.zeros(height * width, np.int32)
        eye = np.ascontiguousarray(T_base_cam[:3, 3], np.float64)
        nowhere, everything = -1, 1
        self._mujoco.mj_multiRay(
            self._model, self._data, eye, rays, None, everything, nowhere, geom, distance, len(distance), FARTHEST_M
        )
        return np.where(geom >= 0, distance, np.inf).reshape(height, width)  # rays have depth 1 per unit of length

    def _mimicked(self, positions: Mapping[str, float]) -> list[tuple[str, float]]:
        return [
            (
                name,
                float(told.get("multiplier", 1)) * positions.get(told.get("joint"), 0.0) + float(told.get("offset", 0)),
            )
            for name, told in self._mimics.items()
        ]


def mark_robot(clip: WorldClip, shape: RobotShape, parts: Sequence[str] = (), margin_m: float = MARGIN_M) -> WorldClip:
    """The clip with `ROBOT` in its layers where a pixel's depth is the robot's, or unknown where the robot is.

    What was an object or background before stays so; without layers all else is background. `parts` are those of the
    clip's proprio whose entries are the positions of the first joints, in order; without them, entries are found by the
    joints' names. Raises ValueError if there are none.
    """
    positions = _positions(clip, shape, parts)
    scene = clip.scene
    layers = np.full(scene.depth_m.shape, BACKGROUND, np.uint8) if scene.layers is None else scene.layers.copy()
    for view, frame in np.ndindex(*scene.depth_m.shape[:2]):
        camera = scene.intrinsics[view, frame], scene.T_base_cam[view, frame]
        robot_m, seen_m = shape.depth_m(positions[frame], *camera, *scene.depth_m.shape[2:]), scene.depth_m[view, frame]
        shows = np.isfinite(robot_m) & ((seen_m == 0) | (np.abs(seen_m - robot_m) <= margin_m))
        layers[view, frame][shows] = ROBOT
    return replace(clip, scene=replace(scene, layers=layers))


def _positions(clip: WorldClip, shape: RobotShape, parts: Sequence[str]) -> list[dict[str, float]]:
    """Of the joints at each frame, as far as the clip knows them."""
    known = parts_of(clip.proprio_names)
    if missing := [part for part in parts if part not in known]:
        raise ValueError(f"the clip's states have no part {missing[0]!r}; they have {', '.join(known) or 'none'}")
    if parts:
        entries = [entry for part in parts for entry in known[part]]
        if len(entries) > len(shape.joints):
            raise ValueError(f"{len(entries)} entries of {', '.join(parts)} for the joints {', '.join(shape.joints)}")
        columns = dict(zip(shape.joints, entries, strict=False))
    else:
        columns = {name: clip.proprio_names.index(name) for name in shape.joints if name in clip.proprio_names}
    if clip.proprio is None or not columns:
        raise ValueError(
            f"no state of the clip is called as one of the robot's joints, {', '.join(shape.joints) or 'none'}: "
            f"name the parts that hold their positions, of {', '.join(known) or 'none'}"
        )
    return [{joint: float(row[column]) for joint, column in columns.items()} for row in clip.proprio]


def _prepare(root: Element, urdf: Path) -> dict[str, bytes]:
    """Leaves to each link one kind of geometry and some weight, gives meshes plain names, and returns their content."""
    meshes: dict[str, bytes] = {}
    for link in root.findall("link"):
        unused = "visual" if link.find("collision") is not None else "collision"
        for part in (*link.findall(unused), *link.findall("inertial")):
            link.remove(part)
        for looks in link.findall("visual"):
            looks.tag = "collision"
        link.append(ElementTree.fromstring(INERTIA))
        for mesh in link.iter("mesh"):
            path = _located(mesh.get("filename", ""), urdf)
            name = f"mesh-{len(meshes)}{path.suffix.lower()}"
            meshes[name] = path.read_bytes()
            mesh.set("filename", name)
    return meshes


def _located(name: str, urdf: Path) -> Path:
    """A mesh's file; `package://NAME/...` is looked for beside the URDF and in the folders above it."""
    if name.startswith("package://"):
        package, _, inside = name.removeprefix("package://").partition("/")
        above = urdf.resolve().parents
        places = [folder / package / inside for folder in above] + [f / inside for f in above if f.name == package]
    else:
        places = [urdf.parent / name.removeprefix("file://")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ValueError(f"{urdf} names the mesh {name}, which is not there: put the description's folder beside it")
    if found.suffix.lower() not in MESHES:
        raise ValueError(f"{found} is no mesh that MuJoCo reads: convert it to one of {', '.join(MESHES)}")
    return found
