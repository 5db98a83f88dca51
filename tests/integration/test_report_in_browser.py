"""The report's page in a real browser: curves are pointed at, texts turned, methods switched, tables sorted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser as chromium
import numpy as np
import pytest
from nasty import FOLDER, NASTY, nasty_pairs, nasty_run

import easyedit_split as es
from easyedit_split import generate
from easyedit_split.analysis import Analysis, analyse
from easyedit_split.run_folder import report_run
from easyedit_split.texts import save_texts, write_texts

pytestmark = pytest.mark.browser
WEIGHT, MOOD = 0, 1  # methods in the order of their folders
ASKED = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model, the run's folder, its changes and sweeps, and the texts of both."""
    model, tokenizer = es.load_model("demo")
    model.requires_grad_(False)
    run = tmp_path_factory.mktemp("<b>run")
    found = nasty_run(model, tokenizer, run, shown=24)
    texts = {}
    for name, (artifact, table) in found.items():
        texts[name] = write_texts(model, tokenizer, nasty_pairs(), artifact, table, ASKED, max_new_tokens=24)
        if name == FOLDER:  # what a model might write
            rows = tuple(tuple(f"{answer}{NASTY}" for answer in row) for row in texts[name].answers)
            texts[name] = type(texts[name])(texts[name].m, texts[name].questions, rows, 24)
        save_texts(run / name / "sweep.parquet", texts[name], table)
    report_run(run)
    return (model, tokenizer), run, found, texts


@pytest.fixture(scope="module")
def analyses(made: Any) -> list[Analysis]:
    _, _, found, _ = made
    return [analyse(found[name][1]) for name in (FOLDER, "mood")]


class Page(chromium.Page):
    def turn(self, css: str, value: float) -> None:
        """Put a slider somewhere, as a hand does."""
        self.driver.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            self.one(css), value,
        )  # fmt: skip

    def rows(self, table: str) -> list[list[str]]:
        return [
            [cell.text for cell in row.find_elements("css selector", "td")] for row in self.all(f"{table} tbody tr")
        ]

    def point_at(self, chart: str, x: float, low: float, high: float) -> None:
        from selenium.webdriver import ActionChains

        box = self.one(chart)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
        away = 12 + (box.size["width"] - 24) * (x - low) / (high - low) - box.size["width"] / 2
        ActionChains(self.driver, duration=20).move_to_element_with_offset(box, round(away), 0).perform()


@pytest.fixture
def page(window: Any, made: Any) -> Iterator[Page]:
    """The page just opened; afterwards the console must hold nothing and nothing of the data must have run."""
    chromium.show_as(window, 1280, 900)
    window.get((made[1] / "report.html").as_uri())
    opened = Page(window)
    yield opened
    opened.check_nothing_ran()
    assert opened.said() == []


def _number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_the_answer_comes_first(page: Page, analyses: list[Analysis]) -> None:
    heads = page.all("#answer .headline")
    for number, found in enumerate(analyses):
        best = found.recommendation
        card = f"#answer article:nth-of-type({number + 1})"
        headline = page.text(f"{card} > .headline")
        assert headline == found.advice[: len(headline)] and headline.endswith(best.strength)
        assert ("doubtful" in page.one(f"{card} > .headline").get_attribute("class")) == (not best.reliable)
        said = page.text(card)
        for doubt in best.doubts:
            assert doubt.sentence in said
        rest = page.text(f"{card} > .headline + p")
        assert all(word in said for word in re.sub(r"[:,.]", " ", rest).split())
    order = page.driver.execute_script("return [...document.querySelectorAll('main > *')].map((e) => e.id)")
    assert heads and order[:4] == ["answer", "texts", "curves", "tables"]


def test_a_warning_says_in_place_what_it_means(page: Page, analyses: list[Analysis]) -> None:
    from easyedit_split.analysis.explained import EXPLAINED

    doubted = [(k, doubt) for k, found in enumerate(analyses) for doubt in found.recommendation.doubts]
    assert doubted, "the data give no warning to look at"
    number, doubt = doubted[0]
    place = page.one(f"#answer article:nth-of-type({number + 1}) > .warning details")
    closed = place.size["height"]
    assert not place.get_property("open")
    place.find_element("css selector", "summary").click()
    assert place.size["height"] > closed + 10
    assert doubt.sentence in place.text and EXPLAINED[doubt.name] in place.text


