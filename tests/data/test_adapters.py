"""Every published layout in miniature, with the irregularities of the real files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fra.data.datasets.adapters.w300 import read_points
from fra.data.datasets.ingest import ADAPTERS, ingest
from fra.data.datasets.records import DatasetConfig

ATTRIBUTES = [f"Attribute_{number}" for number in range(38)] + ["Smiling", "Young"]


def picture(path: Path, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def rafdb(root: Path) -> None:
    names = ("train_00001", "train_00002", "test_0001")
    write(
        root / "basic/EmoLabel/list_patition_label.txt",
        "".join(f"{name}.jpg {label}\n" for name, label in zip(names, (5, 1, 7), strict=True)),
    )
    for name in names:
        picture(root / f"basic/Image/aligned/{name}_aligned.jpg", (100, 100))


POINTS_68 = ";".join(f"{10 + number % 7}.5;{20 + number % 5}" for number in range(68))


def affectnet(root: Path) -> None:
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    lines = [
        f"689/a.jpg,1,1,18,18,{POINTS_68},1,0.5,0.1",
        f"689/b.JPG,1,1,18,18,{POINTS_68},10,-2,-2",
        f"1/c.png,1,1,18,18,{POINTS_68},7,0.5,0.1",
    ]
    write(root / "Manually_Annotated_file_lists/training.csv", "\n".join([header, *lines]) + "\n")
    write(
        root / "Manually_Annotated_file_lists/validation.csv", f"2/d.jpg,1,1,9,9,{POINTS_68},0,0,0\r\n"
    )  # as published: no header
    for name in ("689/a.jpg", "1/c.png", "2/d.jpg"):  # b is not a face: its file may be missing
        picture(root / "Manually_Annotated_Images" / name)


def affectnet_sorted(root: Path) -> None:
    for name in ("train/0/a.jpg", "train/7/b.jpg", "val/3/c.jpg", "train/8/none.jpg"):
        picture(root / name)


def fer_rows(header: str) -> str:
    pixels = [" ".join(str((number + place) % 256) for place in range(48 * 48)) for number in range(4)]
    usages = ("Training", "Training", "PublicTest", "PrivateTest")
    return f"{header}\n" + "".join(
        f"{number},{pixels[number]},{usage}\n" for number, usage in enumerate(usages)
    )


def fer2013(root: Path) -> None:
    write(root / "fer2013.csv", fer_rows("emotion,pixels,Usage"))


def icml(root: Path) -> None:
    pixels = " ".join(["7"] * 48 * 48)
    write(root / "icml_face_data.csv", f"emotion, Usage, pixels\n6,PrivateTest,{pixels}\n")


def ferplus(root: Path) -> None:
    fer2013(root)
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\r\n"
    write(
        root / "fer2013new.csv",
        header
        + "Training,fer0000000.png,1,8,0,0,1,0,0,0,0,0\r\n"
        + "Training,,0,0,0,0,0,0,0,0,0,10\r\n"
        + "PublicTest,fer0000002.png,4,4,0,2,0,0,0,0,0,0\r\n"
        + "PrivateTest,fer0000003.png,0,0,0,0,0,0,2,7,1,0\r\n",
    )


def celeba(root: Path) -> None:
    names = [f"{number:06d}.jpg" for number in (1, 2, 3)]
    values = ["  ".join(["-1"] * 39 + [value]) for value in (" 1", "-1", " 1")]
    write(
        root / "list_attr_celeba.txt",
        "3\n" + " ".join(ATTRIBUTES) + " \n" + "".join(map("{}  {}\n".format, names, values)),
    )
    write(root / "list_eval_partition.txt", "".join(map("{} {}\n".format, names, (0, 1, 2))))
    write(root / "identity_CelebA.txt", "".join(map("{} {}\n".format, names, (2880, 2937, 8692))))
    points = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    write(
        root / "list_landmarks_align_celeba.txt",
        f"3\n{points} \n"
        + "".join(f"{name} 69  109  106  113   77 142 73  152 108  154\n" for name in names),
    )
    for name in names:
        picture(root / "img_align_celeba" / name, (178, 218))


def pts(points: list[tuple[float, float]]) -> str:
    body = "\r\n".join(f"{x:.6f} {y:.6f}" for x, y in points)
    return f"version: 1\r\nn_points:  68\r\n{{\r\n{body}\r\n}}\r\n"


SQUARE = [(101.0 + 100 * (number % 2), 51.0 + 100 * (number // 2 % 2)) for number in range(68)]


def w300(root: Path) -> None:
    for number, part in enumerate(
        ("afw", "helen/trainset", "helen/testset", "lfpw/trainset", "lfpw/testset", "ibug")
    ):
        suffix = "png" if "lfpw" in part else "jpg"
        picture(root / part / f"image_{number} 1.{suffix}", (300, 250), "L" if part == "ibug" else "RGB")
        write(root / part / f"image_{number} 1.pts", pts(SQUARE))


def wflw(root: Path) -> None:
    def points(left: float) -> str:
        return " ".join(f"{x + left:f} {y:f}" for x, y in [*SQUARE, *SQUARE][:98])

    name = "37--Soccer/37_Soccer_soccer_ball_37_45.jpg"
    for split, lines in (("train", 2), ("test", 1)):
        write(
            root / f"WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{split}.txt",
            "".join(
                f"{points(line + 0.25)} 100 50 201 151 1 0 0 0 1 0 {'other/' if split == 'test' else ''}{name}\n"
                for line in range(lines)
            ),
        )
    picture(root / "WFLW_images" / name, (300, 250))
    picture(root / "WFLW_images/other" / name, (300, 250))


def lfw(root: Path) -> None:
    for name in ("Aaron_Eckhart/Aaron_Eckhart_0001.jpg", "Abdel_Nasser_Assidi/Abdel_Nasser_Assidi_0002.jpg"):
        picture(root / "lfw-deepfunneled" / name, (250, 250))


def vggface2(root: Path) -> None:
    for name in ("train/n000002/0001_01.jpg", "train/n000002/0002_01.jpg", "test/n000001/0001_01.jpg"):
        picture(root / name)


def disfa(root: Path) -> None:
    for person, intensities in (("SN001", (0, 2, 5)), ("SN002", (1, 0))):
        for unit in (1, 12):
            lines = [
                f"{frame},{value if unit == 1 else 0}" for frame, value in enumerate(intensities, start=1)
            ]
            write(root / f"ActionUnit_Labels/{person}/{person}_au{unit}.txt", "\r\n".join(lines) + "\r\n")
        for frame in range(len(intensities)):
            picture(root / f"img/{person}/{frame}.png")


def bp4d(root: Path) -> None:
    write(root / "AUCoding/AU_OCC/F001_T1.csv", "0,1,2,4,99\n2440,1,0,9,0\n2441,0,0,1,0\n")
    write(root / "AUCoding/AU_OCC/M003_T8.csv", "0,1,2,4,99\n8,0,1,0,0\n")
    for name in ("F001/T1/2440", "F001/T1/2441", "M003/T8/0008"):
        picture(root / f"img/{name}.jpg")


def mpiifacegaze(root: Path) -> None:
    corners = "100 100 130 100 170 100 200 100 120 180 180 180"
    for person, target in (("p00", "0 0 0"), ("p14", "-600 -600 0")):
        line = f"day01/0005.jpg 640 400 {corners} 0.1 0.2 0.3 10 20 600 0 0 600 {target} left"
        write(root / person / f"{person}.txt", f"{line}\n")
        picture(root / person / "day01/0005.jpg", (320, 240))


def table(root: Path) -> None:
    lines = ["image, split,person,Smiling,yaw,x0,y0,x1,y1", "a/1.png,train,anna,1,-12.5,1,2,3,4"]
    lines += ["a/2.png,val,bert,,0,,,,", "b/3.png,test,,0,7,5,6,7,8"]
    write(root / "labels.csv", "\n".join(lines) + "\n")
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        picture(root / name)


def listed(make: object, adapter: str, tmp_path: Path, **options: float) -> pd.DataFrame:
    make(tmp_path / "set")  # type: ignore[operator]
    config = DatasetConfig("mine", adapter, str(tmp_path / "set"), **options)  # type: ignore[arg-type]
    return ingest(config, tmp_path / "raw").set_index("key")


def test_rafdb(tmp_path: Path) -> None:
    table = listed(rafdb, "rafdb", tmp_path)
    assert table["split"].to_dict() == {
        "basic/Image/aligned/train_00001_aligned": "train",
        "basic/Image/aligned/train_00002_aligned": "train",
        "basic/Image/aligned/test_0001_aligned": "test",
    }
    assert table["label.expression"].sort_values().tolist() == [0, 4, 6]


def test_an_image_that_is_listed_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With another label it is kept, for validation to refuse."""

    def twice(root: Path) -> None:
        rafdb(root)
        path = root / "basic/EmoLabel/list_patition_label.txt"
        first, label = path.read_text().split()[:2]
        path.write_text(
            path.read_text() + f"{first} {label}\n{first} {int(label) % 7 + 1}\n{first} {label}\n"
        )

    once = len(listed(rafdb, "rafdb", tmp_path / "once"))
    table = listed(twice, "rafdb", tmp_path / "twice")
    assert len(table) == once + 1
    assert "2 images listed twice with the same annotation, taken once" in caplog.text


