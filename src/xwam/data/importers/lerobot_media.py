"""Images of LeRobotDataset v2.1: a video an episode and camera, in any codec, or PNG and JPEG files inside tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8, UInt16

from xwam.core.depth import DEPTH_CODES, StoredDepth
from xwam.core.pictures import ENCODINGS
from xwam.core.video import CONVERSION_THREADS, WITH_LOSS, decoded

# Of a row's period: further than this from its row's time a frame belongs to no row.
FRAME_TOLERANCE = 0.1
# As good as linear: the logarithm's steps differ by a twentieth over the range.
LINEAR_SHIFT = 10.0

Size = tuple[int, int]


class DepthCodes(Protocol):
    """What 12-bit codes mean."""

    def decode(self, code: UInt16[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]: ...


@dataclass(frozen=True)
class LinearDepth:
    """Depth as 12-bit codes in even steps from `min_m` to `max_m`; 0 is unknown."""

    min_m: float
    max_m: float

    def decode(self, code: UInt16[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        depth_m = self.min_m + np.arange(DEPTH_CODES + 1) * (self.max_m - self.min_m) / DEPTH_CODES
        depth_m[0] = 0.0
        return depth_m.astype(np.float32)[code]

    def stored(self) -> StoredDepth:
        """A coding of ours that errs by hardly more than half a step."""
        return StoredDepth(min_m=self.min_m, max_m=self.max_m, shift_m=LINEAR_SHIFT * self.max_m)


def rgb_frames(path: Path, rows: int, size: Size, fps: int) -> UInt8[np.ndarray, "T H W 3"]:
    """All frames of a video, a frame a row; of an odd size the last line and column are left out.

    Raises a ValueError that names the file if frames are missing, too many, uneven in time, or of another size.
    """
    frames, reformatter = np.empty((rows, *size, 3), np.uint8), VideoReformatter()
    for k, frame in enumerate(_frames(path, rows, size, fps)):
        rgb = reformatter.reformat(frame, format="rgb24", threads=CONVERSION_THREADS).to_ndarray()
        frames[k] = rgb[: size[0], : size[1]]
    return frames


def depth_frames(path: Path, rows: int, size: Size, fps: int, codes: DepthCodes) -> Float[np.ndarray, "T H W"]:
    """All frames of a video of depth in metres, as `rgb_frames`."""
    frames = np.empty((rows, *size), np.float32)
    for k, frame in enumerate(_frames(path, rows, size, fps)):
        if "12le" not in frame.format.name:
            raise ValueError(f"{path} has pixels {frame.format.name}, depth needs 12 bits: import without depth")
        plane = np.frombuffer(frame.planes[0], np.uint16).reshape(frame.height, -1)
        frames[k] = codes.decode(plane[: size[0], : size[1]])
    with av.open(str(path), format="mp4") as container:
        if WITH_LOSS in (container.streams.video[0].codec_context.extradata or b""):
            raise ValueError(f"{path} holds depth that was compressed with loss: import without depth")
    return frames


def decode_images(encoded: Sequence[bytes | None], size: Size, where: object) -> UInt8[np.ndarray, "T H W 3"]:
    """Images that a table holds as the bytes of files; of an odd size the last line and column are left out."""
    images, reformatter = np.empty((len(encoded), *size, 3), np.uint8), VideoReformatter()
    decoders: dict[str, av.VideoCodecContext] = {}
    for row, content in enumerate(encoded):
        codec = next((name for start, name in ENCODINGS.items() if (content or b"").startswith(start)), None)
        if codec is None:
            raise ValueError(f"{where}, row {row}, holds no PNG or JPEG: put images into the table")
        decoder = decoders.setdefault(codec, _decoder(codec))
        packet = av.Packet(content)
        packet.is_keyframe = True  # or else FFmpeg adds a PNG to the one before it
        try:
            [frame] = decoder.decode(packet)
        except (FFmpegError, ValueError) as error:
            raise ValueError(f"{where}, row {row}, is a damaged image ({error}): leave the episode out") from error
        _check_size(frame, size, f"{where}, row {row},")
        rgb = reformatter.reformat(frame, format="rgb24", threads=CONVERSION_THREADS).to_ndarray()
        images[row] = rgb[: size[0], : size[1]]
    return images


def _decoder(codec: str) -> av.VideoCodecContext:
    decoder = av.CodecContext.create(codec, "r")
    decoder.thread_count = 1  # with more, an image comes only after the next ones were given
    return decoder


def _frames(path: Path, rows: int, size: Size, fps: int) -> Iterator[av.VideoFrame]:
    """A video's frames as they are shown, of which each has to be at its row's time."""
    count, first = 0, None
    for frame, time_s in _timed(path):
        first = time_s if first is None else first
        if count == rows:
            raise ValueError(f"{path} has more frames than the {rows} rows of its table: leave the episode out")
        if abs(time_s - first - count / fps) > FRAME_TOLERANCE / fps:
            raise ValueError(
                f"{path}: frame {count} is {time_s - first:.4f} s after the first, its row {count / fps:.4f} s: "
                f"the video is not of the {fps} rows a second that meta/info.json tells: correct that"
            )
        _check_size(frame, size, path)
        yield frame
        count += 1
    if count < rows:
        raise ValueError(
            f"{path} is damaged or truncated: it has {count} frames, its table {rows} rows; copy it again, "
            "or leave the episode out"
        )


def _timed(path: Path) -> Iterator[tuple[av.VideoFrame, float]]:
    """Frames with their time in seconds."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: copy the dataset again, or leave the episode out")
    for frame in decoded(path):
        if frame.pts is None:
            raise ValueError(f"{path} has frames without a time: encode it anew")
        yield frame, float(frame.pts * frame.time_base)


def _check_size(frame: av.VideoFrame, size: Size, where: object) -> None:
    """Whether an image has the size that was promised, but for a last line or column."""
    found = frame.height, frame.width
    if tuple(side // 2 * 2 for side in found) != size:
        raise ValueError(f"{where} is {found[0]} x {found[1]}, meta/info.json tells {size[0]} x {size[1]}: correct it")
