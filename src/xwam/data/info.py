"""meta/info.json and the features that it lists, to and from what a dataset holds."""

import re
from pathlib import Path, PurePosixPath
from string import Formatter

from xwam.core.depth import StoredDepth
from xwam.core.embodiment import Embodiment
from xwam.core.embodiment_file import read_embodiment
from xwam.core.files import read_json
from xwam.data.layout import (
    DATA_PATH,
    EMBODIMENT_PATH,
    FILES_PER_CHUNK,
    INFO_PATH,
    VERSION,
    VIDEO_PATH,
    DatasetSpec,
    StoredCamera,
    depth_key,
    extrinsics_key,
    intrinsics_key,
    rgb_key,
)

FASTEST_FPS = 10_000
FEATURE_PARTS = {"dtype": str, "shape": list}
OPTIONAL_PARTS = {"names": list | dict | None, "info": dict | None, "video_info": dict | None}
LARGEST_SIDE = 1 << 14
NUMBER_FORMAT = re.compile(r"(0?\d)?d?")


def features(spec: DatasetSpec) -> dict[str, dict]:
    """Name, type and shape of every column and video."""
    found = {}
    for camera in spec.cameras:
        found[rgb_key(camera.name)] = _video_feature(camera, spec.fps)
        if camera.depth:
            found[depth_key(camera.name)] = depth_feature(camera, spec.fps)
    found["observation.state"] = _vector_feature(spec.proprio)
    found["action"] = _vector_feature(spec.action)
    for camera in spec.cameras:
        if camera.calibrated:
            found[intrinsics_key(camera.name)] = {"dtype": "float32", "shape": [3, 3], "names": None}
            found[extrinsics_key(camera.name)] = {"dtype": "float32", "shape": [4, 4], "names": None}
    found["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        found[name] = {"dtype": "int64", "shape": [1], "names": None}
    return found


def info_of(spec: DatasetSpec, episodes: int, frames: int, tasks: int) -> dict:
    """Content of meta/info.json."""
    return {
        "codebase_version": VERSION,
        "robot_type": spec.robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": spec.fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": features(spec),
    }


def load_info(root: Path) -> dict:
    """meta/info.json of a dataset that this package can read, or a ValueError that says why it cannot."""
    path = root / INFO_PATH
    if not path.exists():
        raise ValueError(f"no dataset in {root}: {INFO_PATH} is missing; give a dataset's folder, or finalise it first")
    info = read_json(path)
    if info.get("storage_format", "parquet") == "lance":
        raise ValueError(f"{path}: storage_format 'lance' cannot be read; convert the dataset to parquet and mp4 files")
    if info.get("codebase_version") != VERSION:
        raise ValueError(
            f"{path}: codebase_version {info.get('codebase_version')!r}, only {VERSION!r} can be read: "
            "convert the dataset with LeRobot's own converter"
        )
    missing = [key for key in ("fps", "features", "total_episodes", "data_path", "video_path") if key not in info]
    missing += [key for key in ("observation.state", "action") if key not in info.get("features", {})]
    if missing:
        raise ValueError(f"{path} lacks {missing}, so it is no whole {VERSION} dataset of a robot: complete it")
    _check_features(info, path)
    if images := [key for key, feature in info["features"].items() if feature["dtype"] == "image"]:
        raise ValueError(
            f"{path}: {images} are images in tables, only videos can be read: "
            "convert the dataset with `lerobot-edit-dataset --operation.type convert_image_to_video`"
        )
    path_template(info, "data_path", ("chunk_index", "file_index"), path)
    path_template(info, "video_path", ("chunk_index", "file_index", "video_key"), path)
    try:
        spec_of(info)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return info


def _check_features(info: dict, where: Path) -> None:
    if not isinstance(info["features"], dict):
        raise ValueError(f"{where}: features are no JSON object: correct them")
    for key, feature in info["features"].items():
        check_feature(key, feature, where)
    check_fps(info["fps"], where)


def check_feature(key: str, feature: object, where: Path) -> None:
    """Names become parts of paths, so they must not lead anywhere."""
    if "/" in key or "\\" in key or ".." in key or "\0" in key or not key:
        raise ValueError(f"{where}: feature {key!r}: rename it without '/' and '..'")
    if not isinstance(feature, dict) or not all(isinstance(feature.get(k), v) for k, v in FEATURE_PARTS.items()):
        raise ValueError(f"{where}: feature {key!r} needs a dtype and a shape: complete it")
    if wrong := [name for name, kind in OPTIONAL_PARTS.items() if not isinstance(feature.get(name), kind)]:
        raise ValueError(f"{where}: feature {key!r} has {wrong[0]} {feature[wrong[0]]!r}: correct or remove that")
    # bool is an int to Python
    if not feature["shape"] or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in feature["shape"]):
        raise ValueError(f"{where}: feature {key!r} has shape {feature['shape']}: correct it")


def check_fps(fps: object, where: Path) -> None:
    """Raises unless it is a whole number of rows a second."""
    if not isinstance(fps, int | float) or not 1 <= fps <= FASTEST_FPS or fps != int(fps):
        raise ValueError(f"{where}: fps is {fps!r}, needs a whole number of rows a second: correct it")


