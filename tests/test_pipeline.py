"""`zsd run` from end to end: a real small teacher, a tiny T5 really trained, a report really written; real Ctrl-C and SIGKILL.

The small teacher is at chance, so nothing here says how good anything is.
"""

import itertools
import json
import re
import signal
import subprocess
import threading
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from scripted_server import Latency, Scripted, ScriptedServer
from zsd_command import SMALL, Done, Project, ended, environment, interrupt, runs, said, start, stored, wait_until, zsd

from zero_shot_distill.student.student import predict
from zero_shot_distill.task.task import load_task

RUN = ("run", "mine.yaml")
HOW_TO_GO_ON = "zsd: stopped; what arrived is stored, the same command goes on from there"
# Two templates on three rows, the winner on three others; six of the eight train rows are among these.
N_QUESTIONS = 2 * 3 + 3 + 2 + 4


def files_of(folder: Path) -> dict[str, int]:
    "Every file that a run left behind and when it was written, but for what is written anew each time with the same content."
    made = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in made}


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> SimpleNamespace:
    "One run, stopped in every stage, finished, and given once more; what was there after each command."
    folder = tmp_path_factory.mktemp("story")
    Project(folder).write().make_student()
    made = folder / "zsd-work" / "mine"
    told = SimpleNamespace(folder=folder, made=made, annotations=made.parent / "annotations", done={}, rows={}, files={})

    def note(episode: str, done: Done) -> None:
        told.done[episode], told.rows[episode], told.files[episode] = done, stored(folder), files_of(made)

    note("ctrl-c asking", interrupt(folder, lambda _: len(stored(folder)) >= 2, *RUN, preload="none"))
    note("killed asking", interrupt(folder, lambda _: len(stored(folder)) >= 5, *RUN, by=signal.SIGKILL))
    note("ctrl-c training", interrupt(folder, lambda _: "standard-teacher-seed0:" in said(folder), *RUN))
    note("ctrl-c reporting", interrupt(folder, lambda process: runs(process, "ipykernel_launcher"), *RUN))
    note("finished", zsd(folder, *RUN))
    note("again", zsd(folder, *RUN, preload="none"))
    return told


# Stopped


@pytest.mark.parametrize("stage", ["asking", "training", "reporting"])
def test_ctrl_c_says_how_to_go_on(story, stage):
    done = story.done[f"ctrl-c {stage}"]
    assert done.status == 1, done.err
    assert done.out == ""
    assert done.last_line == HOW_TO_GO_ON, done.err
    assert "Traceback" not in done.err
    assert done.err.count("zsd: ") == 1


@pytest.mark.parametrize("episode", ["ctrl-c asking", "killed asking", "ctrl-c reporting"])
def test_no_process_is_left_behind(story, episode):
    "The teacher's server notices even a kill; a notebook's kernel ends with the command."
    assert story.done[episode].children
    assert ended(story.done[episode].children)


def test_a_kill_ends_it_without_a_word(story):
    assert story.done["killed asking"].status == -signal.SIGKILL


def test_what_arrived_is_kept(story):
    "Nothing that was stored is ever changed or lost, and every command adds what is missing."
    grown = [set(story.rows[episode]) for episode in story.done]
    for before, after in itertools.pairwise(grown):
        assert before <= after
    assert 2 <= len(story.rows["ctrl-c asking"]) < len(story.rows["killed asking"]) < N_QUESTIONS
    # All questions of the run, each once.
    assert [len(story.rows[episode]) for episode in ("ctrl-c training", "finished", "again")] == [N_QUESTIONS] * 3


def test_nothing_half_is_taken_for_whole(story):
    asked, trained = story.files["ctrl-c asking"], story.files["ctrl-c training"]
    assert set(asked) == {"teacher.log"}
    students = {Path(name).parts[1] for name in trained if name.startswith("students/")}
    records = {Path(name).stem for name in trained if name.startswith("runs/") and name.endswith(".json")}
    # The one that was under way left nothing, or is trained and not yet tested; those before it are whole.
    assert 1 <= len(records) < 4
    assert records <= students
    assert len(students) <= len(records) + 1
    assert not any(name.startswith(".") for name in students)
    assert not any(name.startswith(("report/", "run.json")) for name in trained)
    assert not any(
        name.startswith("report/") and name.endswith((".html", ".made_from", "first_look.ipynb"))
        for name in story.files["ctrl-c reporting"]
    )


