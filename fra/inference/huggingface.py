"""Hugging Face: a folder with weights, config and card, the class that its library loads, and the upload.

The weights file in the folder is a copy of ours, so `fra.load`, `fra.load_task` and `fra predict` read it, too.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import pandas as pd
from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    ModelCard,
    ModelCardData,
    PyTorchModelHubMixin,
    get_token,
    hf_hub_download,
)
from torch import Tensor, nn

from fra.files import new_folder, write_json, write_text
from fra.inference.encoder import AnyImage, FaceEncoder
from fra.inference.export import (
    TOLERANCE,
    load_model,
    output_of,
    random_images,
    reference,
    relative_deviation,
    run,
)
from fra.inference.network import interface, network_of
from fra.inference.task import TaskPredictor
from fra.transfer.task_model import TaskModel
from fra.weights import pretrained, released

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
MAY_BE_UPLOADED = (WEIGHTS, CONFIG, CARD, "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
KINDS = {
    "expression": "image-classification",
    "attributes": "image-classification",
    "action_units": "image-classification",
    "alignment": "keypoint-detection",
}
"""Hugging Face's name of each task; other tasks and backbones are "image-feature-extraction"."""
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


class HubModel(nn.Module, PyTorchModelHubMixin):
    """An encoder or a task model, loaded by `HubModel.from_pretrained(folder)` or `from_pretrained("owner/name")`.

    Calling it with images (N, 3, S, S), float32, RGB in 0…1 gives embeddings (N, D), or the outputs of the task (N, O)
    as in `fra.inference.network.OUTPUTS`.

    Attributes:
        model: The encoder, see `fra.load`, or the task model, see `fra.load_task`.
        metadata: The metadata of the weights file.
    """

    def __init__(self, file: str | Path) -> None:
        super().__init__()
        self.file = Path(file)
        self.model = load_model(file)
        self.network = network_of(self.model)
        self.metadata = self.model.metadata
        self._hub_mixin_config = config(self.metadata)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings or outputs."""
        result: Tensor = self.network(images)
        return result

    def embed(self, images: Sequence[AnyImage] | Tensor, batch_size: int = 64) -> Tensor:
        """Return embeddings (N, D) of images of any size, like `fra.load(...).embed`."""
        return (
            FaceEncoder(self.model.backbone, None, self.metadata).to(self._device).embed(images, batch_size)
        )

    def predict(self, images: Sequence[AnyImage] | Tensor, batch_size: int = 64) -> pd.DataFrame:
        """Return the predictions for images of any size, like `fra.load_task(...).predict`.

        Raises:
            ValueError: The model has no head.
        """
        if not isinstance(self.model, TaskModel):
            raise ValueError("this model has no head of a task: use embed(images)")
        return TaskPredictor(self.model).predict(images, batch_size=batch_size)

    @property
    def _device(self) -> Any:
        return self.model.get_buffer("mean").device

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
    ) -> Self:
        """Load the weights of a folder or of the hub; they are compared with their digest."""
        if Path(model_id).is_dir():
            file = Path(model_id) / WEIGHTS
        else:
            file = Path(
                hf_hub_download(
                    repo_id=model_id,
                    filename=WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        return cls(file).to(map_location).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        shutil.copyfile(self.file, save_directory / WEIGHTS)

    def generate_model_card(self, *args: Any, license: str | None = None, **kwargs: Any) -> ModelCard:
        """Return the model card, see `card`."""
        return ModelCard(card(self.model, license))


def config(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the content of config.json: the metadata of the weights, for readers and the hub."""
    return {"model_type": "fra", "architectures": ["HubModel"], **metadata}


