"""What servers say in words of their own, and what they send that is no answer: each read by the real client, against a server that says so of itself."""

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from scripted_server import Latency, Scripted, ScriptedServer, _completion, echo

from zero_shot_distill.store.request import Request
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher.budget import Budget, BudgetError
from zero_shot_distill.teacher.client import AskOptions, TeacherClient
from zero_shot_distill.teacher.options import Asked
from zero_shot_distill.teacher.price import Price, total_usage
from zero_shot_distill.teacher.server_words import is_content_refused, refused_parameter, wants_stream
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, TeacherError

PRICE = Price(1.0, 2.0, "scripted")
SAMPLING = {"temperature": 0, "max_tokens": 8, "seed": 0, "logprobs": True}


def requests_for(n: int, **sampling: Any) -> list[Request]:
    sampling = SAMPLING | sampling
    return [Request.build("some-model", [{"role": "user", "content": f"Count on from {number}."}], **sampling) for number in range(n)]


def number_of(body: dict[str, Any]) -> int:
    return int(body["messages"][0]["content"].split()[-1].rstrip("."))


class Run:
    "What came of asking a server some questions."

    def __init__(
        self, script: Callable[[dict[str, Any], int], Scripted], n: int = 12, *, options: AskOptions | None = None, **settings: Any
    ):
        limits = {name: settings.pop(name) for name in ("n_parallel", "n_retries", "timeout_s") if name in settings}
        self.requests = requests_for(n, **settings.pop("sampling", {}))
        self.said: list[str] = []
        options = replace(options or AskOptions(PRICE), on_message=self.said.append)
        with (
            ScriptedServer(script, **settings) as self.server,
            ResponseStore(":memory:") as store,
            HostedTeacher("some-model", self.server.base_url, "sk-secret", RequestLimits(**limits)) as teacher,
        ):
            self.asked: Asked = TeacherClient(teacher, store, options=options).ask(self.requests)
            self.stored = store.get_many(request.key for request in self.requests)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(response.outcome for response in self.stored.values())

    @property
    def n_wrong(self) -> int:
        "Count the rows that hold another row's reply."
        return sum(request.messages[0][1] not in self.stored[request.key].text for request in self.requests if request.key in self.stored)

    def first(self) -> Any:
        return self.stored[self.requests[0].key]


def once_for(number: int, odd: Scripted) -> Callable[[dict[str, Any], int], Scripted]:
    "Answer one question oddly at its first attempt, and otherwise well."
    seen: set[int] = set()

    def script(body: dict[str, Any], n: int) -> Scripted:
        if number_of(body) != number or number in seen:
            return echo(body, n)
        seen.add(number)
        return odd

    return script


def always_for(number: int, odd: Scripted) -> Callable[[dict[str, Any], int], Scripted]:
    return lambda body, n: odd if number_of(body) == number else echo(body, n)


def error(status: int, body: Any, **headers: str) -> Scripted:
    return Scripted(status, body=json.dumps(body).encode(), headers=headers)


def reply(n: int = 0, **changes: Any) -> dict[str, Any]:
    "A completion with changes to its choice."
    content = _completion(Scripted(text="Count on from 0."), n)
    content["choices"][0] |= changes
    return content


def sent(content: dict[str, Any]) -> Scripted:
    return Scripted(body=json.dumps(content).encode())


# Garbled HTTP is retried within the run

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GARBLED = {
    "no status line": b"\x00\x01 this is no HTTP\r\n\r\n",
    "a status that is none": b"HTTP/1.1 abc OK\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a header without an end": OK + b"X-Long: " + b"x" * 100_000,
    "a chunk whose length is none": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk cut off": OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{",
    "shorter than announced": OK + b"Content-Length: 500\r\n\r\n{}",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length that is none": OK + b"Content-Length: many\r\n\r\n{}",
    "gzip that is none": OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "gzip cut off": OK + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(json.dumps(reply()).encode())[:-20],
    "nothing": b"",
}


