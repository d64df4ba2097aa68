"""One odd reply among good ones: it fails its own request or is stored without the odd field; the run goes on and nothing good is lost or paid twice.

The server says so of itself (`scripted_server`). Each test asks good and odd questions in turn, in one run, and then once more.
"""

import copy
import gzip
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from by_batch import ask_by_batch
from scripted_server import BatchScript, Scripted, ScriptedServer, _completion, echo

from zero_shot_distill.store.request import OUTCOMES, Request
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher import batch, transport
from zero_shot_distill.teacher.budget import Budget
from zero_shot_distill.teacher.client import AskOptions, TeacherClient
from zero_shot_distill.teacher.completion import ErrorKind
from zero_shot_distill.teacher.options import Asked
from zero_shot_distill.teacher.price import Price
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, TeacherError

KEY = "sk-this-key-is-secret"
PRICE = Price(1.0, 2.0, "scripted", batch=Price(0.5, 1.0, "scripted"))


@pytest.fixture
def store(tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        yield store


def requests_for(n: int, start: int = 0) -> list[Request]:
    return [
        Request.build("some-model", [{"role": "user", "content": f"Count on from {number}."}], temperature=0, max_tokens=8)
        for number in range(start, start + n)
    ]


def number_of(body: dict[str, Any]) -> int:
    return int(body["messages"][0]["content"].split()[-1].rstrip("."))


# What can be odd: each field of a completion, by each of these


COMPLETION = {
    "id": "scripted",
    "object": "chat.completion",
    "created": 0,
    "model": "some-model",
    "choices": [
        {"index": 0, "finish_reason": "stop", "logprobs": None, "message": {"role": "assistant", "content": "scripted", "refusal": None}}
    ],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}
RAW = "@raw@"  # stands for JSON that Python would not write
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "minus one": -1,
    "half": 0.5,
    "1e20": 10**20,
    "5,000 digits": (RAW, "1" + "0" * 5000),
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "1e999": (RAW, "1e999"),
    "empty text": "",
    "text": "text",
    "digits": "7",
    "half a pair": "\ud800",
    "control characters": "\x1b[2J\x00\n",
    "long text": "long " * 20_000,
    "empty list": [],
    "list": ["a", 1, None],
    "list of lists": [[1], [2]],
    "empty object": {},
    "object": {"a": {"b": 1}, "text": 7},
    "900 deep": (RAW, "[" * 900 + "]" * 900),
    "100,000 deep": (RAW, "[" * 100_000 + "]" * 100_000),
    "100,000 open brackets": (RAW, "[" * 100_000),
    "missing": (RAW, None),
}


def paths_of(value: Any, path: tuple = ()) -> Iterator[tuple]:
    "Where each value stands within another."
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths_of(item, (*path, key))


def spoilt(path: tuple, value: Any) -> bytes:
    "A completion with one value in the place of another."
    if not path:
        content: Any = value
    else:
        content = copy.deepcopy(COMPLETION)
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    if isinstance(value, tuple):  # written by hand
        if value[1] is None:
            if path:
                del place[path[-1]]
            return json.dumps(content).encode() if path else b""
        marked = json.dumps(value[0]) if not path else json.dumps(content).replace(json.dumps(list(value)), RAW)
        return marked.replace(RAW, value[1]).replace('"' + value[1] + '"', value[1]).encode()
    return json.dumps(content).encode()


ODD_BODIES = {
    f"{'.'.join(map(str, path)) or 'all of it'}: {name}": spoilt(path, value)
    for path in paths_of(COMPLETION)
    for name, value in VALUES.items()
}
WHOLE = json.dumps(COMPLETION).encode()


def saying(text: bytes) -> bytes:
    "A completion with another text."
    return WHOLE.replace(b'"content": "scripted"', b'"content": "' + text + b'"')


