"""A present from files: an image a camera, the robot's state, and where the cameras are; and actions from a file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float, UInt8

from xwam.core.cameras import check_intrinsics, check_poses
from xwam.core.config import Frozen
from xwam.core.depth import check_depth
from xwam.core.embodiment import CameraSpec, Embodiment, VectorSpec
from xwam.core.embodiment_file import load_yaml
from xwam.core.pictures import read_depth_picture, read_picture
from xwam.core.types import Observation
from xwam.imagine.present import Present
from xwam.wam import WorldActionModel

# Width over height may be squeezed by a third: 4:3 to a square.
MOST_SQUEEZED = 1.34

Matrix = tuple[tuple[float, ...], ...]


class PlacedCamera(Frozen):
    """A camera of the cameras' file: the size of its images, its intrinsics in pixels, its pose in the base frame.

    The pose of one that rides on an end-effector follows from the state and may be left out.
    """

    name: str
    height: int
    width: int
    intrinsics: Matrix
    T_base_cam: Matrix | None = None


class PlacedCameras(Frozen):
    """The cameras' file, YAML or JSON."""

    cameras: tuple[PlacedCamera, ...]


def from_files(
    model: WorldActionModel,
    images: Sequence[str],
    state: Path,
    cameras: Path,
    instruction: str,
    depths: Sequence[str] = (),
) -> Present:
    """A present of one's own; `images` and `depths` are written CAMERA=FILE. Raises ValueError that names the value."""
    robot, paths = model.embodiment, _by_camera("--images", images, model.embodiment)
    if missing := [name for name in robot.camera_names if name not in paths]:
        raise ValueError(
            f"--images lacks camera {missing[0]!r}: it looks at {list(robot.camera_names)}, give CAMERA=FILE of each"
        )
    proprio = read_state(state, robot.proprio)
    placed = _parsed(cameras)
    rgb, depths_m, intrinsics, poses = {}, {}, {}, {}
    for camera in robot.cameras:
        place = placed.get(camera.name)
        if place is None:
            raise ValueError(f"{cameras} lacks camera {camera.name!r}: it has {list(placed)}")
        rgb[camera.name] = _image(paths[camera.name], place, model.config.image_size)
        intrinsics[camera.name] = _matrix(f"{cameras}: intrinsics of {camera.name!r}", place.intrinsics, 3)
        check_intrinsics(f"{cameras}, camera {camera.name!r}", intrinsics[camera.name][None], place.height, place.width)
        poses[camera.name] = _pose(cameras, place, camera, robot, proprio)
    for name, path in _by_camera("--depths", depths, robot).items():
        depths_m[name] = _depth(path, placed[name])
    observation = Observation(rgb, proprio, instruction, depths_m, intrinsics, poses)
    return Present(observation, ", ".join(path.name for path in paths.values()))


def _by_camera(option: str, files: Sequence[str], robot: Embodiment) -> dict[str, Path]:
    paths = {}
    for file in files:
        name, equals, path = file.partition("=")
        if not equals or name not in robot.camera_names:
            raise ValueError(f"{option} {file!r}: write CAMERA=FILE with a camera of {list(robot.camera_names)}")
        paths[name] = Path(path)
    return paths


def _loaded(path: Path, what: str) -> object:
    try:
        return load_yaml(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as {what} ({error}): give YAML or JSON") from error


def _parsed(path: Path) -> dict[str, PlacedCamera]:
    content = _loaded(path, "cameras")
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds no mapping: write `cameras:`, a list of name, height, width, intrinsics, T_base_cam"
        )
    try:
        cameras = PlacedCameras.parse(content).cameras
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {camera.name: camera for camera in cameras}


