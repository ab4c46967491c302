from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fra
from fra.data.views.config import ViewsConfig
from fra.data.views.views import normalize
from fra.inference.encoder import FaceEncoder
from fra.method.config import ModelConfig, ObjectiveConfig
from fra.method.networks import FRA, build
from fra.weights.files import save_weights

MODEL = ModelConfig("small", num_masks=3, projection_dim=16, hidden_dim=32)
VIEWS = ViewsConfig()
METADATA = {
    "backbone": "small",
    "num_masks": 3,
    "projection_dim": 16,
    "hidden_dim": 32,
    "image_size": 64,
    "mean": VIEWS.mean,
    "std": VIEWS.std,
    "provenance": {},
}


def faces(count: int, size: int = 64) -> torch.Tensor:
    return torch.randint(
        256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture(scope="module")
def trained() -> FRA:
    torch.manual_seed(0)
    return build(MODEL, ObjectiveConfig()).eval()


@pytest.fixture(scope="module")
def path(trained: FRA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_weights(
        folder / "backbone.safetensors",
        trained.online.backbone.state_dict(),
        METADATA | {"contents": "backbone"},
    )
    save_weights(folder / "model.safetensors", trained.online.state_dict(), METADATA | {"contents": "model"})
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def encoder(path: Path) -> FaceEncoder:
    return fra.load(path)


@torch.no_grad()
def test_equals_the_trained_network(encoder: FaceEncoder, trained: FRA) -> None:
    """The preprocessing equals the normalisation of training views."""
    images = faces(5)
    batch = normalize(images.float() / 255, VIEWS.mean, VIEWS.std)
    torch.testing.assert_close(encoder.prepare(images), batch)
    torch.testing.assert_close(
        encoder.embed(images, batch_size=2), trained.online.backbone(batch).mean((2, 3))
    )
    torch.testing.assert_close(encoder.heatmaps(images), trained.online(batch).regions.heatmaps_BKHW)
    assert encoder.feature_dim == 256


def test_every_kind_of_input_gives_the_same_embedding(encoder: FaceEncoder, tmp_path: Path) -> None:
    tensor = faces(1, size=80)
    array = tensor[0].permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "face.png")
    expected = encoder.embed(tensor)
    mixed: list = [array, Image.fromarray(array), tmp_path / "face.png", str(tmp_path / "face.png")]
    torch.testing.assert_close(encoder.embed(mixed), expected.expand(4, -1))


def test_grey_and_exif_rotated_images_are_decoded_upright(encoder: FaceEncoder, tmp_path: Path) -> None:
    grey = Image.fromarray(faces(1)[0, 0].numpy())
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90°
    grey.rotate(90).save(tmp_path / "turned.png", exif=exif)
    torch.testing.assert_close(encoder.embed([tmp_path / "turned.png"]), encoder.embed([grey.convert("RGB")]))


def test_embedding_does_not_depend_on_the_batch(encoder: FaceEncoder) -> None:
    images = faces(3)
    torch.testing.assert_close(encoder.embed(images)[1:2], encoder.embed(images[1:2]))
    torch.testing.assert_close(encoder.heatmaps(images)[1:2], encoder.heatmaps(images[1:2]))


def test_no_images_give_no_rows(encoder: FaceEncoder) -> None:
    assert encoder.embed([]).shape == (0, 256)
    assert encoder.heatmaps([]).shape[:2] == (0, 3)


def test_backbone_file_embeds_but_has_no_heatmaps(encoder: FaceEncoder, path: Path) -> None:
    backbone = fra.load(str(path.with_name("backbone.safetensors")))
    torch.testing.assert_close(backbone(faces(2)), encoder(faces(2)))
    with pytest.raises(RuntimeError, match=r"model\.safetensors"):
        backbone.heatmaps(faces(1))


def test_byol_model_loads(tmp_path: Path) -> None:
    byol = build(MODEL, ObjectiveConfig(region_weight=0.0, relation_weight=0.0))
    save_weights(tmp_path / "model.safetensors", byol.online.state_dict(), METADATA | {"contents": "model"})
    encoder = fra.load(tmp_path / "model.safetensors")
    assert encoder.embed(faces(1)).shape == (1, 256)
    with pytest.raises(RuntimeError, match="region branch"):
        encoder.heatmaps(faces(1))


def test_wrong_images_are_refused(encoder: FaceEncoder, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.jpg"):
        encoder.embed([tmp_path / "text.jpg"])
    with pytest.raises(ValueError, match="put it in a list"):
        encoder.embed(tmp_path / "text.jpg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uint8"):
        encoder.embed(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="uint8"):
        encoder.embed([np.zeros((8, 8), np.uint8)])
    with pytest.raises(FileNotFoundError):
        encoder.embed([tmp_path / "absent.png"])


def test_wrong_files_are_refused(tmp_path: Path, trained: FRA) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        fra.load(tmp_path / "absent.safetensors")
    weights = trained.online.state_dict()
    save_weights(tmp_path / "bare.safetensors", weights, {"contents": "model"})
    with pytest.raises(ValueError, match="lacks backbone"):
        fra.load(tmp_path / "bare.safetensors")
    save_weights(tmp_path / "other.safetensors", weights, METADATA | {"contents": "model", "hidden_dim": 48})
    with pytest.raises(ValueError, match=r"other\.safetensors.*do not fit"):
        fra.load(tmp_path / "other.safetensors")


def test_untrained_encoder_has_the_same_architecture_and_seeded_weights(path: Path) -> None:
    trained, one, same, other = fra.load(path), *(fra.load(path, seed) for seed in (1, 1, 2))
    assert trained.state_dict().keys() == one.state_dict().keys()
    image = [np.full((8, 8, 3), 99, np.uint8)]
    assert torch.equal(one.heatmaps(image), same.heatmaps(image))
    assert not torch.equal(one.heatmaps(image), other.heatmaps(image))
    assert not torch.equal(one.heatmaps(image), trained.heatmaps(image))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_16_bit_path_and_pillow_image_give_the_same_embedding(
    form: str, encoder: FaceEncoder, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (80, 60), dtype=np.uint16)
    image = Image.fromarray(values)
    file = tmp_path / f"grey.{form.lower()}"
    image.save(file)
    assert torch.equal(encoder.embed([file]), encoder.embed([image]))
    assert torch.equal(encoder.embed([file]), encoder.embed([Image.open(file)]))


def test_a_16_bit_image_with_12_bits_is_refused_at_every_entrance(
    encoder: FaceEncoder, tmp_path: Path
) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 4096, (80, 60), dtype=np.uint16))
    image.save(tmp_path / "grey.png")
    for given in (image, tmp_path / "grey.png"):
        with pytest.raises(ValueError, match="as if they had 12 bits"):
            encoder.embed([given])
