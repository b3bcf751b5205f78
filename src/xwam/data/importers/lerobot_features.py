"""What the features of a LeRobotDataset v2.1 become: which columns are state and action, which videos are cameras."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xwam.core.depth import StoredDepth
from xwam.data.importers.lerobot_media import DepthCodes, LinearDepth
from xwam.data.importers.metadata import chosen_cameras, entry
from xwam.data.importers.source import ImportSettings
from xwam.data.info import check_feature, check_fps, entry_names, is_depth, video_info
from xwam.data.layout import DatasetSpec, StoredCamera, depth_key, extrinsics_key, intrinsics_key, rgb_key

# The second name is that of datasets made for openpi.
STATE_KEYS, ACTION_KEYS = ("observation.state", "state"), ("action", "actions")
OBSERVATION = "observation."
# Numbers of rows and time, which everybody has.
BOOKKEEPING = {"timestamp", "frame_index", "episode_index", "index", "task_index"}

Features = Mapping[str, dict]


@dataclass(frozen=True)
class Contents:
    """Where an episode's parts are found: by camera the features of its images and of its depth, and the columns.

    `in_tables` are the features whose images are in tables; `remarks` tell by subject what became of the rest.
    """

    spec: DatasetSpec
    rgb: dict[str, str]
    depth: dict[str, tuple[str, DepthCodes]]
    in_tables: frozenset[str]
    proprio: tuple[str, ...]
    action: str
    shapes: dict[str, tuple[int, ...]]
    remarks: dict[str, str]

    @property
    def columns(self) -> list[str]:
        """All columns with numbers of the robot and its cameras."""
        calibrated = [camera.name for camera in self.spec.cameras if camera.calibrated]
        return [*self.proprio, self.action, *map(intrinsics_key, calibrated), *map(extrinsics_key, calibrated)]


def contents_of(info: dict, settings: ImportSettings, where: Path) -> Contents:
    """Reads the features of meta/info.json, which is at `where`; a ValueError names what cannot be used, and why."""
    features = entry(info, "features", dict, where)
    for key, feature in features.items():
        check_feature(key, feature, where)
    cameras = _cameras(features, where)
    chosen = chosen_cameras(list(cameras), settings, where)
    depth = {name: code for name in chosen if settings.depth and (code := _depth(cameras[name], features, where))}
    state, action = _first_of(STATE_KEYS, features), _first_of(ACTION_KEYS, features)
    joined = _joined(features)
    if action is None or (state is None and not joined):
        lacking = "no feature 'action'" if action is None else "no feature 'observation.state', nor one like it"
        raise ValueError(f"{where} lists {lacking}, only {', '.join(features)}: this is no recording of a robot")
    proprio = ((state,) if state else ()) + joined
    names = [*(entry_names(features[state]) if state else ()), *_joined_names(features, joined)]
    return Contents(
        spec=DatasetSpec(
            robot=str(info.get("robot_type") or "unknown"),
            fps=_fps(info, settings, where),
            cameras=tuple(_camera(name, cameras[name], depth.get(name), features, where) for name in chosen),
            proprio=distinct(names),
            action=distinct(entry_names(features[action])),
        ),
        rgb={name: cameras[name] for name in chosen},
        depth=depth,
        in_tables=frozenset(cameras[name] for name in chosen if features[cameras[name]]["dtype"] == "image"),
        proprio=proprio,
        action=action,
        shapes={key: tuple(feature["shape"]) for key, feature in features.items()},
        remarks=_remarks(features, chosen, cameras, [*proprio, action], settings, where),
    )


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, those that occur several times numbered: gripper, gripper become gripper.0, gripper.1."""
    counts: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        if names.count(name) > 1:
            number = counts.get(name, 0)
            while f"{name}.{number}" in names:
                number += 1
            counts[name] = number + 1
            name = f"{name}.{number}"
        found.append(name)
    return tuple(found)


def _first_of(keys: Sequence[str], features: Features) -> str | None:
    return next((key for key in keys if key in features and _is_vector(features[key])), None)


def _is_vector(feature: dict) -> bool:
    return feature["dtype"].startswith("float") and len(feature["shape"]) == 1


def _joined(features: Features) -> tuple[str, ...]:
    """Further observations that are vectors."""
    calibration = (intrinsics_key(""), extrinsics_key(""))
    return tuple(
        key
        for key, feature in features.items()
        if key.startswith(OBSERVATION) and key not in STATE_KEYS and _is_vector(feature)
        if not key.startswith(calibration)
    )


