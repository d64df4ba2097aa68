"""Asking by provider's batches: every step of it killed, every reply of the provider lost, late, twice or wrong.

The provider is a scripted server that says so.
"""

import functools
import http.server
import json
import math
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from by_batch import ask_by_batch
from scripted_server import NAME, BatchScript, Scripted, ScriptedServer, echo

from zero_shot_distill.store.request import Request
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher import batch
from zero_shot_distill.teacher.batch_api import BatchApi
from zero_shot_distill.teacher.batch_ledger import BatchRecords
from zero_shot_distill.teacher.budget import Budget
from zero_shot_distill.teacher.client import AskOptions, TeacherClient
from zero_shot_distill.teacher.completion import SCHEMA_REFUSED, ErrorKind
from zero_shot_distill.teacher.options import BUDGET_REACHED, Asked
from zero_shot_distill.teacher.price import Price
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, StoredTeacher, TeacherError, TeacherSettingsError

KEY = "sk-this-key-is-secret"
POLL_S = 0.01
QUICK = BatchScript(validating_s=0.01, in_progress_s=0.02)
PRICE = Price(2.0, 8.0, "scripted", batch=Price(1.0, 4.0, "scripted"))
# Children of a process that has imported everything begin within milliseconds, and can be killed within the first of them.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["zero_shot_distill.teacher.batch", "scripted_server", "pytest"])


@pytest.fixture
def store(tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        yield store


def requests_for(n: int, start: int = 0, **sampling) -> list[Request]:
    sampling = {"temperature": 0, "max_tokens": 8, **sampling}
    return [
        Request.build("some-model", [{"role": "user", "content": f"Count on from {number}."}], **sampling)
        for number in range(start, start + n)
    ]


def number_of(body: dict[str, Any]) -> int:
    return int(body["messages"][0]["content"].split()[-1].rstrip("."))


def serve(script: Callable = echo, **changes) -> ScriptedServer:
    settings = {name: changes.pop(name) for name in ("refuses", "echoes_authorization") if name in changes}
    values = {name: getattr(QUICK, name) for name in BatchScript.__dataclass_fields__}
    return ScriptedServer(script, batch=BatchScript(**values | changes), **settings)


def hosted(server: ScriptedServer, **settings) -> HostedTeacher:
    return HostedTeacher("some-model", server.base_url, KEY, RequestLimits(**{"n_retries": 2, **settings}))


def ask(teacher: HostedTeacher, requests: list[Request], store: ResponseStore) -> Asked:
    return TeacherClient(teacher, store).ask(requests)


def reasons(asked: Asked) -> dict[str, str]:
    "Why there is no reply, in words."
    return {key: failure.reason for key, failure in asked.failures.items()}


def by_batch(server: ScriptedServer, requests: list[Request], store: ResponseStore, on_progress=None, **terms):
    return ask_by_batch(hosted(server), requests, store, on_progress, AskOptions(**terms), poll_s=POLL_S)


def calls(server: ScriptedServer, call: str) -> int:
    return sum(made == call for made in server.calls)


def rows(store: ResponseStore) -> list[dict[str, Any]]:
    with store.reading() as connection:
        columns = "id, model, base_url, file_id, batch_id, state, n_requests"
        found = connection.execute(f"SELECT {columns} FROM batches ORDER BY rowid").fetchall()
    return [dict(zip(columns.split(", "), row, strict=True)) for row in found]


def holders(store: ResponseStore) -> list[str]:
    with store.reading() as connection:
        return [holder for (holder,) in connection.execute("SELECT holder FROM attempts WHERE holder IS NOT NULL")]


def left_over(store: ResponseStore) -> list[str]:
    "What is still under way, and what lies beside the store."
    under_way = [row["state"] for row in rows(store) if row["state"] not in ("done", "failed")]
    return [*holders(store), *under_way, *(path.name for path in store.path.parent.glob("*.batch-*"))]


def all_right(store: ResponseStore, requests: list[Request]) -> bool:
    "Every request has its own reply."
    stored = store.get_many(request.key for request in requests)
    return len(stored) == len(requests) and all(stored[r.key].text.endswith(f"asked: {r.messages[-1][1]}") for r in requests)


def paid_once(server: ScriptedServer, n: int) -> bool:
    "The provider has answered each of `n` requests in exactly one batch."
    entries = [entry for entry in server.ledger.values() if entry.batched]
    return len(entries) == n and all(entry.batched == 1 for entry in entries)


# Plain sailing


def test_replies_come_by_batch_and_are_not_asked_again(store):
    requests = requests_for(25)
    seen = []
    with serve(min_looks=1) as server:
        asked = by_batch(server, [*requests, *requests], store, lambda *told: seen.append(told))
        assert (asked.n_asked, asked.failures, asked.notes) == (25, {}, ())
        assert asked.responses.keys() == {request.key for request in requests}
        assert all_right(store, requests)
        assert paid_once(server, 25)
        assert (calls(server, "POST /files"), calls(server, "POST /batches"), server.bodies) == (1, 1, [])
        for response in asked.responses.values():
            assert (response.via, response.attempts, response.open_attempts, response.provider_model) == ("batch", 1, 0, NAME)
            assert (response.prompt_tokens, response.completion_tokens, response.latency_s) == (10, 5, 0.0)
        n_calls = len(server.calls)
        assert by_batch(server, requests, store).n_asked == 0
        assert len(server.calls) == n_calls
        assert by_batch(server, requests_for(30), store).n_asked == 5
        assert paid_once(server, 30)
    assert seen[-1][:2] == (25, 25)
    assert all(total == 25 and 0 <= done <= 25 for done, total, _ in seen)
    assert any("in_progress" in note or "validating" in note for _, _, note in seen)
    assert left_over(store) == []
    first, second = rows(store)
    assert (first["state"], first["n_requests"], first["model"], first["base_url"]) == ("done", 25, "some-model", server.base_url)
    assert second["n_requests"] == 5


def test_the_line_is_what_the_provider_wants(store):
    schema = {"type": "json_schema", "json_schema": {"name": "count", "schema": {"type": "object"}}}
    (request,) = requests_for(1, response_format=schema, top_k=3)
    with serve() as server:
        by_batch(server, [request], store)
        (line,) = [json.loads(line) for line in server.batches.files["file-scripted-0"].content.splitlines()]
        (begun,) = server.batches.batches.values()
    assert {name: line[name] for name in ("custom_id", "method", "url")} == {
        "custom_id": request.key,
        "method": "POST",
        "url": "/v1/chat/completions",
    }
    assert line["body"] == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "Count on from 0."}],
        "temperature": 0,
        "max_tokens": 8,
        "response_format": schema,
        "top_k": 3,
    }
    assert begun.metadata == {"zsd": rows(store)[0]["id"]}


