"""Videos of the released X-WAM layout: mp4 files that are named below the dataset's folder, a frame a row."""

from itertools import islice
from pathlib import Path, PurePosixPath

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8

from xwam.core.depth import DepthCoding, StoredDepth
from xwam.core.video import CONVERSION_THREADS, decoded
from xwam.data.importers.released import FAR, NEAR

# Wider than the codes' range, so that no code is clipped; twelve bits tell each of the 256 codes from its neighbours.
DEPTH = StoredDepth(min_m=NEAR / 2, max_m=FAR * 2, scale="relative")
# Lossy video leaves a grey picture this far from grey.
GREY_TOLERANCE = 12


def media_path(root: Path, named: object, where: object) -> Path:
    """The file that an episode names, which has to lie below the dataset's folder."""
    if not isinstance(named, str) or not named:
        raise ValueError(f"{where}: {named!r} is no path of a video: complete the episode, or leave it out")
    relative = PurePosixPath(named)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"{where}: the path {named!r} leads out of {root}: name files below the dataset's folder")
    path = root / relative
    if not path.is_file():
        raise ValueError(f"{path}, which {where} names, is missing: copy the dataset again, or leave the episode out")
    return path


def frame_size(path: Path) -> tuple[int, int]:
    """Height and width, from the file's header."""
    try:
        with av.open(str(path), format="mp4") as container:
            stream = container.streams.video[0]
            return stream.height, stream.width
    except (FFmpegError, IndexError) as error:
        raise ValueError(
            f"video {path} is damaged or truncated ({error}): copy it again, or leave its episode out"
        ) from error


def rgb_frames(path: Path, start: int, count: int, size: tuple[int, int]) -> UInt8[np.ndarray, "T H W 3"]:
    """`count` frames from number `start` on, which have to be of this height and width."""
    frames = np.empty((count, *size, 3), np.uint8)
    found, reformatter = 0, VideoReformatter()
    for frame in islice(decoded(path), start, start + count):
        if (frame.height, frame.width) != size:
            raise ValueError(f"{path} is {frame.height} x {frame.width}, needs {size[0]} x {size[1]} as the others are")
        frames[found] = reformatter.reformat(frame, format="rgb24", threads=CONVERSION_THREADS).to_ndarray()
        found += 1
    if found < count:
        raise ValueError(f"{path} has {start + found} frames, its episode needs {start + count}: copy it again")
    return frames


def depth_frames(path: Path, start: int, count: int, size: tuple[int, int]) -> Float[np.ndarray, "T H W"]:
    """Relative depth: the grey codes as "metres" of the nominal range."""
    rgb = rgb_frames(path, start, count, size)
    if np.ptp(rgb, axis=-1).max() > GREY_TOLERANCE:
        raise ValueError(f"{path} is coloured, depth is grey: import without it (--no-depth)")
    return depth_of_code(np.rint(rgb.mean(axis=-1)).astype(np.uint8))


def depth_of_code(code: UInt8[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Grey code to "metres" of the nominal range, whose inverse is a DepthCoding's: (encode(d) + 1) * 127.5."""
    return DepthCoding(NEAR, FAR).decode(np.arange(256) / 127.5 - 1)[code]
