"""Frames of a video at a given rate, decoded by FFmpeg (PyAV) and turned upright; one after the other, as in a stream.

Damage does not stop the reading: what can be decoded is yielded, and a `Damage` tells what could not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from fra.data.images import MAX_PIXELS, MAX_SIDE

if TYPE_CHECKING:  # half a second: only where videos are read
    from av.buffer import Buffer
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CONTAINERS = "mov,matroska,avi"
"""The demuxers of `fra.data.datasets.annotation_files.VIDEO_SUFFIXES`, by FFmpeg's names. FFmpeg chooses one by the
file's content, and others would open files and addresses that a playlist names."""
TOLERANCE = Fraction(1, 1000)
"""Seconds by which a frame may come early: containers round times to milliseconds."""
EARLY_END = 0.9
"""A video that ends before this share of its declared duration, and more than a second early, is damaged."""
HDR = (16, 18)
"""Transfer functions of high dynamic range (PQ, HLG) by their numbers in ITU-T H.273."""
BT709 = 1
"""Primaries and transfer function of standard dynamic range, by the same standard."""
Pixels = NDArray[np.uint8]


class VideoError(ValueError):
    """The file is not a video of which frames can be taken; the message gives the reason."""


class SampledFrame(NamedTuple):
    """A frame: milliseconds since the first one of its video, and pixels (H, W, 3), RGB, upright."""

    milliseconds: int
    pixels: Pixels


@dataclass
class Damage:
    """What could not be read of a video.

    Attributes:
        undecodable: Number of packets and frames that are damaged.
        stopped: Why the reading ended before the end of the video.
    """

    undecodable: int = 0
    stopped: str | None = None

    def describe(self) -> str | None:
        """The damage in words; None where there is none."""
        parts = []
        if self.undecodable:
            parts.append(f"{self.undecodable:,} damaged packets or frames are left out")
        if self.stopped:
            parts.append(self.stopped)
        return "; ".join(parts) or None


def read_frames(path: Path, rate: float, damage: Damage) -> Iterator[SampledFrame]:
    """The first frame of a video, and then the first frame of each interval of 1 / `rate` seconds.

    Times are those at which frames are shown, so a variable frame rate is followed; where `rate` exceeds it, every
    frame is yielded once.

    Args:
        path: The video.
        rate: Frames per second.
        damage: Filled with what cannot be read.

    Raises:
        VideoError: It is not a video, or not one frame of it can be decoded.
        OSError: It cannot be read from the disk.
    """
    with open_video(path) as (container, stream):
        exact, last_slot, last_time, end = Fraction(rate), -1, -1, Fraction(0)
        for elapsed, frame in timed(
            decoded(container, stream, damage), stream, container.format.name == "avi"
        ):
            end = max(end, elapsed)
            slot, milliseconds = math.floor((elapsed + TOLERANCE) * exact), round(elapsed * 1000)
            if slot > last_slot and milliseconds > last_time:
                last_slot, last_time = slot, milliseconds
                try:
                    pixels = to_pixels(frame, stream.sample_aspect_ratio)
                except VideoError as error:
                    damage.stopped = f"at {milliseconds / 1000:.1f} s: {error}"
                    break
                yield SampledFrame(milliseconds, pixels)
        if last_slot < 0:
            raise VideoError(f"no frame can be decoded ({damage.describe() or 'it has none'})")
        if damage.stopped is None:
            damage.stopped = early_end(stream, container, float(end))


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video file and its first stream of moving pictures.

    Raises:
        VideoError: It is not a video, has no pictures or too large ones, or this FFmpeg has no decoder for it.
        OSError: It cannot be read from the disk.
    """
    import av

    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path.resolve()}", options=options)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    except (av.FFmpegError, ValueError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(
            f"not a video in MP4, QuickTime, AVI, Matroska or WebM, or one whose recording was not finished ({reason})"
        ) from None
    with container:
        moving = [
            stream
            for stream in container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic  # the cover of an audio file
        ]
        if not moving:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise VideoError(f"no moving pictures in it, only {kinds}")
        stream = moving[0]
        if stream.codec_context is None:
            raise VideoError("this FFmpeg has no decoder for it")
        check_size(stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.thread_count = 1  # videos are decoded in parallel; damage then has one outcome
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, stream


def check_size(width: int, height: int) -> None:
    """Raises `VideoError` where frames are larger than images may be."""
    if width * height > MAX_PIXELS:
        raise VideoError(f"{width}×{height} pixels are more than {MAX_PIXELS:,}")
    if max(width, height) > MAX_SIDE:
        raise VideoError(f"{width}×{height} pixels: a side is longer than {MAX_SIDE:,}")


def decoded(container: InputContainer, stream: VideoStream, damage: Damage) -> Iterator[VideoFrame]:
    """Every frame of a stream that is undamaged, in the order in which they are shown."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            damage.stopped = f"it cannot be read to its end ({error.strerror})"
            return
        if packet is None:
            return
        damage.undecodable += packet.is_corrupt
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damage.undecodable += 1
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.undecodable += 1
            else:
                yield frame


