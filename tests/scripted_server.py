"""A scripted fault server: no teacher, but an OpenAI-compatible address on loopback that limits, delays and fails on demand.

It exists because a real provider does not fail when a test wants it to. Its replies say what they are, so that none can pass for a teacher's.

In a test: `with ScriptedServer(lambda body, n: Scripted(429) if n == 0 else Scripted()) as server: …` (it runs in a thread of its own).
As a process: `python tests/scripted_server.py --latency-ms 300 --rate-per-minute 6000 --faults 0.03` prints its base URL on the first line
and ends when its standard input is closed, or on SIGTERM. GET /ledger tells what it received, answered and charged, GET /summary the same without the single requests,
GET /counts only how many replies it has sent and how many requests are under way.
"""

import argparse
import asyncio
import hashlib
import json
import math
import random
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

NAME = "scripted-fault-server"


# What is said


@dataclass(frozen=True)
class Scripted:
    "One scripted reply. A status of 200 is charged, however it is sent; another one is not."

    status: int = 200
    text: str | None = f"{NAME}: no teacher wrote this"  # the completion
    finish_reason: str = "stop"
    refusal: str | None = None  # what OpenAI's models say in place of a text
    prompt_tokens: int = 10  # charged, and told where `counts`
    completion_tokens: int = 5
    cached_tokens: int | None = None  # part of the prompt tokens; None: not mentioned
    reasoning_tokens: int | None = None  # part of the completion tokens; None: not mentioned
    counts: bool = True  # whether the reply tells its usage
    tokens: tuple[tuple[str, float], ...] | None = None  # tokens with their log-probabilities; None: not told
    error: str = "scripted fault"  # the message of an error status
    code: str | None = None  # the error's machine-readable code, e.g. "insufficient_quota"
    param: str | None = None  # the parameter that an error is about
    body: bytes | None = None  # sent instead of JSON, verbatim
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0  # besides the server's own latency
    hang_up: bool = False  # close the connection instead of replying
    cut: str = ""  # "reset": broken before any byte; "half": shorter than its Content-Length; "chunked": ends within a chunk
    drip_s: float | None = None  # headers, and then a byte (white space) each so many seconds, for ever
    raw: bytes | None = None  # sent instead of everything, headers too; then the connection is closed
    copy_after_s: float | None = None  # sent a second time so much later, on the same connection, whatever was asked meanwhile


# By name, what a fault changes in the reply that would have been given.
FAULTS: dict[str, dict[str, Any]] = {
    "429": {"status": 429, "error": "scripted overload", "code": "rate_limit_exceeded", "headers": {"Retry-After": "1"}},
    "500": {"status": 500, "error": "scripted server error"},
    "502": {"status": 502, "body": b"<html>scripted bad gateway</html>", "content_type": "text/html"},
    "503": {"status": 503, "error": "scripted overload", "headers": {"Retry-After": "1"}},
    "hang-up": {"hang_up": True},
    "reset": {"cut": "reset"},
    "half-sent": {"cut": "half"},
    "half-chunked": {"cut": "chunked"},
    "garbled": {"raw": b"HTTP/1.1 abc no status\r\n\r\n"},
    "503, come back in a day": {"status": 503, "error": "scripted overload", "headers": {"Retry-After": "99999"}},
    "invalid-json": {"body": b'{"id": "scripted", "choices": [{"mess'},
    "html": {"body": b"<html>scripted welcome</html>", "content_type": "text/html"},
    "slow-loris": {"drip_s": 0.05},
    "late": {"delay_s": 30.0},
}
# Those that pass by themselves and that every client is expected to get over.
TRANSIENT = ("429", "500", "502", "503", "hang-up", "reset", "half-sent")

# What a server says that does not take a parameter, in OpenAI's words.
_UNSUPPORTED = {
    "max_tokens": (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "unsupported_parameter",
    ),
    "temperature": (
        "Unsupported value: 'temperature' does not support this value with this model. Only the default (1) value is supported.",
        "unsupported_value",
    ),
    "response_format": ("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.", None),
}

Script = Callable[[dict[str, Any], int], Scripted]  # request body, number of the request from 0


@dataclass(frozen=True)
class Latency:
    "A log-normal time to think."

    mean_s: float
    sigma: float = 0.5  # of the logarithm: at 0.5 the median is 88 % of the mean and one in a hundred takes 2.8 times the mean

    def draw_s(self, rng: random.Random) -> float:
        "One latency in seconds."
        return rng.lognormvariate(math.log(self.mean_s) - self.sigma**2 / 2, self.sigma)


@dataclass(frozen=True)
class RateLimit:
    "How much the server takes, and how it tells of it."

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None  # a quarter of the prompt's characters and the longest reply allowed, as OpenAI counts
    kind: str = "bucket"  # "bucket" fills up steadily; "window" is full again all at once
    window_s: float = 1.0  # the bucket holds what it takes in within this time; a window lasts as long
    retry_after: bool = True  # 429 with `Retry-After` in whole seconds
    retry_after_ms: bool = False  # and to the millisecond, as OpenAI does
    headers: bool = True  # `x-ratelimit-*` with every reply