def test_batches_are_split_at_the_limits(store, monkeypatch):
    requests = requests_for(23)
    monkeypatch.setattr(batch, "N_REQUESTS", 10)
    with serve(max_requests=10) as server:
        assert by_batch(server, requests, store).n_asked == 23
        assert sorted(row["n_requests"] for row in rows(store)) == [3, 10, 10]
    monkeypatch.setattr(batch, "N_BYTES", 1000)
    with serve(max_bytes=1000) as server:
        assert by_batch(server, requests_for(23, start=100), store).n_asked == 23
        assert calls(server, "POST /files") > 4
        assert not any(row["state"] == "failed" for row in rows(store))
    assert left_over(store) == []


def test_one_door(store):
    requests = requests_for(4)
    with serve() as server:
        assert TeacherClient(hosted(server), store).ask(requests[:2]).n_asked == 2
        assert len(server.bodies) == 2
        # As a user calls it: the first look comes after five seconds.
        assert TeacherClient(hosted(server), store, options=AskOptions(via="batch")).ask(requests[:2]).n_asked == 0
        offline = TeacherClient(StoredTeacher("some-model"), store, options=AskOptions(via="batch")).ask(requests)
        assert (len(offline.responses), len(offline.failures)) == (2, 2)
        assert "POST /files" not in server.calls


# What comes back