def _joined_names(features: Features, keys: Sequence[str]) -> list[str]:
    """Entries by the name of their feature: observation.ee_pose has ee_pose.x, ee_pose.y, ..."""
    names = []
    for key in keys:
        short, feature = key.removeprefix(OBSERVATION), features[key]
        unnamed = feature["shape"] == [1] and not feature.get("names")
        names += [short] if unnamed else [f"{short}.{name}" for name in entry_names(feature)]
    return names


def _fps(info: dict, settings: ImportSettings, where: Path) -> int:
    fps = entry(info, "fps", (int, float), where)
    check_fps(fps, where)
    if settings.fps not in (None, int(fps)):
        raise ValueError(f"{where} tells of {fps} rows a second, not {settings.fps}: omit --fps")
    return int(fps)


# ---- cameras -----------------------------------------------------------------------------------------------------


def _cameras(features: Features, where: Path) -> dict[str, str]:
    """The feature of each camera: observation.images.top, observation.image and wrist_image alike."""
    found: dict[str, str] = {}
    for key, feature in features.items():
        if feature["dtype"] in ("video", "image") and not is_depth(feature):
            name = key.removeprefix(rgb_key("")) if key.startswith(rgb_key("")) else key.rpartition(".")[2]
            if name in found:
                raise ValueError(f"{where}: features {found[name]!r} and {key!r} are both camera {name!r}: rename one")
            found[name] = key
    return found


def _camera(name: str, key: str, depth: tuple[str, DepthCodes] | None, features: Features, where: Path) -> StoredCamera:
    height, width = (side // 2 * 2 for side in _size(key, features, where))
    codes = depth[1] if depth else None
    stored = codes.stored() if isinstance(codes, LinearDepth) else codes
    calibrated = all(
        features.get(key_of(name), {}).get("shape") == [side, side]
        for key_of, side in ((intrinsics_key, 3), (extrinsics_key, 4))
    )
    return StoredCamera(name=name, height=height, width=width, depth=stored, calibrated=calibrated)


def _size(key: str, features: Features, where: Path) -> tuple[int, int]:
    """Height and width; channels may come first."""
    shape = features[key]["shape"]
    if len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3, 4):
        shape = shape[1:]
    if len(shape) not in (2, 3) or min(shape[:2]) < 2:
        raise ValueError(f"{where}: feature {key!r} has shape {shape}, which is no image: correct it")
    return shape[0], shape[1]


def _depth(key: str, features: Features, where: Path) -> tuple[str, DepthCodes] | None:
    """The depth video of a camera, and what its codes mean."""
    depth = f"{key}_depth"
    if not is_depth(features.get(depth, {})):
        return None
    info = video_info(features[depth])
    if features[depth]["dtype"] != "video" or not {"video.depth_min", "video.depth_max"} <= info.keys():
        raise ValueError(f"{where} does not tell how the depth in {depth!r} is coded: import without depth")
    coded = {"min_m": "video.depth_min", "max_m": "video.depth_max", "shift_m": "video.shift", "scale": "depth_scale"}
    linear = not info.get("video.use_log", True)
    said = {name: info[key] for name, key in coded.items() if key in info} | ({"shift_m": 1.0} if linear else {})
    try:
        codes = StoredDepth.parse(said)
    except ValueError as error:
        raise ValueError(f"{where}: {depth!r}: {error}: correct it, or import without depth") from error
    return depth, LinearDepth(codes.min_m, codes.max_m) if linear else codes


# ---- what people should know -------------------------------------------------------------------------------------


def _remarks(
    features: Features,
    chosen: Sequence[str],
    cameras: dict[str, str],
    columns: Sequence[str],
    settings: ImportSettings,
    where: Path,
) -> dict[str, str]:
    remarks = {"columns": f"the state is {', '.join(columns[:-1])}, the action {columns[-1]}"}
    odd = [name for name in chosen if any(side % 2 for side in _size(cameras[name], features, where))]
    if odd:
        remarks["images"] = f"of {', '.join(odd)} the last line or column is cut off: video needs even sides"
    depths = [key for key, feature in features.items() if feature["dtype"] in ("video", "image") and is_depth(feature)]
    paired = {depth_key(name) for name in chosen} | {f"{cameras[name]}_depth" for name in chosen}
    if lost := [key for key in depths if not settings.depth or key not in paired]:
        remarks["depth"] = f"left out: {', '.join(lost)}"
    elif depths:
        remarks["depth"] = "z in metres along the camera's axis, 0 where unknown"
    used = {*cameras.values(), *depths, *columns, *BOOKKEEPING}
    calibration = (intrinsics_key(""), extrinsics_key(""))
    if rest := [key for key in features if key not in used and not key.startswith(calibration)]:
        remarks["left out"] = ", ".join(rest)
    return remarks
