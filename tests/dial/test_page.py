"""The page in a real browser: dials are dragged, streamed texts are read and compared with `generate`."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser as chromium
import numpy as np
import pytest
from nasty import CONCEPT, FOLDER, NASTY

from easyedit_split import PreferencePair, generate, sweep
from easyedit_split.analysis import analyse
from easyedit_split.dial.server import DialServer

pytestmark = pytest.mark.browser
QUESTION = "Write a review of the sofa."
WEIGHT, MOOD = 0, 1  # the two dials


class Page(chromium.Page):
    """The page as a visitor uses it."""

    def __init__(self, driver: Any, server: DialServer) -> None:
        super().__init__(driver)
        self.server = server

    def open(self) -> Page:
        chromium.show_as(self.driver, 1280, 900)
        self.driver.get(self.server.url)
        self.until(lambda: self.all(".dial"))
        self.settle()
        return self

    def until(self, true: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < end, "the page did not come to it"
            time.sleep(0.02)
        return found

    def settle(self) -> None:
        """Until every answer is whole, and a dial that moved has had its rest."""
        time.sleep(0.3)
        self.until(lambda: not self.all("[aria-busy=true]") and not self.server.session.answering)

    def ranges(self, dial: int) -> list[Any]:
        return self.all(f".dial:nth-of-type({dial + 1}) .range")

    def m(self, dial: int) -> float:
        return float(self.ranges(dial)[0].get_property("value"))

    def drag(self, dial: int, m: float, which: int = 0) -> None:
        """Take the thumb with the pointer and move it to m, by way of several places."""
        from selenium.webdriver import ActionChains

        slider = self.ranges(dial)[which]
        low, high, now = (float(slider.get_property(k)) for k in ("min", "max", "value"))
        width = slider.size["width"] - 20
        x = [round(width * ((v - low) / (high - low) - 0.5)) for v in (now, (now + m) / 2, m)]
        act = ActionChains(self.driver, duration=60).move_to_element_with_offset(slider, x[0], 0).click_and_hold()
        act.move_to_element_with_offset(slider, x[1], 0).move_to_element_with_offset(
            slider, x[2], 0
        ).release().perform()

    def type(self, css: str, text: str) -> None:
        """In place of what stands there."""
        from selenium.webdriver import Keys

        self.one(css).send_keys(Keys.CONTROL, "a")
        self.one(css).send_keys(text)

    def answers(self) -> tuple[str, str]:
        """The last turn's unsteered and steered text."""
        turn = ".turn:last-child "
        return self.text(turn + ".answer.plain div"), self.text(turn + ".answer.steered div")


@pytest.fixture
def page(window: Any, server: DialServer) -> Iterator[Page]:
    """A page just opened; afterwards the console must hold no error and nothing of the data must have run."""
    opened = Page(window, server).open()
    yield opened
    opened.check_nothing_ran()
    # a refused request is logged by the browser
    assert [message for message in opened.said() if " 400 (" not in message] == []


@pytest.fixture
def expected(server: DialServer, demo: tuple[Any, Any]) -> Callable[..., str]:
    """`generate` at strengths of the two changes."""

    def one(weight: Any = 0.0, mood: float = 0.0, question: Any = QUESTION, **options: Any) -> str:
        m1, m2 = weight if isinstance(weight, tuple) else (weight, weight)
        first, second = (c.artifact for c in server.session.changes)
        with first.attach(demo[0], m1=m1, m2=m2), second.attach(demo[0], mood):
            return generate(*demo, [question], **options)[0]

    return one


def test_it_opens_with_the_recommended_strength_and_an_answer(page: Page, expected: Any, server: DialServer) -> None:
    told = server.session.changes[WEIGHT].curves
    best = told["recommended"]
    at = round(best["m"], 2) if best and best["reliable"] else 0.0
    assert page.m(WEIGHT) == at and page.m(MOOD) == 0
    assert page.answers() == (expected(), expected(at))


def test_a_dragged_dial_streams_the_text_at_its_strength(page: Page, expected: Any) -> None:
    page.driver.execute_script(
        "window.steps = []; const seen = document.querySelector('.turn:last-child .answer.steered div');"
        "new MutationObserver(() => window.steps.push(seen.textContent)).observe(seen, {childList: true})"
    )
    page.drag(MOOD, 2.0)
    page.settle()
    m = page.m(MOOD)
    assert abs(m - 2.0) < 0.05
    plain, steered = page.answers()
    assert (plain, steered) == (expected(), expected(page.m(WEIGHT), m))
    assert plain != steered
    steps = page.driver.execute_script("return window.steps")
    whole = [step for step in steps if steered.startswith(step)]
    # in parts, as many as the browser came to draw: a busy machine draws few
    assert len(whole) > 1 and whole[-1] == steered
    assert f"mood m = {m:g}" in page.text(".turn:last-child .answer.steered h3")


