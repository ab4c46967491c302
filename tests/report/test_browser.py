"""The page in Chromium: desktop and phone, light and dark, keyboard, and the accessibility rules of axe-core."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: make test installs it"
)
axe = pytest.importorskip(
    "axe_playwright_python", reason="axe-playwright-python is not installed: make test does"
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: install Debian's package chromium"
)

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
FOCUSED = "document.activeElement.getAttribute('href') ?? document.activeElement.className"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Any]:
    """Open the report from disk, offline; fails at teardown if the page logged errors or sent requests."""
    contexts, problems = [], []

    def open_page(viewport: dict[str, int] = DESKTOP, scheme: str = "light", **options: Any) -> Any:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url[:200]))
        page.on(
            "request",
            lambda request: (
                problems.append(request.url)
                if not request.url.startswith(("data:", report.as_uri()))
                else None
            ),
        )
        page.goto(report.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def test_all_pictures_load(visit: Any) -> None:
    page = visit()
    broken = page.evaluate(
        "[...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.alt)"
    )
    assert broken == []
    assert page.evaluate("[...document.images].every((i) => i.alt.trim())")
    assert page.evaluate("document.images.length") > 30
    inside = page.evaluate(
        "Promise.all([...document.querySelectorAll('svg image')].map((drawn) => {"
        " const image = new Image(); image.src = drawn.href.baseVal;"
        " return image.decode().then(() => image.naturalWidth) }))"
    )
    assert page.locator("svg.landmarks image").count() == 8
    assert len(inside) > 8  # and those of the map
    assert all(inside)


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [
        (DESKTOP, "light"),
        pytest.param(PHONE, "dark", marks=pytest.mark.slow),
        pytest.param(DESKTOP, "dark", marks=pytest.mark.slow),
        pytest.param(PHONE, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_no_violation(visit: Any, viewport: dict[str, int], scheme: str) -> None:
    page = visit(viewport, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    page.add_script_tag(path=str(Path(axe.__file__).parent / "axe.min.js"))
    found = page.evaluate("axe.run()")
    assert found["passes"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []


def test_dark_mode_is_dark(visit: Any) -> None:
    def brightness(scheme: str) -> int:
        colour = visit(scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))

    assert brightness("dark") < 100
    assert brightness("light") > 700


@pytest.mark.parametrize(
    "width", [pytest.param(320, marks=pytest.mark.slow), 360, pytest.param(768, marks=pytest.mark.slow)]
)
def test_page_is_not_wider_than_a_narrow_screen(visit: Any, width: int) -> None:
    page = visit({"width": width, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_tab_order_is_skip_link_then_sections_then_content(visit: Any) -> None:
    page = visit()
    focused = []
    for _ in range(30):
        page.keyboard.press("Tab")
        focused.append(page.evaluate(FOCUSED))
    sections = page.evaluate("[...document.querySelectorAll('nav a')].map((a) => a.getAttribute('href'))")
    assert focused[: 1 + len(sections)] == ["#main", *sections]
    assert "plot" in focused


@pytest.mark.slow
def test_focus_moves_downwards_on_a_narrow_page(visit: Any) -> None:
    page = visit(PHONE)
    page.locator("#main").focus()
    tops = []
    while True:
        page.keyboard.press("Tab")
        top = page.evaluate(
            "document.activeElement.closest('main')"
            " && document.activeElement.getBoundingClientRect().top + scrollY"
        )
        if top is None:
            break
        tops.append(top)
    assert len(tops) > 20
    assert tops == sorted(tops)


@pytest.mark.slow
def test_skip_link_leads_to_the_results(visit: Any) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#results') !== null")


def test_arrow_keys_show_values_of_a_chart(visit: Any) -> None:
    page = visit()
    reading = page.locator("#reading")
    page.locator(".plot").nth(0).focus()
    assert not reading.is_visible()
    first_chart = page.locator(".plot").nth(0).locator("[aria-label]")
    for key, mark in (("ArrowRight", 0), ("ArrowRight", 1), ("End", -1), ("ArrowLeft", -2), ("Home", 0)):
        page.keyboard.press(key)
        label = first_chart.nth(mark if mark >= 0 else first_chart.count() + mark).get_attribute("aria-label")
        assert reading.inner_text().split("\n") == label.split("; ")
    page.keyboard.press("Escape")
    assert not reading.is_visible()


def test_pointer_shows_the_nearest_values_of_a_chart(visit: Any) -> None:
    page = visit()
    plot = page.locator("#training .plot").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    seen = []
    for share in (0.3, 0.6, 0.9):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        step, *values = page.locator("#reading").inner_text().split("\n")
        assert [value.split(":")[0] for value in values] == ["Total", "Global", "Region", "Relation"]
        seen.append(int(step.removeprefix("Step ").replace(",", "")))
    assert seen == sorted(set(seen))
    reading = page.locator("#reading").bounding_box()
    assert reading["x"] + reading["width"] <= DESKTOP["width"]
    page.mouse.move(5, 5)
    assert not page.locator("#reading").is_visible()


@pytest.mark.slow
def test_touch_shows_values_of_a_chart_on_a_phone(visit: Any) -> None:
    page = visit(PHONE, has_touch=True)
    plot = page.locator("#verification .plot")
    plot.scroll_into_view_if_needed()
    plot.tap()
    reading = page.locator("#reading")
    assert reading.inner_text().startswith("False accept rate")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.slow
def test_heading_levels_are_not_skipped(visit: Any) -> None:
    levels = visit().evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))


def test_page_is_complete_without_scripts(visit: Any) -> None:
    page = visit(java_script_enabled=False)
    assert page.locator(".plot svg").count() == page.locator(".plot").count() > 5
    assert page.locator("#results table tbody").count() >= 4


@pytest.mark.slow
def test_print_has_all_sections_in_dark_text_on_white_without_navigation(visit: Any) -> None:
    page = visit(scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    style = "getComputedStyle(document.body)"
    assert page.evaluate(f"[{style}.backgroundColor, {style}.color]") == [
        "rgb(255, 255, 255)",
        "rgb(21, 25, 31)",
    ]
    assert not page.locator("nav").is_visible()
    assert all(page.locator("section").nth(n).is_visible() for n in range(page.locator("section").count()))
