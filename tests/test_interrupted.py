"""Full disks, killed processes and destinations that will not do: nothing is lost, and the same command goes on."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from damage import cut, permissions_count, snapshot
from damages_formats import watched, write_xwam
from damages_v30 import turning_episode, turning_robot, write_v30
from recordings import HEIGHT, WIDTH
from toy_encoding import SETTINGS, toy_encode_windows
from xwam.core.video import VideoWriter
from xwam.data import export_lerobot_v21, shards
from xwam.data import validate as validation
from xwam.data.encoding import encode_shard
from xwam.data.episodes import EpisodeStore
from xwam.data.export_lerobot_v21 import export_lerobot_v21 as export
from xwam.data.finalise import finalise
from xwam.data.importers import convert
from xwam.data.importers.convert import import_dataset
from xwam.data.importers.source import ImportSettings
from xwam.data.latents import LatentPlan
from xwam.data.layout import DatasetSpec
from xwam.data.writer import ShardWriter, published
from xwam_files import ROBOTWIN, write_layout


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Work of several processes is done in this one."""
    for module in (convert, validation, export_lerobot_v21):
        monkeypatch.setattr(module, "run_all", lambda function, jobs, workers: (function(*job) for job in jobs))
    for opened in (convert._opened, validation._store, export_lerobot_v21._store):
        opened.cache_clear()


# ---- full disks --------------------------------------------------------------------------------------------------

WRITES = (
    (Path, "write_text"),
    (pq.ParquetWriter, "write_table"),
    (VideoWriter, "add"),
    (VideoWriter, "close"),
    (shards, "save_file"),
)