def export_folder(weights: str | Path, out: Path, licence: str | None = None) -> str:
    """Write `model.safetensors`, `config.json` and `README.md` of a backbone or task model into a folder.

    The folder is kept only if Hugging Face's `from_pretrained` loads it and gives the same numbers as this project.

    Args:
        weights: Weights file, or the name of released weights.
        out: A new or empty folder.
        licence: Licence of the weights for the card, an identifier of the hub such as "apache-2.0"; without one the
            folder cannot be pushed.

    Returns:
        The recipe: Python lines that compute `embeddings` (of a task model `outputs`) from `images` with the folder.

    Raises:
        ValueError: The folder is not empty, the licence is no identifier, or the loaded model gives other numbers.
        FileNotFoundError: The weights are missing.
        OSError: `out` cannot be written.
    """
    if licence is not None and not LICENCE.fullmatch(licence):
        raise ValueError(
            f"licence {licence!r} is no identifier of the hub: use one like apache-2.0, cc-by-nc-4.0 or other"
        )
    model = load_model(weights)
    size = model.image_size
    recipe = (
        "from fra.inference.huggingface import HubModel\n"
        "model = HubModel.from_pretrained({path!r})  # or OWNER/NAME, once it is pushed\n"
        f"{output_of(model)} = model(images).detach()"
    )
    with new_folder(out, last=WEIGHTS) as folder:
        shutil.copyfile(released.find(weights), folder / WEIGHTS)
        write_json(config(model.metadata), folder / CONFIG)
        write_text(card(model, licence), folder / CARD)
        deviation = max(
            relative_deviation(
                run(recipe.format(path=str(folder)), images.float() / 255), reference(model, images)
            )
            for images in random_images(size)
        )
        if deviation > TOLERANCE:
            raise ValueError(
                f"{weights}: what from_pretrained loads differs by {deviation:.1e}: nothing is written"
            )
    return "\n".join(
        [
            f"# images: float32 (N, 3, {size}, {size}), RGB in 0…1; of files: model.{_call(model)}([...])",
            recipe.format(path=str(out)),
            f"# differs by at most {deviation:.1e} of the largest value",
        ]
    )


def card(model: FaceEncoder | TaskModel, licence: str | None) -> str:
    """Return the model card in Hugging Face's format; its facts are those of the weights' metadata."""
    stored, about = model.metadata, interface(model)
    task = stored.get("task")
    data = ModelCardData(
        license=licence,
        library_name="fra",
        pipeline_tag=KINDS.get(str(task), "image-feature-extraction"),
        tags=["face", "self-supervised", "pytorch_model_hub_mixin", "model_hub_mixin"],
    )
    title = f"{task} from one face" if isinstance(model, TaskModel) else "Features of faces"
    given = about["input"]
    rows = [
        ("backbone", stored["backbone"]),
        ("images", f"{given['layout']}, {given['colours']} in 0…1; the normalisation is part of the model"),
        (
            "faces",
            f"{about['crop']['faces']}; aligned by eyes and mouth: {about['crop']['aligned'] != 'none'}",
        ),
        (
            "output",
            f"{about['output']['meaning']}: {', '.join(about['output'].get('columns', ['embedding']))}",
        ),
    ]
    text = f"# {title}\n\nMade with FRA (Facial Region Awareness, arXiv 2403.02138).\n\n"
    text += "```python\nfrom fra.inference.huggingface import HubModel\n\n"
    text += 'model = HubModel.from_pretrained("OWNER/NAME")  # or a folder\n'
    text += f'model.{_call(model)}(["face.jpg"])\n```\n\n'
    text += _table(("", ""), rows)
    if stored.get("metrics"):
        test = stored["test"]
        text += f"\n## Test\n\n{test['images']} images of {test['people']} persons, who are in no other split.\n\n"
        text += _table(
            ("metric", "value"), [(name, f"{value:.4f}") for name, value in stored["metrics"].items()]
        )
    text += (
        "\n## Responsible use\n\nImages of faces are personal data, and features that can recognise people are "
        "biometric data. Establish a legal basis, inform the people, and evaluate the model on the people it will be "
        "used with. Out of scope: decisions about people, identification without consent, surveillance, and reading "
        "emotions or character from faces as if they were facts.\n"
    )
    if inputs := stored.get("provenance", {}).get("inputs"):
        text += "\n## Made from\n\n"
        text += _table(("input", "SHA-256"), [(f"`{name}`", f"`{value}`") for name, value in inputs.items()])
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def _call(model: FaceEncoder | TaskModel) -> str:
    return "predict" if isinstance(model, TaskModel) else "embed"


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [head, ("---", "---"), *rows]
    return "".join(f"| {name} | {value} |\n" for name, value in lines)


