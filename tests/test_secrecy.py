"""A key is planted where users keep one; then everything that the project writes and says is searched for it."""

import base64
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx2
import nbformat
import openai
import pytest
from scripted_server import BatchScript, Scripted, ScriptedServer
from zsd_command import environment, zsd

from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits

KEY = "sk-planted-0123456789-key"
HEADER = "planted-header-secret-9876"
TEACHER = (
    "model: some-model\nprice: {input: 1, output: 2}\nsampling: {temperature: 0, max_tokens: 20}\nheaders: {X-Project: $PROJECT_SECRET}\n"
)


def holds_no_secret(folder: Path, *texts: str) -> None:
    for text in texts:
        assert KEY not in text
        assert HEADER not in text
    for file in folder.rglob("*"):
        if file.is_file() and file.name != ".env":
            content = file.read_bytes()
            assert KEY.encode() not in content, file
            assert HEADER.encode() not in content, file


@pytest.fixture
def project(tmp_path):
    (tmp_path / "teacher.yaml").write_text(TEACHER)
    return tmp_path


def keep_key(folder: Path, server: ScriptedServer) -> None:
    (folder / ".env").write_text(f"OPENAI_API_KEY={KEY}\nOPENAI_BASE_URL={server.base_url}\nPROJECT_SECRET={HEADER}\n")


def faulty(body: dict, n: int) -> Scripted:
    "Every third request is refused, in words that repeat what was sent."
    return Scripted(400, error=f"bad request with Bearer {KEY} and {HEADER}") if n % 3 == 2 else Scripted(text="Label: neutral. It is so.")


def annotate(folder: Path, *more: str):
    command = ("annotate", "--task", "pocket_nli", "--mix", "one-sentence", "--rows", "12", "--teacher", "teacher.yaml")
    return zsd(folder, *command, *more)


def test_annotating_and_exporting(project):
    with ScriptedServer(faulty, echoes_authorization=True) as server:
        keep_key(project, server)
        done = annotate(project)
        assert (done.status, server.authorizations[0]) == (1, f"Bearer {KEY}"), done.err
        assert "***" in (project / next(project.glob("zsd-work/annotations/*/train.jsonl"))).read_text()
        exported = zsd(project, "store", "export", "all.parquet")
        assert exported.status == 0, exported.err
        info = zsd(project, "store", "info", "--json")
    holds_no_secret(project, done.out, done.err, exported.out, exported.err, info.out, info.err)


def test_a_batch(project):
    script = BatchScript(script=faulty)
    with ScriptedServer(faulty, echoes_authorization=True, batch=script) as server:
        keep_key(project, server)
        done = annotate(project, "--via", "batch")
    assert done.status in (0, 1), done.err
    holds_no_secret(project, done.out, done.err)


@pytest.mark.parametrize("status", [401, 404, 429])
def test_a_run_that_stops(project, status):
    code = "insufficient_quota" if status == 429 else None
    with ScriptedServer(lambda body, n: Scripted(status, error=f"no: {KEY} {HEADER}", code=code), echoes_authorization=True) as server:
        keep_key(project, server)
        done = annotate(project)
    assert done.status == 2, done.err
    holds_no_secret(project, done.out, done.err)


def test_a_traceback_and_a_notebook(project):
    "An error that nobody catches, in a script and in a notebook that is kept."
    source = (
        "from zero_shot_distill.teacher.teacher import RequestLimits, teacher_from_environment\n"
        "from zero_shot_distill.teacher.client import TeacherClient\n"
        "from zero_shot_distill.store.request import Request\n"
        "from zero_shot_distill.store.store import ResponseStore\n"
        "teacher = teacher_from_environment('some-model', {'X-Project': '$PROJECT_SECRET'}, RequestLimits(n_retries=0))\n"
        "print(teacher, repr(teacher), vars(Request.build('m', [])))\n"
        "requests = [Request.build('some-model', [{'role': 'user', 'content': str(n)}]) for n in range(12)]\n"
        "TeacherClient(teacher, ResponseStore('responses.sqlite')).ask(requests)\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, project / "look.ipynb")
    with ScriptedServer(lambda body, n: Scripted(500, error=f"no: {KEY} {HEADER}"), echoes_authorization=True) as server:
        keep_key(project, server)
        done = subprocess.run([sys.executable, "-c", source], cwd=project, env=environment(), capture_output=True, text=True)
        assert "Traceback" in done.stderr
        command = [sys.executable, "-m", "papermill", "look.ipynb", "ran.ipynb", "-k", "python3", "--no-progress-bar"]
        run = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True)
        assert "TeacherError" in (project / "ran.ipynb").read_text(), run.stderr
    holds_no_secret(project, done.stdout, done.stderr, run.stdout, run.stderr)


