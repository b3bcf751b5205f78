"""An episode's frames out of a video of several: as they are where they can be taken out, else encoded anew."""

import errno
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from xwam.core.depth import StoredDepth
from xwam.core.video import KEY_FRAME_EVERY, REENCODED_CRF, VideoReader, VideoWriter

# Of a frame's period: nearer than this to its time a frame is the one that is meant.
TIME_TOLERANCE = 0.1
ENCODED_AT_ONCE = 10 * KEY_FRAME_EVERY


def cut_video(source: Path, from_s: float, frames: int, fps: int, dest: Path, depth: StoredDepth | None = None) -> bool:
    """Writes `frames` frames from time `from_s` on to a video of their own that begins at 0; True if without loss.

    Where the first is a key frame and no frame needs a later one, the packets are copied as they are. Else the frames
    are encoded anew, which loses a little of RGB and nothing of depth.
    """
    dest.parent.mkdir(parents=True, exist_ok=True)
    try:
        with av.open(str(source), format="mp4") as container:
            packets = _packets(container, from_s, frames, fps)
            if packets is not None:
                _copy(packets, container.streams.video[0], dest)
                return True
    except (FFmpegError, IndexError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:  # there is nothing wrong with the source
            raise
        raise ValueError(f"video {source} is damaged or truncated ({error}): copy it again") from error
    _encode(source, from_s, frames, fps, dest, depth)
    return depth is not None


def _packets(container: av.container.InputContainer, from_s: float, frames: int, fps: int) -> list[av.Packet] | None:
    """The packets of these frames, or None where they cannot stand alone."""
    stream = container.streams.video[0]
    period = 1 / (fps * stream.time_base)
    first = from_s / float(stream.time_base)
    container.seek(round(first), stream=stream, backward=True)
    found: list[av.Packet] = []
    for packet in container.demux(stream):
        if packet.pts is None or (not found and packet.pts < first - TIME_TOLERANCE * period):
            continue
        # a frame that is shown before one that is stored before it, or at no row's time, needs a decoder
        if abs(packet.pts - first - len(found) * period) > TIME_TOLERANCE * period:
            return None
        found.append(packet)
        if len(found) == frames:
            return found if found[0].is_keyframe else None
    return None


def _copy(packets: list[av.Packet], stream: av.VideoStream, dest: Path) -> None:
    with av.open(str(dest), "w", format="mp4", options={"movflags": "faststart"}) as container:
        copied = container.add_stream_from_template(stream, opaque=True)  # or else it looks for an encoder
        copied.time_base = stream.time_base
        first = packets[0].pts
        for packet in packets:
            packet.pts, packet.dts = packet.pts - first, packet.pts - first
            packet.stream = copied
            container.mux(packet)


def _encode(source: Path, from_s: float, frames: int, fps: int, dest: Path, depth: StoredDepth | None) -> None:
    reader, writer = VideoReader(source, depth), None
    try:
        for first in range(0, frames, ENCODED_AT_ONCE):
            rows = np.arange(first, min(first + ENCODED_AT_ONCE, frames))
            images = reader.read(from_s + rows / fps)
            writer = writer or VideoWriter(dest, *images.shape[1:3], fps, depth, REENCODED_CRF)
            writer.add(images)
        writer.close()
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
