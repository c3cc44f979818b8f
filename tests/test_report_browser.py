"""A report in a real browser: it requests nothing, executes no text, and its controls work.

The tests search PATH for Debian's chromium (or another); without a browser they are skipped.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.report.album import take_album
from cnn.report.comparison import compare
from cnn.report.evaluation import Finding, evaluate
from cnn.report.mix import take_mix
from cnn.report.page import Report, render
from cnn.report.thumbnail import data_uri
from tests.test_report import FACTS, HOSTILE, history, predictions

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {BROWSERS} is installed")

CLASSES = [*HOSTILE, "ant", "bee", "cat"]


def report() -> Report:
    """All that a page can hold, with names that try to run code."""
    table = predictions(CLASSES, path=[f"{HOSTILE[i % 6]}/{i}.jpg" for i in range(300)])
    other = predictions(CLASSES, seed=1, path=table["path"].to_pylist(), label=table["label"])
    evaluation = evaluate([table], CLASSES, {})
    comparison, _ = compare([table], [other], CLASSES, HOSTILE[0])
    album = take_album([table], CLASSES, evaluation)
    grey = data_uri(np.full((16, 16, 3), 128, np.uint8))
    return Report(
        title=HOSTILE[0],
        evaluation=evaluation.against(comparison),
        made=dict.fromkeys(HOSTILE, HOSTILE[1]),
        facts=FACTS | dict.fromkeys(HOSTILE, HOSTILE[2]),
        findings=[Finding(title=text, text=text, step=text) for text in HOSTILE],
        mix=take_mix([table], CLASSES),
        history=history(5),
        unreadable=[(HOSTILE[1], HOSTILE[0])],
        warnings=HOSTILE,
        album=album,
        thumbnails=dict.fromkeys(album.paths(), grey),
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(report()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Chromium's sandbox refuses to run as root, as continuous integration often does.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Any, file: Path) -> Any:
    """The report, opened from disk once for all; `page.heard` lists its messages and requests."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.heard = []
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    page.on("dialog", lambda dialog: page.heard.append(dialog.message))
    page.on("request", lambda request: page.heard.append(request.url[:60]))
    page.goto(file.as_uri())
    return page


@pytest.fixture(autouse=True)
def quiet(page: Any, file: Path) -> Iterator[None]:
    """After every test: the page has requested only itself, and has logged nothing."""
    yield
    others = [text for text in page.heard if not text.startswith("data:image/")]
    assert others == [file.as_uri()]


def cell(page: Any, row: int, column: int) -> tuple[float, float]:
    """The position on the screen of a cell of the visible matrix."""
    box = page.locator(".stage:visible image").bounding_box()
    side = box["width"] / len(CLASSES)
    return box["x"] + (column + 0.5) * side, box["y"] + (row + 0.5) * side


def column_of(page: Any, number: int) -> list[float]:
    values = page.locator(f"#classes tbody td:nth-child({number})")
    assert values.count()
    return [float(value.get_attribute("data-value")) for value in values.all()]


def test_hostile_names_are_shown_as_text(page: Any) -> None:
    seen = page.locator("body").inner_text()
    assert all(name in seen for name in HOSTILE[:4])
    assert page.locator("[onerror], [onload]").count() == 0
    assert page.locator("img:not([alt]), img[alt='']").count() == 0


def test_a_heading_sorts_its_column_and_then_reverses_it(page: Any) -> None:
    heading = page.locator("#classes th", has_text="recall")
    heading.get_by_role("button").click()
    assert column_of(page, 3) == sorted(column_of(page, 3))
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").press("Enter")
    assert column_of(page, 3) == sorted(column_of(page, 3), reverse=True)
    assert page.locator("#classes [aria-sort]").count() == 1


def test_hovering_over_a_cell_shows_its_counts_and_a_click_its_images(page: Any) -> None:
    page.get_by_text("by name", exact=True).click()
    page.locator(".stage:visible").scroll_into_view_if_needed()
    page.mouse.move(*cell(page, 6, 6))
    evaluation = report().evaluation
    assert evaluation is not None
    hits, support = evaluation.confusion_matrix[6][6], evaluation.per_class[6].support
    counts = f"{hits} of {support} images, {100 * hits / support:.0f}%"
    assert page.locator(".stage:visible .tip").inner_text() == f"ant recognised\n{counts}"
    page.mouse.click(*cell(page, 6, 6))
    assert counts in page.locator("#cell").inner_text()
    assert page.locator("#cell img").count() == 3
    page.mouse.move(0, 0)
    assert not page.locator(".stage:visible .tip").is_visible()


def test_the_arrow_keys_move_through_the_matrix_and_stop_at_its_edge(page: Any) -> None:
    stage = page.locator(".view-name .stage")
    page.get_by_text("by name", exact=True).click()
    for key in ["ArrowDown"] * 12 + ["ArrowRight"] * 12 + ["ArrowUp", "Enter"]:
        stage.press(key)
    assert "bee predicted as cat" in stage.locator(".tip").inner_text()
    assert page.locator("#cell h3 b").all_inner_texts() == ["bee", "cat"]


def test_every_order_shows_its_own_matrix(page: Any) -> None:
    for order in ("F1", "name", "similarity"):
        page.get_by_text(f"by {order}", exact=True).click()
        assert page.locator(".stage:visible").count() == 1
        assert page.locator(".stage:visible").get_attribute("aria-label").endswith(order)


def test_a_confused_pair_shows_its_images(page: Any) -> None:
    button = page.locator("[data-cell]").first
    button.click()
    assert button.inner_text() in page.locator("#cell h3").inner_text()
    assert page.locator("#cell img").count() > 0


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_width_of_a_phone_and_of_a_desktop(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(page: Any, scheme: str) -> None:
    """Body text has a contrast of 7 to 1 (WCAG AAA), other text of 4.5 to 1 (AA)."""
    page.emulate_media(color_scheme=scheme)
    colours = "['--paper', '--ink', '--muted', '--accent', '--wrong']"
    style = "getComputedStyle(document.documentElement)"
    found = page.evaluate(f"{colours}.map(name => {style}.getPropertyValue(name).trim())")
    paper, ink, *others = map(luminance, found)
    assert contrast(paper, ink) > 7
    assert all(contrast(paper, other) > 4.5 for other in others)


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG 2 defines it."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return float(np.dot([0.2126, 0.7152, 0.0722], list(linear)))


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
