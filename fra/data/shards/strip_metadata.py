"""Removes metadata from image files: place, time, camera, author, comments, previews.

Of a JPEG, PNG or WebP file the parts that decoding needs are copied unchanged and all others are dropped, as is
anything after the image (a video, a second picture). The pixels stay the same, and a file without metadata keeps its
bytes. The orientation is kept, in an Exif block that holds nothing else. A PGM or PPM without a comment is unchanged;
other formats are decoded and encoded again without loss (AVIF and HEIF as PNG).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from fra.data.images import ORIENTATION, ImageError, open_image, orientation, upright

JPEG_KEPT = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xDE)}) - {0xC8}
"""JPEG markers of frames, tables, scans and intervals."""
JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers that have no segment."""
JPEG_APPS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
"""Application segments that define how colours are decoded: their identifier, and the length that is kept."""
MARKER = re.compile(rb"\xff[^\x00\xff]")
AFTER_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""The first marker after a scan, whose data contain stuffed bytes (FF 00) and restart markers."""
PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB sBIT bKGD hIST pHYs cICP acTL fcTL fdAT".split()
)
WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})
WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
"""Metadata chunks, each with the bit of the first VP8X byte that announces it."""
PNM = re.compile(rb"P[56]\s+\d+\s+\d+\s+\d+\s")
"""The header of a binary PGM or PPM without a comment."""


def without_metadata(content: bytes) -> bytes:
    """The image file with the same pixels and orientation, but no other metadata.

    Raises:
        ImageError: The file is not an image. Some damage is found only when the result is decoded.
    """
    for signature, strip in STRIPPERS.items():
        if re.match(signature, content, re.DOTALL):
            return strip(content)
    return content if PNM.match(content) else reencode(content)


def orientation_exif(content: bytes) -> bytes:
    """An Exif block (TIFF format) that holds only the file's orientation; empty where the image is upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation(content)
    return b"" if exif[ORIENTATION] == 1 else exif.tobytes().removeprefix(b"Exif\0\0")


def jpeg(content: bytes) -> bytes:
    """A JPEG without metadata: segments up to the first end of image; bytes between segments are dropped."""
    parts, place, dropped = [b"\xff\xd8"], 2, False
    while found := MARKER.search(content, place):
        marker, body = content[found.end() - 1], found.end()
        if marker == 0xD9:
            parts.append(found[0])
            break
        if marker in JPEG_STANDALONE:
            place = body
            continue
        place = body + max(2, int.from_bytes(content[body : body + 2], "big"))
        if marker in JPEG_APPS and content[body + 2 :].startswith(JPEG_APPS[marker][0]):
            kept = content[body + 2 : place][: JPEG_APPS[marker][1]]
            if marker == 0xE0:
                kept = kept[:12] + bytes(len(kept[12:]))  # no thumbnail
            parts.append(found[0] + struct.pack(">H", len(kept) + 2) + kept)
        elif marker in JPEG_KEPT:
            if marker == 0xDA:
                end = AFTER_SCAN.search(content, place)
                place = end.start() if end else len(content)
            parts.append(content[found.start() : place])
        else:
            dropped = True
    if dropped and (exif := orientation_exif(content)):
        parts.insert(1, b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif)
    return b"".join(parts)


def png(content: bytes) -> bytes:
    """A PNG without metadata: chunks up to IEND."""
    parts, place, dropped = [content[:8]], 8, False
    while place + 8 <= len(content):
        kind, end = (
            content[place + 4 : place + 8],
            place + 12 + int.from_bytes(content[place : place + 4], "big"),
        )
        if kind in PNG_KEPT:
            parts.append(content[place:end])
        else:
            dropped = True
        if kind == b"IEND":
            break
        place = end
    if dropped and (exif := orientation_exif(content)):
        chunk = b"eXIf" + exif
        parts.insert(2, struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    return b"".join(parts)


def webp(content: bytes) -> bytes:
    """A WebP without metadata: the chunks of the RIFF file that decoding needs."""
    content = content[: 8 + int.from_bytes(content[4:8], "little")]
    kept, place, dropped = [], 12, False
    while place + 8 <= len(content):
        kind, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        end = place + 8 + size + size % 2
        if kind in WEBP_KEPT:
            kept.append(content[place:end])
        else:
            dropped = True
        place = end
    if not dropped:
        return content
    exif = orientation_exif(content)
    announced = WEBP_FLAGS[b"EXIF"] if exif else 0
    flags = ~sum(WEBP_FLAGS.values()) & 0xFF
    kept = [
        chunk[:8] + bytes([chunk[8] & flags | announced]) + chunk[9:]
        if chunk[:4] == b"VP8X" and chunk[8:]
        else chunk
        for chunk in kept
    ]
    if exif:
        kept.append(b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def reencode(content: bytes) -> bytes:
    """The decoded image, upright, as a new file: of the same format, or PNG for formats that Pillow writes with loss.

    Raises:
        ImageError: The image cannot be decoded, or the format cannot be written.
    """
    image = open_image(content)
    file_format = "PNG" if image.format in LOSSY else image.format
    plain = upright(image).copy()
    if plain.mode == "YCbCr":  # a compressed TIFF would change its values
        plain = plain.convert("RGB")
    plain.info.clear()
    stream = io.BytesIO()
    try:
        plain.save(stream, file_format, compression="tiff_deflate")  # other formats ignore the option
    except (OSError, ValueError) as error:
        raise ImageError(
            f"its metadata cannot be removed: no {file_format} of mode {plain.mode} can be written ({error})"
        ) from error
    return stream.getvalue()


LOSSY = ("AVIF", "HEIF")
"""Formats without a reader of their parts here, and which Pillow cannot write without loss."""
STRIPPERS: dict[bytes, Callable[[bytes], bytes]] = {
    rb"\xff\xd8\xff": jpeg,
    rb"\x89PNG\r\n\x1a\n": png,
    rb"RIFF....WEBP": webp,
}
"""The signature of each format, and the function that removes its metadata."""