class Upload(NamedTuple):
    """What would be uploaded: nothing was sent yet.

    Attributes:
        repo: "owner/name".
        licence: The licence in the card.
        public: Whether a new repository is public.
        files: The files, each with its size in bytes and its SHA-256.
    """

    repo: str
    licence: str
    public: bool
    files: list[CommitOperationAdd]

    def __str__(self) -> str:
        lines = [
            f"{file.path_in_repo:<20} {file.upload_info.size:>12,} bytes  SHA-256 {file.upload_info.sha256.hex()}"
            for file in self.files
        ]
        where = "public" if self.public else "private"
        total = sum(file.upload_info.size for file in self.files)
        return "\n".join(
            [
                *lines,
                f"{total:,} bytes under the licence {self.licence}, to the model repository {self.repo} of "
                f"{HfApi().endpoint} ({where} if it is new)",
            ]
        )


def prepare_upload(folder: Path, repo: str, public: bool = False) -> Upload:
    """Check a folder that `export_folder` wrote, without any connection.

    Raises:
        ValueError: The name of the repository is incomplete, the folder has other files, the card has no licence, or
            config.json is not that of the weights.
        FileNotFoundError: A file is missing.
    """
    if not REPO.fullmatch(repo):
        raise ValueError(f"repository {repo!r}: give OWNER/NAME")
    if not folder.is_dir() or (missing := [n for n in (WEIGHTS, CONFIG, CARD) if not (folder / n).is_file()]):
        what = "no such folder" if not folder.is_dir() else f"{missing[0]} is missing"
        raise FileNotFoundError(f"{folder}: {what}: `fra export huggingface -o {folder}` writes it")
    found = sorted(folder.iterdir())
    if other := [path.name for path in found if path.name not in MAY_BE_UPLOADED or path.is_symlink()]:
        raise ValueError(
            f"{folder}: has {', '.join(other)}, which is not part of a model: move it elsewhere (uploaded are "
            f"{', '.join(MAY_BE_UPLOADED)})"
        )
    licence = _licence(folder / CARD)
    stored = pretrained.read(folder / WEIGHTS)
    try:
        stated = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: not JSON ({error})") from None
    if stated != json.loads(json.dumps(config(stored.metadata))):
        raise ValueError(f"{folder / CONFIG}: not that of {WEIGHTS}: export the folder again")
    files = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=str(path)) for path in found]
    return Upload(repo, licence, public, files)


def _licence(card_file: Path) -> str:
    """Return the licence that the front matter of a card states."""
    try:
        data = ModelCard.load(str(card_file)).data
    except ValueError as error:
        raise ValueError(f"{card_file}: its front matter cannot be read ({error})") from None
    licence = data.get("license")
    if not licence:
        raise ValueError(
            f"{card_file}: states no licence: add the line `license: apache-2.0` (or another one) between the two "
            "lines `---` at its start, or export the model with one; nothing is uploaded without"
        )
    if licence == "other" and not data.get("license_name"):
        raise ValueError(f"{card_file}: `license: other` needs the lines license_name and license_link too")
    return str(licence)


def push(upload: Upload) -> str:
    """Upload the files; creates the repository where it does not exist. Returns the address of the commit.

    Raises:
        ValueError: There is no token.
        RuntimeError: The hub cannot be reached, or refused.
    """
    if get_token() is None:
        raise ValueError(
            "not logged in to Hugging Face: run `hf auth login`, or set HF_TOKEN; nothing was sent"
        )
    api = HfApi(library_name="fra")
    try:
        api.create_repo(upload.repo, private=not upload.public, exist_ok=True)
        done = api.create_commit(upload.repo, upload.files, commit_message="Upload a model with fra push")
    except Exception as error:  # those of the HTTP library depend on the version of huggingface_hub
        raise RuntimeError(
            f"{api.endpoint}: the upload of {upload.repo} did not complete: {error}"
        ) from error
    return str(done.commit_url)