def test_what_was_trained_is_not_trained_again(story):
    for before, after in (("ctrl-c training", "ctrl-c reporting"), ("ctrl-c reporting", "finished")):
        kept = {name: at for name, at in story.files[before].items() if name.startswith(("runs/", "students/"))}
        assert kept
        assert kept == {name: story.files[after].get(name) for name in kept}
    assert "all 4 are trained" in story.done["finished"].err


# Finished


def test_the_command_prints_tables_a_sentence_and_the_path(story):
    done = story.done["finished"]
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    for word in ("template", "tell", "explain", "accuracy", "student", "teacher", "gold"):
        assert word in done.out
    assert re.search(r"whether the rationales helped|rationales (helped|did harm)", lines[-2])
    assert lines[-1] == f"Report: {Path('zsd-work/mine/report/first_look.html')}"
    assert re.findall(r"^(\d)/6 ", done.err, re.MULTILINE) == list("123456")
    # What is about to be asked is said before it is asked.
    first = story.done["ctrl-c asking"].err
    assert re.search(rf"3/6 .*\n  6 questions to {SMALL}, none of them stored; elsewhere 6 took 2 to 7 seconds\. Ctrl-C is safe", first), (
        first
    )
    assert f"questions to {SMALL}, all of them stored: nothing is asked" in done.err
    # Once for each student of which it is so, as a note.
    said = re.findall(r"(?m)^.*not shown to be above chance.*$", done.err)
    assert all(line.startswith("  NOTE ") for line in said)
    assert len(said) == len(set(said)) <= 4
    assert "at chance" in done.err
    assert "zsd: " not in done.err
    # Ours, of a teacher at chance that says one word to everything; none of a library's.
    assert re.findall("(?m)^.*WARNING.*$", done.err) == re.findall(r"(?m)^  WARNING: \d+ of \d+ labels are .*$", done.err)


class _Loads(HTMLParser):
    "What a page makes a browser load."

    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loading = {"src", "srcset", "data", "poster", "background"} | ({"href"} if tag in ("link", "image", "use") else set())
        self.addresses += [value or "" for name, value in attrs if name in loading]


def test_the_page_asks_nothing_of_another_machine(story):
    page = (story.made / "report" / "first_look.html").read_text(encoding="utf-8")
    loads = _Loads(page).addresses
    assert len(loads) >= 2  # the figures
    assert all(address.startswith(("data:", "#")) for address in loads), [address[:80] for address in loads]
    assert not re.search(r"""(url\(|@import)\s*["']?(https?:)?//""", page)
    assert "<script" not in page
    # The points of the figure of prompts lead to the replies behind them.
    assert 'xlink:href="../figures/first_look.replies.html#part=selection&amp;template=' in page
    assert (story.made / "figures" / "first_look.replies.html").is_file()
    assert "Did the rationales help?" in page
    assert "at chance" in page


def test_the_records_fit_the_run(story):
    info = json.loads((story.made / "run.json").read_text(encoding="utf-8"))
    assert info["usage"]["n_responses"] == N_QUESTIONS
    assert info["usage"]["cost_usd"] == 0
    assert "embedded" in info["price"]
    assert len(info["runs"]) == 4
    for run_id in info["runs"]:
        record = json.loads((story.made / "runs" / f"{run_id}.json").read_text(encoding="utf-8"))
        assert record["test"]["n"] == 12
        assert record["steps"] == 16


