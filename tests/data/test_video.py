"""Frames of videos: times, rotation, formats, and files that are damaged or no videos."""

from __future__ import annotations

import socket
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.videos import MATRICES, Pixels, pattern, with_matrix, write_sound, write_video

from fra.data.datasets import video
from fra.data.datasets.video import Damage, VideoError, read_frames, turned

RED, BLACK = (255, 0, 0), (0, 0, 0)


def times(path: Path, rate: float) -> list[int]:
    damage = Damage()
    found = [frame.milliseconds for frame in read_frames(path, rate, damage)]
    assert damage.describe() is None
    return found


def first(path: Path) -> Pixels:
    return next(read_frames(path, 1, Damage())).pixels


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.avi", "libx264"),  # frames predicted from later ones, in a container without their times
        ("a.avi", "mpeg4"),
        ("a.m4v", "mpeg4"),
        ("a.webm", "libvpx-vp9"),
    ],
)
def test_every_container_gives_the_frames_at_their_times(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, pattern(), codec)
    assert times(path, 1000) == [100 * number for number in range(30)], "every frame once"
    assert times(path, 5) == [200 * number for number in range(15)]
    assert times(path, 1) == [0, 1000, 2000]
    assert times(path, 0.01) == [0]
    frames = list(read_frames(path, 1, Damage()))
    assert [int(frame.pixels[60, 120].mean()) for frame in frames] == pytest.approx([0, 80, 160], abs=4)
    np.testing.assert_allclose(frames[0].pixels[10, 10], RED, atol=6)


def test_a_variable_frame_rate_is_followed(tmp_path: Path) -> None:
    ticks = [0, 1, 2, 3, 50, 51, 52, 53, 54, 200]
    path = write_video(tmp_path / "a.mp4", pattern(10), ticks=ticks)
    assert times(path, 10) == [0, 500, 2000]
    assert times(path, 1000) == [10 * tick for tick in ticks]


def test_rounded_times_lose_no_frame(tmp_path: Path) -> None:
    """Matroska rounds to milliseconds: 0, 33, 67, 100, of which the second comes early for 30 frames per second."""
    path = write_video(tmp_path / "a.mkv", pattern(), rate=30)
    assert times(path, 30) == [round(1000 * number / 30) for number in range(30)]


@pytest.mark.parametrize(
    ("name", "corner"), [("90", (0, -1)), ("180", (-1, -1)), ("270", (-1, 0)), ("mirrored", (0, -1))]
)
def test_a_phone_video_is_turned_upright(tmp_path: Path, name: str, corner: tuple[int, int]) -> None:
    """The red corner moves from the top left to where the display matrix of the MP4 standard puts it."""
    path = with_matrix(write_video(tmp_path / "a.mp4", pattern()), tmp_path / "b.mp4", name)
    shown = first(path)
    assert shown.shape == ((160, 120, 3) if name in ("90", "270") else (120, 160, 3))
    for place in [(0, 0), (0, -1), (-1, 0), (-1, -1)]:
        pixel = shown[np.array(place[0]) * 5, np.array(place[1]) * 5]
        assert (pixel[0] > 200) == (place == corner), place


def test_turned_follows_the_matrix_of_every_quarter_turn() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(turned(image, MATRICES["90"]), np.rot90(image, -1))
    np.testing.assert_array_equal(turned(image, MATRICES["180"]), np.rot90(image, 2))
    np.testing.assert_array_equal(turned(image, MATRICES["270"]), np.rot90(image, 1))
    np.testing.assert_array_equal(turned(image, MATRICES["mirrored"]), image[:, ::-1])


def test_ten_bits_are_reduced_to_eight(tmp_path: Path) -> None:
    quiet = {"x265-params": "log-level=none"}
    path = write_video(tmp_path / "a.mp4", pattern(), "libx265", "yuv420p10le", options=quiet)
    np.testing.assert_allclose(first(path)[10, 10], RED, atol=6)