def test_affectnet_as_published(tmp_path: Path) -> None:
    table = listed(affectnet, "affectnet", tmp_path)
    assert table["label.expression"].to_dict() == {
        "Manually_Annotated_Images/1/c": 7,
        "Manually_Annotated_Images/2/d": 0,
        "Manually_Annotated_Images/689/a": 1,
    }
    assert table["split"].tolist() == ["train", "test", "train"]
    assert list(table["landmarks"].iloc[0][:4]) == [10.5, 20, 11.5, 21]


def test_affectnet_sorted_by_label(tmp_path: Path) -> None:
    table = listed(affectnet_sorted, "affectnet", tmp_path)
    assert table["label.expression"].to_dict() == {"train/0/a": 0, "train/7/b": 7, "val/3/c": 3}
    assert table.loc["val/3/c", "split"] == "test"


def test_fer2013_keeps_every_pixel(tmp_path: Path) -> None:
    table = listed(fer2013, "fer2013", tmp_path)
    assert table["split"].tolist() == ["test", "train", "train", "val"]
    content = table.loc["train/fer0000001", "content"]
    assert content == b"P5\n48 48\n255\n" + bytes((1 + place) % 256 for place in range(48 * 48))


def test_fer2013_with_spaces_in_its_header(tmp_path: Path) -> None:
    table = listed(icml, "fer2013", tmp_path)
    assert (table["split"].item(), table["label.expression"].item()) == ("test", 6)