def room_for(writes: int, monkeypatch) -> None:
    """A disk on which so many more writes fit; of the next text half does."""
    number = count()

    def limited(owner: object, name: str) -> Callable:
        write = getattr(owner, name)

        def attempt(*args, **kwargs):
            if next(number) < writes:
                return write(*args, **kwargs)
            if name == "write_text":
                write(args[0], args[1][: len(args[1]) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        return attempt

    for owner, name in WRITES:
        monkeypatch.setattr(owner, name, limited(owner, name))


def encode(dataset: Path, folder: Path) -> None:
    plan = LatentPlan(folder, EpisodeStore(dataset), turning_robot(), SETTINGS, shard_episodes=1)
    plan.write()
    for shard in range(len(plan)):
        encode_shard(plan, shard, toy_encode_windows)


def record(dataset: Path) -> None:
    """A shard more."""
    with ShardWriter(dataset, DatasetSpec.of(turning_robot(), HEIGHT, WIDTH), 2) as shard:
        shard.add(turning_episode(7))
        shard.add(turning_episode(8))


# What makes `out` of a good recording.
WORK: dict[str, tuple[Callable[[Path], None], Callable[[Path, Path], object]]] = {
    "import": (write_xwam, lambda root, out: import_dataset(root, out, ImportSettings(), workers=1)),
    "link": (write_v30, lambda root, out: import_dataset(root, out, ImportSettings(), workers=1)),
    "export": (write_v30, lambda root, out: export(root, out, workers=1)),
}


@pytest.mark.parametrize("verb", WORK)
def test_a_full_disk_is_told_and_the_same_command_goes_on(tmp_path, verb):
    make, work = WORK[verb]
    root, out = tmp_path / "rec", tmp_path / "out"
    make(root)
    before = snapshot(root)
    for writes in (0, 1, 3, 7, 15, 31, 63, 127):
        with pytest.MonkeyPatch.context() as patch:
            room_for(writes, patch)
            try:
                work(root, out)
                break
            except OSError as error:
                assert error.errno == errno.ENOSPC and "disk full" in str(error) and "free some space" in str(error)
        assert not out.exists() and snapshot(root) == before
    assert writes >= 3 and {path.name for path in tmp_path.iterdir()} == {"rec", "out"}
    work(root, tmp_path / "at once")
    assert_same(out, tmp_path / "at once")


def assert_same(one: Path, other: Path) -> None:
    """The same files; tables with the same bytes, videos with the same frames."""
    files = sorted(path.relative_to(one) for path in one.rglob("*"))
    assert files == sorted(path.relative_to(other) for path in other.rglob("*"))
    tables = [path for path in files if path.suffix == ".parquet"]
    assert tables and all((one / path).read_bytes() == (other / path).read_bytes() for path in tables)
    if not list(one.glob("meta/episodes/*/*.parquet")):
        return
    stores = EpisodeStore(one), EpisodeStore(other)
    for episode in range(len(stores[0])):
        seen, expected = (store.read_all(episode) for store in stores)
        for name in ("rgb", "depth_m"):
            for camera, images in getattr(expected, name).items():
                np.testing.assert_array_equal(getattr(seen, name)[camera], images)


def test_latents_on_a_full_disk(tmp_path):
    root, folder = tmp_path / "rec", tmp_path / "latents"
    write_v30(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "save_file", no_room)
        with pytest.raises(OSError, match="disk full: free some space.*shard-00000.safetensors") as error:
            encode(root, folder)
    assert error.value.errno == errno.ENOSPC and not list(folder.glob("*.safetensors")) and not list(folder.glob(".*"))
    encode(root, folder)
    encode(root, tmp_path / "at once")
    assert_all_bytes(folder, tmp_path / "at once")


def no_room(*args, **kwargs):
    """As safetensors tells of it."""
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def assert_all_bytes(one: Path, other: Path) -> None:
    for path in sorted(other.glob("*.safetensors")):
        assert (one / path.name).read_bytes() == path.read_bytes()


def test_a_recording_on_a_full_disk_keeps_what_was_there(tmp_path):
    root = tmp_path / "rec"
    write_v30(root)
    before = snapshot(root)
    for writes in (0, 1, 3, 7, 15, 31):
        with pytest.MonkeyPatch.context() as patch:
            room_for(writes, patch)
            try:
                record(root)
                break
            except OSError as error:
                assert "disk full in shard 2: free some space and start again" in str(error)
        assert snapshot(root).items() >= {k: v for k, v in before.items() if v[2] is not None}.items()
        assert published(root) == [0, 1] and len(EpisodeStore(root)) == 3 and not list(root.glob(".*"))
    assert writes > 7 and published(root) == [0, 1, 2]


def test_a_dataset_that_cannot_be_finished_says_so_until_it_is(tmp_path):
    root = tmp_path / "rec"
    write_v30(root)
    record(root)
    for writes in count():
        with pytest.MonkeyPatch.context() as patch:
            room_for(writes, patch)
            try:
                finalise(root)
                break
            except OSError as error:
                assert error.errno == errno.ENOSPC and "free some space" in str(error) and str(root) in str(error)
        try:
            assert len(EpisodeStore(root)) == 3
        except ValueError as error:
            assert "finalise it" in str(error)
        assert not list(root.rglob(".*"))
    assert writes >= 5 and EpisodeStore(root).read_all(4).length == 12


# ---- killed ------------------------------------------------------------------------------------------------------


def test_a_killed_import_of_the_command_line_ends_as_if_nothing_had_been(tmp_path):
    root, dest = tmp_path / "rec", tmp_path / "dest"
    write_layout(root, [watched(seed) for seed in range(8)], ROBOTWIN, ("left", "right"), commanded=False)
    before = snapshot(root)
    command = [sys.executable, "-c", "from xwam.cli import main; main()", "import", str(root)]
    process = subprocess.Popen([*command, str(dest), "--workers", "1"], stdout=subprocess.PIPE, start_new_session=True)
    began = time.monotonic()
    staging = tmp_path / ".dest.importing" / "dataset"
    while not published(staging):
        assert process.poll() is None and time.monotonic() - began < 100
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.read()  # ends when its worker has ended too
    kept = published(staging)
    assert 0 < len(kept) < 8 and not dest.exists() and snapshot(root) == before
    times = {path: path.stat().st_mtime_ns for path in staging.rglob("file-000.mp4")}
    subprocess.run([*command, str(dest), "--workers", "1"], check=True, capture_output=True)
    inside = {dest / path.relative_to(staging): time for path, time in times.items()}
    assert times and all(path.stat().st_mtime_ns == time for path, time in inside.items())
    import_dataset(root, tmp_path / "at once", ImportSettings(), workers=1)
    assert_same(dest, tmp_path / "at once")
    assert {path.name for path in tmp_path.iterdir()} == {"rec", "dest", "at once"}


# ---- destinations, and what is half-way ---------------------------------------------------------------------------


def full_folder(dest: Path) -> None:
    dest.mkdir()
    (dest / "mine").write_text("keep")


def locked_place(dest: Path) -> None:
    dest.parent.chmod(0o500)


DESTINATIONS = {
    "a folder with something in it": (
        "dest",
        full_folder,
        "holds something already: name a folder that does not exist",
    ),
    "a file": ("dest", lambda dest: dest.write_text("keep"), "holds something already"),
    "below a file": (
        "file/dest",
        lambda dest: dest.parent.write_text("keep"),
        "file/.*Not a directory.*destination elsewhere",
    ),
    "within the recording": ("rec/dest", lambda dest: None, "lie within each other: name a destination beside"),
    "around the recording": (".", lambda dest: None, "holds something already|lie within each other"),
    "by a way back": ("rec/../rec/dest", lambda dest: None, "lie within each other"),
    "a loop of links": ("dest", lambda dest: dest.symlink_to(dest), "loop"),
    "a locked place": ("locked/dest", locked_place, "locked/.*Permission denied.*destination elsewhere"),
}


@pytest.mark.parametrize("case", DESTINATIONS)
@pytest.mark.parametrize("verb", ["import", "export"])
def test_a_destination_that_will_not_do_is_named(tmp_path, case, verb):
    name, prepare, told = DESTINATIONS[case]
    root, dest = tmp_path / "rec", tmp_path / name
    WORK[verb][0](root)
    (tmp_path / "locked").mkdir()
    prepare(dest)
    before = snapshot(tmp_path)
    with permissions_count(), pytest.raises((ValueError, OSError, RuntimeError), match=told):
        WORK[verb][1](root, dest)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("verb", ["import", "export"])
def test_a_plan_that_is_damaged_says_how_to_begin_anew(tmp_path, verb):
    root, out = tmp_path / "rec", tmp_path / "out"
    WORK[verb][0](root)
    with pytest.MonkeyPatch.context() as patch:
        room_for(5, patch)
        with pytest.raises(OSError, match="disk full"):
            WORK[verb][1](root, out)
    [folder] = tmp_path.glob(".out.*")
    cut("plan.json")(folder)
    with pytest.raises(ValueError, match=rf"plan.json .*remove {folder} to begin anew"):
        WORK[verb][1](root, out)
    shutil.rmtree(folder)
    WORK[verb][1](root, out)
    assert out.exists()