@pytest.mark.parametrize("name", GARBLED)
def test_garbled_http_is_retried_within_the_run(name):
    run = Run(once_for(5, Scripted(raw=GARBLED[name])), n_parallel=4, timeout_s=20)
    assert (len(run.stored), run.asked.failures, run.n_wrong) == (12, {}, 0)
    assert sorted(entry.attempts for entry in run.server.ledger.values()) == [1] * 11 + [2]


def test_a_reply_of_200_mb_is_not_read_to_its_end():
    "Nor is it asked for again: the model would write the same."
    bomb = gzip.compress(json.dumps(reply()).encode() + b" " * 200_000_000)
    run = Run(always_for(5, Scripted(body=bomb, headers={"Content-Encoding": "gzip"})), n_parallel=4)
    (failure,) = run.asked.failures.values()
    assert failure.reason == "the reply is longer than 16,000,000 bytes, and was not kept"
    assert len(run.server.bodies) == 12


# Waiting

LONG = ["99999", "Thu, 31 Dec 2099 23:59:59 GMT", "1" + "0" * 400, "9" * 13]


@pytest.mark.parametrize("wait", LONG)
@pytest.mark.parametrize("status", [503, 408])
def test_no_server_is_waited_for_without_end(status, wait):
    run = Run(once_for(5, error(status, {"error": "busy"}, **{"Retry-After": wait})), n_parallel=4)
    assert (len(run.stored), run.asked.failures) == (12, {})
    (line,) = run.said
    assert f"HTTP {status} asked to wait" in line
    assert "not waited for" in line


def test_a_row_that_is_always_told_to_wait_says_who_asked():
    run = Run(always_for(5, error(503, {"error": "busy"}, **{"Retry-After": "99999"})), n_retries=1)
    (failure,) = run.asked.failures.values()
    assert "busy (it asks to wait 27.8 hours)" in failure.reason
    assert len(run.stored) == 11


# A stale reply


def texts(number: int, kind: str) -> str:
    return f"Count on from {number}." if kind != "yes or no" else ("yes", "no")[number % 2]


def repeating(kind: str, share: float, delay_s: tuple[float, float]) -> Callable[[dict[str, Any], int], Scripted]:
    "Send a share of the replies twice; `kind` says what tells replies apart."
    rng = random.Random(0)

    def script(body: dict[str, Any], n: int) -> Scripted:
        content = _completion(Scripted(text=texts(number_of(body), kind)), n)
        if kind != "an id each":
            content["id"] = "x"
        copy_after_s = rng.uniform(*delay_s) if rng.random() < share else None
        return replace(sent(content), copy_after_s=copy_after_s)

    return script


@pytest.mark.parametrize("kind", ["an id each", "one id for all", "yes or no"])
@pytest.mark.parametrize(
    ("share", "delay_s"), [(1.0, (0.002, 0.03)), pytest.param(1.0, (0.002, 0.002), marks=pytest.mark.slow), (0.1, (0.01, 0.02))]
)
def test_no_row_holds_another_rows_reply(kind, share, delay_s):
    run = Run(repeating(kind, share, delay_s), 300, latency=Latency(0.01))
    held = {request.key: run.stored[request.key].text for request in run.requests}
    assert [number for number, text in enumerate(held.values()) if text != texts(number, kind)] == []
    assert len(run.server.bodies) < 400
    if share == 1.0 and kind != "yes or no":
        assert any("reply came" in line for line in run.said)


@pytest.mark.parametrize("kind", ["one id for all", "yes or no", "an id each"])
def test_servers_without_ids_are_believed(kind):
    "Replies that are the same by chance cost a question or two more, however many rows there are, and a connection each from then on."
    run = Run(repeating(kind, 0.0, (0, 0)), 400, latency=Latency(0.005), n_parallel=16)
    assert len(run.stored) == 400
    n_twice = len(run.server.bodies) - 400
    assert n_twice <= 2
    how_often = "once" if n_twice == 1 else f"{n_twice} times"  # every question that was paid for twice is told
    assert [line.partition("/v1: ")[2].partition(",")[0] for line in run.said] == [
        f"{how_often}: a reply was the same to the byte as an earlier one"
    ] * (n_twice > 0)
    assert kind == "yes or no" or (len(run.server.bodies) == 400 and run.server.n_connections <= 16)


# Why a reply ended

