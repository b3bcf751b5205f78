"""Exports as LeRobotDataset v2.1: nothing is lost that need not be, a stopped export goes on, and the card tells."""

import fcntl
import json
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from demonstrations import demonstrated_robot, demonstrated_spec, demonstrations
from foreign_lerobot import write_video
from recordings import record, robot, smooth_episode, toy_spec
from xwam import cli
from xwam.core.depth import StoredDepth
from xwam.core.pictures import contact_sheet, png
from xwam.core.video import VideoReader
from xwam.data import export_lerobot_v21
from xwam.data.card import write_card
from xwam.data.cut import cut_video
from xwam.data.episodes import Episode, EpisodeStore
from xwam.data.importers.convert import import_dataset
from xwam.data.importers.lerobot_v21 import open_source
from xwam.data.importers.source import ImportSettings
from xwam.data.writer import describe_robot

VIEWS = ("rgb", "depth_m", "intrinsics", "T_base_cam")
# Within this range the stored coding errs by at most 1.1 mm.
NEAR_ENOUGH_M, MOST_ERROR_M = 3.0, 1.1e-3
FRONT = "videos/chunk-000/observation.images.front/episode_000001.mp4"


def serial(function, jobs, workers):
    """Stands in for the pool: the same work, in this process."""
    for job in jobs:
        yield function(*job)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(export_lerobot_v21, "run_all", serial)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("recorded") / "dataset"
    record(root, [[smooth_episode(24, 0), smooth_episode(31, 1)], [smooth_episode(17, 2)]])
    describe_robot(root, robot())
    return root