# Forms in which a server may repeat a key with characters that are escaped.
ODD_KEY = "sk/planted+0123456789&key"
FORMS = {
    "plain": ODD_KEY,
    "JSON": ODD_KEY.replace("/", r"\/"),
    "JSON codes": ODD_KEY.replace("/", r"\u002f").replace("&", r"\u0026"),
    "address": "sk%2Fplanted%2B0123456789%26key",
    "HTML": ODD_KEY.replace("&", "&amp;"),
    "HTML codes": ODD_KEY.replace("/", "&#x2F;").replace("+", "&#43;"),
    "address, twice": "sk%252Fplanted%252B0123456789%2526key",
    "HTML, twice": ODD_KEY.replace("/", "&amp;#x2F;").replace("&", "&amp;amp;"),
    "base64": base64.b64encode(ODD_KEY.encode()).decode().rstrip("="),
    "base64 of a header": base64.b64encode(f"Bearer {ODD_KEY}".encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_key(project, form):
    "In an error, and in a reply that a model wrote."

    def repeats(body: dict, n: int) -> Scripted:
        return Scripted(400, error=f"bad {FORMS[form]}") if n % 3 == 2 else Scripted(text=f"Label: neutral. It says {FORMS[form]}.")

    with ScriptedServer(repeats) as server:
        (project / ".env").write_text(f"OPENAI_API_KEY={ODD_KEY}\nOPENAI_BASE_URL={server.base_url}\nPROJECT_SECRET={HEADER}\n")
        done = annotate(project)
    rows = (project / next(project.glob("zsd-work/annotations/*/train.jsonl"))).read_text()
    around = r"[\w=]{0,11}" if "base64" in form else ""  # some characters depend on what stands before or behind the key
    assert re.search(rf"bad {around}\*\*\*", rows)
    with closing(sqlite3.connect(project / "zsd-work" / "responses.sqlite")) as store:
        (text,) = {text for (text,) in store.execute("SELECT text FROM responses")}
    assert re.fullmatch(rf"Label: neutral\. It says {around}\*\*\*{around}\.", text)
    for text in (
        done.out,
        done.err,
        *(path.read_bytes().decode("latin-1") for path in project.rglob("*") if path.is_file() and path.name != ".env"),
    ):
        assert "planted" not in text
        assert not any(base64.b64encode(b"x" * n + b"planted")[4:10].decode() in text for n in range(3))


def test_a_bearer_header_without_its_word(project):
    token = "tok-planted-123456789"
    (project / "teacher.yaml").write_text(TEACHER.replace("{X-Project: $PROJECT_SECRET}", f'{{Authorization: "Bearer {token}"}}'))
    with ScriptedServer(
        lambda body, n: Scripted(400, error=f"token {token} is not known") if n % 3 else Scripted(text="Label: neutral. So.")
    ) as server:
        keep_key(project, server)
        done = annotate(project)
    for path in project.rglob("zsd-work/**/*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path
    assert token not in done.out + done.err
    assert "token *** is not known" in (project / next(project.glob("zsd-work/annotations/*/train.jsonl"))).read_text()


@pytest.mark.parametrize("status", [307, 308])
def test_nothing_is_sent_to_another_host(project, status):
    with ScriptedServer(lambda body, n: Scripted(text="Label: neutral. So.")) as other:
        elsewhere = other.base_url.replace("127.0.0.1", "localhost") + "/chat/completions"
        with ScriptedServer(lambda body, n: Scripted(status, headers={"Location": elsewhere})) as server:
            keep_key(project, server)
            done = annotate(project)
        assert (done.status, other.authorizations) == (2, [])
    assert "sends questions on to localhost:" in done.err
    holds_no_secret(project, done.out, done.err)


def test_a_redirect_of_the_same_host_is_followed(project):
    seen = set()

    def moved(body: dict, n: int) -> Scripted:
        if (question := str(body["messages"])) in seen:
            return Scripted(text="Label: neutral. So.")
        seen.add(question)
        return Scripted(307, headers={"Location": f"{server.base_url}/chat/completions"})

    with ScriptedServer(moved) as server:
        keep_key(project, server)
        done = annotate(project)
    assert done.status == 0, done.err
    assert len(server.authorizations) == 24


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("start", ["http://127.0.0.1", ""])
def test_a_redirect_that_leads_to_no_reply_is_named(project, status, start):
    "One in a circle, and one that would turn the question into a GET: the address is at fault, whoever owns it."

    def moved(body: dict, n: int) -> Scripted:
        place = f"{start}:{server.base_url.rpartition(':')[2]}" if start else "/v1"
        return Scripted(status, headers={"Location": f"{place}/chat/completions?key={KEY}"})

    with ScriptedServer(moved) as server:
        keep_key(project, server)
        done = annotate(project)
    assert done.status == 2
    there = f"{server.base_url}/chat/completions" if start else "/v1/chat/completions"
    assert f"sends questions on to {there} (HTTP {status}), and no reply came from there; correct OPENAI_BASE_URL" in done.err
    assert len(server.authorizations) <= 12 * 6
    holds_no_secret(project, done.out, done.err)


@pytest.mark.parametrize("key", ["none", "EMPTY", "neutral", "not-needed"])
def test_a_key_that_is_a_word_leaves_replies_as_they_are(project, key):
    "Any word is a key for a server that asks for none; a reply that holds it was paid for, and is kept whole."
    said = f"Label: neutral. There is none here, EMPTY or not-needed; a {key} study."
    (project / "teacher.yaml").write_text(TEACHER.replace("$PROJECT_SECRET", "neutral study"))
    with ScriptedServer(lambda body, n: Scripted(text=said)) as server:
        (project / ".env").write_text(f"OPENAI_API_KEY={key}\nOPENAI_BASE_URL={server.base_url}\n")
        done = annotate(project)
    assert done.status == 0, done.err
    with closing(sqlite3.connect(project / "zsd-work" / "responses.sqlite")) as store:
        assert {text for (text,) in store.execute("SELECT text FROM responses")} == {said}


class Moved(BaseHTTPRequestHandler):
    "Answer each request with a redirect to the address that its path names, or with a file; keep the headers that came."

    seen: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        where = self.path.partition("?to=")[2]
        self.send_response(307 if where else 200)
        if where:
            self.send_header("Location", where)
        self.send_header("Content-Length", "0" if where else "4")
        self.end_headers()
        self.wfile.write(b"" if where else b"file")

    do_POST = do_GET

    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture
def moved():
    Moved.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moved)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def hosted(port: int) -> HostedTeacher:
    return HostedTeacher("m", f"http://127.0.0.1:{port}/v1", KEY, headers={"X-Project": HEADER})


def test_a_file_elsewhere_is_fetched_without_our_headers(moved):
    "Some providers keep the files of a batch at another host."
    teacher = hosted(moved)
    found = teacher.client.get(f"/files/x/content?to=http://localhost:{moved}/there", cast_to=httpx2.Response)
    assert found.content == b"file"
    ours, theirs = Moved.seen
    assert (ours["authorization"], ours["x-project"]) == (f"Bearer {KEY}", HEADER)
    assert not {"authorization", "x-project"} & theirs.keys()


def test_a_question_is_not_sent_elsewhere_by_either_client(moved):
    elsewhere = f"/files?to=http://localhost:{moved}/there"
    with pytest.raises(openai.APIStatusError) as told:
        hosted(moved).client.post(elsewhere, cast_to=httpx2.Response, body={"purpose": "batch"})
    assert (told.value.status_code, len(Moved.seen)) == (307, 1)


def test_a_redirect_to_elsewhere_keeps_the_limit_of_time(moved):
    "A request made anew without it would wait for ever."
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections, and never says a word
    teacher = HostedTeacher("m", f"http://127.0.0.1:{moved}/v1", KEY, limits=RequestLimits(timeout_s=0.5, n_retries=0))
    with silent, pytest.raises(openai.APITimeoutError):
        teacher.client.get(f"/files/x/content?to=http://localhost:{silent.getsockname()[1]}/there", cast_to=httpx2.Response)


def test_many_backslashes_take_no_square_of_their_number():
    "A reply of megabytes that is nothing else freezes no run; behind them, a secret is found."
    import time

    from zero_shot_distill.teacher.secrecy import hide

    began = time.process_time()
    assert "sk-1" not in hide("\\" * 1_000_000 + "sk-12345678", ["sk-12345678"])
    assert time.process_time() - began < 20  # the square would take hours
    for text in (r"a\sk-12345678", r"\\\u0073k-12345678", r"x\%73k-12345678", "&#115;k-12345678"):
        assert "2345678" not in hide(text, ["sk-12345678"]), text