@dataclass(frozen=True)
class BatchScript:
    "How provider batches go."

    validating_s: float = 0.05
    in_progress_s: float = 0.1  # math.inf: until the test calls `server.batches.release()`
    min_looks: int = 0  # so many looks at a batch at least tell that it is under way, however late they come
    finalizing_s: float = 0.0
    cancelling_s: float = 0.05
    outcomes: tuple[str, ...] = ("completed",)  # of the first, second, … batch, the last for all further: completed, expired, failed, stuck
    failure: tuple[str, str] = ("token_limit_exceeded", "Enqueued token limit reached for a scripted model. Please try again later.")
    share_done: float = 0.5  # of the requests that an expired batch has answered
    script: Script | None = None  # replies; None: the server's own script
    faults: Mapping[str, float] = field(default_factory=dict)  # by name, as for the server: those with an error status
    shuffled: bool = True  # output lines in another order than the input's
    share_duplicated: float = 0.0  # of output lines that come twice
    share_missing: float = 0.0  # of requests that are in neither file
    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    n_cut_downloads: int = 0  # the first so many downloads end in the middle
    # What is said at /files and /batches in place of the true reply: (method, path as in "/batches", how many of these came before).
    # With an error status nothing was done; with 200 (hung up, cut) it was, and only the reply is lost.
    door: Callable[[str, str, int], Scripted | None] = lambda method, path, n: None


# What is kept


@dataclass
class Entry:
    "What came of one request, told apart by its content."

    content: str  # of its last message
    attempts: int = 0  # received
    completed: int = 0  # readable replies that were sent to their last byte
    completed_s: list[float] = field(default_factory=list)  # when, by `time.monotonic`
    unread: int = 0  # others with status 200 that were sent to their last byte
    refused: int = 0  # other statuses
    charged: int = 0  # attempts that cost something
    prompt_tokens: int = 0  # of those
    completion_tokens: int = 0
    batched: int = 0  # answers in batches
    batch_prompt_tokens: int = 0  # of those
    batch_completion_tokens: int = 0


def key_of(body: Mapping[str, Any]) -> str:
    "What tells requests apart: a hash of the body as canonical JSON."
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _content_of(body: Mapping[str, Any]) -> str:
    messages = body.get("messages") or [{}]
    return str(messages[-1].get("content"))