@pytest.fixture(scope="module")
def exported(dataset, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    export_lerobot_v21.export_lerobot_v21(dataset, out, workers=2)
    return out


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def assert_same_but_images(read, wrote) -> None:
    assert np.array_equal(read.proprio, wrote.proprio) and np.array_equal(read.actions, wrote.actions)
    for name in ("intrinsics", "T_base_cam"):
        for camera, matrices in getattr(wrote, name).items():
            assert np.array_equal(getattr(read, name)[camera], matrices)
    told = ("instructions", "environment", "seed", "success", "length")
    assert [getattr(read, name) for name in told] == [getattr(wrote, name) for name in told]


def beginning(episode: Episode, rows: int) -> Episode:
    cut = {name: {key: x[:rows] for key, x in getattr(episode, name).items()} for name in VIEWS}
    return replace(episode, proprio=episode.proprio[:rows], actions=episode.actions[:rows], **cut)


def test_demonstrations_survive_the_way_there_and_back(tmp_path, at_once):
    truths = [beginning(episode, 21) for episode in demonstrations()]
    first = record(tmp_path / "first", [truths], demonstrated_spec())
    describe_robot(first.root, demonstrated_robot())
    export_lerobot_v21.export_lerobot_v21(first.root, tmp_path / "v21")
    import_dataset(tmp_path / "v21", tmp_path / "second", ImportSettings(), workers=1)
    second = EpisodeStore(tmp_path / "second")
    assert second.spec == first.spec and second.embodiment() == demonstrated_robot()
    for k, truth in enumerate(truths):
        wrote, read = first.read_all(k), second.read_all(k)
        assert_same_but_images(read, wrote)
        assert np.array_equal(second.column(k, "timestamp"), first.column(k, "timestamp"))
        for camera, depth_m in truth.depth_m.items():
            assert np.array_equal(read.depth_m[camera], wrote.depth_m[camera])
            near = depth_m < min(NEAR_ENOUGH_M, first.spec.camera(camera).depth.max_m)
            assert near.any() and np.abs(read.depth_m[camera] - depth_m)[near].max() < MOST_ERROR_M
            assert psnr_db(read.rgb[camera], wrote.rgb[camera]) > 33


def test_an_export_holds_the_very_frames(dataset, exported):
    store, source = EpisodeStore(dataset), open_source(exported, ImportSettings())
    assert source.spec == store.spec and len(source) == len(store) == 3
    for k in range(3):
        wrote, read = store.read_all(k), source.episode(k)
        assert_same_but_images(read, wrote)
        for camera in wrote.rgb:
            assert np.array_equal(read.rgb[camera], wrote.rgb[camera])
            assert np.array_equal(read.depth_m[camera], wrote.depth_m[camera])


def test_packets_are_copied_where_an_episode_can_stand_alone(dataset, tmp_path):
    store = EpisodeStore(dataset)
    for camera, (video, from_s) in zip(("front", "wrist"), store.files(1, ["front", "wrist"])[1:3], strict=True):
        assert from_s == 24 / 20
        assert cut_video(video, from_s, 31, 20, tmp_path / f"{camera}.mp4")
        with av.open(str(tmp_path / f"{camera}.mp4")) as container:
            stamps = [float(frame.time) for frame in container.decode(video=0)]
        np.testing.assert_allclose(stamps, np.arange(31) / 20, atol=1e-6)
        # frame 3 of the episode is no key frame
        assert not cut_video(video, from_s + 3 / 20, 20, 20, tmp_path / "inside.mp4")
        read = VideoReader(tmp_path / "inside.mp4").read(np.arange(20) / 20)
        assert psnr_db(read, store.read(1, range(3, 23), [camera]).rgb[camera]) > 38


def test_packets_of_av1_are_copied(tmp_path):
    """As LeRobot records: every second frame is a key frame, and there is a decoder but no encoder of that name."""
    episodes = [smooth_episode(24, 0).rgb["front"], smooth_episode(31, 1).rgb["front"]]
    write_video(tmp_path / "both.mp4", np.concatenate(episodes), "av1")
    assert cut_video(tmp_path / "both.mp4", 24 / 20, 31, 20, tmp_path / "second.mp4")
    read = VideoReader(tmp_path / "second.mp4").read(np.arange(31) / 20)
    assert np.array_equal(read, VideoReader(tmp_path / "both.mp4").read(np.arange(24, 55) / 20))
    assert psnr_db(read, episodes[1]) > 33


def with_b_frames(video: Path, depth: bool) -> None:
    """The same frames, encoded so that some need later ones."""
    with av.open(str(video)) as container:
        frames = list(container.decode(video=0))
    with av.open(str(video), "w", format="mp4") as container:
        codec = ("libx265", {"x265-params": "lossless=1:bframes=3:log-level=none:ctu=16"}) if depth else ("libx264", {})
        stream = container.add_stream(codec[0], rate=20, options=codec[1] | {"crf": "10", "bf": "3"})
        stream.height, stream.width, stream.pix_fmt = frames[0].height, frames[0].width, frames[0].format.name
        for k, frame in enumerate(frames):
            frame.pts, frame.time_base, frame.pict_type = k, Fraction(1, 20), 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_frames_that_need_later_ones_are_encoded_anew(dataset, tmp_path, at_once):
    foreign = shutil.copytree(dataset, tmp_path / "foreign")
    for key, depth in (("front", False), ("front_depth", True)):
        with_b_frames(foreign / f"videos/observation.images.{key}/chunk-000/file-000.mp4", depth)
    store = EpisodeStore(foreign)
    (video, from_s), *_, (depth_video, _) = store.files(1, ["front"])[1:]
    assert not cut_video(video, from_s, 31, 20, tmp_path / "rgb.mp4")
    depth = store.spec.camera("front").depth
    assert cut_video(depth_video, from_s, 31, 20, tmp_path / "depth.mp4", depth)
    with av.open(str(video)) as container:
        wrote = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])[24:]
    assert psnr_db(VideoReader(tmp_path / "rgb.mp4").read(np.arange(31) / 20), wrote) > 38
    truth = EpisodeStore(dataset).read(1, range(31), ["front"]).depth_m["front"]
    assert np.array_equal(VideoReader(tmp_path / "depth.mp4", depth).read(np.arange(31) / 20), truth)


def test_every_code_of_depth_survives():
    for near_m, far_m, shift_m in ((0.1, 4.0, 0.0), (0.01, 10.0, 3.5), (0.07, 2.7, 27.0)):
        depth, codes = StoredDepth(min_m=near_m, max_m=far_m, shift_m=shift_m), np.arange(4096, dtype=np.uint16)
        assert np.array_equal(depth.encode(depth.decode(codes)), codes)