def test_ferplus_takes_the_majority_and_drops_images_without_a_face(tmp_path: Path) -> None:
    table = listed(ferplus, "ferplus", tmp_path)
    assert table["label.expression"].to_dict() == {"test/fer0000003": 7, "train/fer0000000": 1}


def test_celeba(tmp_path: Path) -> None:
    table = listed(celeba, "celeba", tmp_path)
    assert table["split"].tolist() == ["train", "val", "test"]
    assert table["person"].tolist() == ["2880", "2937", "8692"]
    assert table["label.Young"].tolist() == [1, 0, 1]
    assert table["label.Smiling"].tolist() == [0, 0, 0]
    assert len([name for name in table.columns if name.startswith("label.")]) == 40
    assert list(table["landmarks"].iloc[0]) == [69, 109, 106, 113, 77, 142, 73, 152, 108, 154]


@pytest.mark.parametrize("name", ["identity_CelebA.txt", "list_landmarks_align_celeba.txt"])
def test_celeba_without_optional_files(name: str, tmp_path: Path) -> None:
    def without(root: Path) -> None:
        celeba(root)
        (root / name).unlink()

    table = listed(without, "celeba", tmp_path)
    assert table["person" if "identity" in name else "landmarks"].isna().all()


def test_celeba_in_the_folders_of_its_download(tmp_path: Path) -> None:
    def in_folders(root: Path) -> None:
        celeba(root)
        for folder, names in {
            "Anno": ("list_attr_celeba.txt",),
            "Eval": ("list_eval_partition.txt",),
            "Img": ("img_align_celeba",),
        }.items():
            (root / folder).mkdir()
            for name in names:
                (root / name).rename(root / folder / name)

    assert len(listed(in_folders, "celeba", tmp_path)) == 3