def read_state(path: Path, spec: VectorSpec) -> Float[np.ndarray, " D"]:
    """The robot's state: a list of all its numbers, or a list by the name of each part."""
    content, parts = _loaded(path, "a state"), {part.name: part.size for part in spec.parts}
    if isinstance(content, dict):
        if wrong := sorted(content.keys() ^ parts.keys(), key=str):
            raise ValueError(f"{path}: part {wrong[0]!r} is missing or unknown: the state's parts are {parts}")
        for name, size in parts.items():
            given = np.size(content[name])
            if given != size:
                raise ValueError(f"{path}: part {name!r} has {given} numbers: give {size}")
        content = [number for name in parts for number in np.ravel(content[name]).tolist()]
    try:
        state = np.array(content, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no list of numbers ({error}): give those of {parts}") from error
    if state.shape != (spec.size,) or not np.isfinite(state).all():
        raise ValueError(f"{path}: the state is {state.tolist()}: give {spec.size} finite numbers, those of {parts}")
    return state


def _image(path: Path, place: PlacedCamera, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    image = read_picture(path)
    _check_size(path, image.shape[:2], place)
    squeezed = (place.width / place.height) / (size[1] / size[0])
    if not 1 / MOST_SQUEEZED <= squeezed <= MOST_SQUEEZED:
        raise ValueError(
            f"{path} is {place.height} x {place.width}, the model sees {size[0]} x {size[1]}: crop the image, and its "
            "intrinsics, to about that shape"
        )
    return image


def _check_size(path: Path, size: tuple[int, int], place: PlacedCamera) -> None:
    if size != (place.height, place.width):
        raise ValueError(
            f"{path} is {size[0]} x {size[1]}, its camera {place.name!r} has {place.height} x {place.width}: "
            "intrinsics belong to a size; correct the one or the other"
        )


def _matrix(what: str, rows: Matrix, side: int) -> Float[np.ndarray, "n n"]:
    if len(rows) != side or any(len(row) != side for row in rows):
        raise ValueError(f"{what} is no {side} x {side} matrix: give {side} rows of {side} numbers")
    return np.array(rows, np.float64)


def _pose(
    path: Path, place: PlacedCamera, camera: CameraSpec, robot: Embodiment, proprio: Float[np.ndarray, " D"]
) -> Float[np.ndarray, "4 4"]:
    if place.T_base_cam is None:
        if camera.mount is None:
            raise ValueError(f"{path}: camera {camera.name!r} stands still and has no T_base_cam: give its pose")
        return robot.T_base_ee(proprio, camera.mount) @ np.array(camera.T_ee_cam)
    pose = _matrix(f"{path}: T_base_cam of {camera.name!r}", place.T_base_cam, 4)
    check_poses(f"{path}, T_base_cam of {camera.name!r}", pose[None])
    return pose


def _depth(path: Path, place: PlacedCamera) -> Float[np.ndarray, "H W"]:
    """Measured depth in metres: an array (.npy), or a 16-bit grey PNG in millimetres."""
    if path.suffix == ".npy":
        depth_m = _array(path)
    else:
        depth_m = read_depth_picture(path)
    _check_size(path, depth_m.shape[:2], place)
    check_depth(str(path), depth_m[None])
    return depth_m.astype(np.float32)


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array ({error}): save it with numpy.save") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds no table of numbers: save a single array of two axes with numpy.save")
    return array


def read_actions(path: Path, spec: VectorSpec) -> Float[np.ndarray, "A D"]:
    """A row an action, in physical units, from .npy or from .csv; a first line of names is checked and passed over."""
    rows = _array(path) if path.suffix == ".npy" else _table(path, spec)
    if rows.shape[1] != spec.size or not np.isfinite(rows).all():
        raise ValueError(
            f"{path} has rows of {rows.shape[1]} numbers{'' if np.isfinite(rows).all() else ', some not finite'}: "
            f"an action is {spec.size} finite ones, {list(spec.column_names)}"
        )
    return rows.astype(np.float32)


def _table(path: Path, spec: VectorSpec) -> Float[np.ndarray, "A D"]:
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): give .npy or .csv") from error
    cells = [[cell.strip() for cell in line.split(",")] for line in lines]
    if cells and cells[0] == list(spec.column_names):
        cells = cells[1:]
    try:
        return np.array([[float(cell) for cell in row] for row in cells], np.float64).reshape(len(cells), -1)
    except ValueError as error:
        told = f"{error}; the first line may name the columns {list(spec.column_names)}, all others are numbers"
        raise ValueError(f"{path} is no table of numbers ({told})") from error
