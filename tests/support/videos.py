"""Videos made for tests: an embedded face that moves over a synthetic scene, a pattern of colours, and damage."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from fra.bench.scenes import background
from support.scenes import Pixels, orl_photographs

RATE = 10
"""Frames per second of a video, where a test needs no other."""
ONE = 1 << 16
MATRICES = {
    "90": (0, ONE, -ONE, 0),
    "180": (-ONE, 0, 0, -ONE),
    "270": (0, -ONE, ONE, 0),
    "mirrored": (-ONE, 0, 0, ONE),
}
"""Display matrices of the MP4 standard: rotated clockwise by degrees, or mirrored."""


def write_video(
    path: Path,
    images: Iterable[Pixels],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    rate: int = RATE,
) -> Path:
    """Writes images as a video at `rate`, or at `ticks` in hundredths of a second; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 100 if ticks else rate)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, image in enumerate(images):
            if number == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = ticks[number] if ticks else number, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def moving_face(count: int = 30, person: int = 0, seed: int = 1) -> Iterator[Pixels]:
    """A face of the embedded set, 140 pixels wide, that moves through a scene of 640×480 pixels."""
    scene = background(480, 640, np.random.default_rng(seed))
    face = next(islice(orl_photographs(), 10 * person, None))
    face = cv2.resize(face, (140, 170), interpolation=cv2.INTER_CUBIC)
    for number in range(count):
        image = scene.copy()
        left, top = 40 + 12 * number % 440, 60 + 6 * number % 200
        image[top : top + 170, left : left + 140] = face
        yield image


def pattern(count: int = 30, height: int = 120, width: int = 160) -> Iterator[Pixels]:
    """A red corner at the top left, and grey at the right that brightens by 8 levels a frame."""
    for number in range(count):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, width // 2 :] = 8 * number % 256
        image[: height // 3, : width // 3] = 255, 0, 0
        yield image


def still_camera(count: int = 30, noise: float = 5) -> Iterator[Pixels]:
    """A scene that does not change, with the noise of a sensor."""
    generator = np.random.default_rng(3)
    scene = background(480, 640, generator).astype(np.float32)
    for _ in range(count):
        yield np.clip(scene + generator.normal(0, noise, scene.shape), 0, 255).astype(np.uint8)


def with_matrix(source: Path, target: Path, name: str) -> Path:
    """Copies an MP4 file with the display matrix `name`, as a phone writes it that was held otherwise."""
    content = bytearray(source.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = MATRICES[name]
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target


def write_sound(path: Path) -> Path:
    """Writes a second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