@pytest.mark.parametrize("folder", ["img_align_celeba", "img_align_celeba_png"])
def test_celeba_published_as_png(folder: str, tmp_path: Path) -> None:
    """The tables list `.jpg` all the same."""

    def as_png(root: Path) -> None:
        celeba(root)
        (root / "img_align_celeba").rename(root / folder)
        for path in (root / folder).glob("*.jpg"):
            picture(path.with_suffix(".png"))
            path.unlink()

    assert listed(as_png, "celeba", tmp_path)["source"].iloc[0] == f"{folder}/000001.png"


@pytest.mark.parametrize(
    ("make", "adapter", "folder", "archive"),
    [
        ("celeba", "celeba", "img_align_celeba", "img_align_celeba.zip"),
        ("celeba", "celeba", "img_align_celeba", "img_align_celeba_png.7z.001"),
        ("lfw", "lfw", "lfw-deepfunneled", "lfw-deepfunneled.tgz"),
    ],
)
def test_an_archive_that_was_not_unpacked_is_named(
    make: str, adapter: str, folder: str, archive: str, tmp_path: Path
) -> None:
    def packed(root: Path) -> None:
        globals()[make](root)
        shutil.rmtree(root / folder)
        (root / archive).touch()

    with pytest.raises(FileNotFoundError, match=f"unpack {archive} there first"):
        listed(packed, adapter, tmp_path)


def test_w300_counts_points_from_zero_inside_the_face(tmp_path: Path) -> None:
    table = listed(w300, "w300", tmp_path)
    assert table["split"].value_counts().to_dict() == {"train": 3, "test": 3}
    assert table.loc[table["group.challenging"] == 1].index.tolist() == ["ibug/image_5 1"]
    assert table["group.challenging"].isna().sum() == 3
    row = table.loc["afw/image_0 1"]
    assert list(row["box"]) == [
        75,
        25,
        225,
        175,
    ]  # the square of 100 pixels at (100, 50), and a quarter around it
    assert list(row["landmarks"][:4]) == [25, 25, 125, 25]


def test_wflw_has_several_faces_in_an_image(tmp_path: Path) -> None:
    table = listed(wflw, "wflw", tmp_path)
    first = "WFLW_images/37--Soccer/37_Soccer_soccer_ball_37_45"
    assert [key for key in table.index if "other" not in key] == [f"{first}_face0", f"{first}_face1"]
    assert table["group.pose"].tolist() == [1, 1, 1]
    assert table["group.occlusion"].tolist() == [1, 1, 1]
    row = table.iloc[0]
    assert row["landmarks"][0] + row["box"][0] == 101.25
    assert len(row["landmarks"]) == 196


def test_lfw_is_test_data_only(tmp_path: Path) -> None:
    table = listed(lfw, "lfw", tmp_path)
    assert set(table["split"]) == {"test"}
    assert table["person"].tolist() == ["Aaron_Eckhart", "Abdel_Nasser_Assidi"]
    assert table.index[0] == "Aaron_Eckhart/Aaron_Eckhart_0001"  # as pairs.txt names it


