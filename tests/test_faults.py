"""What must hold whatever a provider does and whenever we are killed: nothing lost, nothing asked twice, the budget never passed.

The provider is a scripted server that says so. `python tests/test_faults.py` runs the same at full size (some three minutes) and prints the
fault table as Markdown.
"""

import argparse
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from by_batch import ask_by_batch
from scripted_server import FAULTS, NAME, BatchScript, Entry, Latency, RateLimit, Scripted, ScriptedServer, _completion, echo, key_of

from zero_shot_distill.store.request import Request
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher.budget import Budget
from zero_shot_distill.teacher.client import AskOptions, TeacherClient
from zero_shot_distill.teacher.options import BUDGET_REACHED, Asked
from zero_shot_distill.teacher.price import Price
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, TeacherError

MODEL = "scripted-model"
KEY = "no-key-is-needed"
TIMEOUT_S = 4.0  # where a fault is that a reply comes too late; a loaded machine may take a second or two for a good one
PATIENCE_S = 60.0  # where no reply is late: whatever keeps one waiting is the machine
KINDS = {**FAULTS, "late": {"delay_s": 2 * TIMEOUT_S}}  # later than the client waits
# For tests: a provider that does not ask for a whole second each time.
QUICK_KINDS = KINDS | {name: FAULTS[name] | {"headers": {"retry-after-ms": "50"}} for name in ("429", "503")}
PRICE = Price(2.0, 8.0, "scripted")
# Where Python finds us, for children: this folder, and the package as we do, installed or not.
HERE = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}


def requests_for(n: int, max_tokens: int = 8) -> list[Request]:
    messages = [[{"role": "user", "content": f"Count on from {number}."}] for number in range(n)]
    return [Request.build(MODEL, message, temperature=0, max_tokens=max_tokens) for message in messages]


def body_of(request: Request) -> dict[str, Any]:
    "What is sent for a request."
    messages = [{"role": role, "content": content} for role, content in request.messages]
    return {"model": request.model, "messages": messages, **dict(request.sampling)}


def entries_of(server: ScriptedServer, requests: list[Request]) -> dict[str, Entry]:
    "What the server recorded, by our key."
    ledger = server.ledger
    return {request.key: ledger.get(key_of(body_of(request)), Entry("")) for request in requests}


@dataclass(frozen=True)
class Row:
    "A line of the fault table."

    fault: str
    n_runs: int  # until every request had a reply, interrupted ones included
    n_requests: int
    n_lost: int  # without a stored reply at the end, or with another one's
    n_double_asked: int  # asked again although the server had sent all of a readable reply
    n_attempts: int
    n_unread: int  # attempts that may have been charged and brought nothing: sent half, garbled, too late, or cut off by a kill
    note: str = ""


ROWS: list[Row] = []  # of the tests that ran, printed at the end


def fault_table(rows: list[Row]) -> str:
    "The rows as Markdown."
    header = ["fault", "runs", "requests", "attempts", "lost", "double-asked", "charged in vain", ""]
    lines = [
        [row.fault, row.n_runs, row.n_requests, row.n_attempts, row.n_lost, row.n_double_asked, row.n_unread, row.note] for row in rows
    ]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [header, ["---", *["---:"] * 6, "---"], *lines])


@pytest.fixture(scope="module", autouse=True)
def _print_table():
    yield
    print("\n" + fault_table(ROWS))


def compare(fault: str, n_runs: int, server: ScriptedServer, store: ResponseStore, requests: list[Request], note: str = "") -> Row:
    "What is stored beside what the server did."
    entries = entries_of(server, requests)
    stored = store.get_many(request.key for request in requests)
    is_its_own = {request.key: request.messages[-1][1] in stored[request.key].text for request in requests if request.key in stored}
    return Row(
        fault,
        n_runs,
        len(requests),
        sum(not is_its_own.get(request.key) for request in requests),
        sum(max(entry.completed - 1, 0) for entry in entries.values()),
        sum(entry.attempts for entry in entries.values()),
        sum(entry.charged - entry.completed for entry in entries.values()),
        note,
    )


# Under each fault, and all together


@contextmanager
def _store() -> Iterator[ResponseStore]:
    with tempfile.TemporaryDirectory() as folder, ResponseStore(Path(folder) / "responses.sqlite") as store:
        yield store


