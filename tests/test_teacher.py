"""Asking under real conditions: a real small teacher, real signals; provider faults come from a scripted server that says so."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_server import NAME, Scripted, ScriptedServer

from zero_shot_distill.core.progress import OnProgress
from zero_shot_distill.store.database import StoreError
from zero_shot_distill.store.request import Request
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.embedded import EmbeddedTeacher
from zero_shot_distill.teacher.options import Asked
from zero_shot_distill.teacher.teacher import (
    HostedTeacher,
    RequestLimits,
    Teacher,
    TeacherError,
    TeacherSettingsError,
    teacher_from_environment,
)
from zero_shot_distill.weights.pull import pull

# For scripts: they find this folder and the package as we do, installed or not.
HERE = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
SMALL = "smollm2-135m-instruct"
KEY = "sk-this-key-is-secret"


@pytest.fixture
def store(tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        yield store


@pytest.fixture(scope="module")
def small():
    with EmbeddedTeacher(lambda: pull(SMALL), SMALL, n_parallel=4) as teacher:
        yield teacher


def requests_for(model: str, n: int, start: int = 0, **sampling) -> list[Request]:
    sampling = {"temperature": 0, "max_tokens": 8, **sampling}
    return [
        Request.build(model, [{"role": "user", "content": f"Count on from {number}."}], **sampling) for number in range(start, start + n)
    ]


def hosted(server: ScriptedServer, **settings) -> HostedTeacher:
    return HostedTeacher("some-model", server.base_url, KEY, RequestLimits(**{"n_parallel": 4, "n_retries": 0, **settings}))


def ask(teacher: Teacher, requests: list[Request], store: ResponseStore, on_progress: OnProgress | None = None) -> Asked:
    return TeacherClient(teacher, store).ask(requests, on_progress)


def number_of(body: dict) -> int:
    return int(body["messages"][0]["content"].split()[-1].rstrip("."))


def holds_no_secret(store: ResponseStore, *texts: str) -> None:
    assert not any(KEY in text for text in texts)
    store.close()
    assert not any(KEY.encode() in file.read_bytes() for file in store.path.parent.iterdir() if file.is_file())


# The real small teacher


def test_replies_are_kept_and_not_asked_again(small, store):
    requests = requests_for(SMALL, 6)
    seen = []
    asked = ask(small, [*requests, *requests], store, lambda done, total, note="": seen.append((done, total)))
    assert (asked.n_asked, asked.failures, len(store)) == (6, {}, 6)
    assert list(dict.fromkeys(seen)) == [(done, 6) for done in range(7)]  # the first is said again while the model is loaded
    for response in asked.responses.values():
        assert response.text
        assert response.finish_reason in ("stop", "length")
        assert response.prompt_tokens > 5
        assert 0 < response.completion_tokens <= 8
        assert response.latency_s > 0
        assert (response.attempts, response.provider_model) == (1, SMALL)
    more = ask(small, requests_for(SMALL, 8), store)
    assert more.n_asked == 2
    assert {key: more.responses[key] for key in asked.responses} == asked.responses


def test_parameters_the_client_does_not_know_pass(small, store):
    "`top_k` and a grammar are llama.cpp's own; a JSON schema is everybody's."
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"], "additionalProperties": False}
    response_format = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema}}
    (request,) = requests_for(SMALL, 1, top_k=1, max_tokens=30, response_format=response_format)
    (response,) = ask(small, [request], store).responses.values()
    assert "".join(response.text.split()).startswith('{"n":')


def test_too_long_a_question_is_a_counted_failure(small, store):
    too_long = Request.build(SMALL, [{"role": "user", "content": "word " * 3000}], max_tokens=8)
    asked = ask(small, [*requests_for(SMALL, 2), too_long], store)
    assert (asked.n_asked, list(asked.failures)) == (2, [too_long.key])
    assert str(asked.failures[too_long.key]).startswith("HTTP 400: ")


def test_the_server_keeps_others_out(small):
    "The embedded server takes no question without the key of this run."
    import openai

    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=str(small.client.base_url), api_key="guess", max_retries=0).chat.completions.create(model=SMALL, messages=[])


def test_a_server_that_dies_is_an_error_that_says_so(store):
    with EmbeddedTeacher(lambda: pull(SMALL), SMALL, n_parallel=2) as teacher:
        assert ask(teacher, requests_for(SMALL, 2), store).n_asked == 2
        teacher._server.process.kill()
        teacher._server.process.wait()
        with pytest.raises(TeacherError, match="the server stopped"):
            ask(teacher, requests_for(SMALL, 4), store)
        teacher.close()
        assert ask(teacher, requests_for(SMALL, 4), store).n_asked == 2


def test_missing_weights_are_an_error_of_their_own_and_leave_no_process(tmp_path, store):
    def not_to_be_had():
        raise StoreError("stands for any error while fetching")

    with EmbeddedTeacher(not_to_be_had, SMALL) as teacher, pytest.raises(StoreError, match="stands for any"):
        ask(teacher, requests_for(SMALL, 1), store)


ASK_MANY = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
import sys, threading
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher.embedded import EmbeddedTeacher
from zero_shot_distill.weights.pull import pull
from test_teacher import SMALL, requests_for

def show(done, total, note=""):
    print("progress", done, flush=True)

with EmbeddedTeacher(lambda: pull(SMALL), SMALL, n_parallel=4) as teacher, ResponseStore(sys.argv[1]) as store:
    teacher.client
    print("child", teacher._server.process.pid, flush=True)
    try:
        TeacherClient(teacher, store).ask(requests_for(SMALL, 2000, max_tokens=16), show)
    except KeyboardInterrupt:
        print("interrupted", len(store), flush=True)
        raise
"""