@pytest.mark.parametrize("folder", ["lfw_funneled", "lfw", "lfw-deepfunneled/lfw-deepfunneled"])
def test_lfw_in_its_other_versions(folder: str, tmp_path: Path) -> None:
    """The last one as Kaggle has it."""

    def renamed(root: Path) -> None:
        lfw(root)
        (root / "lfw-deepfunneled").rename(root / "images")
        (root / folder).parent.mkdir(exist_ok=True)
        (root / "images").rename(root / folder)

    table = listed(renamed, "lfw", tmp_path)
    assert table["source"].iloc[0] == f"{folder}/Aaron_Eckhart/Aaron_Eckhart_0001.jpg"
    assert table.index[0] == "Aaron_Eckhart/Aaron_Eckhart_0001"
    assert table["person"].tolist() == ["Aaron_Eckhart", "Abdel_Nasser_Assidi"]


def test_paths_as_windows_writes_them_are_explained(tmp_path: Path) -> None:
    def with_backslashes(root: Path) -> None:
        picture(root / "a/1.png")
        write(root / "labels.csv", "image\na\\1.png\n")

    with pytest.raises(FileNotFoundError, match=r"1 of 1 files are missing\); write paths with / there"):
        listed(with_backslashes, "table", tmp_path)


def test_disfa_counts_frames_from_zero_and_intensities_from_two(tmp_path: Path) -> None:
    found = listed(disfa, "disfa", tmp_path)
    assert found.loc["img/SN001/0":"img/SN001/2", "label.AU1"].tolist() == [0, 1, 1]  # type: ignore[misc]
    assert found["label.AU12"].tolist() == [0] * 5
    assert found["person"].tolist() == ["SN001"] * 3 + ["SN002"] * 2


def test_bp4d_units_that_were_not_coded_are_unknown_and_padded_numbers_are_found(tmp_path: Path) -> None:
    found = listed(bp4d, "bp4d", tmp_path)
    assert found.index.tolist() == ["img/F001/T1/2440", "img/F001/T1/2441", "img/M003/T8/0008"]
    assert found["label.AU4"].tolist() == [pd.NA, 1, 0]
    assert found["label.AU2"].tolist() == [0, 0, 1]
    assert found["person"].tolist() == ["F001", "F001", "M003"]


def test_mpiifacegaze_angles_point_from_the_face_to_the_target(tmp_path: Path) -> None:
    """Into the camera; and as far up and to the camera's left as towards it."""
    found = listed(mpiifacegaze, "mpiifacegaze", tmp_path)
    straight, oblique = found.loc["p00/day01/0005"], found.loc["p14/day01/0005"]
    assert (straight["measure.gaze_pitch"], straight["measure.gaze_yaw"]) == pytest.approx((0, 0))
    assert oblique["measure.gaze_yaw"] == pytest.approx(45)
    assert oblique["measure.gaze_pitch"] == pytest.approx(35.264, abs=1e-3)
    assert list(straight["box"]) == [40, 30, 260, 250]


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    found = listed(table, "table", tmp_path, val=0.5)
    assert found["split"].tolist() == [
        "train",
        "val",
        "test",
    ]  # it has a val split of its own: nothing is held out
    assert found["person"].tolist() == ["anna", "bert", pd.NA]
    assert found["label.Smiling"].tolist() == [1, pd.NA, 0]
    assert found["label.Smiling"].dtype == "Int64"
    assert found["measure.yaw"].tolist() == [-12.5, 0, 7]
    assert [None if row is None else list(row) for row in found["landmarks"]] == [
        [1, 2, 3, 4],
        None,
        [5, 6, 7, 8],
    ]