def test_lines_twice_out_of_order_missing_unknown_and_broken(store):
    "Everything is stored once; what is missing from a complete batch may have been paid for, so that it fails, and only the next run asks it again."
    requests = requests_for(120)

    def spoil(method: str, path: str, n: int) -> None:
        if (n, path) == (0, "/files/file-scripted-1/content"):
            file = server.batches.files[path.split("/")[2]]
            lines = file.content.splitlines(keepends=True)
            stranger = json.dumps({**json.loads(lines[0]), "custom_id": "a stranger"}).encode() + b"\n"
            odd = [stranger, b"\n", b'{"custom_id": 7}\n', b"[1, 2]\n", b'{"custom_id": "x", "response": "no"}\n', b"\xff\xfe\n", lines[1]]
            file.content = b"".join([*odd, *lines]) + lines[2][: len(lines[2]) // 2]

    with serve(share_duplicated=0.2, share_missing=0.1, door=spoil) as server:
        asked = by_batch(server, requests, store)
    assert 3 < len(asked.failures) < 60
    assert {failure.kind for failure in asked.failures.values()} == {ErrorKind.ROW}
    assert asked.n_asked == len(store) == 120 - len(asked.failures)
    assert store.open_attempts(asked.failures) == dict.fromkeys(asked.failures, 1)
    assert left_over(store) == []
    (note,) = asked.notes
    assert note.startswith("lines of the provider's files that were left out: ")
    assert "not readable" in note
    assert "twice" in note
    assert "3 of no request" in note
    with serve() as server:
        again = by_batch(server, requests, store)
    assert (again.n_asked, again.failures) == (len(asked.failures), {})
    assert all_right(store, requests)
    assert {key for key, response in again.responses.items() if response.open_attempts} == asked.failures.keys()


def test_replies_hold_any_text(store):
    "Separators that `str.splitlines` takes for line ends, sent as they are."
    text = "one\u2028two\x85three\u2029four\x0bfive"

    def unescaped(method: str, path: str, n: int) -> None:
        if path.endswith("/content"):
            file = server.batches.files[path.split("/")[2]]
            lines = [json.dumps(json.loads(line), ensure_ascii=False) for line in file.content.split(b"\n") if line]
            file.content = "\r\n".join(lines).encode()

    with serve(lambda body, n: Scripted(text=text), door=unescaped) as server:
        asked = by_batch(server, requests_for(30), store)
    assert {response.text for response in asked.responses.values()} == {text}
    assert (asked.n_asked, asked.notes) == (30, ())


def test_only_what_failed_is_sent_again(store):
    "A server error passes, a request that is too long does not, and a filtered one is a reply."

    def script(body: dict, n: int) -> Scripted:
        number = number_of(body)
        if number % 10 == 0 and n < 40:
            return Scripted(500, error="oops")
        if number == 7:
            return Scripted(400, error="too long")
        if number == 8:
            return Scripted(400, code="content_filter", error="no")
        return echo(body, n)

    requests = requests_for(40)
    with serve(script) as server:
        asked = by_batch(server, requests, store)
        assert (asked.n_asked, reasons(asked)) == (39, {requests[7].key: "HTTP 400: too long"})
        assert asked.responses[requests[8].key].outcome == "filtered"
        assert paid_once(server, 38)
        assert [row["n_requests"] for row in rows(store)] == [40, 4]
    assert [asked.responses[requests[n].key].attempts for n in (0, 1, 10)] == [2, 1, 2]
    assert asked.responses[requests[0].key].open_attempts == 0
    assert store.failures(asked.failures) == reasons(asked)
    assert left_over(store) == []


def test_what_never_works_is_given_up_after_two_further_batches(store):
    requests = requests_for(10)
    with serve(lambda body, n: Scripted(503, error="busy") if number_of(body) == 3 else echo(body, n)) as server:
        asked = by_batch(server, requests, store)
    assert (asked.n_asked, reasons(asked)) == (9, {requests[3].key: "HTTP 503: busy"})
    assert [row["n_requests"] for row in rows(store)] == [10, 1, 1]


def test_faults_of_all_kinds(store):
    requests = requests_for(200)
    faults = {"429": 0.1, "500": 0.1, "503": 0.1}
    with serve(faults=faults, share_duplicated=0.1, n_cut_downloads=2) as server:
        asked = by_batch(server, requests, store)
        while asked.failures:
            asked = by_batch(server, requests, store)
        assert all_right(store, requests)
        assert paid_once(server, 200)
    assert left_over(store) == []


@pytest.mark.parametrize("outcome", ["expired", "cancelled"])
def test_what_a_batch_did_not_come_to_goes_into_the_next(store, outcome):
    requests = requests_for(40)

    def cancel(method: str, path: str, n: int) -> None:
        if outcome == "cancelled" and path == "/batches/batch_scripted_0" and n == 0:
            begun = server.batches.batches["batch_scripted_0"]
            begun.created_s -= 1800  # half of it is answered
            begun.cancelling_s = time.time()
            server.batches.release()

    script = {"expired": {"outcomes": ("expired", "completed")}, "cancelled": {"in_progress_s": 3600, "door": cancel}}[outcome]
    with serve(**script) as server:
        asked = by_batch(server, requests, store)
        assert (asked.n_asked, asked.failures) == (40, {})
        assert paid_once(server, 40)
    assert all_right(store, requests)
    first, second = rows(store)
    assert first["n_requests"] == 40
    assert second["n_requests"] == 20
    # Certainly not charged: the provider says that it did not come to it.
    assert {response.open_attempts for response in asked.responses.values()} == {0}


def test_a_download_that_breaks_is_begun_again(store):
    requests = requests_for(60)
    with serve(n_cut_downloads=2) as server:
        assert by_batch(server, requests, store).n_asked == 60
        assert paid_once(server, 60)
        assert calls(server, "GET /files/file-scripted-1/content") == 3
    assert all_right(store, requests)


def test_a_download_that_ends_early_without_saying_so(store):
    "A reply may be there though it did not arrive: the file is read once more before anything is paid again."
    whole: list[bytes] = []

    def door(method: str, path: str, n: int) -> None:
        if path == "/files/file-scripted-1/content":
            file = server.batches.files["file-scripted-1"]
            whole.append(file.content)
            file.content = file.content[:3000] if n == 0 else whole[0]

    with serve(door=door) as server:
        assert by_batch(server, requests_for(30), store).n_asked == 30
        assert paid_once(server, 30)
        assert len(whole) == 2


def test_a_parameter_that_the_model_does_not_take(store):
    "One refusal teaches one parameter; a batch each, and the key stays what it was."
    requests = requests_for(12)
    with serve(refuses=("max_tokens", "temperature")) as server:
        asked = by_batch(server, requests, store)
        last = [file for file in server.batches.files.values() if file.purpose == "batch"][-1]
        assert json.loads(last.content.splitlines()[0])["body"].keys() == {"model", "messages", "max_completion_tokens"}
    assert (asked.n_asked, asked.failures) == (12, {})
    assert all_right(store, requests)
    assert asked.notes == ("the model takes no max_tokens: sent as max_completion_tokens", "the model takes no temperature: left out")


def test_a_schema_that_the_server_does_not_take(store):
    "Is said, and is no reason to stop: the plain prompt can be asked instead."
    schema = {"type": "json_schema", "json_schema": {"name": "count", "schema": {"type": "object"}}}
    with serve(refuses=("response_format",)) as server:
        asked = by_batch(server, requests_for(5, response_format=schema), store)
    assert asked.n_asked == 0
    assert {failure.kind for failure in asked.failures.values()} == {ErrorKind.SCHEMA}
    assert asked.notes == (f"{SCHEMA_REFUSED}: 5 requests",)


def test_replies_that_are_asked_again_replace_the_old_ones(store):
    requests = requests_for(10)
    with serve(lambda body, n: Scripted(finish_reason="length" if n < 10 else "stop")) as server:
        assert by_batch(server, requests, store).n_asked == 10
        assert by_batch(server, requests, store).n_asked == 0
        asked = by_batch(server, requests, store, retry_outcomes=frozenset({"length"}))
    assert asked.n_asked == 10
    assert {response.outcome for response in asked.responses.values()} == {"complete"}
    with store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM superseded").fetchone() == (10,)


# Batches that are refused


def test_a_file_that_the_provider_refuses(store):
    failure = ("mismatched_model", "The provided model is not\nsupported by the Batch API.")
    with serve(outcomes=("failed",), failure=failure) as server:
        with pytest.raises(
            TeacherError, match=r"none of the 5 questions was answered: .* \(mismatched_model: The provided model is not supp"
        ) as error:
            by_batch(server, requests_for(5), store)
        assert calls(server, "POST /batches") == 1
        assert "\n" not in str(error.value)
        assert left_over(store) == []
        assert store.open_attempts(request.key for request in requests_for(5)) == {}
        # The requests are free: single questions work.
        assert ask(hosted(server), requests_for(5), store).n_asked == 5


def test_no_room_for_so_many_tokens(store):
    "The provider fails what does not fit into its queue: smaller batches, later."
    requests = requests_for(40)
    with serve(outcomes=("failed", "failed", "completed")) as server:
        asked = by_batch(server, requests, store)
        assert paid_once(server, 40)
    assert (asked.n_asked, asked.failures) == (40, {})
    assert [row["n_requests"] for row in rows(store)] == [40, 20, 10, 10, 10, 10]
    assert left_over(store) == []


def test_no_room_beside_the_batches_that_are_under_way(store, monkeypatch):
    "Then the rest waits until one of them has ended, one at a time."
    monkeypatch.setattr(batch, "N_REQUESTS", 10)
    refused = set()

    def door(method: str, path: str, n: int) -> None:
        "The first ends only when it was told that all the others were refused."
        if path == "/batches/batch_scripted_0" and len(refused) == 3:
            server.batches.release()
        begun = server.batches.batches.get(path.rpartition("/")[2])
        if begun and begun.outcome == "failed" and server.batches.status(begun) == "failed":
            refused.add(path)

    with serve(outcomes=("completed", "failed", "failed", "failed", "completed"), in_progress_s=math.inf, door=door) as server:
        asked = by_batch(server, requests_for(40), store)
        assert paid_once(server, 40)
    assert asked.n_asked == 40
    assert [row["n_requests"] for row in rows(store)] == [10] * 7


def test_never_room(store, monkeypatch):
    monkeypatch.setattr(batch, "_N_REFUSED", 3)
    with serve(outcomes=("failed",)) as server:
        with pytest.raises(TeacherError, match=r"takes no batch \(.*Enqueued token limit reached.*\); run again later"):
            by_batch(server, requests_for(40), store)
        assert calls(server, "POST /batches") == 4
    assert left_over(store) == []


def test_a_provider_that_takes_smaller_files(store):
    with serve(max_requests=16) as server:
        assert by_batch(server, requests_for(40), store).n_asked == 40
        assert paid_once(server, 40)
    with serve(max_bytes=2000) as server:
        assert by_batch(server, requests_for(40, start=100), store).n_asked == 40
    assert left_over(store) == []


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize("path", ["/files", "/batches"])
def test_a_provider_without_batches(store, status, path):
    requests = requests_for(3)
    with serve(door=lambda method, at, n: Scripted(status, error="Not Found") if at == path else None) as server:
        with pytest.raises(
            TeacherSettingsError, match=rf"^some-model at {server.base_url}: offers no batches \(HTTP {status}\); run without --via batch$"
        ) as error:
            by_batch(server, requests, store)
        assert left_over(store) == []
        assert ask(hosted(server), requests, store).n_asked == 3
    assert error.value.exit_status == 2


@pytest.mark.parametrize("path", ["/files", "/batches"])
def test_overload_is_waited_out(store, path):
    refusal = Scripted(429, error="slow down", headers={"retry-after-ms": "20"})
    with serve(door=lambda method, at, n: refusal if (method, at) == ("POST", path) and n < 2 else None) as server:
        assert by_batch(server, requests_for(8), store).n_asked == 8
        assert paid_once(server, 8)
    # Longer than the retries of one call: the batch is put back, and goes later.
    with serve(door=lambda method, at, n: refusal if (method, at) == ("POST", path) and n < 5 else None) as server:
        assert by_batch(server, requests_for(8, start=100), store).n_asked == 8
        assert paid_once(server, 8)
    assert left_over(store) == []


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("path", ["/files", "/batches", "/batches/batch_scripted_0"])
def test_wrong_key(store, status, path):
    said = Scripted(status, error=f"Incorrect API key provided: {KEY}")
    with (
        serve(door=lambda method, at, n: said if at == path else None) as server,
        pytest.raises(TeacherSettingsError, match=rf"the key is not accepted \(HTTP {status}\)") as raised,
    ):
        by_batch(server, requests_for(3), store)
    error: BaseException | None = raised.value
    while error:  # a traceback shows all of them
        assert KEY not in f"{error!r} {vars(error)}"
        error = error.__context__


# The budget


def test_the_budget_holds_back_what_does_not_fit(store):
    "Worst cases are reserved; when true costs are known, what they free is used, twice at most."
    requests = requests_for(40)
    worst_usd = Budget(1.0, PRICE, batch=True).worst_case_usd(requests[0])
    budget = Budget(10.5 * worst_usd, PRICE, batch=True)
    with serve() as server:
        asked = by_batch(server, requests, store, price=PRICE, budget=budget)
        true_usd = sum(response.cost_usd for response in asked.responses.values())
        sizes = [row["n_requests"] for row in rows(store)]
        assert sizes[0] == 10
        assert len(sizes) == 3
        assert sum(sizes) == asked.n_asked == len(server.ledger)
        assert (len(asked.failures), asked.n_over_budget, set(asked.failures.values())) == (40 - sum(sizes),) * 2 + ({BUDGET_REACHED},)
        assert budget.spent_usd == pytest.approx(true_usd)
        assert budget.reserved_usd == pytest.approx(0)
        assert true_usd <= 10.5 * worst_usd
        assert left_over(store) == []
        # With more money it goes on.
        assert by_batch(server, requests, store).n_asked == 40 - sum(sizes)


def test_no_budget_nothing_sent(store):
    with serve() as server:
        asked = by_batch(server, requests_for(4), store, price=PRICE, budget=Budget(1e-9, PRICE, batch=True))
        assert (asked.n_over_budget, server.calls) == (4, [])
    assert left_over(store) == []


# Lost on the way


@pytest.mark.parametrize("path", ["/files", "/batches"])
@pytest.mark.parametrize("lost", [Scripted(hang_up=True), Scripted(cut="reset"), Scripted(cut="half"), Scripted(502), Scripted(500)])
def test_replies_of_the_provider_that_get_lost(store, path, lost):
    "It has done what we asked, or not, and we do not hear of it: nothing is begun twice."
    requests = requests_for(20)
    with serve(door=lambda method, at, n: lost if at == path and n == 0 else None) as server:
        assert by_batch(server, requests, store).n_asked == 20
        assert paid_once(server, 20)
        assert len(server.batches.batches) == 1
    assert left_over(store) == []


def test_a_list_that_cannot_be_read_is_no_reason_to_begin_twice(store):
    "The beginning was lost and the list is closed: it stays open whether the batch has begun, and the next run finds out."
    is_closed = True

    def door(method: str, path: str, n: int) -> Scripted | None:
        if path == "/batches" and is_closed:
            return Scripted(hang_up=True) if method == "POST" else Scripted(500)
        return None

    with serve(door=door) as server:
        with pytest.raises(TeacherError, match="run again later"):
            by_batch(server, requests_for(6), store)
        assert len(server.batches.batches) == 1
        assert [row["state"] for row in rows(store)] == ["beginning"]
        is_closed = False
        assert by_batch(server, requests_for(6), store).n_asked == 6
        assert paid_once(server, 6)
    assert left_over(store) == []


class Page(http.server.BaseHTTPRequestHandler):
    "Some other server, which has a page for everybody."

    def do_POST(self) -> None:
        page = b"<html>Welcome</html>"
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


def test_a_page_instead_of_a_provider(store):
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        teacher = HostedTeacher("some-model", f"http://127.0.0.1:{server.server_port}/", KEY, RequestLimits(n_retries=0))
        with pytest.raises(TeacherError, match="the reply names nothing; does the address lack /v1"):
            ask_by_batch(teacher, requests_for(2), store, poll_s=POLL_S)
        server.shutdown()
    assert left_over(store) == []


def test_short_silence_is_sat_out_and_a_long_one_ends_the_run(store):
    with serve(door=lambda method, path, n: Scripted(503) if path == "/batches/batch_scripted_0" and n < 10 else None) as server:
        assert by_batch(server, requests_for(5), store).n_asked == 5
    with serve(door=lambda method, path, n: Scripted(503) if path == "/batches/batch_scripted_0" and n < 20 else None) as server:
        with pytest.raises(TeacherError, match="HTTP 503: scripted fault; run again later"):
            by_batch(server, requests_for(5, start=50), store)
        assert by_batch(server, requests_for(5, start=50), store).n_asked == 5
        assert paid_once(server, 5)
    assert left_over(store) == []


def test_files_that_cannot_be_fetched(store):
    "The batch has ended, and its output is not to be had: not now, and then for good."
    requests = requests_for(4)
    is_gone, status = True, 502

    def door(method: str, path: str, n: int) -> Scripted | None:
        return Scripted(status) if is_gone and path.endswith("/content") else None

    with serve(door=door) as server:
        with pytest.raises(TeacherError, match="HTTP 502"):
            ask_by_batch(hosted(server, n_retries=0), requests, store, poll_s=POLL_S)
        status = 404
        asked = by_batch(server, requests, store)
        assert all("which some-model" in reason and "does not know" in reason for reason in reasons(asked).values())
        assert len(asked.failures) == 4
        # A provider keeps files for thirty days; after that they are asked again.
        with store.writing() as connection:
            connection.execute("UPDATE batches SET created_at = '2020-01-01T00:00:00+00:00'")
        is_gone = None
        server.batches.files.clear()
        again = by_batch(server, requests, store)
        assert again.n_asked == 4
        assert {response.open_attempts for response in again.responses.values()} == {1}
    assert left_over(store) == []


def test_a_batch_that_the_provider_does_not_know(store):
    "Begun with another key, say. Its requests are not asked a second time; others are asked."
    requests = requests_for(6)
    is_hidden = False

    def door(method: str, path: str, n: int) -> Scripted | None:
        return Scripted(404, error="No batch") if is_hidden and path == "/batches/batch_scripted_0" else None

    with serve(in_progress_s=math.inf, door=door) as server:
        interrupt(server, requests, store)
        server.batches.release()
        is_hidden = True
        asked = by_batch(server, requests_for(10), store)
        assert asked.n_asked == 4
        assert asked.failures.keys() == {request.key for request in requests}
        assert all("is in batch batch_scripted_0, begun 20" in reason for reason in reasons(asked).values())
        is_hidden = False
        assert by_batch(server, requests_for(10), store).n_asked == 6
        assert paid_once(server, 10)
    assert left_over(store) == []


# Interrupted


def interrupt(server: ScriptedServer, requests: list[Request], store: ResponseStore) -> None:
    "Ctrl-C while a batch is under way."

    def stop(done: int, total: int, note: str) -> None:
        if note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by_batch(server, requests, store, stop)
    assert [row["state"] for row in rows(store)][-1] == "running"


def first_batch_says(server: ScriptedServer, changes: dict[str, Any]) -> None:
    "Let the first batch, once it has ended, tell of itself with changes; an empty mapping ends that."
    to_json = server.batches._to_json

    def changed(batch: Any) -> dict[str, Any]:
        told = to_json(batch)
        return told | (changes if told["id"] == "batch_scripted_0" and told["status"] == "completed" else {})

    server.batches._to_json = changed


ENDLESS = {
    "completed, no file": ({"output_file_id": None}, "is completed and names no file with its replies; run again"),
    "expired, no file": ({"output_file_id": None, "status": "expired"}, "is expired and names no file with its replies; run again"),
    "a list as its file": ({"output_file_id": ["o"]}, "is completed and names no file"),
    "no counts": ({"output_file_id": None, "request_counts": None}, "is completed and names no file"),
    "always under way": ({"status": "in_progress"}, "is still 'in_progress'; cancel it at the provider, or run again"),
    "always validating": ({"status": "validating"}, "is still 'validating'; cancel it"),
    "a status of its own": ({"status": "paused"}, "is still 'paused'; cancel it"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_batch_without_end_ends_the_run(store, monkeypatch, name):
    "The other batch's replies are kept, one line says who and how to go on, and a later run fetches what is there without paying twice."
    monkeypatch.setattr(batch, "N_REQUESTS", 5)
    (changes, said), requests, lines = ENDLESS[name], requests_for(10), []
    if "names no file" not in said:
        monkeypatch.setattr(batch, "_OVERDUE", timedelta(0))
    changes = dict(changes)
    with serve(validating_s=0, in_progress_s=0) as server, hosted(server) as teacher:
        first_batch_says(server, changes)
        asked = ask_by_batch(teacher, requests, store, options=AskOptions(on_message=lines.append), poll_s=POLL_S)
        assert {request.key for request in requests[5:]} <= asked.responses.keys()
        assert {failure.kind for failure in asked.failures.values()} == {ErrorKind.IN_BATCH}
        assert len(asked.failures) == 5
        assert [line for line in lines if said in line and "batch_scripted_0" in line and "\n" not in line] == lines[-1:]
        changes.clear()
        again = ask_by_batch(teacher, requests, store, poll_s=POLL_S)
    assert (len(again.responses), again.failures) == (10, {})
    assert [entry.batched for entry in server.ledger.values()] == [1] * 10


def test_a_batch_that_never_names_its_file_is_asked_anew_after_two_days(store, monkeypatch):
    "Not after one, as old as a batch is that expired: its file may only be late."
    monkeypatch.setattr(batch, "_OVERDUE", timedelta(0))
    with serve(validating_s=0, in_progress_s=0) as server, hosted(server) as teacher:
        first_batch_says(server, {"output_file_id": None})
        asked = ask_by_batch(teacher, requests := requests_for(5), store, poll_s=POLL_S)
    assert asked.responses.keys() == {request.key for request in requests}
    assert {response.open_attempts for response in asked.responses.values()} == {1}  # it may have been charged
    assert [entry.batched for entry in server.ledger.values()] == [2] * 5


def test_ctrl_c_leaves_the_batch_running(store):
    requests = requests_for(10)
    with serve(in_progress_s=math.inf) as server:
        interrupt(server, requests, store)
        # Single questions leave it alone.
        asked = ask(hosted(server), requests_for(12), store)
        server.batches.release()
        assert (asked.n_asked, len(asked.failures)) == (2, 10)
        assert all("--via batch" in reason for reason in reasons(asked).values())
        assert by_batch(server, requests, store).n_asked == 10
        assert (calls(server, "POST /batches"), calls(server, "POST /files")) == (1, 1)
        assert paid_once(server, 10)
    assert left_over(store) == []


def test_replies_that_another_call_waits_for_are_kept(store):
    "The next run may be about other requests: what was paid for is stored all the same."
    with serve(in_progress_s=math.inf) as server:
        interrupt(server, requests_for(10), store)
        server.batches.release()
        asked = by_batch(server, requests_for(3, start=100), store)
        assert (asked.n_asked, len(asked.responses), len(store)) == (3, 3, 13)
        assert paid_once(server, 13)
    assert left_over(store) == []


def test_a_store_that_was_copied_without_its_files(store):
    requests = requests_for(10)
    with serve(in_progress_s=math.inf) as server:
        interrupt(server, requests, store)
        for path in store.path.parent.glob("*.jsonl"):
            path.unlink()
        # Replies to questions that a call does not know wait at the provider for one that does.
        server.batches.release()
        assert by_batch(server, requests_for(2, start=50), store).n_asked == 2
        assert by_batch(server, requests[:6], store).n_asked == 6
        assert by_batch(server, requests, store).n_asked == 4
        assert paid_once(server, 12)
    assert left_over(store) == []


def test_a_batch_that_had_not_begun_is_not_begun_for_other_requests(tmp_path):
    "Nothing is spent on what a call does not ask for."
    path = tmp_path / "responses.sqlite"
    with serve() as server:
        for step in ("write#2", "upload", "write#3"):
            process = start_run(server, path, 20, step, "after")
            process.join(300)
            assert process.exitcode == -signal.SIGKILL
            with ResponseStore(path) as store:
                n_stored = len(store)
                assert by_batch(server, requests_for(1, start=100 + n_stored), store).n_asked == 1
                assert len(store) == n_stored + 1
                assert left_over(store) == []
        with ResponseStore(path) as store:
            assert by_batch(server, requests_for(20), store).n_asked == 20
            assert {response.attempts for response in store.get_many(r.key for r in requests_for(20)).values()} == {1}
        assert paid_once(server, 23)


def test_a_batch_at_another_address(store):
    requests = requests_for(4)
    with serve(in_progress_s=math.inf) as here, serve() as there:
        interrupt(here, requests, store)
        asked = by_batch(there, requests, store)
        assert set(reasons(asked).values()) == {f"is in a provider's batch at {here.base_url}; `--via batch` with that address fetches it"}
        assert there.calls == []
        here.batches.release()
        assert by_batch(here, requests, store).n_asked == 4


def test_a_claim_without_a_batch_is_let_go(store):
    "A store that was merged or salvaged may have lost the row."
    requests = requests_for(4)
    store.exchange(wanted=requests, batch_id="0123456789abcdef")
    with serve() as server:
        asked = by_batch(server, requests, store)
    assert asked.n_asked == 4
    assert {response.open_attempts for response in asked.responses.values()} == {1}
    assert left_over(store) == []


def test_the_budget_counts_what_an_earlier_run_has_begun(store):
    requests = requests_for(10)
    worst_usd = Budget(1.0, PRICE, batch=True).worst_case_usd(requests[0])

    def door(method: str, path: str, n: int) -> None:
        if (method, path, n) == ("POST", "/batches", 1):
            server.batches.release()

    with serve(in_progress_s=math.inf, door=door) as server:
        interrupt(server, requests, store)
        budget = Budget(12.5 * worst_usd, PRICE, batch=True)
        asked = by_batch(server, requests_for(15), store, price=PRICE, budget=budget)
        assert asked.n_asked >= 12
        assert budget.spent_usd == pytest.approx(sum(response.cost_usd for response in asked.responses.values()))
        assert [row["n_requests"] for row in rows(store)][:2] == [10, 2]


def test_a_cap_over_two_runs(store):
    "What the first run has begun is counted once: reserved while it lasts, and then as what it cost."
    requests = requests_for(10)
    worst_usd = Budget(1.0, PRICE, batch=True).worst_case_usd(requests[0])
    with serve(in_progress_s=math.inf) as server:
        interrupt(server, requests, store)
        budget = Budget(10.5 * worst_usd, PRICE, batch=True)
        budget.watch(requests, store)
        server.batches.release()
        asked = by_batch(server, requests, store, price=PRICE, budget=budget)
        assert (asked.n_asked, asked.failures) == (10, {})
        true_usd = sum(response.cost_usd for response in asked.responses.values())
        assert (budget.spent_usd, budget.reserved_usd, budget.unconfirmed_usd) == pytest.approx((true_usd, 0.0, 0.0))
        again = Budget(10.5 * worst_usd, PRICE, batch=True)
        again.watch(requests, store)
        assert again.spent_usd == pytest.approx(true_usd)


# Killed


def die_at(step: str, when: str) -> None:
    "SIGKILL before or after a method's n-th call."
    name, _, nth = step.partition("#")
    owner = {"exchange": ResponseStore, "upload": BatchApi, "create": BatchApi, "status": BatchApi}.get(name, BatchRecords)
    do, n_calls = getattr(owner, name), 0

    @functools.wraps(do)
    def call(*arguments, **settings):
        nonlocal n_calls
        n_calls += 1
        if n_calls == int(nth or 1) and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = do(*arguments, **settings)
        if n_calls == int(nth or 1) and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call)


def run(url: str, path: Path, n: int, start: int, n_a_batch: int, step: str, when: str) -> None:
    "A process of its own that asks by batch."
    batch.N_REQUESTS, batch.N_GROUP = n_a_batch, 7
    if step:
        die_at(step, when)
    with ResponseStore(path, timeout_s=60) as store:
        asked = ask_by_batch(
            HostedTeacher("some-model", url, KEY, RequestLimits(n_retries=2)), requests_for(n, start), store, poll_s=POLL_S
        )
    path.with_name(f"told-{os.getpid()}").write_text(f"{asked.n_asked} {len(asked.failures)}")


def start_run(server: ScriptedServer, path: Path, n: int, step: str = "", when: str = "", start: int = 0, n_a_batch: int = 50):
    process = FORKS.Process(target=run, args=(server.base_url, path, n, start, n_a_batch, step, when))
    process.start()
    return process


def told(path: Path) -> list[list[int]]:
    "What processes that came to their end have said: replies that were new, and failures."
    return [[int(number) for number in told.read_text().split()] for told in path.parent.glob("told-*")]


STEPS = [
    ("keep", "before"),
    ("keep#2", "after"),  # written down, not claimed
    ("exchange#3", "before"),
    ("exchange#3", "after"),  # claimed, in the middle
    ("write#2", "before"),  # all claimed
    ("write#2", "after"),  # ready
    ("upload", "before"),
    ("upload", "after"),  # uploaded, and we did not note it
    ("write#3", "after"),  # uploaded, not begun
    ("create", "before"),
    ("create", "after"),  # begun, and we did not note it
    ("write#4", "after"),
    ("status", "before"),
    ("status#3", "after"),
    ("members", "after"),  # at the beginning of the download
    ("exchange#10", "before"),  # in the middle of it
    ("exchange#10", "after"),
    ("end", "before"),
    ("end", "after"),
]


@pytest.mark.parametrize(("step", "when"), STEPS)
def test_killed_at_a_step(tmp_path, step, when):
    "The next run goes on: one file, one batch, every reply once."
    path = tmp_path / "responses.sqlite"
    requests = requests_for(50)
    with serve(min_looks=3 if "status" in step else 0) as server:
        killed = start_run(server, path, 50, step, when)
        killed.join(300)
        assert killed.exitcode == -signal.SIGKILL
        with ResponseStore(path) as store:
            n_stored = len(store)
            assert by_batch(server, requests, store).n_asked == 50 - n_stored
            assert all_right(store, requests)
            assert paid_once(server, 50)
            assert len(server.batches.batches) == 1
            assert calls(server, "POST /files") == 1
            # A call that asks for nothing new does not go to the provider, not even to tidy up.
            assert by_batch(server, requests_for(1, start=50), store).n_asked == 1
            assert left_over(store) == []
            # Counted: what the killed process had claimed was the attempt that was answered.
            assert {response.attempts for response in store.get_many(r.key for r in requests).values()} == {1}


@pytest.mark.parametrize("n_rounds", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path, n_rounds):
    "Ten times a round, with two batches at a time and lines that fail and come twice: nothing lost, nothing paid twice."
    path = tmp_path / "responses.sqlite"
    rng = random.Random(7)
    n_killed = 0
    with serve(in_progress_s=0.15, faults={"500": 0.1}, share_duplicated=0.1, n_cut_downloads=2) as server:
        for start in range(0, 100 * n_rounds, 100):
            for _ in range(10):
                process = start_run(server, path, 90, start=start, n_a_batch=50)
                process.join(rng.random() * 0.5)
                n_killed += process.is_alive()
                process.kill()
                process.join()
            with ResponseStore(path) as store:
                requests = requests_for(90, start)
                while by_batch(server, requests, store).failures:
                    pass
                assert all_right(store, requests)
        with ResponseStore(path) as store:
            by_batch(server, requests_for(1, start=1000), store)
            # A process that is killed as it begins or ends a batch may leave an empty lock file.
            assert [left for left in left_over(store) if not left.endswith(".lock")] == []
        assert paid_once(server, 90 * n_rounds + 1)
        assert n_killed > 4 * n_rounds - 1


def test_four_processes_share_a_store(tmp_path):
    "Their requests overlap: each is sent by one of them, and all of them get every reply."
    path = tmp_path / "responses.sqlite"
    with serve(in_progress_s=0.3) as server:
        processes = [start_run(server, path, 60, start=20 * n, n_a_batch=25) for n in range(4)]
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * 4
        assert sum(n_asked for n_asked, _ in told(path)) == 120
        assert [n_failed for _, n_failed in told(path)] == [0] * 4
        assert paid_once(server, 120)
    with ResponseStore(path) as store:
        assert all_right(store, requests_for(120))
        assert left_over(store) == []


def test_what_a_killed_process_drove_is_taken_over_by_one_that_waits(tmp_path):
    path = tmp_path / "responses.sqlite"
    with serve(in_progress_s=math.inf) as server:
        first = start_run(server, path, 30)
        while "running" not in states(path):
            assert first.is_alive()
            time.sleep(0.02)
        second = start_run(server, path, 30)
        second.join(0.5)
        assert second.is_alive()
        first.kill()
        server.batches.release()
        second.join(300)
        assert (second.exitcode, told(path)) == (0, [[30, 0]])
        assert paid_once(server, 30)


def test_chat_and_batch_side_by_side(tmp_path):
    "Each leaves the other's requests alone."
    path = tmp_path / "responses.sqlite"
    with serve(in_progress_s=math.inf) as server, ResponseStore(path) as store:
        process = start_run(server, path, 30)
        while "running" not in states(path):
            assert process.is_alive()
            time.sleep(0.02)
        asked = []
        chat = threading.Thread(target=lambda: asked.append(ask(hosted(server), requests_for(40), store)), daemon=True)
        chat.start()
        chat.join(120)
        assert not chat.is_alive()
        server.batches.release()
        assert (asked[0].n_asked, len(asked[0].failures)) == (10, 30)
        process.join(300)
        assert all_right(store, requests_for(40))
        assert paid_once(server, 30)
        assert len(server.bodies) == 10


def states(path: Path) -> list[str]:
    try:
        with closing(sqlite3.connect(path)) as connection:
            return [state for (state,) in connection.execute("SELECT state FROM batches")]
    except sqlite3.Error:
        return []


# Secrets


def test_no_key_anywhere(tmp_path, monkeypatch, caplog):
    "In no store, no file beside it, no temporary file, no error, no log, no line that the provider is sent."
    caplog.set_level("DEBUG")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    store = ResponseStore(tmp_path / "responses.sqlite")
    url_secret = "hunter2-password"
    said = f"wrong: Authorization: Bearer {KEY} {url_secret}"

    def script(body: dict, n: int) -> Scripted:
        return echo(body, n) if number_of(body) else Scripted(400, error=said)

    def look_around(done: int, total: int, note: str) -> None:
        for path in tmp_path.iterdir():
            content = path.read_bytes() if path.is_file() else b""
            assert KEY.encode() not in content
            assert url_secret.encode() not in content

    with serve(script, failure=("invalid", said), outcomes=("completed", "failed")) as server:
        teacher = HostedTeacher("some-model", server.base_url.replace("//", f"//user:{url_secret}@"), KEY, RequestLimits(n_retries=0))
        asked = ask_by_batch(teacher, requests_for(5), store, look_around, poll_s=POLL_S)
        assert (asked.n_asked, len(asked.failures)) == (4, 1)
        failed = ask_by_batch(teacher, requests_for(8), store, look_around, poll_s=POLL_S)
        assert len(failed.failures) == 4
        assert not any(KEY.encode() in file.content for file in server.batches.files.values() if file.purpose == "batch")
    store.close()
    texts = [*reasons(asked).values(), *reasons(failed).values(), repr(teacher), *asked.notes]
    texts += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert [text for text in texts if KEY in text or url_secret in text] == []
    assert KEY not in caplog.text
