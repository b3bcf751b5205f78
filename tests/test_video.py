"""Videos of other writers: whatever the order and place of their packets, every frame is found at its time."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from xwam.core.video import VideoReader, VideoWriter

FPS, COUNT, SIDE = 20, 50, 64


def frames() -> np.ndarray:
    """Each is of one grey, darker than the next."""
    return np.broadcast_to(
        (20 + 4 * np.arange(COUNT, dtype=np.uint8))[:, None, None, None], (COUNT, SIDE, SIDE, 3)
    ).copy()


def encode(path: Path, options: dict[str, str], container: dict[str, str]) -> Path:
    with av.open(str(path), "w", options=container) as file:
        stream = file.add_stream("libx264", rate=FPS, options=options)
        stream.height = stream.width = SIDE
        for image in frames():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("options", "container"),
    [
        ({"g": "12", "bf": "0"}, {}),
        ({"g": "12", "bf": "0"}, {"movflags": "faststart"}),
        ({"g": "12", "bf": "0"}, {"movflags": "frag_keyframe+empty_moov"}),
        ({"g": "12", "bf": "3", "b_strategy": "0"}, {}),
        ({"g": "250"}, {"movflags": "faststart"}),
    ],
)
def test_every_frame_is_found_at_its_time(tmp_path, options, container):
    reader = VideoReader(encode(tmp_path / "other.mp4", options, container))
    rows = np.random.default_rng(0).permutation(COUNT)
    for some in (rows, rows[:3], np.sort(rows)[5:40:4], np.repeat(rows[:4], 2)):
        greys = reader.read(some / FPS).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(greys, 20 + 4 * some, atol=1.5)  # the next one is 4 away
    assert reader.size == (SIDE, SIDE)
    with pytest.raises(ValueError, match=r"other.mp4 is damaged or truncated: no frame at 2.5000 s, its 50 frames"):
        reader.read(np.array([COUNT / FPS]))


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_opening_reads_a_small_part_of_a_file(tmp_path):
    path, random = tmp_path / "long.mp4", np.random.default_rng(0)
    writer = VideoWriter(path, 256, 256, FPS)
    writer.add(random.integers(0, 255, (120, 256, 256, 3), np.uint8))
    writer.close()
    before = bytes_read()
    reader = VideoReader(path)
    opened = bytes_read() - before
    assert opened < 0.2 * path.stat().st_size
    assert len(reader.read(np.array([5.95]))) == 1 and bytes_read() - before < 0.5 * path.stat().st_size


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_memory_stays_flat_however_often_a_reader_seeks(tmp_path):
    path, random = tmp_path / "noise.mp4", np.random.default_rng(0)
    writer = VideoWriter(path, SIDE, SIDE, FPS)
    writer.add(random.integers(0, 255, (60, SIDE, SIDE, 3), np.uint8))
    writer.close()
    reader, times_s = VideoReader(path), np.array([0.0, 1.0, 2.0])
    for _ in range(200):
        reader.read(times_s)
    before = resident_mb()
    for _ in range(3000):
        reader.read(times_s)
    assert resident_mb() - before < 1  # an iterator left behind by each seek makes it 4