@pytest.mark.parametrize("missing", ["", " ", "nan", "NaN", "None", "NA", "N/A", "null", "<NA>"])
def test_missing_values_in_a_table_are_missing(missing: str, tmp_path: Path) -> None:
    """As pandas, R and databases write them: in persons, labels, measures, groups and landmarks."""
    lines = [
        "image,split,person,Smiling,yaw,group.hard,x0,y0",
        f"1.png,train,{missing},{missing},{missing},{missing},{missing},{missing}",
        "2.png,train,anna,1.0,-3.5,0.0,1,2",
        "3.png,test,bert,0.0,2,1,1,2",
    ]

    def make(root: Path) -> None:
        write(root / "labels.csv", "\n".join(lines) + "\n")
        for number in (1, 2, 3):
            picture(root / f"{number}.png")

    found = listed(make, "table", tmp_path)
    assert found["person"].tolist() == [pd.NA, "anna", "bert"]
    assert found["label.Smiling"].tolist() == [pd.NA, 1, 0]
    assert found["group.hard"].tolist() == [pd.NA, 0, 1]
    assert found["measure.yaw"].tolist() == [pd.NA, -3.5, 2]
    assert [row is None for row in found["landmarks"]] == [True, False, False]
    assert not {"label.yaw", "label.group.hard", "measure.Smiling"} & set(found.columns)


def test_people_who_are_unknown_are_not_one_person(tmp_path: Path) -> None:
    """Each image of an unknown person is assigned to a split by itself."""

    def make(root: Path) -> None:
        write(root / "labels.csv", "image,person\n" + "".join(f"{n}.png,nan\n" for n in range(60)))
        for number in range(60):
            picture(root / f"{number}.png", (2, 2))

    found = listed(make, "table", tmp_path, val=0.2, test=0.2)
    assert found["person"].isna().all()
    assert set(found["split"]) == {"train", "val", "test"}


def test_landmarks_that_are_partly_missing_are_refused(tmp_path: Path) -> None:
    def make(root: Path) -> None:
        write(root / "labels.csv", "image,x0,y0\n1.png,1,nan\n")
        picture(root / "1.png")

    with pytest.raises(ValueError, match=r"labels\.csv: line 2: .*the landmark y0 is missing"):
        listed(make, "table", tmp_path)


def affectnet_arrays(root: Path) -> None:
    """As distributed today: one NumPy file per image and property, the expression as text."""
    for name, expression in (
        ("train_set/7", "1"),
        ("train_set/12", "7"),
        ("val_set/3", "0"),
        ("val_set/4", "9"),
    ):
        folder, stem = name.split("/")
        picture(root / folder / f"images/{stem}.jpg", (224, 224))
        (root / folder / "annotations").mkdir(exist_ok=True)
        np.save(root / folder / f"annotations/{stem}_exp.npy", np.array(expression))
        np.save(root / folder / f"annotations/{stem}_val.npy", np.array("0.25"))
        np.save(root / folder / f"annotations/{stem}_lnd.npy", np.arange(136, dtype=np.float64))


def test_affectnet_as_distributed_today(tmp_path: Path) -> None:
    table = listed(affectnet_arrays, "affectnet", tmp_path)
    assert table["label.expression"].to_dict() == {
        "train_set/images/12": 7,
        "train_set/images/7": 1,
        "val_set/images/3": 0,
    }
    assert table["split"].tolist() == ["train", "train", "test"]
    assert list(table["landmarks"].iloc[0]) == list(range(136))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("7_exp.npy", np.array(["1", "2"])),
        ("7_exp.npy", np.array("happy")),
        ("7_lnd.npy", np.zeros(10)),
        ("7_lnd.npy", np.full(136, np.nan)),
        ("7_exp.npy", np.array({"code": 1}, dtype=object)),
    ],
)
def test_affectnet_arrays_that_hold_something_else_are_named(
    file: str, content: np.ndarray, tmp_path: Path
) -> None:
    def make(root: Path) -> None:
        affectnet_arrays(root)
        np.save(root / "train_set/annotations" / file, content)

    with pytest.raises(ValueError, match=rf"{file}: not an array of (1|136) numbers"):
        listed(make, "affectnet", tmp_path)