def test_a_token_appears_within_a_second_of_a_change(page: Page) -> None:
    """The best of five, on a machine that others use too."""
    page.driver.execute_script(
        "window.first = null; const seen = document.querySelector('.turn:last-child .answer.steered div');"
        "new MutationObserver(() => (window.first ??= performance.now())).observe(seen, {childList: true});"
        "addEventListener('input', () => ((window.moved = performance.now()), (window.first = null)), true)"
    )
    waits = []
    for m in (-2.0, -1.0, 0.5, 1.0, 2.0):
        page.drag(MOOD, m)
        page.settle()
        waits.append(page.driver.execute_script("return window.first - window.moved") / 1000)
    print("seconds to the first token:", np.round(sorted(waits), 3))
    assert 0 < min(waits) < 1


def test_the_point_on_the_curves_moves_and_says_nats(page: Page, server: DialServer) -> None:
    change = server.session.changes[MOOD]
    found = analyse(change.table)
    for m in (-2.0, 1.0):
        page.type(f".dial:nth-of-type({MOOD + 1}) .number", f"{m}\n")
        for kind in ("preference", "utility"):
            there = float(getattr(found, kind).mean[list(change.table.factors).index(m)])
            said = page.text(f"#{kind} .said").replace("−", "-")
            value, where = said.split(" at m = ")
            assert float(value) == pytest.approx(there, rel=5e-3, abs=5e-3) and float(where) == m
            left, top = (float(page.one(f"#{kind} .point").get_attribute(k)) for k in ("cx", "cy"))
            dot = page.all(f"#{kind} .dot")[list(change.table.factors).index(m)]
            assert float(dot.get_attribute("cx")) == pytest.approx(left, abs=0.5)
            assert float(dot.get_attribute("cy")) == pytest.approx(top, abs=0.5)
        thumb = page.ranges(MOOD)[0]
        on_dial = thumb.rect["x"] + 10 + (thumb.rect["width"] - 20) * (m + 3) / 6
        assert page.one("#utility .point").rect["x"] + 7 == pytest.approx(on_dial, abs=3)
    assert page.text("#advice") == found.advice
    assert ("warning" in page.one("#advice").get_attribute("class")) == (not found.recommendation.reliable)
    page.settle()


def test_marks_stand_where_the_analysis_says(page: Page, server: DialServer) -> None:
    for number, change in enumerate(server.session.changes):
        dial = f".dial:nth-of-type({number + 1}) "
        slider, told = page.ranges(number)[0], change.curves
        assert [float(slider.get_property(k)) for k in ("min", "max")] == [-3.0, 3.0]

        def place(m: float, slider: Any = slider) -> float:
            return slider.rect["x"] + 10 + (slider.rect["width"] - 20) * (m + 3) / 6

        best, stretch = told["recommended"], told["budget"]["stretch"]
        assert bool(page.all(dial + ".best.tick")) == (best is not None)
        if best:
            assert page.one(dial + ".best.tick").rect["x"] + 1 == pytest.approx(place(best["m"]), abs=2)
            box = page.one(dial + ".interval").rect
            assert [box["x"], box["x"] + box["width"]] == [
                pytest.approx(place(best["interval"][0]), abs=5), pytest.approx(place(best["interval"][1]), abs=5),
            ]  # fmt: skip
        if stretch:
            box = page.one(dial + ".within").rect
            assert [box["x"], box["x"] + box["width"]] == [pytest.approx(place(m), abs=2) for m in stretch]


def test_past_the_sweep_and_past_the_budget_are_said(page: Page, server: DialServer) -> None:
    number = f".dial:nth-of-type({WEIGHT + 1}) .number"
    warning = f".dial:nth-of-type({WEIGHT + 1}) .warning"
    page.type(number, "9\n")
    assert page.text(warning) == "Past the sweep, which ends at 3: nothing was measured here."
    assert page.text("#utility .said") == "m = 9 was not swept"
    page.type(number, "3\n")
    fallen = server.session.changes[WEIGHT].curves["utility"]
    if fallen[3] - fallen[-1] > 1:
        assert "Past the budget: utility has fallen by" in page.text(warning)
    page.settle()