def start_asking(path: Path) -> tuple[subprocess.Popen, int]:
    "A real process that asks the real teacher; returns it and its server's process id once some replies are stored."
    process = subprocess.Popen(
        [sys.executable, "-c", ASK_MANY, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=HERE,
        start_new_session=True,
    )
    child = int(process.stdout.readline().split()[1])
    while process.stdout.readline().split() != ["progress", "6"]:
        assert process.poll() is None
    return process, child


def ended(pid: int, within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            # A process that ended but whose parent (here: init) has not looked yet counts as ended.
            if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow  # test_pipeline.py stops `zsd run` while the same teacher is asked
def test_ctrl_c_keeps_what_arrived_and_the_next_run_goes_on(small, tmp_path):
    "SIGINT to the whole foreground group, as a terminal sends it."
    path = tmp_path / "responses.sqlite"
    process, child = start_asking(path)
    os.killpg(process.pid, signal.SIGINT)
    last_line = process.stdout.read().splitlines()[-1]
    process.wait(60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert ended(child)
    with ResponseStore(path) as store:
        n_stored = len(store)
        assert last_line == f"interrupted {n_stored}"
        assert 6 <= n_stored < 100
        # The ones that were under way (at most four) may have been given up: the next run asks what is missing and no more.
        known = len(store.get_many(request.key for request in requests_for(SMALL, 12, max_tokens=16)))
        asked = ask(small, requests_for(SMALL, 12, max_tokens=16), store)
        assert (asked.n_asked, asked.failures, len(asked.responses)) == (12 - known, {}, 12)


@pytest.mark.slow  # and kills it
def test_a_killed_parent_leaves_no_server_behind(tmp_path):
    "SIGKILL gives us no chance to tidy up; the server must notice by itself."
    process, child = start_asking(tmp_path / "responses.sqlite")
    process.kill()
    process.wait()
    assert ended(child)
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        assert len(store) >= 6


# Faults that a provider has and the embedded teacher has not


def test_unreachable_teacher(store):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    teacher = HostedTeacher("some-model", f"http://127.0.0.1:{port}/v1", KEY, RequestLimits(n_retries=1))
    with pytest.raises(
        TeacherError, match=rf"some-model at http://127.0.0.1:{port}/v1: cannot be reached \(Connection refused\); check OPENAI_BASE_URL"
    ) as error:
        ask(teacher, requests_for("some-model", 20), store)
    assert "\n" not in str(error.value)
    assert error.value.exit_status == 1
    holds_no_secret(store, str(error.value))


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_key(store, status):
    "Some providers repeat the key in their answer: it must not come through."
    with ScriptedServer(lambda body, n: Scripted(status, error=f"Incorrect API key provided: {KEY}")) as server:
        with pytest.raises(TeacherSettingsError, match=rf"the key is not accepted \(HTTP {status}\); check OPENAI_API_KEY") as error:
            ask(hosted(server), requests_for("some-model", 20), store)
        assert server.authorizations[0] == f"Bearer {KEY}"
        assert len(server.bodies) <= 4
    assert error.value.exit_status == 2
    assert error.value.__context__ is None  # a traceback shows it
    holds_no_secret(store, str(error.value))


def test_key_in_other_errors(store):
    with ScriptedServer(lambda body, n: Scripted(400, error=f"bad\nheader: Bearer {KEY}") if n else Scripted()) as server:
        asked = ask(hosted(server, n_parallel=1), requests_for("some-model", 3), store)
    assert len(asked.failures) == 2
    reasons = [failure.reason for failure in asked.failures.values()]
    assert all("Bearer ***" in reason and "\n" not in reason for reason in reasons)
    holds_no_secret(store, *reasons)


def test_unknown_model(store):
    with ScriptedServer(lambda body, n: Scripted(404, error="model some-model does not exist")) as server:
        with pytest.raises(TeacherSettingsError, match=r"not found \(.*does not exist.*\); check the model's name"):
            ask(hosted(server), requests_for("some-model", 20), store)
        assert len(server.bodies) <= 4


def test_no_credit_left_stops_in_the_middle(store):
    "What arrived before is stored."
    out = Scripted(429, error="You exceeded your current quota", code="insufficient_quota")
    with ScriptedServer(lambda body, n: Scripted() if n < 10 else out) as server:
        with pytest.raises(TeacherSettingsError, match="no credit left"):
            ask(hosted(server), requests_for("some-model", 40), store)
        assert len(store) == 10
        assert len(server.bodies) <= 14


@pytest.mark.parametrize(
    "address",
    [
        "http://us\udce4er:pw@host/v1",
        "http://user:p\udce4w@host/v1",
        "http://host/v1\udce4",
        "http://host/v1?key=\udce4",
        "http://\ud800/v1",
        "http://ho\nst/v1",
        "http://us er:pw@host/v1",
        "http://host/a b",
        "http://ho\u200bst/v1",
        " ",
    ],
)
def test_an_address_that_cannot_be_written_is_one_line(address):
    with pytest.raises(TeacherSettingsError, match=r"^address of the teacher: .*; correct OPENAI_BASE_URL") as refusal:
        HostedTeacher("some-model", address, KEY)
    assert str(refusal.value).isprintable()
    assert "pw" not in str(refusal.value)


@pytest.mark.parametrize("model", ["m\udce4", "two\nlines", " ", ""])
def test_a_model_name_that_cannot_be_written_is_one_line(model):
    with pytest.raises(TeacherSettingsError, match="a model's name is one line") as refusal:
        HostedTeacher(model, "http://host/v1", KEY)
    assert str(refusal.value).isprintable()


def test_single_bad_rows_are_counted(store):
    "400 and 500 for some rows: the others are answered, and only the failed ones are asked again."
    with ScriptedServer(
        lambda body, n: Scripted({3: 400, 17: 500, 18: 422}.get(number_of(body), 200), delay_s=1.0 if n < 4 else 0.0)
    ) as server:
        requests = requests_for("some-model", 30)
        asked = ask(hosted(server), requests, store)
        assert (asked.n_asked, len(asked.failures), len(asked.responses), len(store)) == (27, 3, 27, 27)
        assert [asked.failures[requests[n].key].reason.split(":")[0] for n in (3, 17, 18)] == ["HTTP 400", "HTTP 500", "HTTP 422"]
        assert 2 <= server.most_at_once <= 4
        server.bodies.clear()
        again = ask(hosted(server), requests, store)
        assert (again.n_asked, again.failures.keys(), len(server.bodies)) == (0, asked.failures.keys(), 3)


def test_overload_is_waited_out(store):
    "429 with Retry-After, then 503, then a reply: one response with three attempts."
    script = [Scripted(429, headers={"Retry-After": "0"}), Scripted(503, headers={"Retry-After": "0"}), Scripted()]
    with ScriptedServer(lambda body, n: script[n]) as server:
        (response,) = ask(hosted(server, n_retries=4), requests_for("some-model", 1), store).responses.values()
    assert (response.attempts, response.text, response.provider_model) == (3, f"{NAME}: no teacher wrote this", NAME)


@pytest.mark.parametrize("status", [400, 500])
def test_nothing_works_from_the_start(store, status):
    with ScriptedServer(lambda body, n: Scripted(status, error="max_tokens is not supported")) as server:
        with pytest.raises(TeacherError, match=rf"none of the first 8 questions was answered: HTTP {status}.*max_tokens is not supported"):
            ask(hosted(server), requests_for("some-model", 100), store)
        assert len(server.bodies) <= 12


def test_nothing_works_any_more(store):
    with ScriptedServer(lambda body, n: Scripted() if n < 10 else Scripted(503)) as server:
        with pytest.raises(TeacherError, match="8 questions in a row failed: HTTP 503"):
            ask(hosted(server), requests_for("some-model", 100), store)
        assert len(store) == 10
        assert len(server.bodies) < 25


def test_bad_rows_left_over_do_not_stop_a_run(store):
    "Rows that the teacher refuses for good must not block every later run."
    requests = requests_for("some-model", 30)
    with ScriptedServer(lambda body, n: Scripted(400 if number_of(body) >= 10 else 200)) as server:
        assert len(ask(hosted(server), requests, store).failures) == 20
        assert len(ask(hosted(server), requests, store).failures) == 20


@pytest.mark.parametrize(
    ("scripted", "reason"),
    [
        (Scripted(body=b"<html>Welcome</html>", content_type="text/html"), "no JSON: <html>Welcome</html>; does the address lack /v1"),
        (Scripted(body=b"{}"), "does the address lack /v1"),
        (Scripted(body=b'{"choices": [{"mess'), 'no JSON: {"choices": [{"mess; cut off?'),
        (Scripted(delay_s=600), "no reply within 5 s"),
    ],
)
def test_replies_that_are_none(store, scripted, reason):
    "One such reply among good ones is a counted row."
    with ScriptedServer(lambda body, n: scripted if n == 3 else Scripted()) as server:
        asked = ask(hosted(server, timeout_s=5 if scripted.delay_s else 60, n_parallel=1), requests_for("some-model", 6), store)
    assert (asked.n_asked, len(asked.failures)) == (5, 1)
    assert reason in str(next(iter(asked.failures.values())))


def test_a_broken_connection_is_tried_again(store):
    with ScriptedServer(lambda body, n: Scripted(hang_up=True) if n == 0 else Scripted()) as server:
        asked = ask(hosted(server, n_retries=1), requests_for("some-model", 1), store)
    assert next(iter(asked.responses.values())).attempts == 2


def test_an_empty_reply_and_half_a_character_are_kept(store):
    empty = b'{"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "content_filter", "message": {"role": "assistant", "content": null}}]}'
    half = empty.replace(b"null", b'"cut \\ud83d"').replace(b"content_filter", b"length")
    with ScriptedServer(lambda body, n: Scripted(body=(empty, half)[number_of(body)])) as server:
        requests = requests_for("some-model", 2)
        asked = ask(hosted(server), requests, store)
    first, second = (asked.responses[request.key] for request in requests)
    assert (first.text, first.finish_reason, first.prompt_tokens, first.provider_model) == ("", "content_filter", None, "unknown")
    assert (second.text, second.finish_reason) == ("cut \ufffd", "length")


def test_ctrl_c_waits_for_paid_replies_but_not_for_ever(store):
    "Replies under way when a run is stopped are kept if they come within seconds; a hanging one does not hold the user up."

    def stop(done, total, note=""):
        if done == 1:
            raise KeyboardInterrupt

    with ScriptedServer(lambda body, n: Scripted(delay_s=(0, 0.5, 0.5, 600)[min(n, 3)])) as server:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ask(hosted(server, timeout_s=600), requests_for("some-model", 40), store, stop)
        assert time.monotonic() - start < 120
        assert len(store) == 3


def test_a_full_store_stops_the_run(store):
    "A reply that cannot be kept must not be paid for twice: nothing more is sent."
    with ScriptedServer(lambda body, n: Scripted(text="word " * 20_000)) as server:
        store._connection.execute("PRAGMA max_page_count = 40")
        with pytest.raises(StoreError, match="the disk is full; free some space"):
            ask(hosted(server), requests_for("some-model", 40), store)
        assert len(server.bodies) <= 10


# Settings from outside


def test_environment_and_env_file(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TeacherSettingsError, match=r"no key for the teacher; put OPENAI_API_KEY=… into the environment or into \.env"):
        teacher_from_environment("some-model").client  # noqa: B018 (connects)
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={KEY}\nOPENAI_BASE_URL=http://127.0.0.1:1/v1\n")
    teacher = teacher_from_environment("some-model", limits=RequestLimits(n_parallel=3))
    assert (teacher.where, teacher.client.api_key, teacher.n_parallel) == ("some-model at http://127.0.0.1:1/v1", KEY, 3)
    assert "OPENAI_API_KEY" not in os.environ
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment")
    assert teacher_from_environment("some-model").client.api_key == "sk-from-environment"
    (tmp_path / ".env").write_bytes(b"OPENAI_API_KEY=\xff\xfe" + KEY.encode())
    with pytest.raises(TeacherSettingsError, match="write it as UTF-8 text") as error:
        teacher_from_environment("some-model")
    assert KEY not in str(error.value)


def test_no_key_in_any_representation():
    teacher = HostedTeacher("some-model", "https://user:password@example.org/v1?token=hidden", KEY)
    for text in (repr(teacher), str(teacher), teacher.where, teacher.no_answer_message("refused")):
        assert not any(secret in text for secret in (KEY, "password", "hidden"))