def celeba_kaggle(root: Path) -> None:
    """Kaggle's copy: comma-separated tables, the images one folder deeper, no identities."""
    celeba(root)
    (root / "identity_CelebA.txt").unlink()
    (root / "img_align_celeba").rename(root / "deeper")
    (root / "img_align_celeba").mkdir()
    (root / "deeper").rename(root / "img_align_celeba/img_align_celeba")
    for name, header in (
        ("list_attr_celeba", True),
        ("list_landmarks_align_celeba", True),
        ("list_eval_partition", False),
    ):
        lines = [line.split() for line in (root / f"{name}.txt").read_text().splitlines()]
        rows = [["image_id", *lines[1]], *lines[2:]] if header else [["image_id", "partition"], *lines]
        (root / f"{name}.csv").write_text("".join(",".join(row) + "\r\n" for row in rows))
        (root / f"{name}.txt").unlink()


def test_celeba_from_kaggle_gives_the_same_records(tmp_path: Path) -> None:
    published = listed(celeba, "celeba", tmp_path / "a")
    copied = listed(celeba_kaggle, "celeba", tmp_path / "b")
    assert copied.index.tolist() == [
        key.replace("celeba/", "celeba/img_align_celeba/") for key in published.index
    ]
    labels = [name for name in published.columns if name.startswith("label.")]
    assert len(labels) == 40
    assert copied[[*labels, "split"]].values.tolist() == published[[*labels, "split"]].values.tolist()
    assert [list(row) for row in copied["landmarks"]] == [list(row) for row in published["landmarks"]]
    assert copied["person"].isna().all()


