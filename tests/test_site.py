"""The documentation site: it builds without a network, loads nothing from elsewhere, and opens in Chromium."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from inspect import isfunction
from pathlib import Path

import pytest
from support.workspace import ROOT, environment, may_unshare

CHROMIUM = shutil.which("chromium")
LOADED = re.compile(r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*?\b(?:src|href)=\"?([^\" >]+)")
"""Addresses that a browser loads by itself, unlike links that a reader clicks."""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without printing a line for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, in a copy of the project and without a network where that can be cut."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("docs", "fra", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", folder)
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^docs:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    commands = "set -e\n" + re.sub(r"^\t@", "", recipe[1], flags=re.MULTILINE)
    offline = ["unshare", "-rn"] if may_unshare() else []
    done = subprocess.run(
        [*offline, "bash", "-c", commands],
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / ".work/site"


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site on a port of loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    loaded = {(page.name, target) for page in pages for target in LOADED.findall(page.read_text("utf-8"))}
    assert len(loaded) > 100
    assert [(page, target) for page, target in loaded if re.match(r"(\w+:)?//", target)] == []
    styles = [path.read_text("utf-8") for path in site.rglob("*.css")]
    assert styles
    assert [
        match for style in styles for match in re.findall(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//", style)
    ] == []


def test_the_api_pages_hold_every_public_function_of_the_losses(site: Path) -> None:
    from fra.method import losses

    page = (site / "reference/python/method.html").read_text("utf-8")
    functions = {name: value for name, value in vars(losses).items() if isfunction(value)}
    own = {name for name, value in functions.items() if value.__module__ == losses.__name__}
    names = sorted(name for name in own if not name.startswith("_"))
    assert len(names) > 4
    assert [name for name in names if f'id="fra.method.losses.{name}"' not in page] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: `make test` installs it")
def test_the_site_opens_in_a_browser_without_a_network(site: Path, address: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    requests: list[str] = []
    complaints: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.get_by_role("link", name="Architecture").first.click()
        page.wait_for_selector("h1:has-text('Architecture')")
        assert page.evaluate("document.querySelector('article img').naturalWidth") > 0
        page.keyboard.press("Control+k")
        page.keyboard.type("sinkhorn")
        page.wait_for_selector("a[href*='losses.sinkhorn']", timeout=20_000)
        browser.close()
    assert len(requests) > 5
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert complaints == []