FAULTS = ["error", "network_error", "insufficient_system_resource", "ERROR"]
ENDINGS = {
    **dict.fromkeys(["MAX_TOKENS", "max_tokens", "model_context_window_exceeded", "model_length", "length"], "length"),
    **dict.fromkeys(["SAFETY", "safety", "sensitive", "content_filter: violence", "RECITATION", "PROHIBITED_CONTENT"], "filtered"),
    **dict.fromkeys(["BLOCKLIST", "content-filter", "FINISH_REASON_SAFETY"], "filtered"),
    **dict.fromkeys(["stop", "STOP", "end_turn", "eos_token", "COMPLETE"], "complete"),
}


@pytest.mark.parametrize("said", FAULTS)
def test_an_ending_that_passes_is_asked_again(said):
    run = Run(once_for(5, sent(reply(finish_reason=said))), n_parallel=4)
    assert (run.outcomes, run.said) == ({"complete": 12}, [])
    assert len(run.server.bodies) == 13


@pytest.mark.parametrize("fault", [{"code": 502, "message": "Provider returned error"}, {"message": "timeout"}, "overloaded"])
def test_a_choice_with_an_error_is_asked_again(fault):
    run = Run(once_for(5, sent(reply(error=fault, finish_reason=None))), n_parallel=4)
    assert (run.outcomes, len(run.server.bodies)) == ({"complete": 12}, 13)


def test_endings_have_their_meaning_in_any_words():
    said = list(ENDINGS)
    run = Run(lambda body, n: sent(reply(n, finish_reason=said[number_of(body)])), len(said))
    assert {word: run.stored[request.key].outcome for word, request in zip(said, run.requests, strict=True)} == ENDINGS
    assert run.said == []


def test_an_ending_that_is_not_known_is_kept_counted_and_told():
    run = Run(lambda body, n: sent(reply(n, finish_reason="out_of_ideas")), 7)
    assert {response.finish_reason for response in run.stored.values()} == {"out_of_ideas"}
    (line,) = run.said
    assert "7 times: replies ended by 'out_of_ideas'" in line


def test_words_that_are_new_each_time_make_one_line():
    run = Run(lambda body, n: sent(reply(n, finish_reason=f"stop-{number_of(body)}")), 40, n_parallel=1)
    (line,) = run.said
    assert "40 times: replies ended by 'stop-0', 'stop-1', 'stop-2' and others, which is not known here" in line


def test_waits_that_are_new_each_time_make_one_line():
    waits: set[int] = set()

    def script(body: dict[str, Any], n: int) -> Scripted:
        if (number := number_of(body)) in waits or number > 4:
            return echo(body, n)
        waits.add(number)
        return error(503, {"error": "busy"}, **{"Retry-After": str(90_000 + 3_600 * number)})

    run = Run(script, n_parallel=1)
    (line,) = run.said
    assert "5 times: HTTP 503 asked to wait 25.0 hours, 26.0 hours, 27.0 hours and others: not waited for" in line


# Refused content