def test_layout_is_what_readers_of_v21_expect(exported):
    info = json.loads((exported / "meta/info.json").read_text())
    assert info["codebase_version"] == "v2.1" and info["total_videos"] == 12 and info["total_chunks"] == 1
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 72, 4)
    front = info["features"]["observation.images.front_depth"]["info"]
    assert front["video.codec"] == "hevc" and front["video.pix_fmt"] == "gray12le" and front["is_depth_map"]
    tasks = {line["task_index"]: line["task"] for line in read_lines(exported / "meta/tasks.jsonl")}
    episodes = read_lines(exported / "meta/episodes.jsonl")
    assert [line["length"] for line in episodes] == [24, 31, 17]
    first = 0
    for k, line in enumerate(episodes):
        table = pq.ParquetFile(exported / info["data_path"].format(episode_chunk=0, episode_index=k)).read()
        assert table.column("index").to_pylist() == list(range(first, first + line["length"]))
        assert table.column("timestamp")[0].as_py() == 0 and set(table.column("episode_index").to_pylist()) == {k}
        assert tasks[table.column("task_index")[0].as_py()] == line["tasks"][0]
        first += line["length"]
    assert table.schema.field("action").type == pa.list_(pa.float32(), 4)


def test_statistics_have_the_shapes_that_readers_of_v21_check(dataset, exported):
    stats = {line["episode_index"]: line["stats"] for line in read_lines(exported / "meta/episodes_stats.jsonl")}
    features = json.loads((exported / "meta/info.json").read_text())["features"]
    for found in stats.values():
        assert found.keys() == features.keys()
        for key, summary in found.items():
            wanted = (3, 1, 1) if "images" in key else tuple(features[key]["shape"])
            assert np.shape(summary["mean"]) == np.shape(summary["q99"]) == wanted and np.shape(summary["count"]) == (
                1,
            )
    actions = EpisodeStore(dataset).vectors(1)[1]
    np.testing.assert_allclose(stats[1]["action"]["mean"], actions.mean(0), rtol=1e-6)
    # depth as a reader sees it that takes it for a picture
    with av.open(str(exported / FRONT.replace("front", "front_depth"))) as container:
        seen = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]) / 255
    assert abs(np.mean(stats[1]["observation.images.front_depth"]["mean"]) - seen.mean()) < 0.02


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dataset_of_images_alone(tmp_path, at_once):
    spec = toy_spec(depth=False)
    bare = tuple(camera.model_copy(update={"calibrated": False}) for camera in spec.cameras)
    spec = spec.model_copy(update={"cameras": bare, "action": ("effort",)})
    episode = smooth_episode()
    episode = replace(episode, depth_m={}, intrinsics={}, T_base_cam={}, actions=episode.actions[:, :1], seed=None)
    store = record(tmp_path / "dataset", [[episode]], spec)
    export_lerobot_v21.export_lerobot_v21(store.root, tmp_path / "out")
    source = open_source(tmp_path / "out", ImportSettings())
    assert source.spec == spec and np.array_equal(source.episode(0).actions, episode.actions)
    assert source.episode(0).seed is None and not (tmp_path / "out/meta/embodiment.yaml").exists()
    assert "Depth is z" not in (tmp_path / "out/README.md").read_text()


# ---- whole or not at all -----------------------------------------------------------------------------------------


def test_a_stopped_export_goes_on(dataset, tmp_path, monkeypatch):
    def stopped(function, jobs, workers):
        yield function(*jobs[0])
        raise KeyboardInterrupt

    out, folder = tmp_path / "out", tmp_path / ".out.exporting"
    monkeypatch.setattr(export_lerobot_v21, "run_all", stopped)
    with pytest.raises(KeyboardInterrupt):
        export_lerobot_v21.export_lerobot_v21(dataset, out)
    assert not out.exists()
    done = folder / "dataset" / FRONT.replace("000001", "000000")
    before = done.stat().st_ino
    done.with_name(".episode_000001.mp4.host.7").write_bytes(b"half a file of a killed process")
    jobs_seen = []
    monkeypatch.setattr(export_lerobot_v21, "run_all", lambda f, jobs, w: serial(f, jobs_seen.extend(jobs) or jobs, w))
    export_lerobot_v21.export_lerobot_v21(dataset, out)
    assert [job[2] for job in jobs_seen] == [1, 2] and not folder.exists()
    assert (out / FRONT.replace("000001", "000000")).stat().st_ino == before
    assert len(open_source(out, ImportSettings())) == 3
    assert not list(out.rglob(".*"))


