"""What a page holds of every frame: its picture as a JPEG, its depth and what is known of each pixel, packed small.

depth in metres --> 16-bit logarithmic codes --> differences along rows and columns --> planes of bytes, flags --> zlib

The page's data.js undoes it; `unpack` here is its plain twin.
"""

import zlib

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt16

STEPS_PER_E = 4000
"""Codes from one depth to another e times as far: depth errs by at most 0.0125%, an eighth of a millimetre at 1 m."""
LARGEST = 2**16 - 1
REACH = float(np.exp((LARGEST - 1) / STEPS_PER_E))
"""How many times as far as the nearest depth the farthest can be."""
ON_SURFACE = 1


def encode_depth(depth_m: Float[np.ndarray, "*n"], nearest_m: float) -> UInt16[np.ndarray, "*n"]:
    """Codes of depth, which is `nearest_m * exp((code - 1) / STEPS_PER_E)`; unknown depth (0, NaN, infinite) is 0."""
    known = np.isfinite(depth_m) & (depth_m > 0)
    codes = 1 + np.rint(STEPS_PER_E * np.log(np.where(known, depth_m, nearest_m) / nearest_m))
    return np.where(known, np.clip(codes, 1, LARGEST), 0).astype(np.uint16)


def decode_depth(codes: UInt16[np.ndarray, "*n"], nearest_m: float) -> Float[np.ndarray, "*n"]:
    """The inverse of `encode_depth`."""
    return np.where(codes > 0, nearest_m * np.exp((codes.astype(np.float64) - 1) / STEPS_PER_E), 0.0)


def pack(
    codes: UInt16[np.ndarray, "H W"], surface: Bool[np.ndarray, "H W"], layers: UInt8[np.ndarray, "H W"] | None
) -> bytes:
    """One frame of one view. A pixel's flags are `ON_SURFACE`, if it does not fly, and twice its layer."""
    steps = np.diff(np.diff(codes, axis=1, prepend=np.uint16(0)), axis=0, prepend=np.uint16(0))
    flags = surface * np.uint8(ON_SURFACE) + (0 if layers is None else layers.astype(np.uint8) << 1)
    planes = ((steps >> 8).astype(np.uint8), (steps & 255).astype(np.uint8), flags.astype(np.uint8))
    return zlib.compress(b"".join(plane.tobytes() for plane in planes), level=6)


def unpack(packed: bytes, height: int, width: int) -> tuple[UInt16[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]:
    """Codes and flags; the inverse of `pack`."""
    high, low, flags = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(3, height, width)
    steps = high.astype(np.uint16) << 8 | low
    return np.cumsum(np.cumsum(steps, axis=0, dtype=np.uint16), axis=1, dtype=np.uint16), flags