REFUSALS = {
    "moderation, 403": (403, {"error": {"code": 403, "message": "Your input was flagged", "metadata": {"reasons": ["violence"]}}}),
    "reasons alone, 403": (403, {"error": {"code": 403, "message": "no", "metadata": {"reasons": ["violence"], "flagged_input": "…"}}}),
    "LiteLLM": (400, {"error": {"message": "litellm.ContentPolicyViolationError: AzureException", "type": None, "code": "400"}}),
    "DashScope": (400, {"error": {"code": "data_inspection_failed", "message": "Input text data may contain something"}}),
    "DashScope, own API": (400, {"code": "DataInspectionFailed", "message": "Output data may contain something", "request_id": "1"}),
    "OpenAI": (400, {"error": {"code": "content_policy_violation", "message": "rejected"}}),
    "Azure": (400, {"error": {"code": "content_filter", "message": "…", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    "a gateway's fault": (500, {"error": {"message": "litellm.ContentPolicyViolationError: blocked", "code": "500"}}),
    "usage policies": (403, {"error": {"message": "This prompt violates our usage policies"}}),
    "451": (451, {"error": "unavailable for legal reasons"}),
    "plain text": (403, "Blocked by content moderation"),
    "with status 200": (200, {"error": {"code": "content_filter", "message": "filtered"}}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_content_is_a_row_that_is_done(name):
    "Also as the very first answer; and the next run does not ask again."
    run = Run(lambda body, n: error(*REFUSALS[name]) if number_of(body) < 3 else echo(body, n), n_parallel=1)
    assert run.outcomes == {"filtered": 3, "complete": 9}
    assert (run.asked.failures, len(run.server.bodies)) == ({}, 12)


@pytest.mark.parametrize("n_parallel", [1, 16])
def test_where_nothing_but_refusals_comes_the_run_stops(n_parallel):
    "It may be the account that is refused, in such words; what is not kept as done is asked again by the next run."
    with pytest.raises(
        TeacherError, match=r"each of the first 8 questions was refused.*HTTP 403: Your input was flagged.*--retry filtered"
    ) as stopped:
        Run(lambda body, n: error(*REFUSALS["moderation, 403"]), 60, n_parallel=n_parallel)
    assert "\n" not in str(stopped.value)


def test_a_few_rows_may_all_be_refused():
    run = Run(lambda body, n: error(*REFUSALS["moderation, 403"]), 7)
    assert (run.outcomes, run.asked.failures) == ({"filtered": 7}, {})


def test_refusals_after_a_normal_reply_are_of_their_rows():
    run = Run(lambda body, n: error(*REFUSALS["moderation, 403"]) if n != 7 else echo(body, n), 30, n_parallel=1)
    assert run.outcomes == {"filtered": 29, "complete": 1}


def test_refusals_between_faults_do_not_keep_a_run_alive():
    script = lambda body, n: echo(body, n) if number_of(body) == 0 else error(*(REFUSALS["OpenAI"] if n % 2 else (500, "broken")))  # noqa: E731
    with pytest.raises(TeacherError, match="8 questions in a row failed"):
        Run(script, 40, n_parallel=1, n_retries=0)


OF_THE_ACCOUNT = [
    (403, "Your organization has been suspended for violating our usage policies"),
    (400, "Your account has been flagged for potentially violating our usage policies"),
    (403, "The key has been flagged as leaked"),
    (403, "You must accept the usage policy for this model"),
    (403, "IP address is on a blocklist"),
    (403, "no access to model `ft:gpt-4o-mini:acme:moderation:abc`"),
    (400, "Invalid model name passed in model=content-moderation"),
    (400, "Invalid model: acme/content-moderation"),
    (400, "content_filter policy 'strict' does not exist"),
    (503, "content_filter service unavailable"),
    (503, "content_filter is busy"),
    (429, "content_filter: too many requests"),
]


@pytest.mark.parametrize(("status", "words"), OF_THE_ACCOUNT)
def test_what_is_said_of_an_account_or_a_name_is_no_refused_content(status, words):
    assert not is_content_refused(status, words, "acme/content-moderation")


def test_a_page_of_a_proxy_is_no_refused_content():
    page = "<!DOCTYPE html><html><body><h1>Access blocked</h1>This content was blocked by the company's Content Filter.</body></html>"
    assert not is_content_refused(403, page, is_plain=True)
    assert not is_content_refused(403, "Blocked: Content Filter, category Artificial Intelligence", is_plain=True)
    assert is_content_refused(400, "content_filter", is_plain=True)


OF_THE_CONTENT = [
    "Invalid prompt: your prompt was flagged as potentially violating our usage policy. Repeated violations may suspend your account.",
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry.",
    'some-model requires moderation on Acme. Your input was flagged for "sexual". No credits were charged.',
    "litellm.BadRequestError: {'error': {'code': 'content_filter', 'message': 'x'}}",
    'Upstream said: {"error": {"code": "data_inspection_failed"}}',
]


@pytest.mark.parametrize("words", OF_THE_CONTENT)
def test_what_is_said_of_the_content_is_refused_content(words):
    assert is_content_refused(400, words, "some-model")


NOT_CONTENT = {
    "a guardrail that is not there": (400, "Guardrail abc was not found"),
    "a model of moderation": (400, "omni-moderation-latest is no chat model"),
    "a value": (400, "inappropriate value of n"),
    "the question, repeated": (422, {"detail": [{"msg": "too long", "input": "a text on content moderation and content policy"}]}),
}


@pytest.mark.parametrize("name", NOT_CONTENT)
def test_an_error_of_another_kind_is_no_refused_content(name):
    with pytest.raises(TeacherError, match="none of the first"):
        Run(lambda body, n: error(*NOT_CONTENT[name]))


@pytest.mark.parametrize("status", [403, 401])
def test_a_bad_key_still_ends_the_run(status):
    with pytest.raises(Exception, match="the key is not accepted"):
        Run(lambda body, n: error(status, {"error": {"message": "Your account may not use this model"}}))


# Parameters in other words

WORDS = {
    "pydantic": (
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 0}]},
    ),
    "Mistral": (422, {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "…"}]}}),
    "vLLM": (
        400,
        {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs'}]", "code": 400},
    ),
    "Gemini": (400, [{"error": {"code": 400, "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}}]),
    "Azure": (400, {"error": {"message": "Unrecognized request argument supplied: seed", "type": "invalid_request_error"}}),
    "Anthropic": (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "seed: Extra inputs are not permitted"}}),
    "deprecated": (400, {"error": {"message": "`temperature` is deprecated for this model."}}),
    "only one value": (400, {"error": {"message": "invalid temperature: only 1 is allowed for this model"}}),
    "TGI": (422, {"error": "Input validation error: `temperature` must be strictly positive", "error_type": "validation"}),
    "xAI": (400, {"code": "Client specified an invalid argument", "error": "Argument not supported on this model: logprobs"}),
    "does not support": (400, {"error": {"message": "This model does not support parameter: logprobs"}}),
    "plain text": (400, "unexpected field 'seed'"),
    "forbidden": (403, {"error": {"message": "You are not allowed to request logprobs from this model"}}),
    "an argument of Python": (500, {"detail": "generate() got an unexpected keyword argument 'seed'"}),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_parameter_refused_in_any_words_is_left_out(name):
    status, body = WORDS[name]
    refused = next(word for word in ("seed", "temperature", "logprobs") if word in json.dumps(body))
    run = Run(lambda asked, n: error(status, body) if refused in asked else echo(asked, n), n_parallel=2)
    assert (len(run.stored), run.asked.failures) == (12, {})
    assert run.asked.notes == (f"the model takes no {refused}: left out",)
    assert "max_tokens" in run.server.bodies[-1]


def test_every_default_may_be_refused_one_after_the_other():
    def script(body: dict[str, Any], n: int) -> Scripted:
        refused = [name for name in ("temperature", "seed", "logprobs", "max_tokens") if name in body]
        detail = [{"loc": ["body", name], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"} for name in refused]
        return error(422, {"detail": detail}) if refused else echo(body, n)

    run = Run(script, n_parallel=2)
    assert (len(run.stored), run.asked.failures) == (12, {})
    assert run.server.bodies[-1]["max_completion_tokens"] == 8  # without a limit no cap could be kept


def test_a_value_out_of_range_is_the_users_to_change():
    with pytest.raises(Exception, match="max_tokens is too large"):
        Run(lambda body, n: error(400, {"error": {"message": "max_tokens is too large: 8. This model supports at most 4"}}))


# What is allowed is no refusal of it

LISTED = {
    "OpenAI": (
        {"message": "Unknown parameter: 'seed'. Supported parameters: model, messages, max_tokens, temperature.", "param": "seed"},
        "seed",
    ),
    "without a field": ({"message": "Unknown parameter: 'seed'. Supported parameters: model, messages, max_tokens, temperature."}, "seed"),
    "one sentence": ({"message": "Unsupported parameter 'seed'; supported: temperature, top_p"}, "seed"),
    "the list first": ({"message": "Supported parameters are temperature, logprobs. Not supported: seed"}, "seed"),
    "a field alone": ({"message": "unsupported parameter, see temperature in our manual", "param": "body.seed"}, "seed"),
}


@pytest.mark.parametrize("name", LISTED)
def test_a_list_of_what_is_taken_names_no_refused_parameter(name):
    content, refused = LISTED[name]
    run = Run(lambda body, n: error(400, {"error": content}) if refused in body else echo(body, n), n_parallel=2)
    assert (len(run.stored), run.asked.failures) == (12, {})
    assert run.asked.notes == (f"the model takes no {refused}: left out",)


def test_what_is_left_out_already_is_not_what_is_refused():
    def script(body: dict[str, Any], n: int) -> Scripted:
        if "seed" in body:
            return error(400, {"error": {"message": "seed is not supported"}})
        return error(400, {"error": {"message": "temperature, as seed, is not supported"}}) if "temperature" in body else echo(body, n)

    run = Run(script, n_parallel=1)
    assert run.asked.notes == ("the model takes no seed: left out", "the model takes no temperature: left out")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("max_tokens: Unexpected value 5000, must be <= 4096", ""),
        ("max_tokens (100) exceeds limit: unexpected", ""),
        ("Unexpected: max_tokens is larger than the maximum of 4096", ""),
        ("Unknown parameter: 'max_tokens'", "max_tokens"),
        ("'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "max_tokens"),
        ("[{'type': 'extra_forbidden', 'loc': ('body', 'max_tokens'), 'msg': 'Extra inputs are not permitted', 'input': 8}]", "max_tokens"),
    ],
)
def test_a_limit_goes_by_its_other_name_only_where_the_name_is_refused(words, found):
    assert refused_parameter(words, ["max_tokens", "seed"]) == found


# Reasoning without an answer


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_without_an_answer_is_kept_and_not_bought_again(field):
    content = reply(message={"role": "assistant", "content": None, field: "Answer: perhaps yes. But then."})
    run = Run(always_for(5, sent(content)), options=AskOptions(PRICE, retry_outcomes=frozenset({"empty"})))
    kept = run.stored[run.requests[5].key]
    assert (kept.outcome, kept.text) == ("reasoning", "Answer: perhaps yes. But then.")
    assert "once: empty answers, reasoning kept" in run.said[0]


# Cost and usage


def test_what_is_known_of_a_cost_is_told_apart_from_what_is_not():
    run = Run(always_for(5, error(*REFUSALS["OpenAI"])))
    usage = total_usage(run.stored.values(), PRICE)
    assert (usage.cost_usd, usage.n_unknown_cost, usage.known_usd) == (None, 1, pytest.approx(11 * 20e-6))
    assert usage.cost_text == "$0.0002 known, 1 reply of unknown cost"
    assert "(1 reply without counts)" in usage.tokens_text


def test_no_usage_is_not_zero_tokens():
    run = Run(lambda body, n: replace(echo(body, n), counts=False))
    assert total_usage(run.stored.values(), PRICE).tokens_text == "tokens not told by the server"


IMPOSSIBLE = {
    "more cached than prompt": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1000}},
    "nothing counted": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "a text of no tokens": {"prompt_tokens": 10, "completion_tokens": 0},
    "negative": {"prompt_tokens": -10, "completion_tokens": 5},
    "negative completion": {"prompt_tokens": 10, "completion_tokens": -5},
    "more reasoning than completion": {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 50}},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_usage_that_cannot_be_counts_as_the_worst_case(name):
    budget = Budget(1.0, PRICE)
    run = Run(lambda body, n: sent(_completion(echo(body, n), n) | {"usage": IMPOSSIBLE[name]}), options=AskOptions(PRICE, budget))
    assert budget.unconfirmed_usd == pytest.approx(sum(budget.worst_case_usd(request) for request in run.requests))
    assert (budget.spent_usd, {response.cost_usd for response in run.stored.values()}) == (0, {None})


def test_reasoning_counted_beside_the_completion_is_charged():
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 52, "completion_tokens_details": {"reasoning_tokens": 40}}
    run = Run(lambda body, n: sent(_completion(echo(body, n), n) | {"usage": usage}), 3)
    assert {response.completion_tokens for response in run.stored.values()} == {42}


def test_a_reply_beyond_its_limit_is_counted_as_it_is_and_told():
    budget = Budget(1.0, PRICE)
    run = Run(lambda body, n: replace(echo(body, n), prompt_tokens=10, completion_tokens=100), options=AskOptions(PRICE, budget))
    assert budget.spent_usd == pytest.approx(12 * 210e-6)
    (line,) = run.said
    assert "12 times: replies of more tokens than `max_tokens` allows" in line


@pytest.mark.parametrize("limit", [0, -1, True])
def test_a_limit_that_no_server_honours_is_refused_with_a_budget(limit):
    with pytest.raises(BudgetError, match="set max_tokens"):
        Run(echo, sampling={"max_tokens": limit}, options=AskOptions(PRICE, Budget(1.0, PRICE)))


# Streams


def events(body: dict[str, Any], n: int, with_usage: bool = True) -> Scripted:
    "A reply as a stream of two pieces."
    text = echo(body, n).text
    base = {"id": f"s{n}", "object": "chat.completion.chunk", "model": "some-model"}
    pieces: list[dict[str, Any]] = [
        base | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text[:7]}, "finish_reason": None}]},
        base | {"choices": [{"index": 0, "delta": {"content": text[7:]}, "finish_reason": "stop"}]},
    ]
    pieces += [base | {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}] if with_usage else []
    lines = [*(f"data: {json.dumps(piece)}" for piece in pieces), "data: [DONE]"]
    return Scripted(body=("\n\n".join(lines) + "\n\n").encode(), content_type="text/event-stream; charset=utf-8")


