"""Files of pictures that are made to take for ever: small ones that keep a decoder busy for minutes."""

import re
import struct
from typing import BinaryIO

MAX_CHUNKS = 1000  # of a PNG, those of pixels left aside; usual are ten
MAX_SCANS = 256  # of a progressive JPEG, each of which goes over all pixels; usual are ten
HEADER = 2**16  # bytes in which a PPM, whose header Pillow reads byte by byte, must have said its size
BLOCK = 2**20


def check_header(file: BinaryIO) -> None:
    """Check what a decoder reads before it knows the size; the file is left at its start.

    Raises:
        ValueError: if it would take too long.
    """
    start = file.read(HEADER)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_chunks(file)
    elif re.match(rb"P[1-7fFyY0]\s|P[1-7]#", start) and len(re.sub(rb"#[^\r\n]*", b"", start).split()) < 3:
        raise ValueError(f"its header has no size within {HEADER:,} bytes; write it anew without comments")
    file.seek(0)


def check_scans(file: BinaryIO) -> None:
    """Check how often a JPEG goes over its pixels; the file is left at its start.

    Raises:
        ValueError: if it would take too long.
    """
    start, found, before = file.read(3), 0, b""
    while start == b"\xff\xd8\xff" and (block := file.read(BLOCK)):
        found += (before + block).count(b"\xff\xda")  # within a scan 0xFF is never followed by 0xDA
        before = block[-1:]
    file.seek(0)
    if found > MAX_SCANS:
        raise ValueError(f"it has {found:,} scans; takes at most {MAX_SCANS}. Write it anew")


def _check_chunks(file: BinaryIO) -> None:
    place, others = 8, 0
    while others <= MAX_CHUNKS:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        place += 12 + length
        others += name not in (b"IDAT", b"fdAT")
    raise ValueError(f"it has more than {MAX_CHUNKS:,} chunks besides its pixels; write it anew")