def test_the_two_terms_of_local_weight_apart(page: Page, expected: Any) -> None:
    page.one(f".dial:nth-of-type({WEIGHT + 1}) .apart").click()
    assert len(page.ranges(WEIGHT)) == 2 and len(page.ranges(MOOD)) == 1
    page.drag(WEIGHT, 1.0, 0)
    page.drag(WEIGHT, -2.0, 1)
    page.settle()
    m1, m2 = (float(r.get_property("value")) for r in page.ranges(WEIGHT))
    assert abs(m1 - 1) < 0.05 and abs(m2 + 2) < 0.05
    assert page.answers()[1] == expected((m1, m2))
    page.one(f".dial:nth-of-type({WEIGHT + 1}) .apart").click()
    page.settle()
    assert page.answers()[1] == expected(m1)


def test_with_the_keyboard_alone(page: Page, expected: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    keys = lambda *k: ActionChains(page.driver).send_keys(*k).perform()  # noqa: E731
    focused = lambda: page.driver.switch_to.active_element  # noqa: E731
    page.driver.execute_script("document.activeElement.blur()")
    for _ in range(40):
        keys(Keys.TAB)
        if focused() == page.ranges(MOOD)[0]:
            break
    assert focused() == page.ranges(MOOD)[0]
    keys(Keys.HOME)
    assert page.m(MOOD) == -3
    keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    assert page.m(MOOD) == pytest.approx(-2.81)
    assert "m = −2.81" in focused().get_attribute("aria-valuetext")
    page.settle()
    assert page.answers()[1] == expected(page.m(WEIGHT), -2.81)
    outline = page.driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for _ in range(60):
        if focused().get_attribute("id") == "question":
            break
        ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    keys("Write a review of the lamp.", Keys.ENTER)
    page.settle()
    assert len(page.all(".turn")) == 2


def test_a_chat_of_several_turns_goes_on_in_both(page: Page, expected: Any) -> None:
    page.type(f".dial:nth-of-type({MOOD + 1}) .number", "2\n")
    page.settle()
    plain, steered = page.answers()
    page.type("#question", "And the lamp?\n")
    page.settle()
    found = page.answers()
    for text, said, strengths in ((found[0], plain, (0, 0)), (found[1], steered, (page.m(WEIGHT), 2))):
        turns = [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": said},
            {"role": "user", "content": "And the lamp?"},
        ]
        assert text == expected(*strengths, question=turns)


def test_stop_stops_and_what_was_written_stays(page: Page, server: DialServer) -> None:
    page.one("#settings summary").click()
    page.type("#tokens", "1500")
    page.type("#temperature", "5")
    page.type("#question", "Go on and on.\n")
    page.until(lambda: len(page.answers()[1]) > 10)
    page.one("#stop").click()
    page.until(lambda: not server.session.answering, 10)
    page.until(lambda: not page.all("[aria-busy=true]"), 5)
    written = page.answers()
    time.sleep(0.3)
    assert page.answers() == written and written[1]
    assert not page.one("#stop").is_enabled()
    assert page.text("#problem") == ""


def test_sampling_follows_its_seed(page: Page, expected: Any) -> None:
    page.one("#settings summary").click()
    page.type("#seed", "7")
    page.type("#temperature", "0.9")
    page.type("#question", f"{QUESTION}\n")
    page.settle()
    options = {"temperature": 0.9, "seed": 7}
    history = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": expected()}]
    turns = [*history, {"role": "user", "content": QUESTION}]
    assert page.answers()[0] == expected(question=turns, **options)


def test_several_strengths_in_one_batch(page: Page, expected: Any) -> None:
    page.one(f".dial:nth-of-type({MOOD + 1}) h2").click()
    page.type("#strengths", "0, -1.5 3")
    page.one("#ladder button").click()
    page.settle()
    found = [card.get_property("textContent") for card in page.all("#rungs .answer div")]
    assert found == [expected(page.m(WEIGHT), m) for m in (0, -1.5, 3)]
    assert len(set(found)) > 1
    page.type("#strengths", "0, much")
    page.one("#ladder button").click()
    assert page.text("#problem") == "much is no strength: give numbers, such as 0, 1.5, 3"


def test_ones_own_pair_beside_the_data_set(page: Page, server: DialServer, demo: tuple[Any, Any]) -> None:
    pair = PreferencePair(QUESTION, "I am happy with this sofa.", "I am upset with this sofa.")
    change = server.session.changes[MOOD]
    table = sweep(*demo, [pair], change.artifact, change.table.factors, "sum")
    page.type(f".dial:nth-of-type({MOOD + 1}) .number", "2\n")
    for field in ("question", "matching", "not_matching"):
        page.type(f"#pair-{field.replace('_', '-')}", getattr(pair, field))
    page.one("#score button").click()
    page.until(lambda: page.text("#scored").startswith("Your pair at m = 2:"))
    words = page.text("#scored").replace("−", "-").replace("(", "").replace(",", "").split()
    at = list(table.factors).index(2.0)
    assert float(words[words.index("preference") + 1]) == pytest.approx(table.preference()[at, 0], rel=5e-3, abs=5e-3)
    assert float(words[words.index("utility") + 1]) == pytest.approx(table.utility()[at, 0], rel=5e-3, abs=5e-3)
    assert len(page.all(".own")) == 2
    page.type("#pair-matching", pair.not_matching)
    page.one("#score button").click()
    page.until(lambda: "a pair needs two different answers" in page.text("#scored"))
    page.settle()


def test_html_and_script_in_every_field_is_text(page: Page, expected: Any) -> None:
    assert page.text(f".dial:nth-of-type({WEIGHT + 1}) h2") == FOLDER
    assert CONCEPT in page.text(f".dial:nth-of-type({MOOD + 1}) small")
    page.type("#question", f"{NASTY}{CONCEPT}\n")
    page.settle()
    assert page.text(".turn:last-child > p") == f"{NASTY}{CONCEPT}"
    for field in ("question", "matching", "not-matching"):
        page.type(f"#pair-{field}", f"{NASTY} {field}")
    page.one("#score button").click()
    page.until(lambda: page.text("#scored").startswith("Your pair"))
    page.until(lambda: NASTY in page.text("#python"))
    assert not page.all("main script, main img, main b[onmouseover]")


def test_the_copied_python_prints_the_steered_answer(page: Page) -> None:
    page.drag(MOOD, 1.0)
    page.settle()
    page.until(lambda: f"m={page.m(MOOD):g}" in page.text("#python"))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(page.text("#python"), {})
    assert out.getvalue() == page.answers()[1] + "\n"
    page.one("[data-copy=python]").click()
    page.until(lambda: page.text("[data-copy=python]") == "Copied")
    assert page.driver.execute_script("return getSelection().toString()").startswith("import easyedit_split as es")


def test_a_conversation_is_exported_with_its_settings(page: Page, window: Any) -> None:
    folder = Path(next(a for a in window.capabilities["chrome"]["userDataDir"].split("\n"))).parent
    page.type(f".dial:nth-of-type({MOOD + 1}) .number", "1.5\n")
    page.settle()
    page.one("#export").click()
    file = folder / "conversation.json"
    page.until(file.exists)
    held = json.loads(page.until(file.read_text))
    (turn,) = held["turns"]
    plain, steered = page.answers()
    assert (turn["question"], turn["unsteered"], turn["steered"]) == (QUESTION, plain, steered)
    assert turn["strengths"][MOOD] == {"name": "mood", "m1": 1.5, "m2": 1.5}
    assert (turn["temperature"], turn["seed"], turn["max_new_tokens"]) == (0, 0, 64)
    assert held["changes"][MOOD]["concept"] == CONCEPT and held["model"] == "demo"


def test_mistakes_are_the_packages_own_sentences(page: Page) -> None:
    page.one("#settings summary").click()
    page.type("#temperature", "-1")
    page.type("#question", "Hi\n")
    page.until(lambda: page.text("#problem"))
    assert page.text("#problem") == "temperature = -1 is out of range: give 0, or 0.001 or more"
    page.type("#temperature", "0")
    page.type("#tokens", "2047")
    page.type("#question", "Hi\n")
    page.until(lambda: "would not fit the model's context of 2048" in page.text("#problem"))
    page.type("#question", " \n")
    assert page.text("#problem") == "there is no question: write one"


def test_two_people_at_one_page(page: Page, expected: Any) -> None:
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("window")
    second = page.driver.current_window_handle
    other = Page(page.driver, page.server).open()
    strengths = {first: 2.5, second: -2.5}
    for handle, m in strengths.items():
        page.driver.switch_to.window(handle)
        other.type(f".dial:nth-of-type({MOOD + 1}) .number", f"{m}\n")
    for handle, m in strengths.items():
        page.driver.switch_to.window(handle)
        other.settle()
        assert other.answers() == (expected(), expected(other.m(WEIGHT), m))
    assert expected(0, 2.5) != expected(0, -2.5)
    page.driver.switch_to.window(second)
    page.driver.close()
    page.driver.switch_to.window(first)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window_in_light_and_dark(page: Page, width: int, scheme: str) -> None:
    chromium.show_as(page.driver, width, 844, scheme)
    page.one(f".dial:nth-of-type({MOOD + 1}) h2").click()  # a narrow window shows the whole of one dial
    page.type(f".dial:nth-of-type({MOOD + 1}) .number", "1\n")
    page.settle()
    page.check_layout(scheme)
    assert page.picture(f"dial_{width}_{scheme}")[:4] == b"\x89PNG"
    assert page.ranges(MOOD)[0].is_displayed()