def path_template(info: dict, name: str, fields: tuple[str, ...], where: Path) -> str:
    """A path below the dataset's folder, to be filled in with these fields; the first, the chunk, may be left out."""
    template = info.get(name)
    try:
        found = [(field, form, conversion) for _, field, form, conversion in Formatter().parse(template) if field]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {name} {template!r} is no template ({error}): correct it") from error
    plain = all(NUMBER_FORMAT.fullmatch(form) and conversion is None for _, form, conversion in found)
    filled = {field for field, _, _ in found}
    path = PurePosixPath(template)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in template or ":" in path.parts[0]:
        raise ValueError(f"{where}: {name} {template!r} leads out of the dataset: name a place below its folder")
    if not plain or not set(fields[1:]) <= filled <= set(fields):
        raise ValueError(f"{where}: {name} {template!r}: build it from {', '.join(f'{{{f}}}' for f in fields)}")
    return template


def spec_of(info: dict) -> DatasetSpec:
    """What the dataset of this info.json holds."""
    listed = info["features"]
    prefix = rgb_key("")
    cameras = [
        _stored_camera(key.removeprefix(prefix), listed)
        for key, feature in listed.items()
        if feature["dtype"] == "video" and key.startswith(prefix) and not is_depth(feature)
    ]
    about = {"robot": str(info.get("robot_type") or "unknown"), "fps": info["fps"], "cameras": tuple(cameras)}
    vectors = {"proprio": entry_names(listed["observation.state"]), "action": entry_names(listed["action"])}
    return DatasetSpec.parse(about | vectors)


def described_robot(root: Path, spec: DatasetSpec) -> Embodiment | None:
    """The robot of meta/embodiment.yaml, if there is that file; a ValueError names it if its robot is another."""
    path = root / EMBODIMENT_PATH
    if not path.exists():
        return None
    robot = read_embodiment(path)
    try:
        spec.check_robot(robot)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return robot


def _vector_feature(names: tuple[str, ...]) -> dict:
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def _video_feature(camera: StoredCamera, fps: int) -> dict:
    shape = [camera.height, camera.width, 3]
    info = _stream_info(shape, fps, "h264", "yuv420p") | {"is_depth_map": False}
    return {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"], "info": info}


def depth_feature(camera: StoredCamera, fps: int) -> dict:
    """The entry of a camera's depth video, with all that is needed to decode it."""
    shape, depth = [camera.height, camera.width, 1], camera.depth
    coding = {
        "is_depth_map": True,
        "depth_unit": "m",
        "depth_scale": depth.scale,
        "video.depth_min": depth.min_m,
        "video.depth_max": depth.max_m,
        "video.shift": depth.shift_m,
        "video.use_log": True,
    }
    info = _stream_info(shape, fps, "hevc", "gray12le") | coding
    return {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"], "info": info}


def _stream_info(shape: list[int], fps: int, codec: str, pixels: str) -> dict:
    return {
        "video.height": shape[0],
        "video.width": shape[1],
        "video.channels": shape[2],
        "video.codec": codec,
        "video.pix_fmt": pixels,
        "video.fps": fps,
        "has_audio": False,
    }


def video_info(feature: dict) -> dict:
    """What is said of a video's stream; version 2.0 had another name for it."""
    return feature.get("info") or feature.get("video_info") or {}


def is_depth(feature: dict) -> bool:
    info = video_info(feature)
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def _stored_camera(name: str, listed: dict) -> StoredCamera:
    height, width = _size(listed, rgb_key(name))
    depth, depth_feature = None, listed.get(depth_key(name), {})
    if is_depth(depth_feature):  # others record pictures of depth under such names
        info = video_info(depth_feature)
        if not info.get("video.use_log", True):
            raise ValueError(f"depth of camera {name!r} is coded linearly; only logarithmic depth can be read")
        depth = _stored_depth(info, name)
    calibrated = intrinsics_key(name) in listed and extrinsics_key(name) in listed
    about = {"name": name, "height": height, "width": width, "depth": depth, "calibrated": calibrated}
    return StoredCamera.parse(about)


def _stored_depth(info: dict, camera: str) -> StoredDepth:
    if missing := sorted({"video.depth_min", "video.depth_max"} - info.keys()):
        raise ValueError(f"depth of camera {camera!r} lacks {missing}: add them, or leave the depth out")
    coded = {"min_m": "video.depth_min", "max_m": "video.depth_max", "shift_m": "video.shift", "scale": "depth_scale"}
    try:
        return StoredDepth.parse({name: info[key] for name, key in coded.items() if key in info})
    except ValueError as error:
        raise ValueError(f"depth of camera {camera!r}: {error}") from error


def _size(listed: dict, key: str) -> tuple[int, int]:
    """Height and width of an image; its names tell whether the channels come first, as other writers have them."""
    feature = listed[key]
    channels_first = str(next(iter(feature.get("names") or ()), "")).startswith("channel")
    size = feature["shape"][1:] if channels_first else feature["shape"][:2]
    if len(size) != 2:
        raise ValueError(f"feature {key!r} has shape {feature['shape']}: correct it to height, width, channels")
    return size[0], size[1]


def entry_names(feature: dict) -> tuple[str, ...]:
    """Names of a vector's entries, which other writers leave out or group in a dict."""
    names = feature.get("names")
    if isinstance(names, dict):
        grouped = all(isinstance(group, list) for group in names.values())
        names = [name for group in names.values() for name in group] if grouped else list(names)
    size = feature["shape"][0]
    return tuple(str(name) for name in names) if names and len(names) == size else tuple(str(k) for k in range(size))