def test_the_annotation_lies_where_zsd_annotate_puts_it(story):
    "With its report, its card and its datasets folder."
    info = json.loads((story.made / "run.json").read_text(encoding="utf-8"))
    (folder,) = story.annotations.iterdir()
    assert folder.name == info["annotation"]
    for split, n in (("train", 8), ("valid", 4)):
        assert len((folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()) == n
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert (report["id"], report["n_rows_left"]) == (folder.name, 0)
    assert "No person has checked them" in (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "dataset" / "train").is_dir()
    assert not (story.made / "annotations").exists()


# Once more


def test_a_second_run_does_nothing_twice(story):
    done, rows, files = story.done["again"], story.rows["again"], story.files["again"]
    assert done.status == 0, done.err
    assert done.out == story.done["finished"].out
    assert rows == story.rows["finished"]
    # These are written again with what is known; the rest stays untouched, the log of the teacher's server too: it was not started.
    rewritten = {"prompts.json", "run.json", "replies.html"}
    assert {name: at for name, at in files.items() if name not in rewritten} == {
        name: at for name, at in story.files["finished"].items() if name not in rewritten
    }
    assert "teacher.log" in files
    (release,) = story.annotations.glob("*/dataset")
    assert release.stat().st_mtime_ns < (release.parent / "report.json").stat().st_mtime_ns  # not written again, as it takes seconds


def test_a_second_run_imports_nothing_that_trains(story):
    assert not story.done["again"].modules & {"torch", "transformers", "papermill", "nbconvert", "xllamacpp"}


@pytest.mark.slow
def test_another_setting_trains_again_and_asks_nothing(story):
    "Left for last: it changes the folder."
    project = Project(story.folder)
    project.pipeline["students"] |= {"steps": 2, "gold_seeds": []}
    project.write()
    done = zsd(story.folder, *RUN, "--json", "--quiet")
    assert (done.status, done.err) == (0, "")
    content = json.loads(done.out)
    assert [student["steps"] for student in content["students"]] == [2, 2]
    assert content["report"].endswith("first_look.html")
    assert stored(story.folder) == story.rows["again"]


# Hosted


class CountingProxy:
    "Passes everything on to a real teacher, and remembers what was asked with which key."

    def __init__(self, base_url: str):
        self.asked: Counter[bytes] = Counter()
        self.authorizations: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked[body] += 1
                outer.authorizations.add(self.headers["Authorization"])
                headers = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
                request = urllib.request.Request(base_url + self.path.removeprefix("/v1"), body, headers)
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=600) as reply:
                    payload = reply.read()
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # whoever asked was stopped

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "CountingProxy":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def serve(folder: Path) -> tuple[subprocess.Popen, str, str]:
    "`zsd teacher serve` as another program would use it: the process, its address, its key."
    folder.mkdir()
    process = start(folder, "teacher", "serve", SMALL)
    wait_until(lambda: "Ctrl-C ends it." in said(folder, "out"), process, folder)
    settings = dict(line.split("=", 1) for line in said(folder, "out").splitlines() if line.startswith("OPENAI_"))
    return process, settings["OPENAI_BASE_URL"].rstrip("/"), settings["OPENAI_API_KEY"]


def hosted(folder: Path) -> Project:
    "A project with a model's name in place of weights, and two students of two steps."
    folder.mkdir()
    project = Project(folder)
    project.pipeline["teacher"] |= {"model": SMALL}
    project.pipeline["students"] |= {"steps": 2, "gold_seeds": []}
    project.write().make_student()
    return project


def run_hosted(folder: Path, address: str, key: str) -> Done:
    "Key and address once from the environment, stopped, then from .env."
    stopped = interrupt(folder, lambda _: len(stored(folder)) >= 2, *RUN, env=environment(OPENAI_BASE_URL=address, OPENAI_API_KEY=key))
    assert (stopped.status, stopped.last_line) == (1, HOW_TO_GO_ON), stopped.err
    assert stopped.children == ()
    assert key not in stopped.err
    (folder / ".env").write_text(f"OPENAI_BASE_URL={address}\nOPENAI_API_KEY={key}\n")
    done = zsd(folder, *RUN, "--json", "--quiet")
    assert (done.status, done.err) == (0, "")
    return done


