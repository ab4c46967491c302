"""Every public layout with a few dozen made-up faces: enough to learn from, choose on and ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PEOPLE, IMAGES, SIDE = 12, 3, 48


class Face(NamedTuple):
    """One image: whose it is, its place in the split, what it shows."""

    number: int
    person: int
    split: str
    image: Image.Image
    point_L2: NDArray[np.float64]


def faces(landmarks: int = 68) -> Iterator[Face]:
    """Noise in each person's own colour; points around eyes and mouth of a face that moves a little."""
    generator = np.random.default_rng(landmarks)
    template = generator.uniform(14, 34, (landmarks, 2))
    left, right = {68: (36, 45), 98: (60, 72), 5: (0, 1), 6: (0, 3)}[landmarks]
    template[left], template[right] = (14, 18), (34, 18)
    for number in range(PEOPLE * IMAGES):
        person = number // IMAGES
        pixels = generator.normal(60 + 10 * person, 25, (SIDE, SIDE, 3))
        split = "train" if person < 7 else "val" if person < 9 else "test"
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        yield Face(number, person, split, image, template + generator.uniform(-3, 3, 2))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def save(face: Face, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    face.image.save(path)


def numbers(point_L2: NDArray[np.float64], between: str = " ") -> str:
    return between.join(f"{value:.3f}" for value in point_L2.ravel())


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
        lists[kind].append(f"{face.person}/{face.number}.jpg,0,0,48,48,{points},{face.number % 8},0.1,0.1\n")
        save(face, root / f"Manually_Annotated_Images/{face.person}/{face.number}.jpg")
    for name, lines in lists.items():
        write(root / f"Manually_Annotated_file_lists/{name}.csv", "".join(lines))


USAGE = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}


def fer2013(root: Path) -> None:
    lines = ["emotion,pixels,Usage\n"]
    for face in faces():
        pixels = " ".join(map(str, np.asarray(face.image.convert("L")).ravel()))
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


def w300(root: Path) -> None:
    train, test = ("afw", "helen/trainset", "lfpw/trainset"), ("helen/testset", "lfpw/testset", "ibug")
    for face in faces():
        part = (test if face.split == "test" else train)[face.number % 3]
        save(face, root / part / f"{face.number}.png")
        body = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in face.point_L2)
        write(root / part / f"{face.number}.pts", f"version: 1\nn_points: 68\n{{\n{body}\n}}\n")


def wflw(root: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for face in faces(landmarks=98):
        flags = " ".join(str(face.number >> bit & 1) for bit in range(6))
        line = f"{numbers(face.point_L2)} 0 0 48 48 {flags} event/{face.number}.jpg\n"
        lists["test" if face.split == "test" else "train"].append(line)
        save(face, root / f"WFLW_images/event/{face.number}.jpg")
    for split, lines in lists.items():
        write(
            root / f"WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{split}.txt",
            "".join(lines),
        )


def lfw(root: Path) -> None:
    """Three folds; each person's first two images are a match, and of two people's first ones none."""
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
    """Whether an action unit shows: each in some images of everybody."""
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
    """Head pose (degrees) and an attribute, with 68 landmarks."""
    points = [f"{axis}{point}" for point in range(68) for axis in "xy"]
    lines = [",".join(["image", "split", "person", "Smiling", "pitch", "yaw", *points])]
    for face in faces():
        about = f"{face.number}.png,{face.split},{face.person},{face.number % 2}"
        lines.append(
            f"{about},{face.number % 5 - 2}.5,{face.number % 7 - 3}.25,{numbers(face.point_L2, ',')}"
        )
        save(face, root / f"{face.number}.png")
    write(root / "labels.csv", "\n".join(lines) + "\n")