def run_with(bodies: dict[str, Scripted], store: ResponseStore, budget: Budget | None = None, **limits: Any) -> tuple[Asked, list[Request]]:
    "Ask odd and good questions in turn, twice. Returns what the first run said, and the odd questions."
    odd = list(bodies.values())
    requests = requests_for(2 * len(odd))

    def script(body: dict[str, Any], n: int) -> Scripted:
        number = number_of(body)
        return odd[number // 2] if number % 2 else echo(body, n)

    settings = RequestLimits(**{"n_retries": 0, "timeout_s": 30, **limits})
    options = AskOptions(price=PRICE, budget=budget)
    with ScriptedServer(script) as server, HostedTeacher("some-model", server.base_url, KEY, settings) as hosted:
        asked = TeacherClient(hosted, store, options=options).ask(requests)
        assert {request.key for request in requests[::2]} <= asked.responses.keys()
        assert asked.responses.keys() | asked.failures.keys() == {request.key for request in requests}
        assert asked.n_asked == len(asked.responses) == len(store)
        for failure in asked.failures.values():
            assert failure.reason.isprintable()
            assert len(failure.reason) < 400
            assert KEY not in failure.reason
        sound(asked)
        # What is stored is not asked again.
        n_sent = len(server.bodies)
        TeacherClient(hosted, store).ask([request for request in requests if request.key in asked.responses])
        assert len(server.bodies) == n_sent
        # A reply that is another's to the byte is asked for once more, for it may be a late copy.
        times = Counter(scripted.body for scripted in odd)
        repeated = {requests[2 * n + 1].messages[0][1] for n, scripted in enumerate(odd) if times[scripted.body] > 1}
        assert all(entry.attempts == 1 or (entry.attempts == 2 and entry.content in repeated) for entry in server.ledger.values())
    return asked, requests[1::2]


def sound(asked: Asked) -> None:
    "Every field of every reply is what it says it is."
    for response in asked.responses.values():
        response.text.encode()
        assert response.outcome in OUTCOMES
        for word in (response.finish_reason, response.provider_model):
            assert word.isprintable()
            assert 0 < len(word) <= 200
        for count in (response.prompt_tokens, response.completion_tokens, response.cached_tokens, response.reasoning_tokens):
            assert count is None or (type(count) is int and 0 <= count <= 10_000_000)
        assert response.cost_usd is None or 0 <= response.cost_usd < 1


# One reply


def test_each_field_of_a_reply_by_each_odd_value(store):
    asked, odd = run_with({name: Scripted(body=body) for name, body in ODD_BODIES.items()}, store)
    what_came = {name: asked.responses.get(request.key) for name, request in zip(ODD_BODIES, odd, strict=True)}
    lost = {name for name, response in what_came.items() if response is None}
    # Only where there is no text, or no JSON, is a reply lost.
    places = {name.partition(":")[0] for name in lost if "deep" not in name and "brackets" not in name}
    assert places == {"all of it", "choices", "choices.0", "choices.0.message", "choices.0.message.content"}
    assert what_came["choices.0.finish_reason: object"].finish_reason == "unknown"
    assert what_came["model: list"].provider_model == "unknown"
    for name in ("1e20", "Infinity", "NaN", "true", "digits", "5,000 digits", "minus one"):
        assert what_came[f"usage.prompt_tokens: {name}"].prompt_tokens is None
    assert what_came["choices.0.message.content: half a pair"].text == "\ufffd"


def test_odd_bytes_and_headers(store):
    bomb = gzip.compress(b" " * 200_000_000)
    packed = {"Content-Encoding": "gzip"}
    limits = {
        f"{unit} {value}": Scripted(
            body=WHOLE,
            headers={f"x-ratelimit-{name}-{unit}": value for name in ("limit", "remaining", "reset")} | {"Retry-After": value},
        )
        for unit in ("requests", "tokens")
        for value in ("inf", "nan", "1e308", "-1", "9" * 400, "0", "soon", "\xff\xfe", "\uff11".encode().decode("latin-1"))
    }
    bodies = {
        "no UTF-8": Scripted(body=saying(b"scripted \xff\xfe")),
        "a byte order mark": Scripted(body=b"\xef\xbb\xbf" + WHOLE),
        "UTF-16": Scripted(body=WHOLE.decode().encode("utf-16")),
        "a key twice": Scripted(body=WHOLE[:-1] + b', "usage": {"prompt_tokens": 3, "completion_tokens": 4}}'),
        "10 MB": Scripted(body=saying(b"long " * 2_000_000)),
        "17 MB": Scripted(body=saying(b"x" * 17_000_000)),
        "gzip": Scripted(body=gzip.compress(WHOLE), headers=packed),
        "gzip that is none": Scripted(body=WHOLE, headers=packed),
        "gzip cut off": Scripted(body=gzip.compress(WHOLE)[:-20], headers=packed),
        "gzip of 200 MB": Scripted(body=bomb, headers=packed),
        "an error of 200 MB": Scripted(503, body=bomb, headers=packed),
        "an unknown coding": Scripted(body=WHOLE, headers={"Content-Encoding": "\xfe, nonsense"}),
        "a charset that is none": Scripted(body=WHOLE, content_type="application/json; charset=hex"),
        "an error in such a charset": Scripted(400, body=b"zz", content_type="text/plain; charset=hex"),
        "a content type of bytes": Scripted(body=WHOLE, content_type="\xff\x80"),
        "half of it": Scripted(body=WHOLE, cut="half"),
        "chunks cut off": Scripted(body=WHOLE, cut="chunked"),
        "nothing": Scripted(body=b""),
        "no content": Scripted(204, body=b""),
        "a redirection to nowhere": Scripted(302, headers={"Location": "http://[::bad"}),
        "an error with status 200": Scripted(body=b'{"error": {"code": 1e999, "message": {"a": "\\ud800"}}}'),
        "an error 5,000 deep": Scripted(400, body=b'{"error": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
        "an error of lists": Scripted(422, body=b'{"error": {"message": [1], "code": ["content_filter"], "param": {"a": 1}}}'),
        "an error of half a pair": Scripted(400, body=b'{"error": {"message": "\\ud800 \\u001b[2J", "code": "\\udfff"}}'),
        **limits,
    }
    start = time.monotonic()
    asked, odd = run_with(bodies, store)
    assert time.monotonic() - start < 200  # no header slows the run down: `nan` once made 38 requests take that long
    what_came = {name: asked.responses.get(request.key) for name, request in zip(bodies, odd, strict=True)}
    assert [name for name, response in what_came.items() if name in limits and response is None] == []
    assert {"no UTF-8", "a byte order mark", "UTF-16", "a key twice", "10 MB", "gzip"} <= {name for name, came in what_came.items() if came}
    assert (what_came["a key twice"].prompt_tokens, what_came["no UTF-8"].text) == (3, "scripted \ufffd\ufffd")
    reasons = {name: str(asked.failures.get(request.key)) for name, request in zip(bodies, odd, strict=True)}
    assert "longer than 16,000,000 bytes" in reasons["gzip of 200 MB"]
    assert "longer than 16,000,000 bytes" in reasons["17 MB"]


def test_usage_that_is_nonsense_counts_as_the_worst_case(store):
    "A budget must not believe it: unknown tokens may have been charged in full."
    bodies = {
        name: Scripted(body=spoilt(("usage", "completion_tokens"), VALUES[name])) for name in ("1e20", "NaN", "minus one", "true", "digits")
    }
    budget = Budget(1.0, PRICE)
    asked, odd = run_with(bodies, store, budget)
    assert all(asked.responses[request.key].cost_usd is None for request in odd)
    assert budget.unconfirmed_usd == pytest.approx(sum(budget.worst_case_usd(request) for request in odd))
    assert budget.left_usd > 0.9


def test_a_row_that_is_always_odd_is_counted_in_each_run_and_nothing_else_is_asked(store):
    def script(body: dict[str, Any], n: int) -> Scripted:
        return Scripted(body=spoilt(("choices", 0, "message", "content"), {"a": 1})) if number_of(body) == 7 else echo(body, n)

    requests = requests_for(30)
    with ScriptedServer(script) as server, HostedTeacher("some-model", server.base_url, KEY) as hosted:
        for n_runs in (1, 2, 3):
            asked = TeacherClient(hosted, store).ask(requests)
            assert (len(asked.responses), list(asked.failures)) == (29, [requests[7].key])
            assert "choices.0.message.content is not as expected" in str(asked.failures[requests[7].key])
            # The model wrote it, so it is not asked again within a run.
            assert sorted(entry.attempts for entry in server.ledger.values()) == [1] * 29 + [n_runs]


# One line of a batch


def in_batch(spoil: Callable[[str, str, int], Any], requests: list[Request], store: ResponseStore, **options: Any):
    "Ask by a batch whose replies `spoil` may change."
    with ScriptedServer(batch=BatchScript(validating_s=0, in_progress_s=0, door=spoil)) as server:
        spoil.server = server
        to_json = server.batches._to_json
        server.batches._to_json = lambda batch: {**to_json(batch), **getattr(spoil, "changes", {})}
        with HostedTeacher("some-model", server.base_url, KEY, RequestLimits(n_retries=0)) as hosted:
            asked = ask_by_batch(hosted, requests, store, options=AskOptions(**options), poll_s=0.01)
            return asked, server


def spoil_lines(change: Callable[[int, dict[str, Any]], bytes | None]) -> Callable[[str, str, int], None]:
    "Change lines of the first output file, by number; None leaves a line as it is."

    def spoil(method: str, path: str, n: int) -> None:
        if (n, path) == (0, "/files/file-scripted-1/content"):
            file = spoil.server.batches.files["file-scripted-1"]
            lines = [json.loads(line) for line in file.content.splitlines()]
            changed = [change(number, line) for number, line in enumerate(lines)]
            file.content = b"\n".join(
                new if new is not None else json.dumps(line).encode() for new, line in zip(changed, lines, strict=True)
            )

    return spoil


def test_each_field_of_a_line_by_each_odd_value(store):
    bodies = list(ODD_BODIES.items())

    def change(number: int, line: dict[str, Any]) -> bytes | None:
        if number % 2 == 0:
            return None
        line["response"]["body"] = RAW
        return json.dumps(line).encode().replace(json.dumps(RAW).encode(), bodies[number // 2][1] or b"null")

    requests = requests_for(2 * len(bodies))
    asked, server = in_batch(spoil_lines(change), requests, store, price=PRICE)
    sound(asked)
    assert asked.responses.keys() | asked.failures.keys() == {request.key for request in requests}
    assert len(asked.responses) >= len(bodies) + len(bodies) // 2
    assert sum(entry.batched == 1 for entry in server.ledger.values()) >= len(bodies)


LINES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "100,000 brackets": lambda line: b"[" * 100_000,
    "no UTF-8": lambda line: b"\xff\xfe\xfd" * 50,
    "cut off": lambda line: json.dumps(line).encode()[:60],
    "no custom_id": lambda line: json.dumps({**line, "custom_id": None}).encode(),
    "a list as custom_id": lambda line: json.dumps({**line, "custom_id": [line["custom_id"]]}).encode(),
    "somebody else's custom_id": lambda line: json.dumps({**line, "custom_id": "stranger"}).encode(),
    "response is a list": lambda line: json.dumps({**line, "response": [line["response"]]}).encode(),
    "status is a text": lambda line: json.dumps({**line, "response": {**line["response"], "status_code": "200"}}).encode(),
    "status is an object": lambda line: json.dumps({**line, "response": {**line["response"], "status_code": {"a": 1}}}).encode(),
    "body is null": lambda line: json.dumps({**line, "response": {**line["response"], "body": None}}).encode(),
    "body is a text": lambda line: json.dumps({**line, "response": {**line["response"], "body": "yes"}}).encode(),
    "body is an error": lambda line: json.dumps(
        {**line, "response": {**line["response"], "body": {"error": {"message": "busy"}}}}
    ).encode(),
    "body is a refusal": lambda line: json.dumps(
        {**line, "response": {**line["response"], "body": {"error": {"code": "content_filter", "message": "The prompt was filtered."}}}}
    ).encode(),
    "finish_reason is error": lambda line: json.dumps(line).replace('"finish_reason": "stop"', '"finish_reason": "error"').encode(),
    "error is a deep list": lambda line: (
        json.dumps({**line, "response": None, "error": RAW}).encode().replace(json.dumps(RAW).encode(), b"[" * 900 + b"]" * 900)
    ),
    "20 MB": lambda line: b"x" * 20_000_000,
    "a bad line before a good one": lambda line: json.dumps({**line, "response": 7}).encode() + b"\n" + json.dumps(line).encode(),
}


@pytest.mark.parametrize("name", LINES)
def test_one_odd_line_of_sixty(store, name):
    requests = requests_for(60)
    asked, server = in_batch(spoil_lines(lambda number, line: LINES[name](line) if number == 7 else None), requests, store)
    sound(asked)
    assert len(asked.responses) + len(asked.failures) == 60
    # Of what says that there is no reply, another batch asks again; what may be a reply, and cannot be read, is the user's decision.
    is_asked_again = name in ("error is a deep list", "body is null", "body is an error", "finish_reason is error")
    is_answered = is_asked_again or name in ("status is a text", "body is a refusal", "a bad line before a good one")
    kinds = [(failure.kind, failure.reason.isprintable()) for failure in asked.failures.values()]
    assert kinds == ([] if is_answered else [(ErrorKind.ROW, True)])
    # It may have been charged for: counted as such, and not asked again unless the user does.
    assert store.open_attempts(asked.failures) == dict.fromkeys(asked.failures, 1)
    assert sorted(entry.batched for entry in server.ledger.values()) == [1] * 59 + [2 if is_asked_again else 1]
    again, other = in_batch(spoil_lines(lambda number, line: None), requests, store)
    assert (len(again.responses), len(other.ledger)) == (60, len(asked.failures))


def test_a_batch_that_ended_early_goes_on_in_the_next(store):
    "What it did not come to was not charged for, so it is asked again; a line that cannot be read may have been about any of those without one."
    requests = requests_for(60)
    spoil = spoil_lines(lambda number, line: b"{" if number == 7 else None)
    script = BatchScript(validating_s=0, in_progress_s=0, outcomes=("expired", "completed"), door=spoil)
    with ScriptedServer(batch=script) as spoil.server, HostedTeacher("some-model", spoil.server.base_url, KEY) as hosted:
        asked = ask_by_batch(hosted, requests, store, poll_s=0.01)
    assert (len(asked.responses), asked.failures) == (60, {})
    assert sum(response.open_attempts for response in asked.responses.values()) == 1


def test_a_line_that_is_always_odd(store):
    "In every batch: 59 are stored, one failure is counted, in this run and in later ones."

    def spoil(method: str, path: str, n: int) -> None:
        if path.endswith("/content"):
            file = spoil.server.batches.files[path.split("/")[2]]
            lines = [json.loads(line) for line in file.content.splitlines()]
            for line in lines:
                if line["custom_id"] == requests[7].key:
                    line["response"]["body"]["choices"][0]["message"]["content"] = {"a": 1}
            file.content = b"\n".join(json.dumps(line).encode() for line in lines)

    requests = requests_for(60)
    for n_asked in (59, 0, 0):
        asked, server = in_batch(spoil, requests, store)
        assert (asked.n_asked, len(asked.responses), list(asked.failures)) == (n_asked, 59, [requests[7].key])
        assert sum(entry.batched for entry in server.ledger.values()) == n_asked + 1


def test_an_odd_error_file(store):
    "Lines of the error file are read by the same rules."

    def script(body: dict[str, Any], n: int) -> Scripted:
        return Scripted(400, error="too long") if number_of(body) % 10 == 3 else echo(body, n)

    def spoil(method: str, path: str, n: int) -> None:
        if path == "/files/file-scripted-2/content":
            file = spoil.server.batches.files["file-scripted-2"]
            _, second, *others = file.content.splitlines()
            line = json.loads(second)
            line["response"]["body"] = {"error": {"message": {"\ud800": 1}, "code": [1]}}
            file.content = b"\n".join([b"[" * 100_000, json.dumps(line).encode(), *others])

    requests = requests_for(60)
    with ScriptedServer(script, batch=BatchScript(validating_s=0, in_progress_s=0, door=spoil)) as server:
        spoil.server = server
        with HostedTeacher("some-model", server.base_url, KEY, RequestLimits(n_retries=0)) as hosted:
            asked = ask_by_batch(hosted, requests, store, poll_s=0.01)
    assert (asked.n_asked, len(asked.failures)) == (54, 6)
    assert all(failure.reason.isprintable() for failure in asked.failures.values())


ODD_BATCHES = {
    "counts are null": {"request_counts": None},
    "counts are a list": {"request_counts": [1, 2]},
    "counts are texts": {"request_counts": {"total": "60", "completed": "60", "failed": -1}},
    "errors are a list": {"errors": [1]},
    "errors of nothing": {"errors": {"data": [None, 7, {"code": [1], "message": {"a": 1}}]}},
    "metadata is a list": {"metadata": ["zsd"]},
    "error_file_id is empty": {"error_file_id": None},
    "created_at is a text": {"created_at": "yesterday", "usage": [1], "endpoint": {"a": 1}},
}


def odd_batch(changes: dict[str, Any], n_looks: float) -> Callable[[str, str, int], None]:
    "The first looks at a batch bring an odd answer."

    def spoil(method: str, path: str, n: int) -> None:
        spoil.changes = changes if method == "GET" and path.startswith("/batches/") and n < n_looks else {}

    return spoil


@pytest.mark.parametrize("name", ODD_BATCHES)
def test_an_odd_batch_is_fetched_all_the_same(store, name):
    asked, server = in_batch(odd_batch(ODD_BATCHES[name], float("inf")), requests_for(20), store)
    assert (asked.n_asked, asked.failures) == (20, {})
    assert all(entry.batched == 1 for entry in server.ledger.values())


@pytest.mark.parametrize(
    "changes",
    [{"status": ["completed"]}, {"status": None}, {"output_file_id": ["x"]}, {"output_file_id": None}, {"id": 7}, {"output_file_id": "\n"}],
)
def test_a_batch_that_cannot_be_read_is_looked_at_again_and_for_long_only_so_often(store, changes, monkeypatch):
    monkeypatch.setattr(batch, "_N_SILENT", 4)
    asked, server = in_batch(odd_batch(changes, 3), requests_for(10), store)
    assert (asked.n_asked, len(server.batches.batches)) == (10, 1)
    if "output_file_id" in changes:  # it has ended: the run ends without it, and later ones look again
        left, _ = in_batch(odd_batch(changes, float("inf")), requests_for(10, start=100), store)
        assert [failure.kind for failure in left.failures.values()] == [ErrorKind.IN_BATCH] * 10
    else:
        with pytest.raises(TeacherError, match="run again later, batches go on from where they are"):
            in_batch(odd_batch(changes, float("inf")), requests_for(10, start=100), store)
    assert len(store) == 10


def test_a_status_that_is_not_known_counts_as_under_way(store):
    lines: list[str] = []
    asked, _ = in_batch(odd_batch({"status": "pondering"}, 4), requests_for(10), store, on_message=lines.append)
    assert asked.n_asked == 10
    assert [line for line in lines if "'pondering', a status that is not known here" in line] == lines[1:]


def test_the_replies_are_what_a_provider_sends():
    "The completion that is spoilt here has the fields that the scripted server sends."
    sent = _completion(Scripted(cached_tokens=0, reasoning_tokens=0), 0)
    assert sent.keys() <= COMPLETION.keys()
    assert transport._MOST_BYTES == 16_000_000