def says_a_letter(body: dict, n: int) -> Scripted:
    "Letters that stand for two labels, by the words that were asked."
    letter = "ab"[zlib.crc32(body["messages"][-1]["content"].encode()) % 2]
    return Scripted(text=f"a reason of more than five words is given here {letter}")


def test_a_hosted_teacher(tmp_path):
    "The same file with a model's name: nothing asked twice, no price made up, and the key in no file."
    folder, key = tmp_path / "mine", "sk-hosted-0123456789"
    hosted(folder)
    with ScriptedServer(says_a_letter, latency=Latency(0.15)) as server:
        done = run_hosted(folder, server.base_url, key)
    asked = Counter(json.dumps(body, sort_keys=True) for body in server.bodies)
    assert len(asked) == len(stored(folder)) == N_QUESTIONS
    # The one reply that was under way may have come too late to be kept.
    assert asked.total() <= N_QUESTIONS + 1
    assert {*server.authorizations} == {f"Bearer {key}"}

    printed = json.loads(done.out)
    assert [student["method"] for student in printed["students"]] == ["standard", "step-by-step"]
    assert printed["run"]["usage"]["cost_usd"] is None
    assert printed["report"] == str(Path("zsd-work/mine/report/first_look.html"))
    info = json.loads((folder / "zsd-work" / "mine" / "run.json").read_text(encoding="utf-8"))
    assert info["teacher"] == {"model": SMALL, "title": SMALL, "note": ""}
    assert (info["usage"]["cost_usd"], info["price"], info["reference"]) == (None, None, None)
    page = (folder / "zsd-work" / "mine" / "report" / "first_look.html").read_text(encoding="utf-8")
    shown = re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<style.*?</style>", "", page))
    assert "unknown" in shown
    assert "$0" not in shown + done.out
    written = [path for path in folder.rglob("*") if path.is_file() and path.name != ".env"]
    assert len(written) > 20
    assert not [path for path in written if key.encode() in path.read_bytes()]
    assert key not in done.out + done.err


@pytest.mark.slow
def test_a_teacher_that_zsd_serves(tmp_path):
    "The small teacher behind its own address, as another program would use it; its server ends with the command."
    folder = tmp_path / "mine"
    hosted(folder)
    server, address, key = serve(tmp_path / "server")
    children = psutil.Process(server.pid).children(recursive=True)
    try:
        with CountingProxy(address) as proxy:
            run_hosted(folder, proxy.base_url, key)
            assert len(proxy.asked) == len(stored(folder)) == N_QUESTIONS
            assert proxy.asked.total() <= N_QUESTIONS + 1
            assert proxy.authorizations == {f"Bearer {key}"}
    finally:
        server.send_signal(signal.SIGINT)
    assert server.wait(60) == 0
    assert said(tmp_path / "server") == ""
    assert children
    assert ended(children)


# Answers without a list of labels, from a scripted teacher that is always right


def sums(n: int) -> list[dict[str, str]]:
    "Twelve problems, over and over; the data say how, the teacher says how much."
    problems = [(name, left, lost) for name in ("Ann", "Bob", "Cid", "Dora") for left, lost in ((5, 3), (7, 2), (2, 4))]
    return [
        {"question": f"{name} had {left + lost} pens and lost {lost} .", "equation": f"( {left + lost} - {lost} )", "result": f"{left}"}
        for name, left, lost in (problems * n)[:n]
    ]


def knows_sums(body: dict, n: int) -> Scripted:
    "Right at the end of its reply; the wrong template asks for the number that comes first."
    had, lost = re.findall(r"\d+", body["messages"][-1]["content"])[:2]
    return Scripted(text=f"{had} pens were there, and {lost} of them are gone. So {int(had) - int(lost)} pens")


def pets(n: int) -> list[dict[str, str]]:
    "Twelve questions, over and over: every animal beside both others, in both orders."
    sounds = {"dog": "barks", "cat": "meows", "cow": "moos"}
    questions = [
        {"question": f"what {sounds[right]} ?", "one": pair[0], "two": pair[1], "answer": right}
        for right in sounds
        for wrong in sorted(sounds.keys() - {right})
        for pair in ((right, wrong), (wrong, right))
    ]
    return (questions * n)[:n]


