"""Folders for Hugging Face: loaded by its library, and pushed only if confirmed, to a server that plays the hub."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from support.task_models import predictor, saved
from typer.testing import CliRunner

import fra
from fra.inference.huggingface import HubModel, export_folder, prepare_upload
from pipelines.cli.main import app

IMAGES = torch.randint(256, (7, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task model with a licence, as exported."""
    root = tmp_path_factory.mktemp("hub")
    file = saved(predictor("expression", ["neutral", "smiling"]), root)
    export_folder(file, root / "folder", "apache-2.0")
    return root / "folder"


def test_from_pretrained_gives_the_predictions(folder: Path) -> None:
    model = HubModel.from_pretrained(str(folder))
    assert issubclass(HubModel, huggingface_hub.PyTorchModelHubMixin)
    expected = fra.load_task(folder / "model.safetensors").predict(IMAGES)
    np.testing.assert_allclose(model(IMAGES.float() / 255).detach().numpy(), expected.to_numpy(), atol=1e-6)
    assert model.predict(IMAGES).equals(expected)
    stated = json.loads((folder / "config.json").read_text())
    assert (stated["task"], stated["columns"]) == ("expression", ["neutral", "smiling"])
    card = ModelCard.load(str(folder / "README.md"))
    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", "image-classification")
    assert "model.predict" in card.text


def test_a_backbone_and_a_copy_of_the_library(model: Path, tmp_path: Path) -> None:
    """A whole model with its region branch; `save_pretrained` writes the same folder again."""
    recipe = export_folder(model, folder := tmp_path / 'a "folder"')
    names: dict[str, Any] = {"images": IMAGES.float() / 255}
    exec(recipe, names)
    expected = fra.load(model).embed(IMAGES)
    torch.testing.assert_close(names["embeddings"], expected, atol=1e-5, rtol=1e-4)
    loaded = HubModel.from_pretrained(str(folder))
    assert torch.equal(loaded.embed(IMAGES), expected)
    with pytest.raises(ValueError, match="no head of a task: use embed"):
        loaded.predict(IMAGES)
    loaded.save_pretrained(tmp_path / "copy")
    assert torch.equal(HubModel.from_pretrained(str(tmp_path / "copy")).embed(IMAGES), expected)
    for name in ("model.safetensors", "README.md"):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()


def test_a_folder_in_use_and_wrong_licences_are_refused(folder: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not empty"):
        export_folder(model, folder)
    with pytest.raises(ValueError, match="'My Licence' is no identifier"):
        export_folder(model, tmp_path / "new", "My Licence")
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        export_folder(tmp_path / "none.safetensors", tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Hub(BaseHTTPRequestHandler):
    """The hub's answers to an upload of small files; requests are kept in `seen`."""

    seen: ClassVar[list[tuple[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/commit/main"):
            content: Any = [json.loads(line) for line in body.splitlines()]
        else:
            content = json.loads(body)
        self.seen.append((self.path, content))
        host = f"http://{self.headers['Host']}"
        answers = {
            "/api/repos/create": {"url": f"{host}/ann/smile", "id": "ann/smile"},
            "/api/validate-yaml": {"warnings": [], "errors": []},
            "/api/models/ann/smile/preupload/main": {
                "files": [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in (content["files"] if isinstance(content, dict) and "files" in content else [])
                ]
            },
            "/api/models/ann/smile/commit/main": {
                "success": True, "commitOid": "1" * 40, "commitUrl": f"{host}/ann/smile/commit/{'1' * 40}",
            },
        }  # fmt: skip
        answer = json.dumps(answers[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """The requests that a local hub received."""
    Hub.seen = []
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "a-token")
    yield Hub.seen
    server.shutdown()
    thread.join()
    server.server_close()


def push(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["push", *arguments])
    return done.exit_code, done.output


def test_nothing_is_sent_without_confirmation(folder: Path, hub: list[tuple[str, Any]]) -> None:
    code, output = push(str(folder), "--repo", "ann/smile")
    assert code == 1
    size = (folder / "model.safetensors").stat().st_size
    assert f"{size:,} bytes  SHA-256" in output
    assert "under the licence apache-2.0, to the model repository ann/smile" in output
    assert "nothing was uploaded; --yes uploads" in output
    assert hub == []


def test_push_sends_the_files_that_it_lists(folder: Path, hub: list[tuple[str, Any]]) -> None:
    code, output = push(str(folder), "--repo", "ann/smile", "--yes")
    assert code == 0, output
    assert output.splitlines()[-1].endswith(f"/ann/smile/commit/{'1' * 40}")
    (created,) = [content for path, content in hub if path == "/api/repos/create"]
    assert created["visibility"] == "private"
    (commit,) = [content for path, content in hub if path.endswith("/commit/main")]
    sent = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in commit
        if line["key"] == "file"
    }
    assert sent == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_should_not_be_uploaded_is_refused(
    folder: Path, hub: list[tuple[str, Any]], tmp_path: Path
) -> None:
    """Before any connection: no licence, other files, a config of other weights, an incomplete name."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    cases = {
        "README.md": (
            lambda text: text.replace("license: apache-2.0\n", ""),
            "states no licence: add the line",
        ),
        "config.json": (lambda text: text.replace("neutral", "angry"), "not that of model.safetensors"),
        "face.jpg": (lambda text: "a face", "has face.jpg, which is not part of a model"),
    }
    for name, (change, message) in cases.items():
        file = tmp_path / name
        before = file.read_text() if file.exists() else ""
        file.write_text(change(before))
        with pytest.raises(ValueError, match=message):
            prepare_upload(tmp_path, "ann/smile")
        file.write_text(before)
        if not before:
            file.unlink()
    card = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(card.replace("license: apache-2.0", "license: other"))
    with pytest.raises(ValueError, match="license_name"):
        prepare_upload(tmp_path, "ann/smile")
    with pytest.raises(ValueError, match="'smile': give OWNER/NAME"):
        prepare_upload(folder, "smile")
    with pytest.raises(FileNotFoundError, match=r"no such folder: `fra export huggingface -o .*` writes it"):
        prepare_upload(tmp_path / "none", "ann/smile")
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        prepare_upload(tmp_path, "ann/smile")
    assert hub == []


def test_without_a_token_nothing_is_sent(
    folder: Path, hub: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fra.inference.huggingface.get_token", lambda: None)
    done = CliRunner().invoke(app, ["push", str(folder), "--repo", "ann/smile", "--yes"])
    assert str(done.exception).startswith("not logged in to Hugging Face: run `hf auth login`")
    assert hub == []
    monkeypatch.setattr("fra.inference.huggingface.get_token", lambda: "a-token")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    done = CliRunner().invoke(app, ["push", str(folder), "--repo", "ann/smile", "--yes"])
    assert "127.0.0.1:9: the upload of ann/smile did not complete" in str(done.exception)
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