def test_an_export_of_another_state_of_the_dataset_does_not_go_on(dataset, tmp_path, monkeypatch, at_once):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    monkeypatch.setattr(export_lerobot_v21, "write_card", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export_lerobot_v21.export_lerobot_v21(copy, tmp_path / "out")
    (copy / "notes.txt").write_text("new")
    with pytest.raises(ValueError, match="since then its files changed: go on as before, or remove that folder"):
        export_lerobot_v21.export_lerobot_v21(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_places_that_are_taken_are_refused(dataset, tmp_path, at_once):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("precious")
    for out, said in ((tmp_path / "full", "holds something already"), (dataset / "out", "lie within each other")):
        with pytest.raises(ValueError, match=said):
            export_lerobot_v21.export_lerobot_v21(dataset, out)
    assert (tmp_path / "full/thesis.tex").read_text() == "precious"
    folder = tmp_path / ".out.exporting"
    folder.mkdir()
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is exporting to"):
            export_lerobot_v21.export_lerobot_v21(dataset, tmp_path / "out")


def test_a_damaged_dataset_is_told(dataset, tmp_path, at_once):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    video = copy / "videos/observation.images.front/chunk-000/file-000.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(ValueError, match="file-000.mp4 is damaged or truncated"):
        export_lerobot_v21.export_lerobot_v21(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_verb(dataset, tmp_path, monkeypatch, capsys, at_once):
    monkeypatch.setattr(sys, "argv", ["xwam", "export", str(dataset), str(tmp_path / "out"), "--workers", "1"])
    cli.main()
    assert f"Exported: {tmp_path / 'out'}" in capsys.readouterr().out and (tmp_path / "out/meta/info.json").exists()


# ---- the card ----------------------------------------------------------------------------------------------------


def test_the_card_has_a_header_that_hubs_read(exported):
    text = (exported / "README.md").read_text()
    _, header, body = text.split("---\n", 2)
    told = yaml.safe_load(header)
    assert told["license"] == "unknown" and told["task_categories"] == ["robotics"] and "LeRobot" in told["tags"]
    assert told["configs"] == [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    for said in ("72, 20 a second", "| front | 64 x 48 | metric, 0.15 to 4 m | in every row |", "reach the ball"):
        assert said in body
    assert r"| state | ee\_position.0 | ee\_position | position | m |" in body
    assert "xwam import FOLDER" in body and "LeRobotDataset v2.1" in body


def test_the_card_has_a_picture_of_every_camera_and_its_depth(exported):
    with av.open(str(exported / "cameras.png")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape == (4 * 48, 4 * 64, 3)
    cells = picture.reshape(4, 48, 4, 64, 3).swapaxes(1, 2)
    source = open_source(exported, ImportSettings()).episode(0)
    assert np.array_equal(cells[0, 0], source.rgb["front"][0]) and np.array_equal(cells[3, 2], source.rgb["wrist"][-1])
    assert np.ptp(cells[:, 1]) > 100 and np.ptp(cells[:, 3]) > 100


def test_cameras_of_several_sizes_make_one_sheet():
    rgb = {"small": np.full((2, 40, 80, 3), 10, np.uint8), "large": np.full((2, 320, 320, 3), 200, np.uint8)}
    sheet = contact_sheet(rgb, {"small": np.linspace(0, 1, 6400, dtype=np.float32).reshape(2, 40, 80)}, highest=160)
    assert sheet.shape == (2 * 160, 320 + 320 + 160, 3)
    assert sheet[0, 0, 0] == 10 and sheet[-1, -1, 0] == 200 and np.ptp(sheet[:, 320:640]) > 100
    assert png(sheet).startswith(b"\x89PNG")


def test_what_was_assumed_and_proven_stands_in_the_card(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    claim = {"action": "delta", "proprio": "ee_position", "meaning": "delta"}
    report = {"format": "lerobot_v21", "assumptions": {"units": "metres | <b>or</b>\nnot"}, "damaged": [{}]}
    report["proofs"] = [{"claim": claim, "held": False, "found": "columns [x](evil) fit better"}]
    (copy / "meta/import.json").write_text(json.dumps(report))
    write_card(EpisodeStore(copy), copy)
    text = (copy / "README.md").read_text()
    assert r"| units | metres \| &lt;b&gt;or&lt;/b&gt; not |" in text
    assert r"| delta moves ee\_position | no | columns \[x\](evil) fit better |" in text
    assert "1 episodes were damaged" in text and "xwam stats FOLDER" in text and "v3.0" in text