def timeout_s(faults: Iterable[str]) -> float:
    "Say how long a client waits for a reply of a server with some faults."
    return TIMEOUT_S if {"late", "slow-loris"} & set(faults) else PATIENCE_S


def ask_until_done(server: ScriptedServer, store: ResponseStore, requests: list[Request], limits: RequestLimits, most_runs: int = 6) -> int:
    "Run again, as a user would, until every request has its reply."
    for n_runs in range(1, most_runs + 1):
        with HostedTeacher(MODEL, server.base_url, KEY, limits) as teacher:
            try:
                if not TeacherClient(teacher, store).ask(requests).failures:
                    return n_runs
            except TeacherError:
                pass  # the circuit breaker: a user runs again later
    return most_runs


def run_with_faults(name: str, shares: Mapping[str, float], n: int, seed: int = 0, **server_settings: Any) -> Row:
    "Ask n requests of a server with faults, until all are answered."
    requests = requests_for(n)
    settings = {"latency": Latency(0.01), "faults": shares, "fault_kinds": QUICK_KINDS, "seed": seed} | server_settings
    with ScriptedServer(echo, **settings) as server, _store() as store:
        n_runs = ask_until_done(server, store, requests, RequestLimits(16, timeout_s(shares)))
        entries = entries_of(server, requests)
        for response in store.get_many(request.key for request in requests).values():
            # Attempts are counted in the store, and none that may have been charged is left out.
            assert response.attempts == entries[response.key].attempts
            assert response.open_attempts >= entries[response.key].charged - 1
        return compare(name, n_runs, server, store, requests)


@pytest.fixture(scope="module")
def under_faults() -> Iterator[dict[str, Future[Row]]]:
    "Runs under each fault, four at a time: most of them wait most of the time."
    with ThreadPoolExecutor(4) as pool:
        yield {fault: pool.submit(run_with_faults, fault, {fault: 0.15}, 40, seed) for seed, fault in enumerate(FAULTS)}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_or_asked_twice(under_faults, fault):
    row = under_faults[fault].result()
    ROWS.append(row)
    assert (row.n_lost, row.n_double_asked) == (0, 0)
    assert row.n_attempts > row.n_requests
    assert row.n_runs <= 2


def test_all_faults_together():
    row = run_with_faults("all together", dict.fromkeys(FAULTS, 0.025), 120, limit=RateLimit(6000, retry_after_ms=True))
    ROWS.append(row)
    assert (row.n_lost, row.n_double_asked) == (0, 0)
    assert row.n_runs <= 3