def test_w300_mirrored_copies_are_no_images_of_the_protocol(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make(root: Path) -> None:
        w300(root)
        for part in ("ibug", "helen/testset", "afw"):
            (file,) = (root / part).glob("*.pts")
            copy = file.with_name(f"{file.stem}_mirror.pts")
            copy.write_bytes(file.read_bytes())
            picture(copy.with_suffix(".jpg"), (300, 200))

    table = listed(make, "w300", tmp_path)
    assert table["split"].value_counts().to_dict() == {"train": 3, "test": 3}
    assert not [key for key in table.index if "mirror" in key]
    assert "3 mirrored copies (*_mirror.pts) left out" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "   \n").replace(" ", "   "),
        lambda text: text.replace("n_points: 68", "n_points : 68  # as ibug writes it"),
        lambda text: "// annotated twice { checked }\n" + text,
        lambda text: text.replace("{\n", "{\n# outline of the face\n"),
        lambda text: text.replace("\n{", "\n\n{\n") + "\n\n",
        lambda text: text.replace("n_points: 68", "n_points:68").replace(" ", "\t"),
    ],
)
def test_w300_points_with_spaces_crlf_and_comments(change: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "image.pts"
    points = "".join(f"{number}.5 {number + 1}\n" for number in range(68))
    text = f"version: 1\nn_points: 68\n{{\n{points}}}\n"
    path.write_bytes(change(text).encode())
    assert read_points(path)[:4] == (-0.5, 0, 0.5, 1)
    assert len(read_points(path)) == 136


def test_vggface2(tmp_path: Path) -> None:
    table = listed(vggface2, "vggface2", tmp_path)
    assert table.groupby("split")["person"].unique().map(list).to_dict() == {
        "train": ["n000002"],
        "test": ["n000001"],
    }


def test_a_share_of_the_training_part_is_split_off_for_validation(tmp_path: Path) -> None:
    def many(root: Path) -> None:
        for number in range(200):
            picture(root / f"train/n{number:06d}/1.jpg", (2, 2))

    splits = listed(many, "vggface2", tmp_path, val=0.2)["split"].value_counts(normalize=True)
    assert splits["val"] == pytest.approx(0.2, abs=0.08)


MAKERS = {
    "affectnet": affectnet,
    "bp4d": bp4d,
    "celeba": celeba,
    "disfa": disfa,
    "fer2013": fer2013,
    "ferplus": ferplus,
    "lfw": lfw,
    "mpiifacegaze": mpiifacegaze,
    "rafdb": rafdb,
    "table": table,
    "vggface2": vggface2,
    "w300": w300,
    "wflw": wflw,
}


def test_every_published_layout_is_tested_and_one_override_away() -> None:
    confs = {path.stem for path in (Path(__file__).parents[2] / "pipelines/conf/dataset").glob("*.yaml")}
    assert set(ADAPTERS) - {"folder", "generated", "orl", "synthetic", "webdataset"} == set(MAKERS)
    assert set(ADAPTERS) <= confs


@pytest.mark.parametrize("adapter", MAKERS)
def test_a_wrong_root_says_what_was_expected_where(adapter: str, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    root.mkdir()
    with pytest.raises(FileNotFoundError, match=str(root)):
        ingest(DatasetConfig("mine", adapter, str(root)), tmp_path / "raw")


@pytest.mark.parametrize(
    ("adapter", "victim"),
    [
        ("rafdb", "basic/EmoLabel/list_patition_label.txt"),
        ("rafdb", "basic/Image/aligned/train_00002_aligned.jpg"),
        ("affectnet", "Manually_Annotated_file_lists/validation.csv"),
        ("ferplus", "fer2013.csv"),
        ("celeba", "list_eval_partition.txt"),
        ("w300", "lfpw/testset/image_4 1.png"),
        ("disfa", "img/SN002/1.png"),
        ("bp4d", "img/F001/T1/2441.jpg"),
        ("mpiifacegaze", "p14/day01/0005.jpg"),
        ("table", "labels.csv"),
        ("wflw", "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"),
    ],
)
def test_a_missing_file_is_named(adapter: str, victim: str, tmp_path: Path) -> None:
    MAKERS[adapter](tmp_path / "set")
    (tmp_path / "set" / victim).unlink()
    with pytest.raises(FileNotFoundError, match=Path(victim).stem):
        ingest(DatasetConfig("mine", adapter, str(tmp_path / "set")), tmp_path / "raw")


@pytest.mark.parametrize(
    ("adapter", "file", "line", "message"),
    [
        ("rafdb", "basic/EmoLabel/list_patition_label.txt", "train_00003.jpg 8", "line 4"),
        ("fer2013", "fer2013.csv", "3,1 2 3,Training", "line 6: expected 2304 pixels"),
        ("celeba", "list_attr_celeba.txt", "000004.jpg 1 1", "line 6: expected an image name and 40 numbers"),
        (
            "wflw",
            "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt",
            "1 2 3 a.jpg",
            "line 3: expected 207 fields, found '4 fields'",
        ),
        ("disfa", "ActionUnit_Labels/SN001/SN001_au1.txt", "4;1", "line 4: expected `frame,intensity`"),
        ("bp4d", "AUCoding/AU_OCC/F001_T1.csv", "2442,1,0", "line 4: expected 4 units, found '2 units'"),
        ("mpiifacegaze", "p00/p00.txt", "day02/0001.jpg 1 2", "line 2: expected 28 fields"),
        ("table", "labels.csv", "c/4.png,dev,,1,0,,,,", "line 5: .*split is one of train, val, test"),
        (
            "table",
            "labels.csv",
            "c/4.png,test,,1,left,,,,",
            "line 5: .*could not convert string to float: 'left'",
        ),
    ],
)
def test_a_malformed_line_is_named(adapter: str, file: str, line: str, message: str, tmp_path: Path) -> None:
    MAKERS[adapter](tmp_path / "set")
    with (tmp_path / "set" / file).open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(ValueError, match=message):
        ingest(DatasetConfig("mine", adapter, str(tmp_path / "set")), tmp_path / "raw")