def _completion(scripted: Scripted, n: int, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    "The JSON of a reply."
    if scripted.status >= 400:
        return {"error": {"message": scripted.error, "type": "scripted", "param": scripted.param, "code": scripted.code}}
    message: dict[str, Any] = {"role": "assistant", "content": scripted.text}
    if scripted.refusal is not None:
        message["refusal"] = scripted.refusal
    content: dict[str, Any] = {
        "id": f"scripted-{n}",
        "object": "chat.completion",
        "created": 0,
        "model": NAME,
        "choices": [{"index": 0, "finish_reason": scripted.finish_reason, "message": message}],
    }
    if scripted.tokens is not None:
        told = [{"token": said, "logprob": logprob, "bytes": list(said.encode()), "top_logprobs": []} for said, logprob in scripted.tokens]
        content["choices"][0]["logprobs"] = {"content": told, "refusal": None}
    if scripted.counts:
        prompt, completion = scripted.prompt_tokens, scripted.completion_tokens
        content["usage"] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        if scripted.cached_tokens is not None:
            content["usage"]["prompt_tokens_details"] = {"cached_tokens": scripted.cached_tokens}
        if scripted.reasoning_tokens is not None:
            content["usage"]["completion_tokens_details"] = {"reasoning_tokens": scripted.reasoning_tokens}
    return content


def _is_completion(payload: bytes) -> bool:
    try:
        return bool(json.loads(payload)["choices"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


class _Draw:
    "Picks a fault by its share, or none."

    def __init__(self, shares: Mapping[str, float], kinds: Mapping[str, dict[str, Any]], rng: random.Random):
        unknown = set(shares) - set(kinds)
        if unknown or sum(shares.values()) > 1:
            raise ValueError(f"shares of faults: {dict(shares)}; there are {', '.join(kinds)}, and shares add up to 1 at most")
        self._shares, self._kinds, self._rng = dict(shares), kinds, rng
        self.seen: Counter[str] = Counter()

    def change(self, scripted: Scripted) -> Scripted:
        "The reply, or what a fault makes of it."
        left = self._rng.random() if self._shares else 1.0
        for name, share in self._shares.items():
            left -= share
            if left < 0:
                self.seen[name] += 1
                return replace(scripted, **self._kinds[name])
        return scripted


class _Meter:
    "A token bucket, or a fixed window."

    def __init__(self, per_minute: float, window_s: float, kind: str):
        if kind not in ("bucket", "window"):
            raise ValueError(f"kind of limit: 'bucket' or 'window', not {kind!r}")
        self.per_minute, self.window_s, self.is_window = per_minute, window_s, kind == "window"
        self.rate_per_s = per_minute / 60
        self.level = self.capacity = max(1.0, self.rate_per_s * window_s)
        self.at_s: float | None = None

    def wait_s(self, amount: float, now_s: float) -> float:
        "How long until there is enough; 0 where there is."
        self.at_s = now_s if self.at_s is None else self.at_s
        if self.is_window:
            n_passed = math.floor((now_s - self.at_s) / self.window_s)
            if n_passed > 0:
                self.at_s, self.level = self.at_s + n_passed * self.window_s, self.capacity
        else:
            self.level, self.at_s = min(self.capacity, self.level + (now_s - self.at_s) * self.rate_per_s), now_s
        lacks = min(amount, self.capacity) - self.level  # what is larger than the bucket needs a full one
        if lacks <= 1e-9:
            return 0.0
        return self.at_s + self.window_s - now_s if self.is_window else lacks / self.rate_per_s

    def reset_s(self, now_s: float) -> float:
        "How long until it is full."
        return self.at_s + self.window_s - now_s if self.is_window else (self.capacity - self.level) / self.rate_per_s


def _go_duration(seconds: float) -> str:
    "As OpenAI writes it: 12ms, 1.25s, 6m0s."
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{round(rest, 3):g}s"


class _Limiter:
    "Keeps to a `RateLimit`."

    def __init__(self, limit: RateLimit):
        self._limit = limit
        amounts = {"requests": limit.requests_per_minute, "tokens": limit.tokens_per_minute}
        self._meters = {name: _Meter(amount, limit.window_s, limit.kind) for name, amount in amounts.items() if amount}
        self.n_refused = 0

    def admit(self, body: Mapping[str, Any], now_s: float) -> tuple[Scripted | None, dict[str, str]]:
        "A refusal, or none, and headers for the reply."
        longest = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        longest = longest if isinstance(longest, int) else 16
        n_characters = sum(len(str(message.get("content"))) for message in body.get("messages", []))
        needs = {"requests": 1, "tokens": math.ceil(n_characters / 4) + longest}
        waits = {name: meter.wait_s(needs[name], now_s) for name, meter in self._meters.items()}
        if wait_s := max(waits.values(), default=0.0):
            self.n_refused += 1
            what = max(waits, key=waits.get)
            headers = self._headers(now_s)
            if self._limit.retry_after:
                headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
            if self._limit.retry_after_ms:
                headers["retry-after-ms"] = str(math.ceil(wait_s * 1000))
            said = f"Rate limit reached for {what} per min: Limit {self._meters[what].per_minute:g}. Please try again in {_go_duration(wait_s)}."
            return Scripted(429, error=f"scripted: {said}", code="rate_limit_exceeded", headers=headers), {}
        for name, meter in self._meters.items():
            meter.level -= needs[name]
        return None, self._headers(now_s)

    def _headers(self, now_s: float) -> dict[str, str]:
        if not self._limit.headers:
            return {}
        headers = {}
        for name, meter in self._meters.items():
            headers[f"x-ratelimit-limit-{name}"] = f"{meter.per_minute:.0f}"
            headers[f"x-ratelimit-remaining-{name}"] = f"{max(0, math.floor(meter.level))}"
            headers[f"x-ratelimit-reset-{name}"] = _go_duration(max(0.0, meter.reset_s(now_s)))
        return headers


# The server


class ScriptedServer:
    """`with ScriptedServer(script) as server:` where `script(body, n)` says how to answer the n-th request (from 0).

    What a request meets, in this order: the rate limit (refused at once), a parameter that is not taken, then the script, in which a fault
    may be drawn. It is safe to read the records from another thread.
    """

    def __init__(
        self,
        script: Script = lambda body, n: Scripted(),
        *,
        latency: Latency | None = None,
        limit: RateLimit | None = None,
        faults: Mapping[str, float] | None = None,  # share of attempts by name of the fault
        fault_kinds: Mapping[str, dict[str, Any]] = FAULTS,  # by name, what a fault changes in a reply
        refuses: Collection[str] = (),  # parameters that it answers with 400: max_tokens, temperature, response_format
        echoes_authorization: bool = False,  # errors repeat the key, as some providers' do
        batch: BatchScript = BatchScript(),
        seed: int = 0,  # of latencies and faults; which request meets which depends on the order of arrival
        port: int = 0,  # 0: a free one
    ):
        self.script = script
        self.bodies: list[dict[str, Any]] = []  # every chat request, in order of arrival
        self.authorizations: list[str | None] = []  # of every request
        self.projects: list[str | None] = []  # header X-Project, likewise
        self.calls: list[str] = []  # every other request, like "GET /batches/batch_scripted_0"
        self._ledger: dict[str, Entry] = {}  # by `key_of` the body
        self.statuses: Counter[int] = Counter()  # of chat replies; 0: none, or cut off
        self.n_at_once = self.most_at_once = self.n_connections = 0
        self.first_s = self.last_s = 0.0  # clock of the first arrival and of the last complete reply
        self._latency, self._refuses, self._echoes = latency, tuple(refuses), echoes_authorization
        self._limiter = _Limiter(limit or RateLimit())
        self._latency_rng = random.Random(f"latency {seed}")
        self._faults = _Draw(faults or {}, fault_kinds, random.Random(f"faults {seed}"))
        self.batches = _Batches(self, batch, _Draw(batch.faults, fault_kinds, random.Random(f"batch {seed}")), seed)
        self._connections: set[_Connection] = set()
        self._socket = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._loop = asyncio.new_event_loop()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"

    # Chat

    def answer_chat(self, connection: "_Connection", headers: Mapping[str, str], payload: bytes) -> None:
        "Decide what a request gets, and send it when its time has come."
        now_s = self._loop.time()
        body = json.loads(payload)
        n = len(self.bodies)
        self.bodies.append(body)
        self.first_s = self.first_s or now_s
        entry = self.entry_of(body)
        entry.attempts += 1
        refusal, limit_headers = self._limiter.admit(body, now_s)
        scripted = refusal or self.decide(body, n, self._faults, self.script)
        if limit_headers:
            scripted = replace(scripted, headers={**limit_headers, **scripted.headers})
        if self._echoes and scripted.status >= 400:
            scripted = replace(scripted, error=f"{scripted.error} (your header: Authorization: {headers.get('authorization')})")
        if scripted.status == 200:
            # Charged on arrival: the worst that a provider may do to a client that does not wait for the reply.
            entry.charged += 1
            entry.prompt_tokens += scripted.prompt_tokens
            entry.completion_tokens += scripted.completion_tokens
        self.n_at_once += 1
        self.most_at_once = max(self.most_at_once, self.n_at_once)
        delay_s = 0.0 if refusal else scripted.delay_s + (self._latency.draw_s(self._latency_rng) if self._latency else 0.0)
        connection.under_way = True
        if delay_s > 0:
            connection.timer = self._loop.call_later(delay_s, self._send_chat, connection, scripted, n, entry)
        else:
            self._send_chat(connection, scripted, n, entry)

    def entry_of(self, body: Mapping[str, Any]) -> Entry:
        "Where this request is recorded."
        return self._ledger.setdefault(key_of(body), Entry(_content_of(body)))

    def decide(self, body: Mapping[str, Any], n: int, faults: _Draw, script: Script) -> Scripted:
        "The reply apart from limits."
        for name in self._refuses:
            if name in body:
                message, code = _UNSUPPORTED[name]
                return Scripted(400, error=f"scripted: {message}", code=code, param=name)
        return faults.change(script(body, n))

    def _send_chat(self, connection: "_Connection", scripted: Scripted, n: int, entry: Entry) -> None:
        self.end_under_way(connection)
        payload = scripted.body if scripted.body is not None else json.dumps(_completion(scripted, n)).encode()
        if scripted.status != 200:
            entry.refused += 1
        is_whole = not (scripted.hang_up or scripted.cut or scripted.drip_s or scripted.raw is not None)
        self.statuses[scripted.status if is_whole else 0] += 1
        if not is_whole or scripted.status != 200:
            connection.send(scripted, payload)
            return
        is_readable = scripted.body is None or _is_completion(payload)

        def sent() -> None:
            self.last_s = self._loop.time()
            if is_readable:
                entry.completed += 1
                entry.completed_s.append(self.last_s)
            else:
                entry.unread += 1

        connection.send(scripted, payload, sent)

    def end_under_way(self, connection: "_Connection") -> None:
        "A request was answered, or whoever asked has left."
        if connection.under_way:
            connection.under_way = False
            self.n_at_once -= 1

    # All else

    def answer(self, connection: "_Connection", method: str, target: str, headers: Mapping[str, str], payload: bytes) -> None:
        "Hand a request to whom it concerns."
        url = urlsplit(target)
        if url.path == "/ledger":
            connection.send(
                Scripted(), json.dumps(self.summary() | {"requests": [asdict(entry) for entry in self.ledger.values()]}).encode()
            )
            return
        if url.path == "/summary":
            connection.send(Scripted(), json.dumps(self.summary()).encode())
            return
        if url.path == "/counts":  # of any number of requests at no cost
            counts = {"completed": self.statuses[200], "n_at_once": self.n_at_once}
            connection.send(Scripted(), json.dumps(counts).encode())
            return
        self.authorizations.append(headers.get("authorization"))
        self.projects.append(headers.get("x-project"))
        path = url.path.removeprefix("/v1")
        if path.split("/")[1] in ("files", "batches"):
            self.calls.append(f"{method} {path}")
            self.batches.answer(
                connection, method, path, {key: values[-1] for key, values in parse_qs(url.query).items()}, headers, payload
            )
        elif method == "POST":
            self.answer_chat(connection, headers, payload)
        elif path == "/models":
            self.calls.append(f"{method} {path}")
            model = {"id": NAME, "object": "model", "created": 0, "owned_by": "scripted"}
            connection.send(Scripted(), json.dumps({"object": "list", "data": [model]}).encode())
        else:
            connection.send_error(404, f"scripted: there is no {path}")

    @property
    def ledger(self) -> dict[str, Entry]:
        "What came of every request, by `key_of` its body. A copy, once the server has done with what it is just doing."
        if self._thread and self._thread.is_alive() and threading.current_thread() is not self._thread:
            done = threading.Event()
            self._loop.call_soon_threadsafe(done.set)
            done.wait(5)
        return dict(self._ledger)

    def summary(self) -> dict[str, Any]:
        "The records in short: what GET /ledger tells, less the single requests."
        self.batches.advance()
        entries = list(self.ledger.values())
        totals = {kept.name: sum(getattr(entry, kept.name) for entry in entries) for kept in fields(Entry) if kept.type is int}
        return {
            "server": NAME,
            "n_requests": len(entries),
            **totals,
            "n_completed_twice": sum(entry.completed > 1 for entry in entries),
            "n_limited": self._limiter.n_refused,
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "faults": dict(self._faults.seen),
            "most_at_once": self.most_at_once,
            "n_connections": self.n_connections,
            "span_s": max(0.0, self.last_s - self.first_s),
        }

    # Life

    def run(self) -> None:
        "Serve until `stop`."
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await self._loop.create_server(lambda: _Connection(self), sock=self._socket, backlog=4096)
        self._end = asyncio.Event()
        if not self._stopped:
            await self._end.wait()
        server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    def stop(self) -> None:
        "End the server, from whichever thread."
        self._stopped = True
        self._loop.call_soon_threadsafe(lambda: self._end.set() if hasattr(self, "_end") else None)

    def __enter__(self) -> "ScriptedServer":
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(10)


class _Connection(asyncio.Protocol):
    "One connection of a client: just enough HTTP/1.1, and ways to break it."

    def __init__(self, server: ScriptedServer):
        self.server = server
        self.transport: asyncio.Transport
        self.timer: asyncio.TimerHandle | None = None
        self.under_way = False  # a chat request is being thought about
        self._buffer = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None  # of the request that is arriving
        self._is_busy = False  # one request at a time
        self._when_sent: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        # We are told when all that was written has left, and not only most of it.
        transport.set_write_buffer_limits(high=0)
        self.server.n_connections += 1
        self.server._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()
        self.server.end_under_way(self)
        self.server._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_busy:
            self._read()

    def _read(self) -> None:
        "Hand on a request that is complete."
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            del self._buffer[: end + 4]
            method, target, _ = first.split(" ")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            self._head = method, target, headers
        method, target, headers = self._head
        if "chunked" in headers.get("transfer-encoding", ""):
            payload = self._take_chunks()
        else:
            length = int(headers.get("content-length", 0))
            payload = self._take(length) if len(self._buffer) >= length else None
        if payload is not None:
            self._head, self._is_busy = None, True
            self.server.answer(self, method, target, headers, payload)

    def _take(self, length: int) -> bytes:
        payload = bytes(self._buffer[:length])
        del self._buffer[:length]
        return payload

    def _take_chunks(self) -> bytes | None:  # None: not all there yet
        "A body that comes in pieces."
        if not self._buffer.endswith(b"0\r\n\r\n"):
            return None
        payload, at = bytearray(), 0
        while True:
            end = self._buffer.find(b"\r\n", at)
            length = int(self._buffer[at:end].split(b";")[0], 16) if end >= 0 else -1
            if length < 0 or end + 2 + length + 2 > len(self._buffer):
                return None  # those bytes were part of the text
            if length == 0:
                del self._buffer[: end + 4]
                return bytes(payload)
            payload += self._buffer[end + 2 : end + 2 + length]
            at = end + 2 + length + 2

    def send(self, scripted: Scripted, payload: bytes, when_sent: Callable[[], None] | None = None) -> None:
        "Reply in the way that is scripted, and then call `when_sent` if all of it has left."
        transport = self.transport
        if transport.is_closing():
            return
        if scripted.cut == "reset":
            # Closing without lingering is what makes it a reset instead of a polite end.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            return
        if scripted.hang_up:
            transport.close()
            return
        half = payload[: len(payload) // 2]
        if scripted.raw is not None:
            transport.write(scripted.raw)
            transport.close()
        elif scripted.cut == "chunked":
            transport.write(self._header(scripted, "Transfer-Encoding: chunked") + b"%x\r\n" % len(payload) + half)
            transport.close()
        elif scripted.cut == "half":
            transport.write(self._header(scripted, f"Content-Length: {len(payload)}") + half)
            transport.close()
        elif scripted.drip_s:
            transport.write(self._header(scripted, "Content-Length: 1000000"))
            self._drip(scripted.drip_s)
        else:
            self._when_sent = when_sent
            whole = self._header(scripted, f"Content-Length: {len(payload)}") + payload
            transport.write(whole)
            if scripted.copy_after_s is not None:
                self.server._loop.call_later(scripted.copy_after_s, lambda: transport.is_closing() or transport.write(whole))
            if transport.get_write_buffer_size() == 0:
                self.resume_writing()

    def send_error(self, status: int, message: str, code: str | None = None) -> None:
        "An error in the provider's form."
        scripted = Scripted(status, error=message, code=code)
        self.send(scripted, json.dumps(_completion(scripted, 0)).encode())

    @staticmethod
    def _header(scripted: Scripted, length: str) -> bytes:
        extra = "".join(f"{name}: {value}\r\n" for name, value in scripted.headers.items())
        phrase = HTTPStatus(scripted.status).phrase
        return (
            f"HTTP/1.1 {scripted.status} {phrase}\r\nServer: {NAME}\r\nContent-Type: {scripted.content_type}\r\n{extra}{length}\r\n\r\n"
        ).encode("latin-1")

    def _drip(self, drip_s: float) -> None:
        self.transport.write(b" ")
        self.timer = self.server._loop.call_later(drip_s, self._drip, drip_s)

    def resume_writing(self) -> None:
        "All has left."
        when_sent, self._when_sent = self._when_sent, None
        if when_sent:
            when_sent()
        self._is_busy = False
        if self._buffer:
            self._read()


# Provider batches


@dataclass
class _File:
    id: str
    filename: str
    purpose: str
    content: bytes
    created_at: int

    def to_json(self) -> dict[str, Any]:
        about = {"id": self.id, "object": "file", "bytes": len(self.content), "created_at": self.created_at}
        return about | {
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": None,
        }


@dataclass
class _Batch:
    id: str
    created_s: float  # of the clock
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None
    outcome: str
    requests: list[dict[str, Any]]  # lines of the input
    errors: list[dict[str, Any]]  # why it fails
    cancelling_s: float | None = None  # when it was cancelled
    n_looks: int = 0  # how often it was asked after
    is_settled: bool = False
    n_completed: int = 0
    n_failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None


class _Batches:
    "The doors /files and /batches. Time passes only when somebody looks."

    def __init__(self, server: ScriptedServer, script: BatchScript, faults: _Draw, seed: int):
        self._server, self._script, self._faults = server, script, faults
        self._rng = random.Random(f"order {seed}")
        self.files: dict[str, _File] = {}
        self.batches: dict[str, _Batch] = {}
        self._n_seen: Counter[str] = Counter()
        self._n_downloads = self._n_lines = self._n_files = 0
        self._released_s = math.inf

    def release(self) -> None:
        "Let every batch that is in progress, or will be, come to its end at once."
        self._released_s = time.time()

    def begin(self, content: bytes, metadata: dict[str, str]) -> None:
        "Begin a batch that another server has been given before: its input file, verbatim."
        file = self._keep("input.jsonl", "batch", content)
        asked = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": metadata}
        self._create(asked)

    def answer(
        self, connection: _Connection, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], payload: bytes
    ) -> None:
        "Answer at one of the doors, or as the door's script says."
        instead = self._script.door(method, path, self._n_seen[f"{method} {path}"])
        self._n_seen[f"{method} {path}"] += 1
        if instead and instead.status != 200:
            connection.send(instead, json.dumps(_completion(instead, 0)).encode())
            return
        status, content = self._act(method, path.strip("/").split("/"), query, headers, payload)
        scripted = instead or Scripted(status)
        if isinstance(content, bytes):
            self._n_downloads += 1
            if self._n_downloads <= self._script.n_cut_downloads:
                scripted = replace(scripted, cut="half")
            connection.send(replace(scripted, content_type="application/octet-stream"), content)
        else:
            connection.send(scripted, json.dumps(content).encode())

    def _act(
        self, method: str, path: list[str], query: Mapping[str, str], headers: Mapping[str, str], payload: bytes
    ) -> tuple[int, dict[str, Any] | bytes]:
        "Status and content."
        self.advance()
        match method, *path:
            case "POST", "files":
                return self._upload(headers, payload)
            case "GET", "files":
                files = [file for file in self.files.values() if query.get("purpose", file.purpose) == file.purpose]
                return 200, self._page([file.to_json() for file in files], query)
            case "GET", "files", id if id in self.files:
                return 200, self.files[id].to_json()
            case "GET", "files", id, "content" if id in self.files:
                return 200, self.files[id].content
            case "DELETE", "files", id if id in self.files:
                del self.files[id]
                return 200, {"id": id, "object": "file", "deleted": True}
            case "POST", "batches":
                return self._create(json.loads(payload))
            case "GET", "batches":
                return 200, self._page([self._to_json(batch) for batch in self.batches.values()], query)
            case "GET", "batches", id if id in self.batches:
                self.batches[id].n_looks += 1
                return 200, self._to_json(self.batches[id])
            case "POST", "batches", id, "cancel" if id in self.batches:
                return self._cancel(self.batches[id])
        return _refuse(404, f"No such thing: /{'/'.join(path)}")

    @staticmethod
    def _page(items: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
        "The newest first, from the one after `after`."
        items = items[::-1] if query.get("order", "desc") == "desc" else items
        ids = [item["id"] for item in items]
        start = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
        limit = int(query.get("limit", 20))
        page = items[start : start + limit]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return {"object": "list", "data": page, **ends, "has_more": start + limit < len(items)}

    def _upload(self, headers: Mapping[str, str], payload: bytes) -> tuple[int, dict[str, Any]]:
        boundary = re.search(r'boundary="?([^";]+)', headers.get("content-type", ""))
        if not boundary:
            return _refuse(400, "Expected a multipart form.")
        parts: dict[str, bytes] = {}
        filename = "file"
        for part in payload.split(b"--" + boundary[1].encode()):
            head, _, content = part.partition(b"\r\n\r\n")
            if name := re.search(rb'[; ]name="([^"]*)"', head):
                parts[name[1].decode()] = content[:-2]  # the line end belongs to the boundary
                if given := re.search(rb'filename="([^"]*)"', head):
                    filename = given[1].decode()
        if "file" not in parts or parts.get("purpose") != b"batch":
            return _refuse(400, "scripted: a file for a batch is wanted (purpose=batch)")
        if len(parts["file"]) > self._script.max_bytes:
            return _refuse(400, "File is too large.")
        return 200, self._keep(filename, "batch", parts["file"]).to_json()

    def _keep(self, filename: str, purpose: str, content: bytes) -> _File:
        file = _File(f"file-scripted-{self._n_files}", filename, purpose, content, int(time.time()))
        self._n_files += 1
        self.files[file.id] = file
        return file

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        file_id = asked.get("input_file_id")
        if file_id not in self.files:
            return _refuse(400, f"Cannot find file {file_id}, or it does not have access to it.")
        if asked.get("endpoint") != "/v1/chat/completions" or asked.get("completion_window") != "24h":
            return _refuse(400, "scripted: endpoint /v1/chat/completions and completion_window 24h, nothing else")
        n = len(self.batches)
        outcome = self._script.outcomes[min(n, len(self._script.outcomes) - 1)]
        requests, errors = self._read(self.files[file_id].content)
        if outcome == "failed":
            errors = [dict(zip(("code", "message"), self._script.failure, strict=True), line=None, param=None)]
        window = asked["completion_window"]
        batch = _Batch(
            f"batch_scripted_{n}", time.time(), file_id, asked["endpoint"], window, asked.get("metadata"), outcome, requests, errors
        )
        self.batches[batch.id] = batch
        return 200, self._to_json(batch)

    def _read(self, content: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        "Requests, and what is wrong with them as a whole."
        requests: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []

        def complain(code: str, message: str, line: int | None) -> None:
            errors.append({"code": code, "message": message, "line": line, "param": None})

        seen: set[str] = set()
        for number, line in enumerate(content.splitlines(), 1):
            try:
                request = json.loads(line)
                custom_id, method, url, _ = request["custom_id"], request["method"], request["url"], request["body"]["messages"]
            except (ValueError, LookupError, TypeError):
                complain("invalid_json_line", "This line is not parseable as valid JSON.", number)
                continue
            if custom_id in seen:
                complain("duplicate_custom_id", f"The custom_id '{custom_id}' for this request is a duplicate of another request.", number)
            if (method, url) != ("POST", "/v1/chat/completions"):
                complain("invalid_url", "The URL provided for this request does not match the batch endpoint.", number)
            seen.add(custom_id)
            requests.append(request)
        if len({request["body"].get("model") for request in requests}) > 1:
            complain("mismatched_model", "The provided models are not all the same.", None)
        if len(requests) > self._script.max_requests:
            complain("too_many_tasks", f"The batch input file has too many requests. The maximum is {self._script.max_requests}.", None)
        if not requests and not errors:
            complain("empty_file", "The batch input file is empty.", None)
        return requests, errors

    def _cancel(self, batch: _Batch) -> tuple[int, dict[str, Any]]:
        status = self.status(batch)
        if status in ("validating", "in_progress", "finalizing"):
            batch.cancelling_s = time.time()
        elif status not in ("cancelling", "cancelled"):
            return _refuse(409, f"Cannot cancel a batch with status '{status}'.")
        return 200, self._to_json(batch)

    # The course of time

    def _work_ends_s(self, batch: _Batch) -> float:
        "When the last request is answered."
        began_s = batch.created_s + self._script.validating_s
        return min(began_s + self._script.in_progress_s, max(began_s, self._released_s))

    def status(self, batch: _Batch) -> str:
        "In the provider's words."
        script, now_s = self._script, time.time()
        if batch.cancelling_s is not None:
            return "cancelled" if now_s >= batch.cancelling_s + script.cancelling_s else "cancelling"
        began_s = batch.created_s + script.validating_s
        if now_s < began_s:
            return "validating"
        if batch.errors:
            return "failed"
        ends_s = self._work_ends_s(batch)
        if batch.outcome == "stuck" or now_s < ends_s or batch.n_looks <= script.min_looks:
            return "in_progress"
        return "finalizing" if now_s < ends_s + script.finalizing_s else batch.outcome

    def _share_done(self, batch: _Batch, status: str) -> float:
        "How much of it was answered by now, or until it was ended."
        if status == "completed" or status == "finalizing":
            return 1.0
        if status == "expired":
            return self._script.share_done
        until_s = batch.cancelling_s if batch.cancelling_s is not None else time.time()
        passed = (until_s - batch.created_s - self._script.validating_s) / max(self._script.in_progress_s, 1e-9)
        return min(max(passed, 0.0), self._script.share_done if batch.outcome in ("expired", "stuck") else 1.0)

    def advance(self) -> None:
        "Give every batch that has ended in the meantime its files."
        for batch in self.batches.values():
            status = self.status(batch)
            if not batch.is_settled and status in ("completed", "expired", "cancelled") and not batch.errors:
                batch.is_settled = True
                self._settle(batch, status, round(self._share_done(batch, status) * len(batch.requests)))

    def _settle(self, batch: _Batch, status: str, n_done: int) -> None:
        "Answer the first requests, and say of the others that it was too late."
        outputs: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for number, request in enumerate(batch.requests):
            line: dict[str, Any] = {
                "id": f"batch_req_{batch.id}_{number}",
                "custom_id": request["custom_id"],
                "response": None,
                "error": None,
            }
            if number >= n_done:
                line["error"] = {"code": f"batch_{status}", "message": f"This request could not be executed: the batch was {status}."}
                errors.append(line)
                continue
            scripted = self._answer_line(request["body"])
            response = {"status_code": scripted.status, "request_id": f"scripted-{number}", "body": _completion(scripted, self._n_lines)}
            line["response"] = response
            (outputs if scripted.status == 200 else errors).append(line)
        batch.n_completed, batch.n_failed = len(outputs), len(errors)
        batch.output_file_id = self._write(batch, "output", outputs)
        batch.error_file_id = self._write(batch, "error", errors)

    def _answer_line(self, body: dict[str, Any]) -> Scripted:
        scripted = self._server.decide(body, self._n_lines, self._faults, self._script.script or self._server.script)
        self._n_lines += 1
        entry = self._server.entry_of(body)
        entry.attempts += 1
        if scripted.status == 200:
            entry.batched += 1
            entry.batch_prompt_tokens += scripted.prompt_tokens
            entry.batch_completion_tokens += scripted.completion_tokens
        else:
            entry.refused += 1
        return scripted

    def _write(self, batch: _Batch, kind: str, lines: list[dict[str, Any]]) -> str | None:
        lines = [line for line in lines if self._rng.random() >= self._script.share_missing]
        lines += [line for line in lines if self._rng.random() < self._script.share_duplicated]
        if self._script.shuffled:
            self._rng.shuffle(lines)
        if not lines:
            return None
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        return self._keep(f"{batch.id}_{kind}.jsonl", "batch_output", content).id

    def _to_json(self, batch: _Batch) -> dict[str, Any]:
        self.advance()
        status, script = self.status(batch), self._script
        began_s = batch.created_s + script.validating_s
        work_ends_s = self._work_ends_s(batch)
        ended_s = work_ends_s + script.finalizing_s if batch.cancelling_s is None else None
        n_done = batch.n_completed if batch.is_settled else round(self._share_done(batch, status) * len(batch.requests))
        counts = {"total": len(batch.requests), "completed": n_done, "failed": batch.n_failed}
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "model": NAME,
            "errors": {"object": "list", "data": batch.errors} if status == "failed" else None,
            "input_file_id": batch.input_file_id,
            "completion_window": batch.completion_window,
            "status": status,
            "output_file_id": batch.output_file_id,
            "error_file_id": batch.error_file_id,
            "created_at": int(batch.created_s),
            "in_progress_at": int(began_s) if status not in ("validating", "failed") else None,
            "expires_at": int(batch.created_s) + 86_400,
            "finalizing_at": int(work_ends_s) if status in ("finalizing", "completed") else None,
            "completed_at": int(ended_s) if status == "completed" else None,
            "failed_at": int(began_s) if status == "failed" else None,
            "expired_at": int(ended_s) if status == "expired" else None,
            "cancelling_at": int(batch.cancelling_s) if batch.cancelling_s is not None else None,
            "cancelled_at": int(batch.cancelling_s + script.cancelling_s) if status == "cancelled" else None,
            "request_counts": counts if status not in ("validating", "failed") else {"total": 0, "completed": 0, "failed": 0},
            "metadata": batch.metadata,
            "usage": None,
        }


def _refuse(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


# As a process


def echo(body: dict[str, Any], n: int) -> Scripted:
    "A reply that tells which request it answers."
    return Scripted(text=f"{NAME}: no teacher wrote this; asked: {_content_of(body)}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=0.0, help="mean of a log-normal latency (default: none)")
    parser.add_argument("--latency-sigma", type=float, default=0.5, help="of the logarithm (default: 0.5)")
    parser.add_argument("--rate-per-minute", type=float, help="requests (default: no limit)")
    parser.add_argument("--tokens-per-minute", type=float, help="tokens (default: no limit)")
    parser.add_argument("--limit-kind", choices=["bucket", "window"], default="bucket")
    parser.add_argument("--limit-window-s", type=float, default=1.0, help="the bucket holds what comes in within this time (default: 1)")
    parser.add_argument("--no-retry-after", action="store_true", help="429 of the limit without Retry-After")
    parser.add_argument("--retry-after-ms", action="store_true", help="429 of the limit with retry-after-ms as well")
    parser.add_argument("--no-limit-headers", action="store_true", help="replies without x-ratelimit-*")
    parser.add_argument("--faults", type=float, default=0.0, help="share of attempts that meet a fault (default: 0)")
    parser.add_argument("--fault-kinds", default=",".join(TRANSIENT), help=f"of {','.join(FAULTS)} (default: %(default)s), equally often")
    parser.add_argument("--late-s", type=float, default=30.0, help="delay of the fault 'late' (default: 30)")
    parser.add_argument("--batch-s", type=float, default=0.1, help="how long a batch is in progress (default: 0.1)")
    parser.add_argument("--text", help="every reply (default: one that tells which request it answers)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    return parser.parse_args()


def main() -> None:
    "Serve until standard input ends."
    arguments = _parse_arguments()
    kinds = arguments.fault_kinds.split(",")
    server = ScriptedServer(
        echo if arguments.text is None else lambda body, n: Scripted(text=arguments.text),
        latency=Latency(arguments.latency_ms / 1000, arguments.latency_sigma) if arguments.latency_ms else None,
        limit=RateLimit(
            arguments.rate_per_minute,
            arguments.tokens_per_minute,
            arguments.limit_kind,
            arguments.limit_window_s,
            not arguments.no_retry_after,
            arguments.retry_after_ms,
            not arguments.no_limit_headers,
        ),
        faults={kind: arguments.faults / len(kinds) for kind in kinds} if arguments.faults else None,
        fault_kinds={**FAULTS, "late": {"delay_s": arguments.late_s}},
        batch=BatchScript(in_progress_s=arguments.batch_s),
        seed=arguments.seed,
        port=arguments.port,
    )
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    threading.Thread(target=lambda: (sys.stdin.read(), server.stop()), daemon=True).start()
    print(server.base_url, flush=True)
    server.run()


if __name__ == "__main__":
    main()