def test_texts_stand_side_by_side_and_are_those_of_generate(page: Page, made: Any, analyses: list[Analysis]) -> None:
    (model, tokenizer), _, found, _ = made
    artifact, table = found["mood"]
    best = analyses[MOOD].recommendation
    cards = page.all(f"[data-method='{MOOD}'] > .answers .answer")
    heads = [card.find_element("css selector", "h4").text for card in cards]
    assert heads[0] == "m = 0, unsteered" and heads[1].startswith(f"m = {best.m:.3g}, ")
    end = 3.0 if best.m > 0 else -3.0
    assert heads[2].startswith(f"m = {end:g}, ")
    for card, m in zip(cards, (0.0, best.m, end), strict=True):
        with artifact.attach(model, m):
            (wanted,) = generate(model, tokenizer, [nasty_pairs()[0].question], max_new_tokens=24)
        assert card.find_element("css selector", "div").get_property("textContent") == wanted


def test_the_slider_shows_the_stored_text_of_every_strength(page: Page, made: Any, analyses: list[Analysis]) -> None:
    texts = made[3]["mood"]
    place = f"[data-method='{MOOD}'] "
    assert float(page.one(place + "input").get_property("max")) == len(texts.m) - 1
    for row in (0, 7, 12, 20):
        page.turn(place + "input", row)
        shown = [card.get_property("textContent") for card in page.all(place + ".answer.turned div")]
        assert shown == list(texts.answers[row])
        gain, loss = analyses[MOOD].measured_at(texts.m[row])
        said = page.text(place + "output")
        assert f"m = {texts.m[row]:g}".replace("-", "−") in said
        told = [_number(n) for n in re.findall(r"[+−]?[\d.]+", said.split(":")[1])]
        assert told == [pytest.approx(gain, rel=6e-3, abs=1e-3), pytest.approx(loss, rel=6e-3, abs=1e-3)]
        head = page.text(place + ".answer.turned h4")
        assert ("too much" in head) == (loss > 1 and texts.m[row] != 0)


def test_values_under_the_pointer_are_those_of_the_curves(page: Page, analyses: list[Analysis]) -> None:
    page.point_at("#preference", 1.5, -3, 3)
    assert page.text("label[for=at-m]") == "m = 1.5", "a swept strength is met by a pointer near it"
    page.point_at("#preference", 1.62, -3, 3)
    assert _number(page.text("label[for=at-m]").split()[-1]) == pytest.approx(1.62, abs=0.02)
    page.turn("#at-m", 1.5)
    for row, found in zip(page.rows("#values"), analyses, strict=True):
        at = list(found.preference.m).index(1.5)
        gain, loss = found.measured_at(1.5)
        wanted = [found.preference.mean[at], found.utility.mean[at], gain, loss]
        assert [_number(n) for n in row[1:]] == [pytest.approx(v, rel=6e-3, abs=6e-3) for v in wanted]
    beside = [_number(t.text) for t in page.all("#preference .value")]
    assert sorted(beside) == sorted(_number(row[1]) for row in page.rows("#values"))
    assert "at m = 1.5" in page.one("#utility svg").get_attribute("aria-label")


def test_the_front_says_what_a_loss_buys(page: Page, analyses: list[Analysis]) -> None:
    page.point_at("#front", 2.0, 0, 4)
    loss = float(page.one("#at-loss").get_property("value"))
    assert loss == pytest.approx(2.0, abs=0.02)
    for row, found in zip(page.rows("#within"), analyses, strict=True):
        inside = found.measured.spent_dense <= loss + 0.01
        assert _number(row[1]) == pytest.approx(found.measured.gain_dense[inside].max(), rel=0.02, abs=0.02)
    assert len(page.all("#front .budget")) == 1
    budget = page.one("#front .budget").get_attribute("x1")
    width = page.one("#front").size["width"]
    assert float(budget) == pytest.approx(12 + (width - 24) / 4, abs=2)


def test_methods_are_switched_off_and_on(page: Page) -> None:
    assert len(page.all("#preference .band")) == 2
    page.all("#choose input[type=checkbox]")[WEIGHT].click()
    assert len(page.all("#preference .band")) == 1 and len(page.rows("#values")) == 1
    page.all("#choose input[type=checkbox]")[MOOD].click()
    assert "switch a method on" in page.text("#preference")
    page.all("#choose input[type=checkbox]")[WEIGHT].click()
    assert len(page.all("#utility .band")) == 1


def test_sums_or_means(page: Page, made: Any) -> None:
    table = made[2]["mood"][1].reduced("mean")
    page.one("#choose input[value=mean]").click()
    page.turn("#at-m", 1.0)
    at = list(table.factors).index(1.0)
    shown = {row[0]: row for row in page.rows("#values")}
    (row,) = [row for name, row in shown.items() if "SPLIT vector" in name]
    assert _number(row[1]) == pytest.approx(table.preference()[at].mean(), rel=6e-3, abs=6e-3)
    assert "means over the tokens" in page.text("#explore > .small")


