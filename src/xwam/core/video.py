"""Videos of RGB as H.264 and of depth as lossless 12-bit HEVC or 16-bit FFV1, and exact random access to them.

None has B-frames: a seek in HEVC with them gives wrong frames. Every tenth frame of RGB is a key frame.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8

from xwam.core.depth import StoredDepth

KEY_FRAME_EVERY = 10
# As LeRobot has it: without loss, noise makes other frames as large as key frames (of a simulator they are a half).
DEPTH_KEY_FRAME_EVERY = 2
# With PyAV's default, a thread a core, the conversion of a small frame takes 30 times as long.
CONVERSION_THREADS = 1
# What x265 writes into a video that it compressed with loss.
WITH_LOSS = b" no-lossless "
# Tuned for reading, which training does many times: for a tenth more bytes, decoding takes half to two thirds the time.
# x264's mbtree gives other pixels now and then, at 48 x 64 in one run of fifty; without it a rate factor of 19 in place
# of 18 keeps both size and quality.
RGB_OPTIONS = {"preset": "veryfast", "tune": "fastdecode", "mbtree": "0", "bf": "0", "forced-idr": "1"}
RGB_OPTIONS |= {"g": str(KEY_FRAME_EVERY)}
# H.264's rate factor: what is recorded looks as it was; of what is encoded a second time less may be lost.
RECORDED_CRF, REENCODED_CRF = 19, 8
# With x265's blocks of 64, some still pictures come back with wrong pixels, and other ones each time; of 32, none do.
# What smoothes a lossy picture has nothing to do here, and takes a decoder its time.
X265 = f"lossless=1:no-deblock=1:no-sao=1:ctu=32:bframes=0:keyint={DEPTH_KEY_FRAME_EVERY}"
X265 += ":pools=none:frame-threads=1:log-level=none"
# Codec, options and pixels by the bits of a code: a dataset's depth is to be small, a scene's to be exact.
DEPTH_CODECS = {
    12: ("libx265", {"preset": "veryfast", "forced-idr": "1", "x265-params": X265}, "gray12le"),
    16: ("ffv1", {"level": "3", "g": "1", "slicecrc": "1"}, "gray16le"),
}


class VideoWriter:
    """Appends frames to a video file; with `depth`, frames in metres, else RGB, whose loss grows with `crf`."""

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        fps: int | Fraction,
        depth: StoredDepth | None = None,
        crf: int = RECORDED_CRF,
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._depth, self._frames, self._reformatter = depth, 0, VideoReformatter()
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        rgb = ("libx264", RGB_OPTIONS | {"crf": str(crf)}, "yuv420p")
        codec, options, self._pixels = DEPTH_CODECS[depth.bits] if depth else rgb
        self._stream = self._container.add_stream(codec, rate=fps, options=options)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = self._pixels
        self._stream.codec_context.thread_count = 1

    def add(self, frames: UInt8[np.ndarray, "T H W 3"] | Float[np.ndarray, "T H W"]) -> None:
        """Appends an episode, which begins with a key frame so that reading it needs nothing before it."""
        for k, image in enumerate(frames):
            frame = self._gray(image) if self._depth else self._yuv(image)
            frame.pts, self._frames = self._frames, self._frames + 1
            if k == 0:
                frame.pict_type = PictureType.I
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()

    def abort(self) -> None:
        """Lets go of a file that is about to be removed."""
        try:
            self._container.close()
        except (FFmpegError, OSError):
            pass  # the disk is full or the encoder failed: that error is already on its way

    def _yuv(self, rgb: UInt8[np.ndarray, "H W 3"]) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        return self._reformatter.reformat(frame, format="yuv420p", threads=CONVERSION_THREADS)

    def _gray(self, depth_m: Float[np.ndarray, "H W"]) -> av.VideoFrame:
        height, width = depth_m.shape
        frame = av.VideoFrame(width, height, self._pixels)
        rows = np.frombuffer(frame.planes[0], np.uint16).reshape(height, -1)
        rows[:, :width] = self._depth.encode(depth_m)
        return frame


def decoded(path: Path) -> Iterator[av.VideoFrame]:
    """A video's frames in the order of showing, decoded from the front: a seek into foreign video may miss.

    Raises ValueError that names the file if it cannot be decoded.
    """
    try:
        # naming the format keeps a playlist, which would lead elsewhere, from passing as a video
        with av.open(str(path), format="mp4") as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ValueError(f"{path} is of a codec that nothing here decodes: encode it as H.264 or AV1")
            stream.codec_context.thread_count = 1
            yield from container.decode(stream)
    except (FFmpegError, IndexError) as error:
        raise ValueError(
            f"video {path} is damaged or truncated ({error}): copy it again, or leave its episode out"
        ) from error


class VideoReader:
    """Random access to a video's frames by time; decodes onwards when that is shorter than to seek.

    One iterator over packets serves all reads: PyAV leaks a packet with each that is left before its end.
    """

    def __init__(self, path: Path, depth: StoredDepth | None = None):
        self.path, self._depth, self._reformatter = path, depth, VideoReformatter()
        self._bits = depth.bits if depth else None
        self._metres = depth.decode(np.arange(depth.codes + 1)) if depth else None
        try:
            # naming the format keeps a playlist, which would lead elsewhere, from passing as a video
            self._container = av.open(str(path), format="mp4")
            self._stream = self._container.streams.video[0]
            self._check_codec()
            self._stream.codec_context.thread_count = 1
            self._index()
        except (FFmpegError, IndexError) as error:
            raise self._damaged(error) from error
        self._ended = True
        self._rewind(0)

    def _check_codec(self) -> None:
        codec = self._stream.codec_context
        if codec is None:
            raise ValueError(f"video {self.path} is of a codec that nothing here decodes: encode it as H.264")
        if self._depth and WITH_LOSS in (codec.extradata or b""):
            raise ValueError(
                f"video {self.path} holds depth that was compressed with loss, so its edges err by metres: "
                "record it with x265's lossless=1, or leave the depth out"
            )

    def _index(self) -> None:
        """Notes the time stamps of all frames, and for each the key frame to start from.

        A table in the file tells; all of the file is read only where frames are stored in another order than shown, or
        where it comes in fragments, each with a table of its own.
        """
        if self._stream.codec_context.has_b_frames or not self._stream.frames:
            packets = [(p.pts, p.is_keyframe) for p in self._container.demux(self._stream) if p.pts is not None]
        else:
            entries = self._stream.index_entries
            size = self.path.stat().st_size
            packets = [(e.timestamp, e.is_keyframe) for e in entries if e.pos + e.size <= size]
        promised = self._stream.frames
        if not packets or len(packets) < promised:
            raise self._damaged(f"it has {len(packets)} of its {promised} frames")
        packets.sort()
        self._pts = np.array([pts for pts, _ in packets])
        is_key = np.array([key for _, key in packets])
        is_key[0] = True
        self._key_before = np.maximum.accumulate(np.where(is_key, np.arange(len(packets)), 0))

    def close(self) -> None:
        self._container.close()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self._stream.height, self._stream.width

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self._pts)

    def room(self, frames: int) -> np.ndarray:
        """An array for so many frames."""
        if self._depth:
            return np.empty((frames, *self.size), np.float32)
        return np.empty((frames, *self.size, 3), np.uint8)

    def read(self, times_s: Float[np.ndarray, " N"], images: np.ndarray | None = None) -> np.ndarray:
        """The frames at these times, in `images` if given: uint8 (N, H, W, 3), or metres float32 (N, H, W)."""
        indices = self._frames_at(times_s)
        images = self.room(len(indices)) if images is None else images
        before = None
        for k in np.argsort(indices, kind="stable"):
            if before is not None and indices[k] == indices[before]:
                images[k] = images[before]
            else:
                self._put(self._decode(indices[k]), images[k])
            before = k
        return images

    def _frames_at(self, times_s: Float[np.ndarray, " N"]) -> np.ndarray:
        stamps = self._pts * float(self._stream.time_base)
        period = 1 / float(self._stream.average_rate)
        nearest = np.searchsorted(stamps, times_s - period / 2).clip(max=len(stamps) - 1)
        apart = np.abs(stamps[nearest] - times_s)
        if not np.all(apart <= 0.1 * period):  # a time may be NaN
            wrong = float(times_s[np.argmax(apart)])
            raise self._damaged(f"no frame at {wrong:.4f} s, its {len(stamps)} frames end at {stamps[-1]:.4f} s")
        return nearest

    def _decode(self, index: int) -> av.VideoFrame:
        """The frame of this index, decoded from where the decoder stands or from the key frame before it."""
        if not self._key_before[index] <= self._next <= index:
            self._rewind(self._key_before[index])
        try:
            while (frame := self._next_frame()) is not None and frame.pts <= self._pts[index]:
                if frame.pts == self._pts[index]:
                    self._next = index + 1
                    return frame
        except FFmpegError as error:
            raise self._damaged(error) from error
        raise self._damaged(f"frame {index} cannot be decoded")

    def _rewind(self, index: int) -> None:
        self._container.seek(int(self._pts[index]), stream=self._stream, backward=True)
        if self._ended:
            self._packets, self._ended = self._container.demux(self._stream), False
        self._decoded, self._next = [], index

    def _next_frame(self) -> av.VideoFrame | None:
        """The next one in the order of showing, if any is left."""
        while not self._decoded and not self._ended:
            packet = next(self._packets)
            self._ended = packet.pts is None  # after the last one comes another, for what the decoder holds back
            self._decoded = self._stream.decode(packet)
        return self._decoded.pop(0) if self._decoded else None

    def _put(self, frame: av.VideoFrame, image: np.ndarray) -> None:
        """Writes a frame's colours, or its depth in metres, to where they stay."""
        if (frame.height, frame.width) != image.shape[:2]:
            raise self._damaged(f"a frame is {frame.height} x {frame.width}, others {self.size[0]} x {self.size[1]}")
        if self._depth is None:
            plane = self._reformatter.reformat(frame, format="rgb24", threads=CONVERSION_THREADS).planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(frame.height, -1)[:, : 3 * frame.width]
            image[:] = rows.reshape(image.shape)
            return
        if f"{self._bits}le" not in frame.format.name:
            told = f"its pixels are {frame.format.name}, depth needs {self._bits} bits such as gray{self._bits}le"
            raise self._damaged(told)
        codes = np.frombuffer(frame.planes[0], np.uint16).reshape(frame.height, -1)[:, : frame.width]
        np.take(
            self._metres, codes, out=image, mode="clip"
        )  # such pixels have no other code; to look for some takes time

    def _damaged(self, why: object) -> ValueError:
        return ValueError(f"video {self.path} is damaged or truncated: {why}; copy it again or record it anew")
