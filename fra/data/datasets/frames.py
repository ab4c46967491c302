"""Records of videos replaced by records of their frames, which are stored as JPEG, one tar per video.

A video is decoded once: its tar, and a report of what is in it, are kept until the video or the rate changes. Equal
videos give equal tars, whenever and on however many processes they are decoded.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from posixpath import splitext
from typing import NamedTuple, Self

import cv2
import numpy as np
from tqdm import tqdm

from fra.data.datasets.annotation_files import VIDEO_SUFFIXES
from fra.data.datasets.checks import stat_all
from fra.data.datasets.records import Record, hash_fraction
from fra.data.datasets.video import Damage, Pixels, VideoError, read_frames
from fra.data.executors import Executor, local
from fra.data.images import to_jpeg
from fra.files import TAR_END, atomic, sha256, tar_member, write_json, write_text
from fra.wording import counted

logger = logging.getLogger(__name__)

NEAR_IDENTICAL = 0.5
"""Mean absolute difference, of 255 grey levels, below which a frame is taken to show the same as the last kept one: the
noise of a camera that does not move stays below it, a head that moves does not."""
THUMBNAIL = 32
"""Side in pixels of the grey images that are compared."""


def same(path: Path) -> Path:
    """The path itself."""
    return path


@dataclass(frozen=True)
class FrameStore:
    """Where the frames of a set's videos are stored.

    Attributes:
        folder: Folder that only these functions use. It keeps the frames between runs.
        code: Changes with the code that decodes videos, so that they are then decoded again.
        publish: Copies the folder of tars to where records shall refer to it, and returns that place.
        executor: Where videos are decoded; processes of this machine by default.
    """

    folder: Path
    code: str = ""
    publish: Callable[[Path], Path] = same
    executor: Executor | None = None

    @property
    def tars(self) -> Path:
        """The folder of the tars."""
        return self.folder / "tars"


@dataclass(frozen=True)
class VideoReport:
    """What was taken from a video.

    Attributes:
        fingerprint: A hash of what it depends on: size and time of change of the video, rate, and code.
        size: Size of the tar in bytes; 0 without a frame.
        sha256: Its hash.
        frames: Milliseconds since the first frame, first byte in the tar and number of bytes of each frame.
        near_identical: Number of frames that were dropped because they show the same as the last kept one.
        problem: What could not be read, in words.
    """

    fingerprint: str
    size: int = 0
    sha256: str = ""
    frames: tuple[tuple[int, int, int], ...] = ()
    near_identical: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class VideoJob:
    """One video to take frames from.

    Attributes:
        video: Its path.
        rate: Frames per second.
        fingerprint: See `VideoReport`.
        size: Its size in bytes.
        tar: The tar to write.
        report: The JSON file to write, after the tar.
    """

    video: Path
    rate: float
    fingerprint: str
    size: int
    tar: Path
    report: Path

    def absolute(self) -> Self:
        """The job with absolute paths, for a process whose current folder is another one."""
        return replace(self, video=self.video.resolve(), tar=self.tar.resolve(), report=self.report.resolve())


class Frames(NamedTuple):
    """Records of frames, and the version of each tar that they refer to, which changes with its bytes."""

    records: list[Record]
    versions: dict[str, int]


def is_video(record: Record) -> bool:
    """Whether a record's source is a video file, by its suffix."""
    embedded = record.content is not None or record.span is not None
    return not embedded and splitext(record.source)[1].lower() in VIDEO_SUFFIXES


def without_videos(records: list[Record], where: Path | str) -> list[Record]:
    """The records of images; a warning counts those of videos."""
    images = [record for record in records if not is_video(record)]
    if len(images) < len(records):
        logger.warning(
            "%s: %s left out; dataset.frames_per_second takes frames from them",
            where,
            counted(len(records) - len(images), "video"),
        )
    return images


def with_frames(records: list[Record], root: Path, rate: float, store: FrameStore) -> Frames:
    """The records, with each record of a video replaced by those of its frames: of the same person and split.

    Frames of videos that `records` does not list are deleted from the store.

    Args:
        records: Records of images and videos.
        root: Folder with the files.
        rate: Frames per second.
        store: Where frames are stored.

    Raises:
        ValueError: A video has landmarks or a box, which would hold for one frame only.
        FileNotFoundError: A video is missing.
        OSError: A video cannot be read from the disk, or there is no room for its frames.
    """
    videos = list(dict.fromkeys(record.source for record in records if is_video(record)))
    for record in records:
        if is_video(record) and (record.landmarks or record.box):
            raise ValueError(
                f"{record.source}: landmarks or a box of a video; list its frames as images instead"
            )
    if not videos:
        logger.warning(
            "%s: no video in it (looked for %s), though dataset.frames_per_second is %s",
            root,
            " ".join(sorted(VIDEO_SUFFIXES)),
            rate,
        )
    jobs = [
        job_of(root, video, stamp, rate, store)
        for video, stamp in zip(videos, stat_all(root, videos), strict=True)
    ]
    remove_others(store, jobs)
    unknown = [job for job in jobs if not is_done(job)]
    with tqdm(
        total=sum(job.size for job in jobs),
        initial=sum(job.size for job in jobs) - sum(job.size for job in unknown),
        unit="B",
        unit_scale=True,
        desc="videos",
        mininterval=1,
    ) as bar:
        for done in (store.executor or local(0))(extract, unknown):
            bar.update(done)
    reports = {video: read_report(job.report) for video, job in zip(videos, jobs, strict=True)}
    log(root, reports)
    write_text(listing(reports, jobs), store.tars / "videos.csv")
    folder = store.publish(store.tars)
    places = {video: (folder / job.tar.name).as_posix() for video, job in zip(videos, jobs, strict=True)}
    listed = [
        frame
        for record in records
        for frame in (
            frames_of(record, reports[record.source], places[record.source]) if is_video(record) else [record]
        )
    ]
    return Frames(listed, {places[video]: version_of(report) for video, report in reports.items()})


