"""Asking many questions at once, against a scripted server that says so: pace, limits, what is asked again, and who may call from where."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from scripted_server import RateLimit, Scripted, ScriptedServer

from zero_shot_distill.store.request import AttemptResult, Request
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher import attempts
from zero_shot_distill.teacher.budget import Budget
from zero_shot_distill.teacher.client import AskOptions, TeacherClient
from zero_shot_distill.teacher.options import BUDGET_REACHED
from zero_shot_distill.teacher.price import Price
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, TeacherError, teacher_from_environment

KEY = "sk-this-key-is-secret"


@pytest.fixture
def store(tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        yield store


def requests_for(n: int, **sampling) -> list[Request]:
    sampling = {"temperature": 0, "max_tokens": 8, **sampling}
    return [Request.build("some-model", [{"role": "user", "content": f"Count on from {number}."}], **sampling) for number in range(n)]


def hosted(server: ScriptedServer, **settings) -> HostedTeacher:
    return HostedTeacher("some-model", server.base_url, KEY, RequestLimits(**settings))


def ask(teacher, requests, store, **options):
    return TeacherClient(teacher, store, options=AskOptions(**options)).ask(requests)


def ask_each(teacher, requests, store):
    return TeacherClient(teacher, store).ask_each(requests)


def ask_each_async(teacher, requests, store):
    return TeacherClient(teacher, store).ask_each_async(requests)


# How many at once


def test_more_at_once_while_it_pays(store):
    "More than the eight of the start, and never beyond the ceiling: how fast it grows depends on the machine."
    with ScriptedServer(lambda body, n: Scripted(delay_s=1.0)) as server:
        ask(hosted(server, n_parallel=32), requests_for(130), store)
        assert 8 < server.most_at_once <= 32


def test_begins_modestly(store):
    n_replies_then = []  # sent when each request arrived
    with ScriptedServer(lambda body, n: n_replies_then.append(server.statuses.total()) or Scripted(delay_s=0.3)) as server:
        answers = ask_each(hosted(server), requests_for(100), store)
        next(answers)
        answers.close()
    assert n_replies_then.count(0) <= 12


def test_a_server_that_takes_a_dozen_at_once(store):
    "It refuses what is more, without a word on when: all is answered, and the refusals stay few."
    with ScriptedServer(lambda body, n: Scripted(429 if server.n_at_once > 12 else 200, delay_s=0.03)) as server:
        asked = ask(hosted(server), requests_for(600), store)
        n_refused = len(server.bodies) - 600
    assert (len(asked.responses), asked.failures) == (600, {})
    assert n_refused < 200


# Limits


def test_requests_per_minute(store):
    "A second's worth at once, then one by one. A busy machine can only delay arrivals, so that there are never more by then."
    start, times = time.monotonic(), []
    with ScriptedServer(lambda body, n: times.append(time.monotonic()) or Scripted()) as server:
        ask(hosted(server, requests_per_minute=1200), requests_for(70), store)
    assert len(times) == 70
    assert all(n <= 20 + 20 * (arrived - start) for n, arrived in enumerate(times, 1))


def test_tokens_per_minute(store):
    "Twelve tokens a question are reckoned with before, fifteen after."
    start, times = time.monotonic(), []
    with ScriptedServer(lambda body, n: times.append(time.monotonic()) or Scripted()) as server:
        ask(hosted(server, tokens_per_minute=1800), requests_for(8), store)
    assert len(times) == 8
    assert all(12 * n <= 30 + 30 * (arrived - start) for n, arrived in enumerate(times, 1))


def test_retry_after_is_waited_for(store):
    times = []

    def script(body, n):
        times.append(time.monotonic())
        return Scripted(429, headers={"Retry-After": "1.2"}) if n == 0 else Scripted()

    with ScriptedServer(script) as server:
        (response,) = ask(hosted(server), requests_for(1), store).responses.values()
    assert response.attempts == 2
    assert times[1] - times[0] >= 1.2


def test_one_that_asks_for_hours_stops_the_run(store):
    with (
        ScriptedServer(lambda body, n: Scripted(429, headers={"Retry-After": "7200"})) as server,
        pytest.raises(TeacherError, match=r"asks to wait for 2\.0 hours"),
    ):
        ask(hosted(server), requests_for(20), store)


def test_told_limits_are_kept_without_a_refusal(store):
    "With `x-ratelimit` headers, what would be refused is not sent."
    with ScriptedServer(limit=RateLimit(requests_per_minute=3000, window_s=1.0)) as server:
        asked = ask(hosted(server), requests_for(150), store)
        n_refused = sum(entry.refused for entry in server.ledger.values())
    assert len(asked.responses) == 150
    assert n_refused <= 8


# Models that want other parameters


def test_reasoning_models(store):
    "max_tokens goes as max_completion_tokens, temperature is left out, the reasoning is counted, and the report says so."
    script = lambda body, n: Scripted(completion_tokens=50, reasoning_tokens=40, cached_tokens=6)  # noqa: E731
    with ScriptedServer(script, refuses=("max_tokens", "temperature")) as server:
        asked = ask(hosted(server), requests_for(30, max_tokens=60), store, price=Price(1.0, 2.0, "test"))
        assert not {"max_tokens", "temperature"} & set(server.bodies[-1])
        assert server.bodies[-1]["max_completion_tokens"] == 60
    assert (len(asked.responses), asked.failures) == (30, {})
    response = next(iter(asked.responses.values()))
    assert (response.reasoning_tokens, response.cached_tokens, response.cost_usd) == (40, 6, pytest.approx((10 + 2 * 50) / 1e6))
    assert asked.notes == ("the model takes no max_tokens: sent as max_completion_tokens", "the model takes no temperature: left out")


def test_what_is_unknown_to_us_passes(store):
    with ScriptedServer() as server:
        ask(hosted(server), requests_for(1, reasoning={"effort": "low"}, top_k=3), store)
        assert (server.bodies[0]["reasoning"], server.bodies[0]["top_k"]) == ({"effort": "low"}, 3)


def test_headers_pass(store, monkeypatch):
    monkeypatch.setenv("PROJECT", "distillation")
    with ScriptedServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        ask(teacher_from_environment("some-model", {"X-Project": "$PROJECT"}), requests_for(2), store)
        assert server.projects == ["distillation"] * 2
    with pytest.raises(TeacherError, match="header X-Project: no variable NOWHERE; put NOWHERE=… into the environment"):
        teacher_from_environment("some-model", {"X-Project": "$NOWHERE"})


# Replies that are none, and asking again


def test_incomplete_replies_are_kept_and_asked_again_on_demand(store):
    script = {
        0: Scripted(finish_reason="length"),
        1: Scripted(refusal="I will not.", text=None),
        2: Scripted(400, code="content_filter", error="filtered"),
        3: Scripted(text="  "),
    }
    requests = requests_for(6)
    with ScriptedServer(lambda body, n: script.get(int(body["messages"][0]["content"].split()[-1][:-1]), Scripted())) as server:
        asked = ask(hosted(server), requests, store)
        outcomes = [asked.responses[request.key].outcome for request in requests]
        assert outcomes == ["length", "refused", "filtered", "empty", "complete", "complete"]
        assert ask(hosted(server), requests, store).n_asked == 0
        script.clear()
        server.bodies.clear()
        again = ask(hosted(server), requests, store, retry_outcomes=frozenset({"length", "refused"}))
        assert (again.n_asked, len(server.bodies)) == (2, 2)
    assert Counter(response.outcome for response in again.responses.values()) == {"complete": 4, "filtered": 1, "empty": 1}
    assert [old.outcome for old in store.superseded([requests[0].key])] == ["length"]


def test_what_earlier_runs_spent_counts(store):
    "A reply, one that was asked for again, and a timeout that may have been charged."
    requests = requests_for(3)
    price = Price(1000.0, 1000.0, "test")
    with ScriptedServer(lambda body, n: Scripted(finish_reason="length")) as server:
        ask(hosted(server), requests[:2], store)
        ask(hosted(server), requests[:1], store, retry_outcomes=frozenset({"length"}))
    store.exchange(wanted=[requests[2]])
    store.exchange([AttemptResult(requests[2], None, "no reply within 1 s")])
    budget = Budget(100.0, price)
    budget.watch(requests, store)
    spent = budget.spent_usd + budget.unconfirmed_usd
    assert spent == pytest.approx(3 * 0.015 + budget.worst_case_usd(requests[2]))


# Nothing ends unseen


class Fault(Exception):
    "Raised in the middle of a run by these tests."


def fails(error: BaseException, after: int = 0, calls: Callable | None = None) -> Callable:
    "A function that raises at its call number `after`, and before it does what `calls` does."
    n_calls = 0

    def fail(*arguments, **settings):
        nonlocal n_calls
        n_calls += 1
        if n_calls > after:
            raise error
        return calls(*arguments, **settings)

    return fail


def in_time(do: Callable, timeout_s: float = 300.0) -> BaseException | None:  # what it raised
    "Call a function that must come back; a run that hangs would hold up all tests otherwise."
    raised: list[BaseException | None] = []

    def call() -> None:
        try:
            do()
            raised.append(None)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(timeout_s)
    assert not thread.is_alive(), "the run hangs"
    return raised[0]


async def _fails_later(*_, **__):
    await asyncio.sleep(0.05)
    raise Fault


async def _is_cancelled(*_, **__):
    await asyncio.sleep(0.05)
    raise asyncio.CancelledError


async def _exits(*_, **__):
    await asyncio.sleep(0.05)
    raise SystemExit(3)


def _broken_iterator(requests: list[Request], error: BaseException):
    yield from requests[:20]
    raise error


TEACHER = "zero_shot_distill.teacher"
PARTS = {
    "a request's task": ("attempts.post_request", _fails_later, Fault),
    "a request's task, cancelled from elsewhere": ("attempts.post_request", _is_cancelled, RuntimeError),
    "a request's task, by SystemExit": ("attempts.post_request", _exits, SystemExit),
    "what is sent": ("scheduler.RetryPolicy.body_of", fails(Fault()), Fault),
    "what was learnt from a reply": ("scheduler.RetryPolicy.answered", fails(Fault()), Fault),
    "the rate limit": ("scheduler.RateLimit.heard", fails(Fault()), Fault),
    "choosing": ("scheduler.RateLimit.wait_s", fails(Fault()), Fault),
    "giving out": ("scheduler._Outbox.publish", fails(Fault()), Fault),
    "sleeping": ("scheduler._Scheduler._sleep", fails(Fault()), Fault),
    "claiming": ("scheduler.ResponseStore.exchange", fails(Fault()), Fault),
    "claiming, by StopIteration": ("scheduler.ResponseStore.exchange", fails(StopIteration()), RuntimeError),
    "storing": ("scheduler.ResponseStore.exchange", fails(Fault(), 1, ResponseStore.exchange), Fault),
    "storing, by SystemExit": ("scheduler.ResponseStore.exchange", fails(SystemExit(), 1, ResponseStore.exchange), SystemExit),
    "looking up": ("scheduler.ResponseStore.get_many", fails(Fault()), Fault),
    "looking up, by StopIteration": ("scheduler.ResponseStore.get_many", fails(StopIteration()), RuntimeError),
    "the store's thread": ("scheduler.ThreadPoolExecutor.submit", fails(RuntimeError("cannot start new thread")), RuntimeError),
    "connecting": ("scheduler.Teacher.async_client", fails(Fault()), Fault),
    "connecting, by StopIteration": ("scheduler.Teacher.async_client", fails(StopIteration()), RuntimeError),
    "closing the connections": ("attempts.Attempts.close", fails(Fault()), Fault),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_fails_ends_the_run_with_its_error(store, monkeypatch, part):
    name, fault, error = PARTS[part]
    owner, _, attribute = f"{TEACHER}.{name}".rpartition(".")
    with ScriptedServer() as server:
        monkeypatch.setattr(f"{owner}.{attribute}", fault)
        raised = in_time(lambda: list(ask_each(hosted(server), requests_for(30), store)))
    assert isinstance(raised, error)
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("(_main)")]


@pytest.mark.parametrize("error", [Fault(), SystemExit(), KeyboardInterrupt()], ids=["fault", "exit", "interrupt"])
def test_requests_that_cannot_be_read_on_end_the_run(store, error):
    with ScriptedServer() as server:
        raised = in_time(lambda: list(ask_each(hosted(server), _broken_iterator(requests_for(30), error), store)))
    assert raised is error


def test_one_reply_that_is_our_fault_takes_no_other_with_it(store, monkeypatch):
    "What arrived besides is stored, and nobody's claim is left."
    real = attempts.post_request

    async def one_fails(client, teacher, request, *rest):
        arrived = await real(client, teacher, request, *rest)
        if request == requests[3]:
            raise Fault
        return arrived

    requests = requests_for(8)
    monkeypatch.setattr(attempts, "post_request", one_fails)
    with ScriptedServer(lambda body, n: Scripted(delay_s=0.2)) as server:
        assert isinstance(in_time(lambda: ask(hosted(server), requests, store)), Fault)
    assert len(store) == 7
    assert store.failures([requests[3].key]) == {requests[3].key: "stopped before the reply came"}
    assert store.exchange(wanted=requests).taken == [requests[3]]


def test_one_reply_that_cannot_be_stored_takes_no_other_with_it(store, monkeypatch):
    "Whatever a server says is checked when it is read; should something pass that the store cannot hold, the others are stored all the same."
    real = attempts.post_request

    async def one_is_too_large(client, teacher, request, *rest):
        outcome, *told = await real(client, teacher, request, *rest)
        return (replace(outcome, completion_tokens=2**70) if request == requests[3] else outcome), *told

    requests = requests_for(8)
    monkeypatch.setattr(attempts, "post_request", one_is_too_large)
    with ScriptedServer(lambda body, n: Scripted(delay_s=0.2)) as server:
        assert isinstance(in_time(lambda: ask(hosted(server), requests, store)), OverflowError)
    assert len(store) == 7
    assert list(store.missing(requests)) == [requests[3]]


@pytest.mark.parametrize("max_tokens", ["8", [8], -1, 0, 1.5, None, True, 10**400, {"a": 1}])
def test_odd_limits_are_the_servers_to_refuse(store, max_tokens):
    with ScriptedServer(lambda body, n: Scripted(400, error="odd")) as server:
        raised = in_time(lambda: ask(hosted(server), requests_for(2, max_tokens=max_tokens), store))
        assert "none of the first 2 questions was answered: HTTP 400" in str(raised)
        assert len(server.bodies) == 2


@pytest.mark.parametrize("n_parallel", [1, 16])
def test_what_long_requests_leave_of_a_budget_goes_to_shorter_ones(store, n_parallel):
    "A request that does not fit is passed over. When the run ends nothing that is left fits, so a second run, in whatever order, asks nothing."
    rng = random.Random(n_parallel)
    requests = [requests_for(number + 1, max_tokens=rng.choice([8, 100, 1000, 30_000]))[-1] for number in range(700)]
    price = Price(2.0, 8.0, "scripted")
    cap_usd = 0.2 * sum(Budget(1.0, price).worst_case_usd(request) for request in requests)
    with ScriptedServer(lambda body, n: Scripted(completion_tokens=rng.randint(1, body["max_tokens"]))) as server:
        for run in range(3):
            budget = Budget(cap_usd, price)
            budget.watch(requests, store)
            asked = ask(hosted(server, n_parallel=n_parallel), requests, store, price=price, budget=budget)
            if run == 0:
                assert 0 < len(asked.failures) < 700
                assert set(asked.failures.values()) == {BUDGET_REACHED}
            assert asked.n_asked == (700 - len(asked.failures) if run == 0 else 0)
            assert len(server.bodies) == len(asked.responses)
            assert budget.spent_usd <= cap_usd
            left = [request for request in requests if request.key in asked.failures]
            assert min(budget.worst_case_usd(request) for request in left) > budget.left_usd
            rng.shuffle(requests)


def test_a_budget_that_is_used_up_fails_any_number_of_requests(store):
    "They come from the caller in blocks all the same, and are given out while more are taken."
    requests, price = requests_for(3000), Price(2.0, 8.0, "scripted")
    budget = Budget(2.5 * Budget(1.0, price).worst_case_usd(requests[-1]), price)
    with ScriptedServer() as server:
        client = TeacherClient(hosted(server), store, options=AskOptions(price, budget))
        answers = list(client.ask_each(iter(requests)))
        assert Counter(answer.failure for answer in answers) == {None: len(server.bodies), BUDGET_REACHED: 3000 - len(server.bodies)}
    assert 2 <= len(server.bodies) < 100


def test_equal_requests_far_apart_are_sent_once(store):
    requests = requests_for(600)
    with ScriptedServer() as server:
        n_new = sum(answer.is_new for answer in ask_each(hosted(server), [*requests, *requests], store))
    assert (n_new, len(server.bodies)) == (600, 600)


# From where


def test_whoever_stops_taking_stops_the_run(store):
    with ScriptedServer(lambda body, n: Scripted(delay_s=1.0 if n else 0.0)) as server:
        for answer in ask_each(hosted(server, n_parallel=4), requests_for(500), store):
            assert answer.is_new
            break
        n_sent = len(server.bodies)
        time.sleep(0.2)
        assert len(server.bodies) == n_sent < 20
    assert len(store) == n_sent  # those on their way were waited for
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("(_main)")]


def test_from_a_running_loop_and_from_asynchronous_code(store):
    "A notebook's cells run in a loop that is running already."

    async def notebook(server: ScriptedServer) -> tuple[int, int, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.002)
                ticks += 1

        ticking = asyncio.create_task(tick())
        n_sync = ask(hosted(server), requests_for(5), store).n_asked
        ticks = 0
        n_async = sum([answer.is_new async for answer in ask_each_async(hosted(server), requests_for(20), store)])
        ticking.cancel()
        return n_sync, n_async, ticks

    with ScriptedServer(lambda body, n: Scripted(delay_s=0.2)) as server:
        n_sync, n_async, ticks = asyncio.run(notebook(server))
    assert (n_sync, n_async) == (5, 15)
    assert ticks > 5  # the loop went on meanwhile


def test_cancelled_asynchronous_code_stops_the_run(store):
    async def cancelled(server: ScriptedServer) -> None:
        async def take() -> None:
            async for _ in ask_each_async(hosted(server, n_parallel=4), requests_for(500), store):
                pass

        taking = asyncio.create_task(take())
        while len(server.bodies) < 10:
            await asyncio.sleep(0.01)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking

    with ScriptedServer(lambda body, n: Scripted(delay_s=0.05 if n < 8 else 1.0)) as server:
        asyncio.run(cancelled(server))
        n_sent = len(server.bodies)
        time.sleep(0.2)
        assert len(server.bodies) == n_sent < 40
    assert len(store) == n_sent


def test_requests_are_taken_as_they_are_needed(store):
    "A generator without an end."
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Request.build("some-model", [{"role": "user", "content": f"Count on from {taken}."}], max_tokens=8)

    with ScriptedServer(lambda body, n: Scripted(delay_s=0.01)) as server:
        answers = ask_each(hosted(server, n_parallel=4), endless(), store)
        for _ in range(50):
            next(answers)
        answers.close()
    assert taken <= 3000


def test_what_another_process_asks_is_waited_for(store, tmp_path):
    "Its reply is taken when it comes; its claim counts no more when it ends."
    requests = requests_for(3)
    with ResponseStore(tmp_path / "responses.sqlite") as elsewhere, ScriptedServer() as server:
        assert elsewhere.exchange(wanted=requests[:1]).taken == requests[:1]

        def answer_later() -> None:
            time.sleep(0.6)
            with ScriptedServer() as other:
                reply = next(ask_each(hosted(other), requests_for(1, seed=1), elsewhere)).response
            elsewhere.exchange([AttemptResult(requests[0], replace(reply, key=requests[0].key, text="from elsewhere"))])

        threading.Thread(target=answer_later).start()
        asked = ask(hosted(server), requests, store)
    assert (asked.n_asked, len(server.bodies), asked.responses[requests[0].key].text) == (2, 2, "from elsewhere")
