"""Data Docs in Chromium without a network: desktop and phone, light and dark."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fra.validation.verdict import ValidationResult

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
MORE_QUIET = ["--disable-component-update", "--disable-sync"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install Debian's package chromium")
@pytest.mark.parametrize("names", ["index.html", pytest.param("*.html", marks=pytest.mark.slow)])
def test_the_pages_load_nothing_and_fit_the_screen(
    names: str, faulty: tuple[dict[str, str], ValidationResult, Path]
) -> None:
    site = faulty[2] / "out/data_docs"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *MORE_QUIET])
        for width, scheme in ((1280, "light"), (360, "dark")):
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
            )
            for path in sorted(site.glob(names)):
                page, requested = context.new_page(), []
                page.on("request", lambda request, requested=requested: requested.append(request.url))
                page.goto(path.as_uri())
                assert [url for url in requested if not url.startswith("data:")] == [path.as_uri()]
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path
                if path.name == "index.html":
                    found = axe.Axe().run(page)
                    assert found.violations_count == 0, found.generate_report()
                    assert page.locator("img").count() > 50
        browser.close()