LIMITS = {
    "limit, told in headers": RateLimit(6000, window_s=0.2),
    "limit, told with 429 alone": RateLimit(6000, window_s=0.2, headers=False),
    "limit, untold": RateLimit(6000, window_s=0.2, headers=False, retry_after=False),
    "limit of tokens, fixed window": RateLimit(tokens_per_minute=120_000, kind="window"),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_rate_limit_loses_nothing(limit):
    row = run_with_faults(limit, {}, 100, limit=LIMITS[limit])
    ROWS.append(row)
    assert (row.n_lost, row.n_double_asked, row.n_unread, row.n_runs) == (0, 0, 0, 1)


# Each reply twice


def run_with_copies(n: int) -> Row:
    "Ask a server that sends every reply once more, 2 to 30 ms later and on the same connection, whatever it was asked meanwhile."
    rng, requests = random.Random(0), requests_for(n)

    def script(body: dict[str, Any], number: int) -> Scripted:
        return replace(echo(body, number), copy_after_s=rng.uniform(0.002, 0.03))

    with ScriptedServer(script, latency=Latency(0.01)) as server, _store() as store:
        n_runs = ask_until_done(server, store, requests, RequestLimits(16, PATIENCE_S))
        return compare("every reply twice", n_runs, server, store, requests, "lost: with another row's reply")


def test_no_row_holds_a_late_copy_of_another_rows_reply():
    row = run_with_copies(120)
    ROWS.append(row)
    assert (row.n_lost, row.n_runs) == (0, 1)
    assert row.n_double_asked <= 16  # those under way when the first copy was noticed


# One odd field

_ODD_FIELDS: tuple[tuple[tuple[str | int, ...], Any], ...] = (
    (("choices", 0, "finish_reason"), {"a": 1}),
    (("choices", 0, "finish_reason"), "\ud800"),
    (("model",), ["m"]),
    (("usage", "prompt_tokens"), 10**20),
    (("usage", "completion_tokens"), float("inf")),
    (("usage",), [float("nan")]),
    (("choices", 0, "message", "content"), {"a": 1}),  # no text: the only one that fails its request
    (("choices", 0, "message", "refusal"), 7),
)


def spoil(content: dict[str, Any], number: int) -> dict[str, Any]:
    "One field of every tenth reply is odd."
    if number % 10 == 3:
        path, value = _ODD_FIELDS[number // 10 % len(_ODD_FIELDS)]
        place: Any = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return content


def odd_row(fault: str, server: ScriptedServer, store: ResponseStore, requests: list[Request], asked: Asked) -> Row:
    "Replies whose text cannot be read were charged in vain; the server takes them for readable ones."
    row = compare(fault, 2, server, store, requests, f"every tenth is odd; {len(asked.failures)} without a text, asked in both runs")
    n_finished = {key: entry.completed + entry.batched for key, entry in entries_of(server, requests).items()}
    in_vain = sum(n_finished[key] for key in asked.failures)
    return replace(row, n_double_asked=sum(max(n - 1, 0) for key, n in n_finished.items() if key not in asked.failures), n_unread=in_vain)


def run_with_odd_replies(n: int) -> Row:
    "Two runs against a server of which every tenth reply has an odd field or odd headers."

    def script(body: dict[str, Any], number: int) -> Scripted:
        number = int(body["messages"][0]["content"].split()[-1].rstrip("."))
        scripted = echo(body, number)
        odd = ("inf", "nan", "1e308")[number % 3]
        headers = {f"x-ratelimit-{name}-requests": odd for name in ("limit", "remaining", "reset")} if number % 10 == 6 else {}
        return replace(scripted, body=json.dumps(spoil(_completion(scripted, number), number)).encode(), headers=headers)

    requests = requests_for(n)
    with ScriptedServer(script) as server, _store() as store, HostedTeacher(MODEL, server.base_url, KEY, RequestLimits(16)) as teacher:
        for _ in range(2):
            asked = TeacherClient(teacher, store).ask(requests)
        return odd_row("poison in one reply", server, store, requests, asked)


def run_with_an_odd_line(n: int) -> Row:
    "Two runs by batch; every tenth line of each output file has an odd field."

    def door(method: str, path: str, n_before: int) -> None:
        if path.endswith("/content") and n_before == 0:
            file = server.batches.files[path.split("/")[2]]
            lines = [json.loads(line) for line in file.content.splitlines()]
            for line in lines:
                spoil(line["response"]["body"], numbers[line["custom_id"]])
            file.content = "\n".join(json.dumps(line) for line in lines).encode()

    requests = requests_for(n)
    numbers = {request.key: number for number, request in enumerate(requests)}
    script = BatchScript(validating_s=0, in_progress_s=0, door=door)
    with ScriptedServer(echo, batch=script) as server, _store() as store, HostedTeacher(MODEL, server.base_url, KEY) as teacher:
        for _ in range(2):
            asked = ask_by_batch(teacher, requests, store, poll_s=0.01)
        return odd_row("poison in one batch line", server, store, requests, asked)


@pytest.mark.parametrize("run", [run_with_odd_replies, run_with_an_odd_line])
def test_one_odd_field_costs_its_own_request_at_most(run):
    row = run(160)
    ROWS.append(row)
    assert (row.n_lost, row.n_attempts, row.n_double_asked, row.n_unread) == (2, 162, 0, 4)


def run_through_outage(n: int) -> Row:
    "The whole service is down for a while: runs stop, and later ones go on."
    requests = requests_for(n)

    def script(body: dict[str, Any], number: int) -> Scripted:
        return Scripted(500) if n // 3 <= number < n // 3 + 60 else echo(body, number)

    with ScriptedServer(script) as server, _store() as store:
        with HostedTeacher(MODEL, server.base_url, KEY, RequestLimits(8, PATIENCE_S, n_retries=0)) as teacher:
            with pytest.raises(TeacherError, match="questions in a row failed: HTTP 500"):
                TeacherClient(teacher, store).ask(requests)
            assert len(store) >= n // 3 - 1
            n_runs = 1
            while len(store) < n and n_runs < 20:
                n_runs += 1
                with suppress(TeacherError):
                    TeacherClient(teacher, store).ask(requests)
        return compare("outage (circuit breaker)", n_runs, server, store, requests, "60 replies HTTP 500 in a row, no retries")


def test_outage():
    row = run_through_outage(60)
    ROWS.append(row)
    assert (row.n_lost, row.n_double_asked) == (0, 0)


# The budget


def charged_usd(server: ScriptedServer) -> float:
    "What the server charged for, by its own count: every attempt that it worked on, read or not."
    summary = server.summary()
    return PRICE.cost_usd(summary["prompt_tokens"], summary["completion_tokens"])


def expensive(body: dict[str, Any], n: int) -> Scripted:
    "Some replies as long as they may be, others short. Each byte of the question counts as a token, which is more than providers find."
    rng = random.Random(f"{body['messages'][-1]['content']} {n}")
    prompt = sum(len(message["content"].encode()) for message in body["messages"])
    longest = body.get("max_completion_tokens") or body["max_tokens"]
    return Scripted(
        text=f"{NAME}: no teacher wrote this; asked: {body['messages'][-1]['content']}",
        prompt_tokens=rng.choice([prompt, prompt // 2]),
        completion_tokens=rng.choice([longest, 1]),
    )


CHARGED_FAULTS = ("500", "502", "hang-up", "half-sent", "invalid-json", "html", "slow-loris", "late")


def run_capped(cap_usd: float, shares: Mapping[str, float], seed: int) -> Row:
    "Ask under a cap, and then the rest without one."
    requests = requests_for(40, max_tokens=50)
    settings = {"latency": Latency(0.005), "faults": shares, "fault_kinds": QUICK_KINDS, "seed": seed}
    with ScriptedServer(expensive, **settings) as server, _store() as store:
        budget = Budget(cap_usd, PRICE)
        worst_usd = max(budget.worst_case_usd(request) for request in requests)
        limits = RequestLimits(8, timeout_s(shares))
        with HostedTeacher(MODEL, server.base_url, KEY, limits) as teacher:
            asked = TeacherClient(teacher, store, options=AskOptions(PRICE, budget)).ask(requests)
        spent_usd = charged_usd(server)
        assert spent_usd <= cap_usd
        assert set(asked.failures.values()) <= {BUDGET_REACHED}
        assert len(asked.responses) + asked.n_over_budget == len(requests)
        if asked.n_over_budget and not shares:
            assert spent_usd > cap_usd - worst_usd  # it is used, too: what is left does not pay for one more
        note = f"cap ${cap_usd:.5f}, charged ${spent_usd:.5f}, {len(asked.responses)} answered; then the rest"
        # With fresh money the rest is asked, and only that.
        name = "budget, and faults" if shares else "budget"
        return compare(name, 1 + ask_until_done(server, store, requests, limits), server, store, requests, note)


@pytest.mark.parametrize("shares", [{}, dict.fromkeys(CHARGED_FAULTS, 0.03)])
def test_the_budget_is_never_passed(shares):
    "By the provider's own count, of all that it worked on; whatever the cap, and whatever goes wrong on the way."
    rng = random.Random(0)
    worst_usd = Budget(1.0, PRICE).worst_case_usd(requests_for(1, max_tokens=50)[0])
    caps = [0.0, worst_usd / 2, 1.01 * worst_usd, *(rng.uniform(0, 20 * worst_usd) for _ in range(4)), 1000 * worst_usd]
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(run_capped, caps, repeat(shares), range(len(caps))))
    assert [(row.n_lost, row.n_double_asked) for row in rows] == [(0, 0)] * len(caps)
    assert [int(re.search(r"(\d+) answered", row.note)[1]) for row in (rows[0], rows[1], rows[-1])] == [0, 0, 40]
    ROWS.append(min(rows, key=lambda row: abs(int(row.note.split()[4]) - 20)))


# Killed at random moments


def test_what_is_given_out_is_on_the_disk(tmp_path):
    "Another connection finds every answer at the moment it is given out: no kill can take it back."
    with (
        ScriptedServer(echo, latency=Latency(0.01)) as server,
        ResponseStore(tmp_path / "responses.sqlite") as store,
        ResponseStore(tmp_path / "responses.sqlite") as other,
        HostedTeacher(MODEL, server.base_url, KEY, RequestLimits(16)) as teacher,
    ):
        assert all(other.get(answer.request.key) == answer.response for answer in TeacherClient(teacher, store).ask_each(requests_for(200)))


def ask_and_note(base_url: str, store_path: str, n: int, n_parallel: int, notes_path: str, seed: int = 0) -> None:
    "Body of a child process: ask, and note each answer in a file as soon as it is given out."
    requests = requests_for(n)
    random.Random(seed).shuffle(requests)
    notes = os.open(notes_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with ResponseStore(store_path) as store, HostedTeacher(MODEL, base_url, KEY, RequestLimits(n_parallel, PATIENCE_S)) as teacher:
        for answer in TeacherClient(teacher, store).ask_each(requests):
            if answer.response is not None:
                os.write(notes, (json.dumps([answer.request.key, answer.response.text]) + "\n").encode())


def ask_capped(base_url: str, store_path: str, n: int, n_parallel: int, cap_usd: float, seed: int = 0) -> None:
    "Body of a child process: ask under a cap that other processes share."
    requests = requests_for(n, max_tokens=50)
    random.Random(seed).shuffle(requests)
    budget = Budget(cap_usd, PRICE)
    # Nothing here depends on whether a reply comes in time, and some of the server's never do.
    with ResponseStore(store_path) as store, HostedTeacher(MODEL, base_url, KEY, RequestLimits(n_parallel, TIMEOUT_S / 2)) as teacher:
        budget.watch(requests, store)
        with suppress(TeacherError):  # the circuit breaker, where many attempts fail
            TeacherClient(teacher, store, options=AskOptions(PRICE, budget)).ask(requests)


# A process that has imported everything and forks a child for each command: a child starts in milliseconds, not in a second.
NURSERY = """
import faulthandler, json, os, signal, sys, time, traceback
faulthandler.enable()
from test_faults import ScriptedServer, ask_and_note, ask_capped, echo
with ScriptedServer(echo) as server:  # what is imported at first use is imported here
    ask_and_note(server.base_url, sys.argv[1] + "/warm.sqlite", 20, 4, sys.argv[1] + "/warm")
print("ready", flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if "wait" in command:
        deadline = time.monotonic() + 300
        while not (ended := os.waitpid(command["wait"], os.WNOHANG))[0]:
            time.sleep(0.005)
            if time.monotonic() > deadline:
                os.kill(command["wait"], signal.SIGABRT)  # it says where it hangs
        print(ended[1], flush=True)
    else:
        pid = os.fork()
        if not pid:
            try:
                (ask_capped if "cap_usd" in command else ask_and_note)(**command)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(pid, flush=True)
"""


class Nursery:
    "Starts processes that ask."

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", NURSERY, folder]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._process = subprocess.Popen(command, **pipes, text=True, env=HERE, start_new_session=True)
            assert self._process.stdout.readline() == "ready\n"

    def _tell(self, command: dict[str, Any]) -> int:
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, **arguments: Any) -> int:  # its process id
        "Have a child run `ask_and_note`, or `ask_capped` where there is a cap."
        return self._tell(arguments)

    def wait(self, pid: int) -> int:  # as `os.waitpid` gives it
        "Until a child has ended."
        return self._tell({"wait": pid})

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


def read_notes(path: Path) -> dict[str, str]:
    "Answers that were given out, less a last line that was cut off by the kill."
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return dict(json.loads(line) for line in lines)


def n_claims_of(pid: int, store_path: Path) -> int:
    "How many requests a process had under way when it ended: sent, and no reply stored."
    with closing(sqlite3.connect(store_path)) as connection, suppress(sqlite3.OperationalError):  # it may not have come to making it
        return connection.execute("SELECT count(*) FROM attempts WHERE holder LIKE ?", (f"%|{pid}|%",)).fetchone()[0]
    return 0


def run_with_kills(
    nursery: Nursery, n_kills: int, n: int, n_parallel: int = 16, seed: int = 0, longest_s: float = 0.5, **server_settings: Any
) -> tuple[Row, int]:  # and the number of requests that were under way at the kills
    "Kill the process that asks at random moments, start it again each time, and in the end let it finish."
    rng = random.Random(seed)
    requests = requests_for(n)
    settings = {"latency": Latency(0.05), "seed": seed} | server_settings
    with tempfile.TemporaryDirectory() as folder, ScriptedServer(echo, **settings) as server:
        store_path, notes_path = Path(folder) / "responses.sqlite", Path(folder) / "notes"
        command = {"base_url": server.base_url, "store_path": str(store_path), "n": n, "n_parallel": n_parallel}
        attempts_when_noted: dict[str, int] = {}
        lives_s: list[tuple[float, float]] = []  # start and end of each process that was killed
        n_under_way = n_done = 0
        for _ in range(n_kills):
            start_s = time.monotonic()
            pid = nursery.start(**command, notes_path=str(notes_path), seed=rng.random())
            time.sleep(rng.uniform(0.0, longest_s))
            os.kill(pid, signal.SIGKILL)
            n_done += os.WIFEXITED(nursery.wait(pid))  # it was quicker than the kill
            lives_s.append((start_s, time.monotonic()))
            n_held = n_claims_of(pid, store_path)
            assert n_held <= n_parallel
            n_under_way += n_held
            entries = entries_of(server, requests)
            for key in read_notes(notes_path):
                attempts_when_noted.setdefault(key, entries[key].attempts)
        assert os.waitstatus_to_exitcode(nursery.wait(nursery.start(**command, notes_path=str(notes_path)))) == 0
        noted = read_notes(notes_path)
        with ResponseStore(store_path) as store:
            stored = {request.key: store.get(request.key) for request in requests}
            assert len(store) == n  # exactly one a request
            assert {key: stored[key].text for key in noted} == noted  # what was given out is kept, and is what was given out
            entries = entries_of(server, requests)
            # What was given out is never asked again, not even after a kill.
            assert all(entries[key].attempts == n_then for key, n_then in attempts_when_noted.items())
            # A kill may come between counting an attempt and sending it, so that there may be fewer than counted, but never more.
            assert all(response.attempts >= entries[key].attempts for key, response in stored.items())
            assert all(response.open_attempts >= entries[key].charged - 1 for key, response in stored.items())
            # Replies that were asked for again: how long before the process was gone were they sent?
            sent_s = [at_s for entry in entries.values() for at_s in entry.completed_s[:-1]]
            ages_ms = sorted(1000 * (end_s - at_s) for at_s in sent_s for start_s, end_s in lives_s if start_s <= at_s <= end_s)
            note = f"killed {n_kills - n_done} times, {n_under_way} requests under way in all"
            if ages_ms:
                note += f"; half of the double-asked were sent in the last {ages_ms[len(ages_ms) // 2]:.0f} ms, all in the last {ages_ms[-1]:.0f}"
            name = "SIGKILL, and faults" if "faults" in server_settings else "SIGKILL"
            return compare(name, n_kills + 1, server, store, requests, note), n_under_way


def test_killed_at_random_moments(nursery):
    """Each kill can cost at most what was under way: replies that the server had sent and that were not yet on the disk.

    None of those had been given out by `ask_each`.
    """
    row, n_under_way = run_with_kills(nursery, 10, 400)
    ROWS.append(row)
    assert row.n_lost == 0
    assert row.n_double_asked <= n_under_way


@pytest.mark.slow
@pytest.mark.parametrize("faults", [{}, {"500": 0.05, "hang-up": 0.05, "half-sent": 0.05, "invalid-json": 0.05}])
def test_killed_at_fifty_random_moments(nursery, faults):
    row, n_under_way = run_with_kills(nursery, 50, 3000, **({"faults": faults} if faults else {}))
    ROWS.append(row)
    assert row.n_lost == 0
    assert row.n_double_asked <= n_under_way


# Several processes, one store


def run_four_processes(nursery: Nursery, n: int, is_one_killed: bool = False, **server_settings: Any) -> Row:
    "Four processes ask the same requests, each in an order of its own, into one store."
    requests = requests_for(n)
    settings = {"latency": Latency(0.2 if is_one_killed else 0.03)} | server_settings  # the kill must not come after its end
    with tempfile.TemporaryDirectory() as folder, ScriptedServer(echo, **settings) as server:
        store_path = Path(folder) / "responses.sqlite"
        notes = [Path(folder) / f"notes {number}" for number in range(4)]
        command = {"base_url": server.base_url, "store_path": str(store_path), "n": n, "n_parallel": 8}
        pids = [nursery.start(**command, notes_path=str(path), seed=number) for number, path in enumerate(notes)]
        if is_one_killed:
            while not read_notes(notes[0]):  # until it is at work
                time.sleep(0.001)
            os.kill(pids[0], signal.SIGKILL)
        statuses = [os.waitstatus_to_exitcode(nursery.wait(pid)) for pid in pids]
        assert statuses == [-signal.SIGKILL if is_one_killed else 0, 0, 0, 0]
        keys = {request.key for request in requests}
        assert [set(read_notes(path)) == keys for path in notes][is_one_killed:] == [True] * (4 - is_one_killed)
        with ResponseStore(store_path) as store:
            assert len(store) == n
            note = "one of them killed" if is_one_killed else f"{server.most_at_once} at once"
            return compare("four processes, one store", 4, server, store, requests, note)


def test_four_processes_share_a_store(nursery):
    row = run_four_processes(nursery, 200)
    ROWS.append(row)
    assert (row.n_lost, row.n_double_asked, row.n_unread) == (0, 0, 0)
    assert row.n_attempts == 200  # the store hands out claims: no request was sent by two of them


def test_four_processes_of_which_one_is_killed(nursery):
    "Its claims are free again; the others take them over."
    row = run_four_processes(nursery, 200, is_one_killed=True)
    ROWS.append(row)
    assert row.n_lost == 0
    assert row.n_double_asked <= 8
    assert row.n_attempts <= 208


def run_capped_processes(nursery: Nursery, n_processes: int, n_kills: int, shares: Mapping[str, float], n: int = 200, seed: int = 0) -> Row:
    "Several processes ask the same requests under one cap, each in an order of its own; some are killed, and others take their places."
    rng = random.Random(seed)
    requests = requests_for(n, max_tokens=50)
    worst_usd = Budget(1.0, PRICE).worst_case_usd(requests[-1])
    cap_usd = n / 5 * worst_usd
    settings = {"latency": Latency(0.03), "faults": shares, "fault_kinds": QUICK_KINDS, "seed": seed}
    with ScriptedServer(expensive, **settings) as server, tempfile.TemporaryDirectory() as folder:
        store_path = Path(folder) / "responses.sqlite"
        command = {"base_url": server.base_url, "store_path": str(store_path), "n": n, "n_parallel": 8, "cap_usd": cap_usd}
        pids = [nursery.start(**command, seed=number) for number in range(n_processes)]
        n_killed = 0
        for number in range(n_kills):
            n_before, deadline = server.summary()["attempts"], time.monotonic() + 10
            while server.summary()["attempts"] < n_before + rng.randint(1, 20) and time.monotonic() < deadline:
                time.sleep(0.001)  # until something is under way
            killed = rng.randrange(n_processes)
            os.kill(pids[killed], signal.SIGKILL)
            n_killed += os.WIFSIGNALED(nursery.wait(pids[killed]))
            pids[killed] = nursery.start(**command, seed=100 + number)
        statuses = [os.waitstatus_to_exitcode(nursery.wait(pid)) for pid in pids]
        assert statuses == [0] * n_processes
        spent_usd = charged_usd(server)
        assert spent_usd <= cap_usd
        with ResponseStore(store_path) as store:
            budget = Budget(cap_usd, PRICE)
            budget.watch(requests, store)
            assert budget.spent_usd + budget.unconfirmed_usd >= spent_usd - 1e-12
            assert budget.reserved_usd == 0  # nobody asks any more
            n_answered = len(store)
            if not n_kills and not shares:
                assert budget.left_usd < worst_usd  # it is used, too: what is left does not pay for one more
                assert n_answered < n
            note = f"cap ${cap_usd:.5f}, charged ${spent_usd:.5f}, {n_answered} answered"
            note += f"; {n_killed} processes killed" if n_killed else ""
            name = f"one budget, {n_processes} processes" + (", and faults" if shares else "")
            # With fresh money the rest is asked, and only that.
            n_runs = n_processes + n_killed + ask_until_done(server, store, requests, RequestLimits(8, timeout_s(shares)), 10)
            return compare(name, n_runs, server, store, requests, note)


CHARGED_IN_VAIN = dict.fromkeys(CHARGED_FAULTS, 0.02)


@pytest.mark.parametrize(
    ("n_processes", "n_kills", "shares"),
    [
        *((n, n_kills, {}) for n, n_kills in ((2, 0), (8, 0), (2, 3), (8, 4))),
        # With faults each waits for replies that never come: as many processes as above, none of them or some of them killed.
        (2, 3, CHARGED_IN_VAIN),
        *(pytest.param(n, n_kills, {}, marks=pytest.mark.slow) for n, n_kills in ((4, 0), (1, 2))),
        *(pytest.param(n, n_kills, CHARGED_IN_VAIN, marks=pytest.mark.slow) for n, n_kills in ((2, 0), (4, 0), (8, 0), (1, 2), (8, 4))),
    ],
    ids=lambda value: ("faults" if value else "") if isinstance(value, dict) else None,
)
def test_processes_share_a_budget(nursery, n_processes, n_kills, shares):
    "By the provider's own count of all processes together, killed ones included."
    row = run_capped_processes(nursery, n_processes, n_kills, shares, seed=n_processes)
    ROWS.append(row)
    assert row.n_lost == 0


@pytest.mark.slow
def test_the_benchmark_runs():
    "Two peers in its small version, against the scripted server in a process of its own."
    script = Path(__file__).parent / "benchmarks" / "teacher.py"
    command = [sys.executable, str(script), "--quick", "--peers", "ours,gather"]
    done = subprocess.run(command, env=HERE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (under_load, _bare) = [line for line in done.stdout.splitlines() if line.startswith("| **zero_shot_distill**")]
    cells = [cell.strip() for cell in under_load.strip("|").split("|")]
    assert cells[5:7] == ["0", "0"]  # lost, answered twice
    assert "was skipped" not in done.stdout


# As a script


def main() -> None:
    "The fault table at full size."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500, help="a fault (default: 500)")
    parser.add_argument("--share", type=float, default=0.15, help="of attempts that meet the fault (default: 0.15)")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    n, n_kills, seed = arguments.requests, arguments.kills, arguments.seed
    for number, fault in enumerate(FAULTS):
        ROWS.append(run_with_faults(fault, {fault: arguments.share}, n, seed + number, fault_kinds=KINDS))
    each = dict.fromkeys(FAULTS, 0.3 / len(FAULTS))
    ROWS.append(run_with_faults("all together, and a limit", each, n, seed, fault_kinds=KINDS, limit=RateLimit(6000)))
    for name, limit in LIMITS.items():
        ROWS.append(run_with_faults(name, {}, n, seed, limit=limit))
    ROWS.append(run_with_copies(n))
    ROWS.append(run_with_odd_replies(n))
    ROWS.append(run_with_an_odd_line(n))
    ROWS.append(run_through_outage(n))
    for shares in ({}, dict.fromkeys(CHARGED_FAULTS, 0.03)):
        ROWS.append(run_capped(0.006, shares, seed))
    with Nursery() as nursery:
        ROWS.append(run_with_kills(nursery, n_kills, 60 * n_kills, seed=seed)[0])
        some = dict.fromkeys(["500", "hang-up", "half-sent", "invalid-json"], 0.04)
        ROWS.append(run_with_kills(nursery, n_kills, 60 * n_kills, seed=seed, faults=some)[0])
        ROWS.append(run_four_processes(nursery, n))
        ROWS.append(run_four_processes(nursery, n, is_one_killed=True))
        for n_processes, n_killed, faults in ((2, 0, {}), (4, 0, {}), (8, 0, {}), (8, 10, dict.fromkeys(CHARGED_FAULTS, 0.03))):
            ROWS.append(run_capped_processes(nursery, n_processes, n_killed, faults, n, seed))
    print(fault_table(ROWS))


if __name__ == "__main__":
    main()
