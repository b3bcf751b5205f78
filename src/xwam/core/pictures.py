"""Pictures of what cameras see, for pages and cards: depth in colours, contact sheets, JPEG, PNG."""

import base64
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8

# How a file of each kind begins.
ENCODINGS = {b"\x89PNG": "png", b"\xff\xd8\xff": "mjpeg"}


def depth_range(depth_m: Float[np.ndarray, "T H W"]) -> tuple[float, float]:
    """Range of the colours: 1% to 99% of known depth, so that one far pixel does not flatten the rest."""
    known = depth_m[depth_m > 0]
    if not known.size:
        return 0.0, 1.0
    near_m, far_m = np.quantile(known, [0.01, 0.99])
    return float(near_m), float(max(far_m, near_m + 0.01))


def depth_colours(depth_m: Float[np.ndarray, "T H W"], near_m: float, far_m: float) -> UInt8[np.ndarray, "T H W 3"]:
    """Near is bright, far is dark, unknown is grey."""
    colours = viridis(1 - np.clip((depth_m - near_m) / (far_m - near_m), 0, 1))
    colours[depth_m <= 0] = 128
    return colours


def viridis(share: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n 3"]:
    """sRGB of a share in [0, 1]: matplotlib's perceptually uniform map, by the polynomial of Matt Zucker (CC0)."""
    coefficients = np.array(
        [
            (0.2777273272, 0.0054073445, 0.3340998053),
            (0.1050930431, 1.4046135299, 1.3845901626),
            (-0.3308618287, 0.2148475595, 0.0950951630),
            (-4.6342304990, -5.7991009734, -19.3324409563),
            (6.2282699363, 14.1799333668, 56.6905526007),
            (4.7763849977, -13.7451453777, -65.3530326334),
            (-5.4354558559, 4.6458526122, 26.3124352496),
        ]
    )
    powers = np.asarray(share)[..., None] ** np.arange(7)
    return np.rint(255 * np.clip(powers @ coefficients, 0, 1)).astype(np.uint8)


def jpeg(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A JPEG of high quality and full colour resolution, so that coding is not taken for imagination."""
    codec = av.CodecContext.create("mjpeg", "w")
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt, codec.time_base = "yuvj444p", Fraction(1)
    codec.options = {"qmin": "2", "qmax": "2"}
    codec.thread_count = 1
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
    # One thread, for those of PyAV's default take longer to start than the work.
    frame = VideoReformatter().reformat(frame, format="yuvj444p", threads=1)
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def png(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A PNG, without loss."""
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def read_picture(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """The colours of a PNG or JPEG file."""
    return _decoded(path).reformat(format="rgb24").to_ndarray()


def read_depth_picture(path: Path) -> Float[np.ndarray, "H W"]:
    """Depth in metres of a 16-bit grey PNG in millimetres, as depth cameras write it; 0 is unknown."""
    frame = _decoded(path)
    if not frame.format.name.startswith("gray16"):
        raise ValueError(f"{path} has pixels {frame.format.name}: give depth as a 16-bit grey PNG in millimetres")
    return frame.to_ndarray().astype(np.float32) / 1000


def _decoded(path: Path) -> av.VideoFrame:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"picture {path} cannot be read: {error.strerror}") from error
    codec = next((name for magic, name in ENCODINGS.items() if content.startswith(magic)), None)
    if codec is None:
        raise ValueError(f"{path} is neither PNG nor JPEG: save it as one of them")
    decoder = av.CodecContext.create(codec, "r")
    decoder.thread_count = 1  # with more, an image comes only after the next ones were given
    try:
        [frame] = decoder.decode(av.Packet(content))
    except (FFmpegError, ValueError) as error:
        raise ValueError(f"picture {path} is damaged ({error}): copy it again") from error
    return frame


def contact_sheet(
    rgb: dict[str, UInt8[np.ndarray, "T _H _W 3"]], depth_m: dict[str, Float[np.ndarray, "T _H _W"]], highest: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Moments of several cameras, a row each: every camera's image and beside it its depth, if there is any.

    All images are brought to one height of at most `highest` by their nearest pixels.
    """
    columns = []
    for camera, images in rgb.items():
        columns.append(images)
        if camera in depth_m:
            columns.append(depth_colours(depth_m[camera], *depth_range(depth_m[camera])))
    height = min(highest, max(images.shape[1] for images in columns))
    rows = [[_as_high_as(height, image) for image in moment] for moment in zip(*columns, strict=True)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _as_high_as(height: int, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    rows, columns = ((np.arange(n) * image.shape[k] // n) for k, n in enumerate((height, width)))
    return image[rows[:, None], columns]


def data_uri(kind: str, content: bytes) -> str:
    """A file inside a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
