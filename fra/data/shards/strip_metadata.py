"""Image files without what they say beside their picture: place, time, camera, author, comments, previews.

Of a JPEG, PNG or WebP the parts that decoding needs are kept byte by byte, all others are left out, and so is what
follows the image (a video, a second picture): the pixels are the same, and a file that says nothing keeps its bytes.
Which way up the picture is stays: in an Exif block that holds nothing else. A PGM or PPM without a comment is left
alone; other formats are written anew from their pixels, without loss.
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
JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers without a segment."""
JPEG_APPS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
"""Application segments that say how colours are meant: how they begin, and their length without what may follow."""
MARKER = re.compile(rb"\xff[^\x00\xff]")
AFTER_SCAN = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""What ends the coded pixels, which hold stuffed bytes (FF 00) and restart markers (and, damaged, invalid ones)."""
PNG_KEPT = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB sBIT bKGD hIST pHYs cICP acTL fcTL fdAT".split()
)
WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})
WEBP_SAYS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
"""Chunks that VP8X announces by a bit of its first byte."""
PNM = re.compile(rb"P[56]\s+\d+\s+\d+\s+\d+\s")
"""The header of a binary PGM or PPM without a comment: it can say nothing."""


def without_metadata(content: bytes) -> bytes:
    """An image file with the same pixels, the same way up, that says nothing else.

    Raises:
        ImageError: it is no image (only some kinds of damage are noticed here; decoding finds the others).
    """
    for magic, bare in BARE.items():
        if re.match(magic, content, re.DOTALL):
            return bare(content)
    return content if PNM.match(content) else anew(content)


def exif_of(content: bytes) -> bytes:
    """A block of Exif (TIFF format) with the file's orientation alone; empty where it is upright already."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation(content)
    return b"" if exif[ORIENTATION] == 1 else exif.tobytes().removeprefix(b"Exif\0\0")


def jpeg(content: bytes) -> bytes:
    """Segments up to the first end of image; bytes between segments are left out, as decoders skip them."""
    parts, place, dropped = [b"\xff\xd8"], 2, False
    while found := MARKER.search(content, place):
        marker, body = content[found.end() - 1], found.end()
        if marker == 0xD9:
            parts.append(found[0])
            break
        if marker in JPEG_ALONE:
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
    if dropped and (exif := exif_of(content)):
        parts.insert(1, b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif)
    return b"".join(parts)


def png(content: bytes) -> bytes:
    """Chunks up to IEND."""
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
    if dropped and (exif := exif_of(content)):
        chunk = b"eXIf" + exif
        parts.insert(2, struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    return b"".join(parts)


def webp(content: bytes) -> bytes:
    """Chunks of the RIFF file."""
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
    exif = exif_of(content)
    said = WEBP_SAYS[b"EXIF"] if exif else 0
    flags = ~sum(WEBP_SAYS.values()) & 0xFF
    kept = [
        chunk[:8] + bytes([chunk[8] & flags | said]) + chunk[9:]
        if chunk[:4] == b"VP8X" and chunk[8:]
        else chunk
        for chunk in kept
    ]
    if exif:
        kept.append(b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def anew(content: bytes) -> bytes:
    """The picture, upright, as a new file of the same format. Raises `ImageError`."""
    image = open_image(content)
    form = image.format
    plain = upright(image).copy()
    if plain.mode == "YCbCr":  # which a compressed TIFF would not keep exactly
        plain = plain.convert("RGB")
    plain.info.clear()
    stream = io.BytesIO()
    try:
        plain.save(stream, form, compression="tiff_deflate")  # which TIFF alone looks at
    except (OSError, ValueError) as error:
        raise ImageError(
            f"its metadata cannot be taken out: no {form} of mode {plain.mode} ({error})"
        ) from error
    return stream.getvalue()


BARE: dict[bytes, Callable[[bytes], bytes]] = {
    rb"\xff\xd8\xff": jpeg,
    rb"\x89PNG\r\n\x1a\n": png,
    rb"RIFF....WEBP": webp,
}
"""How each format begins, and what takes its metadata out."""