def knows_pets(body: dict, n: int) -> Scripted:
    "Says the letter, with a reason."
    sound, *choices = body["messages"][-1]["content"].splitlines()[:3]
    right = {"barks": "dog", "meows": "cat", "moos": "cow"}[sound.split()[1]]
    return Scripted(text=f"({'ab'[choices.index(right)]}) because it is known for that sound")


def free_answers(folder: Path, task: dict, templates: dict[str, tuple[str, str]], rows: Callable[[int], list[dict[str, str]]]) -> Project:
    "A project whose task has no labels of its own. Its validation rows are a share of the training rows."
    project = Project(folder)
    project.task = {
        "name": "my_task",
        **task,
        "splits": {"train": "train.jsonl", "valid": {"of": "train", "share": 0.25}, "test": "test.jsonl"},
    }
    project.prompts["templates"] = [
        {"id": id, "user_message": message, "reply_pattern": pattern} for id, (message, pattern) in templates.items()
    ]
    project.rows = {"train": rows(48), "test": rows(12)}
    project.pipeline |= {
        "teacher": {"model": "some-model"},
        "prompts": {"file": "./my_prompts.yaml", "selection_rows": 6, "confirmation_rows": 6},
        "annotate": {"train_rows": 36, "valid_rows": 12},
        "students": {"weights": "./tiny", "steps": 40, "batch_size": 12, "learning_rate": 1e-2, "seeds": [0], "gold_seeds": [0]},
    }
    return project