def job_of(root: Path, video: str, stamp: tuple[int, int], rate: float, store: FrameStore) -> VideoJob:
    """The job for one video. Its files are named by a hash: a video's name may be too long, or not be a URL's."""
    name = hashlib.sha256(video.encode()).hexdigest()[:32]
    size, modified = stamp
    depends_on = f"{size} {modified} {rate!r} {store.code}"
    return VideoJob(
        root / video,
        rate,
        hashlib.sha256(depends_on.encode()).hexdigest(),
        size,
        store.tars / f"{name}.tar",
        store.folder / "reports" / f"{name}.json",
    )


def remove_others(store: FrameStore, jobs: list[VideoJob]) -> None:
    """Deletes everything in the store but the files of these jobs: of videos that are gone, and of killed workers."""
    wanted = {path for job in jobs for path in (job.tar, job.report)}
    for folder in (store.tars, store.folder / "reports"):
        folder.mkdir(parents=True, exist_ok=True)
        for file in set(folder.iterdir()) - wanted:
            file.unlink()


def is_done(job: VideoJob) -> bool:
    """Whether the frames of a video were stored by an earlier run, finished or not, and it has not changed since."""
    try:
        report = read_report(job.report)
        size = job.tar.stat().st_size if report.frames else 0
    except (FileNotFoundError, ValueError, TypeError):
        return False
    return report.fingerprint == job.fingerprint and report.size == size


def read_report(path: Path) -> VideoReport:
    """What was taken from a video."""
    content = json.loads(path.read_text(encoding="utf-8"))
    frames = tuple((int(time), int(start), int(size)) for time, start, size in content.pop("frames"))
    return VideoReport(frames=frames, **content)


def extract(job: VideoJob) -> int:
    """Stores the frames of a video and then the report; returns the video's size in bytes.

    A video without a readable frame gets a report and no tar.
    """
    damage, near_identical = Damage(), 0
    frames: list[tuple[int, int, int]] = []
    kept: Pixels | None = None
    try:
        with atomic(job.tar) as partial, partial.open("wb", buffering=1 << 20) as stream:
            for milliseconds, pixels in read_frames(job.video, job.rate, damage):
                small = thumbnail(pixels)
                if kept is not None and difference(small, kept) < NEAR_IDENTICAL:
                    near_identical += 1
                    continue
                kept, content = small, to_jpeg(pixels)
                member = tar_member(f"{milliseconds:08d}.jpg", content)
                start = stream.tell() + len(member) - len(content) - -len(content) % 512
                frames.append((milliseconds, start, len(content)))
                stream.write(member)
            stream.write(TAR_END)
    except VideoError as error:
        job.tar.unlink(missing_ok=True)
        report = VideoReport(job.fingerprint, problem=str(error))
    else:
        size, digest = job.tar.stat().st_size, sha256(job.tar)
        report = VideoReport(job.fingerprint, size, digest, tuple(frames), near_identical, damage.describe())
    write_json(asdict(report), job.report)
    return job.size


def thumbnail(pixels: Pixels) -> Pixels:
    """A small grey image of a frame."""
    small = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)


def difference(first: Pixels, second: Pixels) -> float:
    """The mean absolute difference of two images of one size."""
    return float(cv2.absdiff(first, second).mean())


def log(root: Path, reports: dict[str, VideoReport]) -> None:
    """Logs how many frames were taken, and names each video that is damaged or left out."""
    for video, report in reports.items():
        if report.problem and report.frames:
            logger.warning(
                "%s: %s; its %s other frames are used", root / video, report.problem, len(report.frames)
            )
        elif report.problem:
            logger.warning("%s: left out: %s", root / video, report.problem)
    if reports:
        logger.info(
            "%s: %s of %s; %s dropped; %s damaged, %s left out",
            root,
            counted(sum(len(report.frames) for report in reports.values()), "frame"),
            counted(len(reports), "video"),
            counted(sum(report.near_identical for report in reports.values()), "near-identical frame"),
            counted(sum(bool(report.problem and report.frames) for report in reports.values()), "video"),
            sum(not report.frames for report in reports.values()),
        )


def frames_of(record: Record, report: VideoReport, tar: str) -> list[Record]:
    """The records of a video's frames, named `<video>/<milliseconds>.jpg`."""
    return [
        replace(
            record,
            source=tar,
            name=f"{record.name or record.source}/{milliseconds:08d}.jpg",
            span=(start, size),
            video=record.source,
            seconds=milliseconds / 1000,
        )
        for milliseconds, start, size in report.frames
    ]


def listing(reports: dict[str, VideoReport], jobs: list[VideoJob]) -> str:
    """The table `videos.csv`: what was taken from each video, in which tar, and what could not be read."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["video", "tar", "frames", "near_identical", "problem"])
    for (video, report), job in sorted(zip(reports.items(), jobs, strict=True), key=lambda pair: pair[0][0]):
        tar = job.tar.name if report.frames else ""
        table.writerow([video, tar, len(report.frames), report.near_identical, report.problem or ""])
    return stream.getvalue()


def version_of(report: VideoReport) -> int:
    """A number that changes with the bytes of a tar: the same on every machine."""
    return int(hash_fraction(report.sha256) * 2**62)
