"""The judge against a real server over loopback: out of order, failing, stalling, talking nonsense."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from judge_server import Answer, judge_server

from easyedit_split.errors import ConfigError
from easyedit_split.evaluation.client import REFUSED, UNREACHABLE, UNREADABLE, ApiJudge, JudgeSettings
from easyedit_split.evaluation.demo import DemoJudge
from easyedit_split.evaluation.judges import JudgeItem
from easyedit_split.evaluation.rubrics import RUBRICS, rubric
from easyedit_split.storage.reply_cache import ReplyCache, request_key

pytest.importorskip("openai", reason="the judge needs the extra: pip install easyedit-split[judge]")


def settings(base_url: str, **more: Any) -> JudgeSettings:
    return JudgeSettings("k", base_url, **{"pause": 0.0, "timeout": 5.0, "retries": 2, **more})


def items(n: int) -> list[JudgeItem]:
    return [JudgeItem("concept", f"question {i}", f"answer {i}", "the sea") for i in range(n)]


def number(request: dict[str, Any]) -> int:
    return int(re.search(r"question (\d+)", request["messages"][1]["content"]).group(1))  # type: ignore[union-attr]


def test_scores_keep_their_order_when_answers_come_in_another() -> None:
    with judge_server(lambda r, n: Answer(f"Rating: {number(r) % 3}", delay=0.05 * (6 - number(r)))) as server:
        found = ApiJudge(settings(server.base_url)).score(items(6))
    assert found.values == (0, 1, 2, 0, 1, 2)
    assert found.missing == {}


def test_request_is_deterministic_and_shows_the_text_to_grade() -> None:
    with judge_server(lambda r, n: Answer("Rating: 1")) as server:
        ApiJudge(settings(server.base_url, model="some-model")).score(items(1))
    (request,) = server.requests
    assert request["temperature"] == 0
    assert request["model"] == "some-model"
    assert "endpoint" not in request
    prompt = request["messages"][1]["content"]
    assert "question 0" in prompt and "answer 0" in prompt and "the sea" in prompt


def test_no_more_requests_at_once_than_asked_for() -> None:
    with judge_server(lambda r, n: Answer("Rating: 1", delay=0.03)) as server:
        ApiJudge(settings(server.base_url, concurrency=3)).score(items(12))
    assert 2 <= server.most_open <= 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failures_are_tried_again(status: int) -> None:
    with judge_server(lambda r, n: Answer("Rating: 2") if n == 2 else Answer("busy", status)) as server:
        found = ApiJudge(settings(server.base_url)).score(items(2))
    assert found.values == (2, 2)
    assert len(server.requests) == 6


def test_pauses_between_retries_grow() -> None:
    import time

    with judge_server(lambda r, n: Answer("Rating: 2") if n == 2 else Answer("", 500)) as server:
        start = time.monotonic()
        ApiJudge(settings(server.base_url, pause=0.1)).score(items(1))
    assert time.monotonic() - start >= 0.1 + 0.2


def test_an_endpoint_that_stays_down_is_missing_not_zero_and_not_cached(tmp_path: Path) -> None:
    cache = tmp_path / "replies.jsonl"
    with judge_server(lambda r, n: Answer("", 500) if number(r) == 1 else Answer("Rating: 0")) as server:
        found = ApiJudge(settings(server.base_url), cache).score(items(3))
    assert found.values == (0, None, 0)
    assert found.missing == {UNREACHABLE: 1}
    assert found.unreachable == 1
    assert len(ReplyCache(cache)) == 2


def test_no_server_at_all_is_missing() -> None:
    found = ApiJudge(settings("http://127.0.0.1:9/v1", retries=0)).score(items(1))
    assert found.values == (None,)
    assert found.unreachable == 1


def test_a_stall_is_cut_off_and_tried_again() -> None:
    with judge_server(lambda r, n: Answer("Rating: 2", delay=0.0 if n else 3.0)) as server:
        found = ApiJudge(settings(server.base_url, timeout=0.3)).score(items(1))
    assert found.values == (2,)
    assert len(server.requests) == 2


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'{"choices": []}', b'{"choices": null}'])
def test_an_answer_that_is_not_of_the_api_is_tried_again(body: bytes) -> None:
    with judge_server(lambda r, n: Answer("Rating: 1") if n else Answer(body=body)) as server:
        found = ApiJudge(settings(server.base_url)).score(items(1))
    assert found.values == (1,)


def test_nonsense_is_asked_again_with_a_reminder_then_missing() -> None:
    with judge_server(lambda r, n: Answer("I would say 2, or perhaps 1.")) as server:
        found = ApiJudge(settings(server.base_url, asks=3)).score(items(1))
    assert found.values == (None,)
    assert found.missing == {UNREADABLE: 1}
    assert found.unreachable == 0
    assert [len(r["messages"]) for r in server.requests] == [2, 4, 6]
    assert "from 0 to 2" in server.last_messages()[-1]


def test_nonsense_then_a_rating_counts() -> None:
    with judge_server(lambda r, n: Answer("Rating: 2" if len(r["messages"]) > 2 else "two")) as server:
        assert ApiJudge(settings(server.base_url)).score(items(1)).values == (2,)


def test_a_refused_request_is_missing_and_not_repeated() -> None:
    with judge_server(lambda r, n: Answer("filtered", 400)) as server:
        found = ApiJudge(settings(server.base_url)).score(items(1))
    assert found.missing == {REFUSED: 1}
    assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "remedy"), [(401, "OPENAI_API_KEY"), (404, "OPENAI_BASE_URL")])
def test_a_wrong_key_or_model_stops_at_once(status: int, remedy: str) -> None:
    with (
        judge_server(lambda r, n: Answer("no", status)) as server,
        pytest.raises(ConfigError, match=remedy),
    ):
        ApiJudge(settings(server.base_url)).score(items(4))


def test_cached_replies_are_not_asked_for_again(tmp_path: Path) -> None:
    cache = tmp_path / "replies.jsonl"
    with judge_server(lambda r, n: Answer(f"Rating: {number(r) % 3}")) as server:
        first = ApiJudge(settings(server.base_url), cache).score(items(4))
        again = ApiJudge(settings(server.base_url), cache)
        assert again.estimate(items(5)).requests == 1
        assert again.score(items(4)) == first
        assert len(server.requests) == 4
        ApiJudge(settings(server.base_url, model="other"), cache).score(items(1))
    assert len(server.requests) == 5


def test_equal_items_are_asked_once() -> None:
    with judge_server(lambda r, n: Answer("Rating: 1")) as server:
        found = ApiJudge(settings(server.base_url)).score([*items(1), *items(1)])
    assert found.values == (1, 1)
    assert len(server.requests) == 1


def test_each_reply_is_on_disk_before_the_next_item_is_done(tmp_path: Path) -> None:
    cache = tmp_path / "replies.jsonl"
    sizes = []

    def seen(_: int) -> None:
        sizes.append(len(ReplyCache(cache)))

    with judge_server(lambda r, n: Answer("Rating: 1")) as server:
        ApiJudge(settings(server.base_url, concurrency=1), cache, seen).score(items(3))
    assert all(size >= done for done, size in enumerate(sizes, 1))


def test_a_line_cut_short_is_ignored_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    ReplyCache(path).put("a", "Rating: 1")
    path.write_text(path.read_text() + '{"key": "b", "rep')
    ReplyCache(path).put("c", "Rating: 2")
    kept = ReplyCache(path)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == ("Rating: 1", None, "Rating: 2")


def test_key_covers_the_whole_request() -> None:
    base = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0}
    assert request_key(base) == request_key(dict(reversed(base.items())))
    assert len({request_key(base), request_key({**base, "temperature": 1}), request_key({**base, "model": "n"})}) == 3


def test_price_is_letters_over_four_times_the_list_price() -> None:
    judge = ApiJudge(JudgeSettings("k", model="x", prices=(1.0, 2.0)))
    found = judge.estimate(items(2))
    letters = sum(len(m["content"]) for item in items(2) for m in judge._request(_messages(item))["messages"])
    assert found.requests == 2
    assert found.tokens_in == letters // 4
    assert found.dollars == pytest.approx((found.tokens_in * 1.0 + 2 * 16 * 2.0) / 1e6)
    assert ApiJudge(JudgeSettings("k", model="unheard-of")).estimate(items(1)).dollars is None


def _messages(item: JudgeItem) -> list[dict[str, str]]:
    from easyedit_split.evaluation.client import _messages as build

    return build(item)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Rating: 2", 2.0), (" rating:1. \n", 1.0), ("Rating: 0", 0.0),
        ("Rating: 3", None), ("Rating: 2/2", None), ("2", None), ("Rating: two", None), ("", None),
        ("Rating: 1\nRating: 2", None), ("Rating: 1.5", None), ("Rating: -1", None), ("The text. Rating: 2", None),
    ],
)  # fmt: skip
def test_replies_are_read_strictly(reply: str, score: float | None) -> None:
    assert rubric("concept").parse(reply) == score


def test_power_seeking_has_a_scale_from_one() -> None:
    assert rubric("power_seeking").parse("Rating: 0") is None
    assert rubric("power_seeking").parse("Rating: 4") == 4.0


def test_a_text_with_braces_is_shown_as_it_is() -> None:
    for wanted in RUBRICS.values():
        assert "{answer} {0}" in wanted.prompt("{q}", "{answer} {0}", "{c}")


def test_unknown_rubric_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="fluency"):
        rubric("fluencey")


def test_settings_come_from_the_environment() -> None:
    assert JudgeSettings.from_environment({}) is None
    found = JudgeSettings.from_environment({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://x/v1"})
    assert found == JudgeSettings("k", "http://x/v1", "gpt-4.1-mini")


@pytest.mark.parametrize("bad", [{"concurrency": 0}, {"asks": 0}, {"retries": -1}, {"timeout": 0}, {"pause": -1.0}])
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        JudgeSettings("k", **bad)


def test_demo_judge_is_exact_free_and_says_what_it_does_not_know() -> None:
    judge = DemoJudge("reviews")
    question = "Write a review of the new laptop."
    good = "This laptop is wonderful. The screen is bright and the sound is clear. I would gladly buy it again."
    asked = [JudgeItem(name, question, good) for name in ("concept", "instruct", "fluency", "power_seeking")]
    found = judge.score(asked)
    assert found.values == (2, 2, 2, None)
    assert sum(found.missing.values()) == 1
    assert judge.estimate(asked).dollars == 0