def run_with(project: Project, script: Callable[[dict, int], Scripted]) -> SimpleNamespace:
    "What `zsd run` leaves behind."
    project.write().make_student()
    made = project.folder / "zsd-work" / "mine"
    with ScriptedServer(script) as server:
        done = zsd(project.folder, *RUN, env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted"))
    assert done.status == 0, done.err
    info, prompts = (json.loads((made / f"{name}.json").read_text(encoding="utf-8")) for name in ("run", "prompts"))
    records = {run_id: json.loads((made / "runs" / f"{run_id}.json").read_text(encoding="utf-8")) for run_id in info["runs"]}
    page = " ".join(re.sub(r"<[^>]+>", " ", (made / "report" / "first_look.html").read_text(encoding="utf-8")).split())
    return SimpleNamespace(done=done, info=info, prompts=prompts, records=records, page=page, made=made)


def test_answers_that_are_numbers(tmp_path):
    "The teacher writes the result, the data the way to it: equal by value, from the choice of the prompt to the report."
    pattern = r"(?P<rationale>.*)So (?P<label>[\d.]+)"
    project = free_answers(
        tmp_path,
        {"fields": {"question": "question"}, "label_column": "equation", "metric": "numeric", "student_input": "{question}"},
        {"first": ("How much is it? {question}", r"(?P<label>\d+)(?P<rationale>.*)"), "last": ("How much is left? {question}", pattern)},
        sums,
    )
    ran = run_with(project, knows_sums)
    assert (ran.info["labels"], ran.info["metric"], ran.info["n_choices"]) == ([], "numeric", 0)
    assert ran.prompts["winner"] == "last"
    assert [score["accuracy"]["value"] for score in ran.prompts["selection"]] == [0.0, 1.0]
    assert len(ran.records) == 4
    for record in ran.records.values():
        assert (record["test"]["n"], record["test"]["n_correct"], record["test"]["n_unreadable"]) == (12, 12, 0), record
        assert (record["valid_accuracy"], record["n_train"], record["n_unencodable"]) == (1.0, 36, 0)
    # The students wrote what they were shown, and no equation where that was the teacher's.
    written = {
        labels: {answer.text for answer in predict(ran.made / "students" / run_id, [row["question"] for row in sums(12)])}
        for run_id in ran.records
        for labels in ("teacher", "gold")
        if f"standard-{labels}" in run_id
    }
    assert written == {"teacher": {"5", "7", "2"}, "gold": {"( 8 - 3 )", "( 9 - 2 )", "( 6 - 4 )"}}
    assert "my_task, version 1 a number; licence" in ran.page
    assert "→ 5, right" in ran.page
    assert "→ 8, wrong" in ran.page
    assert "train: 36 of 36 rows labelled, 36 with a rationale, 36 of 36 teacher labels equal to gold" in ran.done.err
    # The six rows on which the prompt was chosen do not count for the accuracy.
    shares = ["100 % 90 to 100, n 36", "100 % 90 to 100, n 36", "100 % 89 to 100, n 30"]
    assert "split rows with a label with a rationale gold accuracy train 36 " + " ".join(shares) in ran.page


@pytest.mark.slow  # test_student.py has such students, test_thesis_commands.py such annotations
def test_answers_that_are_choices_of_the_row(tmp_path):
    project = free_answers(
        tmp_path,
        {
            "fields": {"question": "question", "one": "one", "two": "two"},
            "label_column": "answer",
            "choices": ["one", "two"],
            "student_input": "{question} {one} {two}",
        },
        {"letter": ("{question}\n{one}\n{two}", r"\((?P<label>[a-z])\) because (?P<rationale>.*)")},
        pets,
    )
    project.pipeline["students"] |= {"gold_seeds": []}
    project.pipeline["annotate"] |= {"confidence": "agreement", "votes": 2}
    ran = run_with(project, knows_pets)
    # Each row was asked twice for its confidence, and the account has all of it.
    assert ran.info["usage"]["n_responses"] == len(stored(tmp_path)) > 2 * 48
    rows = [json.loads(line) for line in (annotation_of(tmp_path) / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(row["confidence_kind"], row["confidence"]) for row in rows} == {("agreement", 1.0)}
    assert (ran.info["labels"], ran.info["metric"], ran.info["n_choices"]) == ([], "exact", 2)
    assert ran.prompts["selection"][0]["accuracy"]["value"] == 1.0
    assert len(ran.records) == 2
    for record in ran.records.values():
        assert (record["test"]["n"], record["test"]["n_correct"], record["test"]["n_unreadable"]) == (12, 12, 0), record
    assert "one of 2 choices of the row; licence" in ran.page
    assert "→ dog, right" in ran.page


# Mixes, explanation rate, budget, batches, imported replies: as `zsd annotate` has them


def choosing(folder: Path, **annotate: object) -> Project:
    "A project with two templates that a scripted teacher answers in the same way."
    project = Project(folder)
    project.pipeline["teacher"] = {"model": "some-model", "price": {"input": 1.0, "output": 2.0}, "sampling": {"max_tokens": 50}}
    project.pipeline["annotate"] |= annotate
    project.pipeline["students"] |= {"steps": 2, "gold_seeds": []}
    return project


def says_a_word(body: dict, n: int) -> Scripted:
    return Scripted(text="a reason of more than five words is given here", prompt_tokens=40, completion_tokens=10)


def annotation_of(folder: Path) -> Path:
    (annotation,) = (folder / "zsd-work" / "annotations").iterdir()
    return annotation


def run_scripted(project: Project, is_stopped: bool = False) -> tuple[Done, list[dict]]:
    "`zsd run` with a scripted teacher, to its end or stopped once all is annotated; what was asked."
    with ScriptedServer(says_a_word) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        if not is_stopped:
            return zsd(project.folder, *RUN, env=env), list(server.bodies)
        done = interrupt(project.folder, lambda _: "5/6 students" in said(project.folder), *RUN, env=env)
        assert (done.status, done.last_line) == (1, HOW_TO_GO_ON), done.err
        return done, list(server.bodies)


def test_a_mix_and_an_explanation_rate(tmp_path):
    "The same annotation, in the same place and with the same id, as `zsd annotate` makes."
    mix = "seed: 3\nlabel: {tell: 1}\nexplanation: {tell: 0.5, explain: 0.5}\n"
    sure = {"confidence": "agreement", "votes": 2}
    project = choosing(tmp_path, mix="./mix.yaml", explanation_rate=0.5, train_rows=4, valid_rows=4, **sure)
    project.texts["mix.yaml"] = mix
    project.write().make_student()
    done, bodies = run_scripted(project, is_stopped=True)
    assert sum("seed" in body for body in bodies) == 2 * 8  # the votes
    assert "labels by tell (100%); rationales by tell (50%), explain (50%)" in done.err
    rows = [json.loads(line) for line in (annotation_of(tmp_path) / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [sum(row[name] is not None for row in rows) for name in ("label", "rationale")] == [4, 2]
    arguments = ("--task", "my_task.yaml", "--prompts", "my_prompts.yaml", "--mix", "mix.yaml", "--explanation-rate", "0.5", "--rows", "4")
    (tmp_path / "teacher.yaml").write_text(json.dumps(project.pipeline["teacher"]))
    how = ("--splits", "train,valid", "--seed", "24", "--confidence", "agreement", "--votes", "2", "--teacher", "teacher.yaml", "--offline")
    again = zsd(tmp_path, "annotate", *arguments, *how)
    assert (again.status, annotation_of(tmp_path).name in again.out) == (0, True), again.err


def test_a_budget_ends_a_pipeline_before_it_trains(tmp_path):
    "Questions of both stages count, in all runs together; with more money the same command goes on."
    project = choosing(tmp_path)
    project.pipeline["budget_usd"] = 0.0006  # ten replies of 60 millionths of a dollar, their worst case is more
    project.write().make_student()
    done, bodies = run_scripted(project)
    assert done.status == 1, done.err
    assert re.search(
        r"zsd: pipeline 'mine': \d+ questions have no reply within budget_usd 0.0006; raise it, and the same command goes on",
        done.last_line,
    )
    assert len(bodies) * 60e-6 <= 0.0006
    assert not (tmp_path / "zsd-work" / "mine" / "students").exists()
    done, more = run_scripted(project)
    assert (done.status, (len(bodies) + len(more)) * 60e-6 <= 0.0006) == (1, True), done.err
    project.pipeline["budget_usd"] = 1.0
    project.write()
    _, rest = run_scripted(project, is_stopped=True)
    assert len(bodies) + len(more) + len(rest) == N_QUESTIONS
    assert len(stored(tmp_path)) == N_QUESTIONS


def test_a_budget_needs_a_price(tmp_path):
    project = choosing(tmp_path)
    project.pipeline |= {"budget_usd": 1.0, "teacher": {"model": "some-model"}}
    project.write().make_student()
    done, bodies = run_scripted(project)
    assert (done.status, bodies) == (2, []), done.err
    assert "the teacher's price is not known" in done.last_line


def test_imported_replies_are_not_asked_again(tmp_path):
    "A template that takes imported replies finds them under its own words, whatever the sampling parameters were."
    from zero_shot_distill.prompt.collect import imported_for
    from zero_shot_distill.prompt.template import load_templates
    from zero_shot_distill.store.request import Response
    from zero_shot_distill.store.store import ResponseStore
    from zero_shot_distill.task.load import load_examples

    project = choosing(tmp_path)
    for template in project.prompts["templates"]:
        template["imported"] = True
    project.write().make_student()
    task = load_task(tmp_path / "my_task.yaml")
    templates, reply = load_templates(task, tmp_path / "my_prompts.yaml"), says_a_word({}, 0).text
    (tmp_path / "zsd-work").mkdir()
    with ResponseStore(tmp_path / "zsd-work" / "responses.sqlite") as store:
        for template in templates.values():
            for example in [*load_examples(task, "train"), *load_examples(task, "valid")]:
                request = imported_for(template, example, "some-model")[-1]
                at = "2024-01-01T00:00:00+00:00"
                store.put(request, Response(request.key, reply, "stop", None, None, 0.0, 1, at, "some-model", via="import"))
    _, bodies = run_scripted(project, is_stopped=True)
    assert bodies == []
    assert json.loads((annotation_of(tmp_path) / "report.json").read_text(encoding="utf-8"))["n_imported"] == 12