def test_a_stream_that_nobody_asked_for_is_collected():
    run = Run(events)
    assert (run.n_wrong, run.outcomes, run.first().completion_tokens) == (0, {"complete": 12}, 3)
    assert len(run.server.bodies) == 12


@pytest.mark.parametrize(
    "words",
    [
        "This model only supports streaming",
        "stream must be set to true",
        "Non-streaming is not supported",
        "parameter.enable: only stream mode",
    ],
)
def test_a_server_that_only_streams_is_asked_for_a_stream(words):
    def script(body: dict[str, Any], n: int) -> Scripted:
        if not body.get("stream"):
            return Scripted(400, error=words)
        return events(body, n, with_usage=body.get("stream_options") == {"include_usage": True})

    run = Run(script, n_parallel=2)
    assert (run.n_wrong, run.outcomes, run.first().prompt_tokens) == (0, {"complete": 12}, 7)
    assert run.asked.notes == ("the server only streams: each reply is put together from a stream",)


@pytest.mark.parametrize(
    "words",
    [
        "Upstream host must be set",
        "upstream requests must be authorised",
        "The upstream only supports streaming",
        "bitstream must be valid",
        "stream_options should be omitted",
        "The bitstream is required",
    ],
)
def test_other_streams_are_no_wish_for_one(words):
    assert not wants_stream(words)