def test_tables_sort_by_every_column(page: Page) -> None:
    table = "#tables section:nth-of-type(1) table"
    column = [head.text for head in page.all(f"{table} th")].index("m")
    button = page.all(f"{table} th button")[column]
    for way in ("ascending", "descending"):
        button.click()
        assert page.all(f"{table} th")[column].get_attribute("aria-sort") == way
        cells = [row[column] for row in page.rows(table)]
        known = [float(cell) for cell in cells if cell != "-"]
        assert known == sorted(known, reverse=way == "descending") and len(known) > 1
        assert cells[: len(known)] == [c for c in cells if c != "-"]


def test_html_and_script_in_every_field_is_text(page: Page, made: Any) -> None:
    assert page.text("#answer article:nth-of-type(1) h2") == FOLDER
    assert NASTY in page.text(f"[data-method='{WEIGHT}'] .question")
    assert NASTY in page.text(f"[data-method='{WEIGHT}'] .answer.turned div")
    page.turn(f"[data-method='{WEIGHT}'] input", 3)
    assert NASTY in page.text(f"[data-method='{WEIGHT}'] .answer.turned div")
    assert not page.all("main script, main img:not([src^='data:image/svg']), main b")
    source = (made[1] / "report.html").read_text(encoding="utf-8")
    assert source.count("<script") == 2 and "Content-Security-Policy" in source
    assert set(re.findall(r"https?://[^\s\"'`<]+", source)) <= {"http://www.w3.org/2000/svg"}


def test_a_script_that_slipped_in_would_not_run(page: Page) -> None:
    page.driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.broken = 4'; document.body.append(s);"
        "const i = document.createElement('div'); i.innerHTML = \"<img src=x onerror='window.broken = 5'>\";"
        "document.body.append(i)"
    )
    time.sleep(0.2)
    assert page.driver.execute_script("return window.broken") is None
    assert any("Content Security Policy" in message for message in page.said())


def test_without_script_the_answer_the_pictures_and_the_tables_are_there(page: Page) -> None:
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.driver.refresh()
        assert page.one("#answer .headline").text
        assert page.one(".answer.turned").text and page.one("#tables table").is_displayed()
        pictures = page.all("#curves img")
        assert len(pictures) >= 4 and all(p.is_displayed() and p.size["height"] > 100 for p in pictures)
        assert not page.all("#explore *, main button, main input")
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_with_the_keyboard_alone(page: Page, made: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    keys = lambda *k: ActionChains(page.driver).send_keys(*k).perform()  # noqa: E731
    reached = []
    for _ in range(60):
        keys(Keys.TAB)
        active = page.driver.switch_to.active_element
        reached.append(active.get_attribute("id"))
        if reached[-1] == f"texts-{MOOD}":
            keys(Keys.HOME)
            texts = made[3]["mood"]
            assert page.text(f"[data-method='{MOOD}'] .answer.turned div") == texts.answers[0][0]
        if reached[-1] == "at-m":
            keys(Keys.HOME)
            assert float(active.get_property("value")) == -3 and "−3" in active.get_attribute("aria-valuetext")
        if reached[-1] == "at-loss":
            break
    assert {f"texts-{WEIGHT}", f"texts-{MOOD}", "at-m", "at-loss"} <= set(reached)


@pytest.mark.parametrize("factors", [[0.0], [0.0, 1.0], [1.0, 2.0, 3.0], list(np.linspace(1, 4, 12))])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_sweep_that_says_little_has_a_page(window: Any, factors: list[float], reduction: str, tmp_path: Path) -> None:
    grid = np.array(factors)[:, None]
    losses = 2 + 0.1 * grid**2 + np.linspace(0, 1, 5), 2 + 0.3 * grid + np.linspace(0, 1, 5)
    table = es.SweepTable(grid[:, 0], *losses, reduction, np.full(5, 4.0), np.full(5, 4.0), {})
    table.save(tmp_path / "v" / "sweep.parquet")
    page = report_run(tmp_path).html
    window.get(page.as_uri())
    opened = Page(window)
    assert opened.one("#answer .headline").text and opened.one("#preference svg")
    for css in ("#at-m", "#at-loss"):
        for end in ("min", "max"):
            opened.turn(css, float(opened.one(css).get_property(end)))
    assert opened.said() == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window_in_light_and_dark(page: Page, width: int, scheme: str) -> None:
    chromium.show_as(page.driver, width, 844, scheme)
    page.driver.refresh()
    ask = page.driver.execute_script
    for details in page.all("details"):
        ask("arguments[0].open = true", details)
    page.check_layout(scheme)
    chromium.show_as(page.driver, width, min(6000, ask("return document.documentElement.scrollHeight")), scheme)
    assert page.picture(f"report_{width}_{scheme}")[:4] == b"\x89PNG"
    assert np.isfinite(float(page.one("#at-m").get_property("value")))