def timed(
    frames: Iterable[VideoFrame], stream: VideoStream, by_decoding: bool
) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Each frame with the seconds since the first one.

    Args:
        frames: The frames of a stream, in the order in which they are shown.
        stream: The stream.
        by_decoding: Whether to take the times of decoding. AVI has no others: FFmpeg guesses when frames are shown, and
            wrongly where frames are predicted from later ones.
    """
    first = previous = None
    for frame in frames:
        ticks, base = frame.dts if by_decoding else frame.pts, frame.time_base or stream.time_base
        if ticks is not None and base is not None:
            time = ticks * Fraction(base)
        else:  # one frame after the previous one
            time = Fraction(0) if previous is None else previous + 1 / Fraction(stream.average_rate or 25)
        first, previous = time if first is None else first, time
        yield time - first, frame


def early_end(stream: VideoStream, container: InputContainer, seconds: float) -> str | None:
    """The message on a video that ends after `seconds`, long before its declared end; otherwise None."""
    if stream.duration and stream.time_base:
        declared = float(stream.duration * stream.time_base)
    else:
        declared = (container.duration or 0) / 1e6
    if seconds < min(EARLY_END * declared, declared - 1):
        return f"it ends after {seconds:.1f} of {declared:.1f} s: the file is truncated or damaged"
    return None


def to_pixels(frame: VideoFrame, aspect: Fraction | None) -> Pixels:
    """The pixels of a frame: (H, W, 3), RGB, with square pixels and its rotation applied.

    Args:
        frame: The frame, of any pixel format (10 bits are reduced to 8, a high dynamic range to the standard one).
        aspect: Width of a pixel divided by its height, where known.

    Raises:
        VideoError: The frame is larger than images may be.
    """
    width = round(frame.width * aspect) if aspect else frame.width
    check_size(max(width, frame.width), frame.height)
    standard = BT709 if frame.color_trc in HDR else None  # None: as it is
    pixels = np.asarray(
        frame.to_ndarray(format="rgb24", dst_color_trc=standard, dst_color_primaries=standard), np.uint8
    )
    if 0 < width != frame.width:
        pixels = np.asarray(cv2.resize(pixels, (width, frame.height), interpolation=cv2.INTER_AREA), np.uint8)
    return turned(pixels, display_matrix(frame))


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """Where the axes of a frame point when it is shown: x of x, y of x, x of y, y of y; None where it is upright."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return None
    matrix = np.frombuffer(bytes(cast("Buffer", side_data)), np.int32)[:9].reshape(3, 3)
    return int(matrix[0, 0]), int(matrix[0, 1]), int(matrix[1, 0]), int(matrix[1, 1])


def turned(pixels: Pixels, matrix: tuple[int, int, int, int] | None) -> Pixels:
    """Pixels rotated and mirrored by a display matrix, to the nearest multiple of 90 degrees."""
    if matrix is None:
        return pixels
    x_of_x, y_of_x, x_of_y, y_of_y = matrix
    if abs(x_of_y) + abs(y_of_x) > abs(x_of_x) + abs(y_of_y):
        pixels, right, down = pixels.transpose(1, 0, 2), x_of_y, y_of_x
    else:
        right, down = x_of_x, y_of_y
    pixels = pixels[:, ::-1] if right < 0 else pixels
    return np.ascontiguousarray(pixels[::-1] if down < 0 else pixels)