def test_a_stream_without_options_has_no_usage():
    def script(body: dict[str, Any], n: int) -> Scripted:
        if not body.get("stream"):
            return Scripted(400, error="only streaming is supported")
        if "stream_options" in body:
            return Scripted(400, error="Unknown parameter: stream_options")
        return events(body, n, with_usage=False)

    run = Run(script, n_parallel=2)
    assert (run.n_wrong, run.outcomes, run.first().prompt_tokens) == (0, {"complete": 12}, None)


def test_a_stream_that_breaks_off_is_asked_again():
    cut = b'data: {"id": "s", "choices": [{"delta": {"content": "Count on"}}]}\n\n'
    failed = cut + b'data: {"error": {"code": 502, "message": "upstream gone"}}\n\n'
    for broken in (cut, failed):
        run = Run(once_for(5, Scripted(body=broken, content_type="text/event-stream")), n_parallel=4)
        assert (run.n_wrong, run.outcomes, len(run.server.bodies)) == (0, {"complete": 12}, 13)


def test_spaces_around_an_address_are_no_part_of_it():
    with (
        ScriptedServer(echo) as server,
        ResponseStore(":memory:") as store,
        HostedTeacher("some-model", f"  {server.base_url}\n", "sk-secret") as teacher,
    ):
        assert len(TeacherClient(teacher, store).ask(requests_for(2)).responses) == 2
