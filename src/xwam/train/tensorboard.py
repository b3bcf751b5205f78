"""TensorBoard's event files, written without TensorBoard: numbers and PNG pictures by step.

A file is a series of TFRecords, each a length and its checksum, an `Event` in protocol buffers, and the checksum of
that; checksums are CRC-32C, turned and shifted. Field numbers are those of TensorBoard's event.proto and summary.proto.
"""

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from platform import node

POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


class TensorBoard:
    """The event file in `folder`; what was written there before makes room, since every record is told again.

    A viewer that is open meanwhile forgets the old ones: the file begins a session at step 0.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._file = open(folder / f"events.out.tfevents.{time.time_ns()}.{node()}.{os.getpid()}", "ab")
        self._write(0, _field(3, BYTES, b"brain.Event:2"))
        self._write(0, _field(7, BYTES, _field(1, VARINT, 1)))  # SessionLog.START

    def log(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, Path]) -> None:
        values = [_named(name, _field(2, FIXED32, struct.pack("<f", value))) for name, value in numbers.items()]
        values += [_named(name, _field(4, BYTES, _image(path.read_bytes()))) for name, path in pictures.items()]
        self._write(step, _field(5, BYTES, b"".join(_field(1, BYTES, value) for value in values)))

    def close(self) -> None:
        self._file.close()

    def _write(self, step: int, content: bytes) -> None:
        event = _field(1, FIXED64, struct.pack("<d", time.time())) + _field(2, VARINT, step) + content
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))
        self._file.flush()


def _named(tag: str, value: bytes) -> bytes:
    return _field(1, BYTES, tag.encode()) + value


def _image(png: bytes) -> bytes:
    width, height = struct.unpack(">II", png[16:24])  # of its first chunk, IHDR
    return b"".join([_field(1, VARINT, height), _field(2, VARINT, width), _field(3, VARINT, 3), _field(4, BYTES, png)])


def _field(number: int, wire_type: int, value: int | bytes) -> bytes:
    """A field of a message; numbers of fixed width come as bytes."""
    head = _varint(number << 3 | wire_type)
    if wire_type == VARINT:
        return head + _varint(value)
    return head + (_varint(len(value)) if wire_type == BYTES else b"") + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _table() -> list[int]:
    """CRC-32C of every byte."""
    table = list(range(256))
    for _ in range(8):
        table = [crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0) for crc in table]
    return table


TABLE = _table()


def _checksum(content: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