@pytest.mark.parametrize(
    ("transfer", "signal", "shown"),
    [("arib-std-b67", 180, 227), pytest.param("smpte2084", 148, 255, marks=pytest.mark.slow)],
)
def test_a_high_dynamic_range_is_mapped_to_the_standard_one(
    tmp_path: Path, transfer: str, signal: int, shown: int
) -> None:
    """White paper (203 cd/m², 75 % HLG, 58 % PQ) is nearly white; without mapping it is as grey as its signal."""
    params = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=none"
    grey = [np.full((120, 160, 3), signal, np.uint8)] * 3
    path = write_video(tmp_path / "a.mp4", grey, "libx265", "yuv420p10le", options={"x265-params": params})
    np.testing.assert_allclose(first(path)[60, 80], shown, atol=8)


def test_odd_sides_and_pixels_that_are_not_square(tmp_path: Path) -> None:
    odd = write_video(tmp_path / "a.avi", pattern(5, 121, 161), "mjpeg", "yuvj444p")
    assert first(odd).shape == (121, 161, 3)
    wide = write_video(tmp_path / "b.mp4", pattern(5), aspect=Fraction(16, 11))
    assert first(wide).shape == (120, round(160 * 16 / 11), 3)


def test_files_that_are_no_videos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("a text" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    whole = write_video(tmp_path / "whole.mp4", pattern()).read_bytes()
    (tmp_path / "unfinished.mp4").write_bytes(whole[: len(whole) // 2])  # without its index, which comes last
    for name in ("text.mp4", "empty.mp4", "unfinished.mp4"):
        with pytest.raises(
            VideoError, match=r"not a video in MP4, .* or one whose recording was not finished"
        ):
            first(tmp_path / name)
    with pytest.raises(VideoError, match="no moving pictures in it, only audio"):
        first(write_sound(tmp_path / "sound.mp4"))
    with pytest.raises(OSError, match="No such file"):
        first(tmp_path / "missing.mp4")


def test_a_message_names_no_folder(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("a text" * 100)
    with pytest.raises(VideoError) as caught:
        first(tmp_path / "text.mp4")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {address}\n",
    ],
)
def test_a_playlist_opens_no_other_file_and_no_address(tmp_path: Path, text: str) -> None:
    """FFmpeg would otherwise read what a playlist names, whatever the suffix of the playlist."""
    other = write_video(tmp_path / "other.mp4", pattern())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        for address in (other.name, str(other), f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4"):
            (tmp_path / "list.mp4").write_text(text.format(address=address))
            with pytest.raises(VideoError, match="not a video"):
                first(tmp_path / "list.mp4")
        with pytest.raises(TimeoutError):
            server.accept()


def test_large_frames_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", pattern())
    monkeypatch.setattr(video, "MAX_PIXELS", 160 * 120 - 1)
    with pytest.raises(VideoError, match="160×120 pixels are more than 19,199"):
        first(path)


def test_of_a_truncated_video_the_readable_part_is_used(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", pattern(60), container_options={"movflags": "faststart"})
    content = whole.read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[: len(content) * 6 // 10])
    damage = Damage()
    frames = list(read_frames(tmp_path / "b.mp4", 10, damage))
    assert 0 < len(frames) < 60
    assert "of 6.0 s: the file is truncated or damaged" in str(damage.describe())


def test_of_a_damaged_video_the_readable_part_is_used(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", pattern(60), "mpeg4", options={"g": "5"})
    content = bytearray(whole.read_bytes())
    for start in range(len(content) // 3, len(content) * 2 // 3, 97):
        content[start] ^= 0xFF
    (tmp_path / "b.mkv").write_bytes(content)
    damage = Damage()
    frames = list(read_frames(tmp_path / "b.mkv", 10, damage))
    assert 0 < len(frames) < 60
    assert damage.describe()


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path) -> None:
    """Ten times as many frames take no more memory."""
    code = (
        "import sys, resource; from pathlib import Path; from fra.data.datasets.video import *\n"
        "count = sum(1 for _ in read_frames(Path(sys.argv[1]), 1000, Damage()))\n"
        "print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = {}
    for count in (30, 300):
        path = write_video(
            tmp_path / f"{count}.mp4", pattern(count, 720, 1280), options={"preset": "ultrafast"}
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        frames, peaks[count] = map(int, done.stdout.split())
        assert frames == count
    assert peaks[300] < peaks[30] + 30_000, "kilobytes; 270 frames would take 730,000"
