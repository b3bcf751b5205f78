"""LeRobotDataset v2.1 of other writers: every row and frame as it was written, and damage told, not guessed at."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foreign_lerobot import (
    EPISODES,
    JOINTS,
    arm,
    image_feature,
    openpi,
    pictures,
    vector_feature,
    vectors,
    write,
    write_v21,
    write_video,
)
from xwam.core.embodiment_file import embodiment_text
from xwam.core.pictures import jpeg
from xwam.core.video import VideoWriter
from xwam.data.episodes import EpisodeStore
from xwam.data.importers import lerobot_v21, lerobot_v30
from xwam.data.importers.convert import import_dataset
from xwam.data.importers.lerobot_features import distinct
from xwam.data.importers.lerobot_media import LinearDepth
from xwam.data.importers.lerobot_v21 import open_source
from xwam.data.importers.registry import recognise
from xwam.data.importers.source import ImportSettings, Source

TOP = "observation.images.top"
VIDEO = f"videos/chunk-000/{TOP}/episode_000000.mp4"
TABLE = "data/chunk-000/episode_000000.parquet"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    return arm(tmp_path_factory.mktemp("foreign") / "cups")


@pytest.fixture
def copy(recorded, tmp_path) -> Path:
    return shutil.copytree(recorded, tmp_path / "cups")


def opened(root: Path, **settings) -> Source:
    return open_source(root, ImportSettings(**settings))


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def assert_same_frames(read: np.ndarray, wrote: np.ndarray, least_db: float) -> None:
    """Each frame like the one that was written, and unlike its neighbours."""
    assert psnr_db(read, wrote) > least_db
    for k in range(len(wrote)):
        errors = ((wrote.astype(float) - read[k]) ** 2).mean((1, 2, 3))
        assert np.argmin(errors) == k


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_frames_of_every_codec_are_those_of_their_rows(tmp_path, codec):
    source = opened(arm(tmp_path, codec))
    for k, wrote in enumerate(EPISODES):
        read = source.episode(k)
        read.check(source.spec)
        assert_same_frames(read.rgb["top"], wrote.rgb["front"], 33)
        assert np.array_equal(read.proprio, wrote.proprio) and np.array_equal(read.actions, wrote.actions)


def test_what_is_known_before_anything_is_read(recorded):
    assert recognise(recorded) is lerobot_v21 and not lerobot_v30.recognises(recorded)
    source = opened(recorded)
    assert len(source) == 2 and source.spec.fps == 20 and source.spec.proprio == tuple(JOINTS)
    assert source.label(1) == "data/chunk-000/episode_000001.parquet"
    assert source.embodiment.name == "so100" and source.embodiment.camera_names == ("top",)
    assert [(claim.action, claim.meaning) for claim in source.claims] == [("joints", "target"), ("gripper", "target")]
    assert "joints" in source.assumptions["units"]


def test_an_import_makes_a_dataset_of_it(recorded, tmp_path):
    report = import_dataset(recorded, tmp_path / "dest", ImportSettings(), workers=1)
    store = EpisodeStore(tmp_path / "dest")
    assert report.format == "lerobot_v21" and report.episodes == len(store) == 2
    read, wrote = store.read_all(1), EPISODES[1]
    assert np.array_equal(read.actions, wrote.actions) and read.instructions == ("stack the cups",)
    assert_same_frames(read.rgb["top"], wrote.rgb["front"], 33)
    assert store.embodiment().proprio.column_names == tuple(JOINTS)


@pytest.mark.parametrize("encode", ["png", "jpeg"])
def test_images_in_tables_and_names_of_openpi(tmp_path, encode):
    source = opened(openpi(tmp_path, jpeg) if encode == "jpeg" else openpi(tmp_path))
    assert source.spec.proprio == ("x", "y", "gripper.0", "gripper.1") and source.spec.action == ("0", "1", "2", "3")
    assert [(c.name, c.height, c.width) for c in source.spec.cameras] == [("image", 46, 62), ("wrist_image", 46, 62)]
    assert "image, wrist_image" in source.assumptions["images"] and "cut off" in source.assumptions["images"]
    read = source.episode(0)
    read.check(source.spec)
    wrote = EPISODES[0].rgb["wrist"][:, :46, :62]
    if encode == "png":
        assert np.array_equal(read.rgb["wrist_image"], wrote)
    else:
        assert psnr_db(read.rgb["wrist_image"], wrote) > 35
    assert np.array_equal(read.actions, EPISODES[0].actions)


def test_odd_videos_lose_their_last_line_and_column(tmp_path):
    frames = [np.ascontiguousarray(episode.rgb["front"][:, :47, :63]) for episode in EPISODES]
    features = {"observation.state": vector_feature(4), "action": vector_feature(4)}
    features["observation.image"] = {"dtype": "video", "shape": [3, 47, 63], "names": ["channel", "height", "width"]}
    columns = [vectors(episode) for episode in EPISODES]
    root = write_v21(tmp_path, features, columns, {"observation.image": frames}, "av1")
    [camera] = opened(root).spec.cameras
    assert (camera.name, camera.height, camera.width) == ("image", 46, 62)
    assert psnr_db(opened(root).episode(0).rgb["image"], frames[0][:, :46, :62]) > 30


def test_further_observations_join_the_state(tmp_path):
    episodes, rng = EPISODES, np.random.default_rng(0)
    features = {
        "observation.joint_velocities": vector_feature(2),
        "observation.state": vector_feature(4, JOINTS),
        "observation.ee_pose": vector_feature(3, {"axes": ["x", "y", "z"]}),
        "observation.weight": vector_feature(1),
        "observation.tags": {"dtype": "int64", "shape": [2], "names": None},
        "observation.intrinsics.other": {"dtype": "float32", "shape": [9], "names": None},
        "action": vector_feature(4),
        "next.reward": vector_feature(1),
        TOP: image_feature(48, 64, "image"),
    }
    extra = [{k: rng.normal(size=(e.length, f["shape"][0])) for k, f in features.items() if k != TOP} for e in episodes]
    columns = [found | vectors(e) | {TOP: pictures(e.rgb["front"])} for found, e in zip(extra, episodes, strict=True)]
    columns = [found | {"observation.weight": found["observation.weight"][:, 0]} for found in columns]
    source = opened(write_v21(tmp_path, features, columns, {}))
    wanted = [*JOINTS, "joint_velocities.0", "joint_velocities.1", "ee_pose.x", "ee_pose.y", "ee_pose.z", "weight"]
    assert source.spec.proprio == tuple(wanted)
    assert source.assumptions["left out"] == "observation.tags, next.reward"
    assert "observation.joint_velocities" in source.assumptions["columns"]
    read = source.episode(1).proprio
    assert np.array_equal(read[:, :4], episodes[1].proprio)
    for at, key in ((slice(4, 6), "observation.joint_velocities"), (slice(6, 9), "observation.ee_pose")):
        assert np.array_equal(read[:, at], extra[1][key].astype(np.float32))
    assert np.array_equal(read[:, 9], extra[1]["observation.weight"][:, 0].astype(np.float32))


def test_an_episode_may_change_its_task(copy):
    edit_table(copy, "task_index", lambda rows: [1] * 10 + [0] * 14)
    assert opened(copy).episode(0).instructions == ("clear", "stack the cups")
    assert opened(copy).episode(1).instructions == ("stack the cups",)


def test_an_instruction_that_is_missing_is_given(copy):
    write(copy / "meta/tasks.jsonl", [{"task_index": 0, "task": " "}])
    write(copy / "meta/episodes.jsonl", [{"episode_index": k, "length": n} for k, n in ((0, 24), (1, 17))])
    with pytest.raises(ValueError, match="episode_000000.parquet has no instruction: give one with --instruction"):
        opened(copy).episode(0)
    assert opened(copy, instruction="stack").episode(0).instructions == ("stack",)


def test_cameras_are_chosen(tmp_path):
    root = openpi(tmp_path)
    assert list(opened(root, cameras=("wrist_image",)).episode(0).rgb) == ["wrist_image"]
    with pytest.raises(ValueError, match=r"has no cameras \['side'\]"):
        opened(root, cameras=("side",))


def test_depth_in_even_steps(tmp_path):
    coding = LinearDepth(0.0, 4.095)
    codes = (EPISODES[0].depth_m["front"] / 1e-3).astype(np.uint16)
    root = arm(tmp_path)
    info = {"is_depth_map": True, "video.depth_min": 0.0, "video.depth_max": 4.095, "video.use_log": False}
    add_depth(root, info, [write_codes(codes), None])
    source = opened(root)
    read = source.episode(0)
    assert np.array_equal(read.depth_m["top"], coding.decode(codes))
    assert np.abs(coding.decode(codes) - codes * 1e-3).max() < 1e-6
    [camera] = source.spec.cameras
    stored = camera.depth.decode(camera.depth.encode(read.depth_m["top"]))
    assert np.abs(stored - read.depth_m["top"]).max() < 0.6e-3
    assert opened(root, depth=False).spec.cameras[0].depth is None


def write_codes(codes: np.ndarray):
    """Writes frames of these 12-bit codes, through a coding that leaves them as they are."""

    class Plain:
        bits = 12
        encode = staticmethod(lambda frame: frame)

    def put(path: Path) -> None:
        writer = VideoWriter(path, *codes.shape[1:], 20, Plain())
        writer.add(codes)
        writer.close()

    return put


def add_depth(root: Path, info: dict, writers: list) -> None:
    for k, put in enumerate(writers):
        path = root / f"videos/chunk-000/{TOP}_depth/episode_{k:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if put:
            put(path)
    edit_features(root, {f"{TOP}_depth": {"dtype": "video", "shape": [48, 64, 1], "names": None, "info": info}})


def test_depth_of_unknown_coding_is_refused_unless_left_out(copy):
    add_depth(copy, {"video.is_depth_map": True}, [])
    with pytest.raises(ValueError, match="does not tell how the depth in .* is coded: import without depth"):
        opened(copy)
    source = opened(copy, depth=False)
    assert source.spec.cameras[0].depth is None and source.assumptions["depth"] == f"left out: {TOP}_depth"


@pytest.mark.parametrize(("low", "log"), [("far", True), (-5.0, False), (None, True), (5.0, True)])
def test_depth_of_a_range_that_cannot_be_is_refused(copy, low, log):
    info = {"is_depth_map": True, "video.depth_min": low, "video.depth_max": 4.0, "video.use_log": log}
    add_depth(copy, info, [])
    with pytest.raises(ValueError, match=f"info.json: '{TOP}_depth': .*: correct it, or import without depth"):
        opened(copy)


def test_names_that_repeat_are_numbered():
    assert distinct(["x", "gripper", "gripper", "gripper.0"]) == ("x", "gripper.1", "gripper.2", "gripper.0")
    assert distinct(["a", "b"]) == ("a", "b")


# ---- damage ------------------------------------------------------------------------------------------------------


def edit_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_features(root: Path, added: dict) -> None:
    edit_info(root, features=json.loads((root / "meta/info.json").read_text())["features"] | added)


def edit_table(root: Path, column: str, change) -> None:
    table = pq.ParquetFile(root / TABLE).read()
    values = pa.array(change(table.column(column).to_pylist()))
    pq.write_table(table.set_column(table.column_names.index(column), column, values), root / TABLE)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(rows: list) -> list:
    return [[float("nan"), *row[1:]] if k == 3 else row for k, row in enumerate(rows)]


def replace_video(root: Path, frames: np.ndarray, **options) -> None:
    write_video(root / VIDEO, frames, **options)


FRAMES = EPISODES[0].rgb["front"]
DAMAGES = {
    "a truncated video": (lambda root: halve(root / VIDEO), "episode_000000.mp4 is damaged or truncated"),
    "no video at all": (lambda root: (root / VIDEO).write_text("#EXTM3U\nother.mp4"), "is damaged or truncated"),
    "a missing video": (lambda root: (root / VIDEO).unlink(), "episode_000000.mp4 is missing: copy"),
    "fewer frames": (lambda root: replace_video(root, FRAMES[:-2]), "has 22 frames, its table 24 rows"),
    "more frames": (lambda root: replace_video(root, FRAMES[[*range(24), 0]]), "more frames than the 24 rows"),
    "another rate": (lambda root: replace_video(root, FRAMES, fps=30), "is not of the 20 rows a second"),
    "another size": (lambda root: replace_video(root, FRAMES[:, :32]), "is 32 x 64, meta/info.json tells 48 x 64"),
    "a missing table": (lambda root: (root / TABLE).unlink(), "episode_000000.parquet is missing: copy"),
    "a truncated table": (lambda root: halve(root / TABLE), "episode_000000.parquet is damaged or truncated"),
    "another's table": (
        lambda root: shutil.copy(root / TABLE.replace("000.parquet", "001.parquet"), root / TABLE),
        "has 17 rows, meta/episodes.jsonl tells of 24",
    ),
    "another's rows": (lambda root: edit_table(root, "episode_index", lambda rows: [7] * 24), "rows of episode 7"),
    "NaN": (lambda root: edit_table(root, "action", with_nan), "action holds NaN or infinity, first in row 3"),
    "no number": (lambda root: edit_table(root, "action", lambda r: ["?"] * 24), "action is not of shape"),
    "ragged rows": (
        lambda root: edit_table(root, "action", lambda rows: [row[: 4 - k % 2] for k, row in enumerate(rows)]),
        r"action is not of shape \(4,\) in every row",
    ),
    "uneven times": (
        lambda root: edit_table(root, "timestamp", lambda rows: [t + 0.004 * (k == 9) for k, t in enumerate(rows)]),
        r"row 9 is 0.4540 s after the first, at 20 rows a second it would be 0.4500 s: resample",
    ),
    "an unknown task": (
        lambda root: edit_table(root, "task_index", lambda rows: [5] * 24),
        "has task_index 5, meta/tasks.jsonl has no such line",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_episode_is_told_and_leaves_the_others(copy, damage):
    harm, said = DAMAGES[damage]
    harm(copy)
    source = opened(copy)
    with pytest.raises(ValueError, match=said):
        source.episode(0)
    assert source.episode(1).length == 17


def test_a_column_that_is_missing(copy):
    table = pq.ParquetFile(copy / TABLE).read()
    pq.write_table(table.drop_columns(["action"]), copy / TABLE)
    with pytest.raises(ValueError, match=r"lacks the columns \['action'\] of meta/info.json"):
        opened(copy).episode(0)


def test_an_image_that_is_damaged_or_absent(tmp_path):
    root = openpi(tmp_path)
    edit_table(root, "image", lambda rows: [row | {"bytes": row["bytes"][:60]} for row in rows])
    with pytest.raises(ValueError, match="episode_000000.parquet: image, row 0, is a damaged image"):
        opened(root).episode(0)
    edit_table(root, "image", lambda rows: [row | {"bytes": b"GIF89a"} for row in rows])
    with pytest.raises(ValueError, match="image, row 0, holds no PNG or JPEG"):
        opened(root).episode(0)


def lines(root: Path) -> list[str]:
    return (root / "meta/episodes.jsonl").read_text().splitlines()


def put_lines(root: Path, texts: list[str]) -> None:
    (root / "meta/episodes.jsonl").write_text("\n".join(texts))


def without(key: str):
    def remove(root: Path) -> None:
        info = json.loads((root / "meta/info.json").read_text())
        (root / "meta/info.json").write_text(json.dumps({k: v for k, v in info.items() if k != key}))

    return remove


DESCRIPTIONS = {
    "no JSON in info": (lambda root: (root / "meta/info.json").write_text("{"), "info.json cannot be read as JSON"),
    "a bad line": (
        lambda root: put_lines(root, [lines(root)[0], "{'episode': 1"]),
        "episodes.jsonl, line 2 is no JSON",
    ),
    "a list for a line": (lambda root: put_lines(root, ["[]", *lines(root)]), "line 1 is .* no JSON object"),
    "an episode twice": (
        lambda root: put_lines(root, lines(root)[:1] * 2),
        "line 2: episode_index 0 comes a second time",
    ),
    "lines that are missing": (
        lambda root: put_lines(root, lines(root)[:1]),
        "lists 1 episodes, meta/info.json counts 2",
    ),
    "a line without length": (lambda root: put_lines(root, ['{"episode_index": 0}']), "line 1 lacks 'length'"),
    "no tasks": (lambda root: (root / "meta/tasks.jsonl").unlink(), "tasks.jsonl cannot be read"),
    "a task with two texts": (
        lambda root: write(root / "meta/tasks.jsonl", [{"task_index": 0, "task": t} for t in "ab"]),
        "task_index 0 was 'a' before",
    ),
    "a slash in a name": (
        lambda root: edit_features(root, {"observation.images.a/b": image_feature(48, 64)}),
        "without '/'",
    ),
    "dots in a name": (
        lambda root: edit_features(root, {"..": image_feature(48, 64)}),
        "rename it without '/' and '..'",
    ),
    "an absolute path": (
        lambda root: edit_info(root, data_path="/data/episode_{episode_index:06d}.parquet"),
        "leads out of the dataset",
    ),
    "a path that leaves": (
        lambda root: edit_info(root, video_path="../{video_key}/{episode_index}.mp4"),
        "video_path .* leads out of the dataset",
    ),
    "a path that looks inside": (
        lambda root: edit_info(root, data_path="data/{episode_index.__class__}.parquet"),
        "build it from {episode_chunk}, {episode_index}",
    ),
    "a path that is long": (
        lambda root: edit_info(root, data_path="data/{episode_index:0999999999d}.parquet"),
        "build it from {episode_chunk}, {episode_index}",
    ),
    "one path for all": (lambda root: edit_info(root, data_path="data/all.parquet"), "build it from"),
    "a broken path": (lambda root: edit_info(root, data_path="data/{episode_index"), "is no template"),
    "a rate between": (lambda root: edit_info(root, fps=29.97), "fps is 29.97, needs a whole number"),
    "no rate": (without("fps"), "info.json lacks 'fps'"),
    "no action": (lambda root: edit_info(root, features={TOP: image_feature(48, 64)}), "lists no feature 'action'"),
    "no camera": (lambda root: edit_info(root, features={"action": vector_feature(4)}), "has no camera with images"),
    "a feature without shape": (lambda root: edit_features(root, {"x": {"dtype": "float32"}}), "'x' needs a dtype and"),
    "a size that is no number": (
        lambda root: edit_features(root, {TOP: image_feature(True, 64)}),
        "has shape .* correct",
    ),
    "a size that cannot be": (lambda root: edit_features(root, {TOP: image_feature(0, 64)}), "has shape .* correct it"),
    "two cameras of one name": (
        lambda root: edit_features(root, {"top": image_feature(48, 64)}),
        "'observation.images.top' and 'top' are both camera 'top'",
    ),
    "another version": (lambda root: edit_info(root, codebase_version="v1.6"), "codebase_version 'v1.6' is none of"),
}


@pytest.mark.parametrize("damage", DESCRIPTIONS)
def test_a_description_that_is_wrong_is_told_at_once(copy, damage):
    harm, said = DESCRIPTIONS[damage]
    harm(copy)
    with pytest.raises(ValueError, match=said):
        opened(copy)


def test_another_rate_is_refused(copy):
    with pytest.raises(ValueError, match="tells of 20 rows a second, not 30: omit --fps"):
        opened(copy, fps=30)
    assert opened(copy, fps=20).spec.fps == 20


def test_a_robot_of_other_columns_is_refused(copy):
    robot = opened(copy).embodiment
    parts = robot.proprio.parts[:1]
    parts = (parts[0].model_copy(update={"columns": ("a", "b", "c")}),)
    other = robot.model_copy(update={"proprio": robot.proprio.model_copy(update={"parts": parts})})
    (copy / "meta/embodiment.yaml").write_text(embodiment_text(other))
    with pytest.raises(ValueError, match=r"embodiment.yaml: .* lacks the columns \['a', 'b', 'c'\]"):
        opened(copy)
