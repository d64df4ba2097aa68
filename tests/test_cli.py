"The `zsd` command: what it refuses and how, what it prints, and what it need not import."

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_server import Scripted, ScriptedServer
from zsd_command import LABELS, LAUNCHER, Project, environment, interrupt, is_one_line, said, stored, zsd

from zero_shot_distill.task.task import load_task

HEAVY = {"torch", "transformers", "openai", "datasets", "matplotlib", "scipy", "statsmodels", "papermill", "pandas", "numpy"}
KEY = "sk-this-key-is-secret"


@pytest.fixture
def project(tmp_path) -> Project:
    "A folder in which all is well, but that nothing is written yet, and the student's weights are but a promise."
    project = Project(tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "tiny" / "model.safetensors").write_bytes(b"not looked into before it is trained")
    return project


# Faults in files: what is changed, and what the line must say


def _pipeline(**changes):
    return lambda project: project.pipeline.update(changes)


def _part(part: str, **changes):
    return lambda project: project.pipeline.setdefault(part, {}).update(changes)


def _task(**changes):
    return lambda project: project.task.update(changes)


def _template(**changes):
    return lambda project: project.prompts["templates"][1].update(changes)


def _text(name: str, text: str | bytes):
    return lambda project: project.texts.update({name: text})


def _csv(text: str):
    def change(project: Project) -> None:
        project.task["splits"]["valid"] = "valid.csv"
        project.texts["valid.csv"] = text

    return change


def _row(split: str, **changes):
    return lambda project: project.rows[split][1].update(changes)


def _no_split(split: str):
    return lambda project: project.task["splits"].pop(split)


FAULTS = {
    "unknown key": (_part("teacher", wieghts=[]), "mine.yaml: unknown key 'teacher.wieghts'; did you mean 'weights'?"),
    "missing key": (lambda project: project.pipeline.pop("task"), "mine.yaml: key 'task' is missing"),
    "wrong kind of value": (_part("students", steps="many"), "mine.yaml: students.steps: Input should be a valid integer"),
    "value out of range": (_part("students", alpha=2), "mine.yaml: students.alpha: Input should be less than or equal to 1"),
    "unknown training setting": (
        _part("students", learning_rat=1e-3),
        "unknown key 'students.learning_rat'; did you mean 'learning_rate'?",
    ),
    "unknown template in a mix": (_part("annotate", mix="tale"), "no template 'tale'", "known: tell, explain"),
    "missing mix file": (_part("annotate", mix="./nowhere.yaml"), "nowhere.yaml: no such file"),
    "explanation rate out of range": (_part("annotate", explanation_rate=2), "mine.yaml: annotate.explanation_rate: Input should be less"),
    "unknown way to ask": (_part("annotate", via="mail"), "mine.yaml: annotate.via: Input should be 'chat' or 'batch'"),
    "unknown outcome to retry": (_part("annotate", retry=["refusd"]), "mine.yaml: annotate.retry.0: Input should be 'length'"),
    "a name that leaves the folder": (_pipeline(name=".."), "mine.yaml: name: "),
    "no weights": (_part("teacher", weights=[]), "mine.yaml: teacher.weights: "),
    "no seeds": (_part("students", seeds=[], gold_seeds=[]), "mine.yaml: students: no seed"),
    "not YAML": (_text("mine.yaml", "name: [unclosed"), "mine.yaml: not valid YAML", "line 1"),
    "not text": (_text("mine.yaml", b"\xff\xfe\x00"), "mine.yaml: cannot be read"),
    "empty file": (_text("mine.yaml", ""), "mine.yaml: expected a mapping"),
    "unknown task": (_pipeline(task="pocket_nil"), "no task 'pocket_nil'; known: anli1"),
    "missing task file": (_pipeline(task="./nowhere.yaml"), "nowhere.yaml: no such file"),
    "unknown template": (_part("prompts", templates=["tell", "tale"]), "no template 'tale'", "known: tell, explain"),
    "missing placeholder": (
        _template(user_message="Well, {premise}?"),
        "my_prompts.yaml: template 'explain': placeholder {hypothesis} is missing",
    ),
    "unknown placeholder": (_template(user_message="{premise} {hypothesis} {guess}"), "unknown placeholder {guess}", "my_task"),
    "pattern that does not compile": (
        _template(reply_pattern="(?P<label>"),
        "my_prompts.yaml: templates.1.reply_pattern: the pattern does not compile",
    ),
    "pattern without label": (_template(reply_pattern="yes|no"), "templates.1.reply_pattern: the pattern needs a group (?P<label>"),
    "templates of another task": (
        _text("my_prompts.yaml", "task: other\ntemplates: [{id: a, user_message: b, reply_pattern: '(?P<label>a)'}]"),
        "written for task 'other'",
    ),
    "empty JSONL": (_text("train.jsonl", ""), "train.jsonl: no rows"),
    "broken JSONL": (_text("test.jsonl", '{"id": 1\n'), "test.jsonl:1: not valid JSON"),
    "ragged CSV": (
        _csv("id,premise,hypothesis,label\n1,a,b,neutral\n2,a,b\n"),
        "valid.csv:3: ragged row: this row has 3 parts divided by ',', the header has 4 columns",
    ),
    "missing column": (_csv("id,premise,label\n1,a,neutral\n"), "valid.csv:2: no column 'hypothesis'"),
    "missing data file": (lambda project: project.task["splits"].update(test="nowhere.jsonl"), "nowhere.jsonl: no such file"),
    "label outside the set": (_row("test", label="perhaps"), "test.jsonl:2: label 'perhaps' is none of entailment, neutral, contradiction"),
    "no label to measure by": (
        lambda project: [row.update(label=None) for row in project.rows["test"]],
        "task 'my_task': no row of test (test.jsonl) has a label to measure by; label some",
    ),
    "missing split": (_no_split("test"), "task 'my_task' has no split 'test'; it has train, valid"),
    "too many rows to choose by": (
        _part("prompts", confirmation_rows=90),
        "prompts.selection_rows + prompts.confirmation_rows",
        "93",
        "24",
    ),
    "too many rows to annotate": (_part("annotate", valid_rows=10), "annotate.valid_rows", "10", "'valid'", "9"),
    "student that is no folder": (_part("students", weights="./nowhere"), "nowhere does not exist; check the path"),
    "student that is a teacher": (_part("students", weights="smollm2-135m-instruct"), "smollm2-135m-instruct", "no student"),
    "unknown student": (_part("students", weights="flan-t5-smal"), "no weights are known as 'flan-t5-smal'", "flan-t5-small"),
    "unknown teacher": (_part("teacher", weights=["qwen"]), "no weights are known as 'qwen'"),
    "unknown report": (_pipeline(report="frist_look"), "no experiment notebook 'frist_look'", "first_look"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_files(project, fault):
    "Each is told before anybody is asked anything."
    change, *parts = FAULTS[fault]
    change(project)
    done = zsd(project.write().folder, "run", "mine.yaml", preload="light")
    is_one_line(done, 2, *parts)
    assert stored(project.folder) == []
    assert not done.modules & {"torch"}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("run", "nowhere.yaml"), ["nowhere.yaml: no such file"]),
        (("run", "dmeo"), ["no pipeline 'dmeo'; known: demo"]),
        (("templates", "pocket_nil"), ["no task 'pocket_nil'"]),
        (("run",), ["Missing argument 'pipeline'", "zsd run --help"]),
        (("annotate", "--task", "my_task.yaml", "--mix", "tell", "--splts", "train"), ["No such option: --splts", "--split"]),
        (("forecast", "--task", "my_task.yaml", "--mix", "tell", "--price-in", "1"), ["give --price-in and --price-out together"]),
        (("run", "mine.yaml", "--qiuet"), ["No such option: --qiuet", "--quiet", "zsd run --help"]),
        (("run", "mine.yaml", "twice"), ["unexpected extra argument", "twice"]),
        (("rnu", "mine.yaml"), ["No such command 'rnu'", "zsd --help"]),
        (("tasks", "--work-dir", "x"), ["No such option: --work-dir"]),
        (("run", "mine.yaml", "--work-dir"), ["--work-dir", "requires an argument"]),
        (("predict", "--input", "test.jsonl"), ["Missing option '--student'"]),
        (("teacher", "pull", "qwen"), ["no weights are known as 'qwen'"]),
        (("teacher", "pull", "--path", "mine.yaml"), ["mine.yaml is not a GGUF file"]),
        (("predict", "--student", "x", "--input", "nowhere.csv"), ["x: no trained student"]),
    ],
)
def test_faults_on_the_command_line(project, arguments, parts):
    is_one_line(zsd(project.write().folder, *arguments), 2, *parts)


# Faults of a hosted teacher


@pytest.fixture
def hosted(project) -> Project:
    project.pipeline["teacher"] |= {"model": "some-model"}
    return project.write()


def test_no_key(hosted):
    is_one_line(zsd(hosted.folder, "run", "mine.yaml"), 2, "no key for the teacher; put OPENAI_API_KEY=")


def test_wrong_key(hosted):
    with ScriptedServer(lambda body, n: Scripted(401, error=f"Incorrect API key provided: {KEY}")) as server:
        done = zsd(hosted.folder, "run", "mine.yaml", env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY=KEY))
    is_one_line(done, 2, "some-model at http://127.0.0.1", "the key is not accepted (HTTP 401); check OPENAI_API_KEY")
    assert KEY not in done.err
    assert not [path for path in hosted.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_unreachable(hosted):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    done = zsd(hosted.folder, "run", "mine.yaml", env=environment(OPENAI_BASE_URL=address, OPENAI_API_KEY=KEY))
    is_one_line(done, 1, f"some-model at {address}: cannot be reached", "check OPENAI_BASE_URL")


def test_no_address(hosted):
    env = environment(OPENAI_BASE_URL="localhost", OPENAI_API_KEY=KEY)
    is_one_line(zsd(hosted.folder, "run", "mine.yaml", env=env), 2, "no http:// or https:// address; correct OPENAI_BASE_URL")


# A disk that is full, a place that cannot be written


def test_full_disk_while_asking(hosted):
    "A limit on the size of files stands for the full disk. What arrived before stays, and the next run does not ask for it again."
    # Many bytes in few characters: the pattern tries every pair of places, and its time limit must not decide here what a slow machine reads.
    with ScriptedServer(lambda body, n: Scripted(text="\N{GRINNING FACE}" * 2500)) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY=KEY)
        limit = 100_000
        done = zsd(hosted.folder, "run", "mine.yaml", env=env, max_file_bytes=limit)
        is_one_line(done, 1, "responses.sqlite: the disk", "what was stored before is kept")
        kept = stored(hosted.folder)
        assert 1 <= len(kept) < 9
        before = len(server.bodies)
        is_one_line(
            zsd(hosted.folder, "run", "mine.yaml", env=env),
            2,
            "no template got one row right with a rationale (6 replies; most often: no label found)",
        )
        assert set(kept) < set(stored(hosted.folder))
        known = [json.dumps(body, sort_keys=True) for body in server.bodies]
        assert not set(known[: len(kept)]) & set(known[before:])


def test_full_disk_while_writing(hosted):
    "The same where a file of ours is written."
    with ScriptedServer(lambda body, n: Scripted(text="word " * 2000)) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY=KEY)
        interrupt(hosted.folder, lambda _: "5/6 students" in said(hosted.folder), "run", "mine.yaml", by=signal.SIGKILL, env=env)
        limit = 40_000
        done = zsd(hosted.folder, "run", "mine.yaml", env=env, max_file_bytes=limit)
    is_one_line(done, 1, "zsd-work: File too large; free some space and run again: what is stored is kept")


def test_work_dir_that_is_a_file(project):
    project.write()
    is_one_line(zsd(project.folder, "run", "mine.yaml", "--work-dir", "test.jsonl"), 2, "--work-dir", "'test.jsonl' is a file")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", LAUNCHER, "tasks", "--json"],
            env=environment(MODULES_FILE=os.devnull),
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "zsd: No space left on device; free some space and run again: what is stored is kept\n"


@pytest.mark.parametrize("arguments", ["tasks", "tasks --json", "templates pocket_nli", "templates pocket_nli --json", "--help"])
def test_a_reader_that_has_enough(tmp_path, arguments):
    "As in `zsd tasks | head -1`, even where the reader is gone before anything is written."
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *arguments.split()],
        env=environment(MODULES_FILE=os.devnull),
        cwd=tmp_path,
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


# What is printed


def test_tasks(tmp_path):
    listed = zsd(tmp_path, "tasks", preload="none")
    assert (listed.status, listed.err) == (0, "")
    assert "pocket_nli" in listed.out
    (task,) = [task for task in json.loads(zsd(tmp_path, "tasks", "--json").out) if task["task"] == "pocket_nli"]
    assert task["labels"] == ["entailment", "neutral", "contradiction"]
    assert not listed.modules & HEAVY


def test_templates(project):
    project.write()
    listed = zsd(project.folder, "templates", "my_task.yaml", "--prompts", "my_prompts.yaml", "--json", preload="none")
    assert [template["template"] for template in json.loads(listed.out)] == ["tell", "explain"]
    assert not listed.modules & HEAVY
    # Brackets are no mark-up of ours.
    project.texts["my_prompts.yaml"] = (
        "task: my_task\ntemplates: [{id: a, user_message: '{premise} {hypothesis} [right / wrong][/x]', reply_pattern: '(?P<label>[a-z])'}]"
    )
    listed = zsd(project.write().folder, "templates", "my_task.yaml", "--prompts", "my_prompts.yaml")
    assert (listed.status, listed.err) == (0, "")
    assert "[right / wrong][/x]" in listed.out
    as_json = zsd(project.folder, "templates", "my_task.yaml", "--prompts", "my_prompts.yaml", "--json")
    assert json.loads(as_json.out)[0]["reply pattern"] == "(?P<label>[a-z])"


EVERY_HELP = """
import sys
from typer.main import get_command
from zero_shot_distill.cli.main import app, main
def names(group, before=""):
    yield before.strip()
    for name, command in getattr(group, "commands", {}).items():
        yield from names(command, f"{before} {name}")
commands = list(names(get_command(app)))
for command in commands:
    sys.argv = ["zsd", *command.split(), "--help"]
    print(f"=== {command}")
    try:
        main()
    except SystemExit as done:
        assert done.code == 0, done
print("===", *sys.modules)
"""


def test_every_help_has_an_example_and_is_light(tmp_path):
    done = subprocess.run([sys.executable, "-c", EVERY_HELP], env=environment(), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    *helps, modules = done.stdout.split("=== ")[1:]
    assert len(helps) >= 31
    for text in helps:
        command = text.splitlines()[0]
        assert f"Example: zsd {command}".rstrip() in text, text
    assert not set(modules.split()) & HEAVY


def test_the_version_is_that_of_the_settings(tmp_path):
    (version,) = re.findall(r"(?m)^version = (\S+)$", (Path(__file__).parents[1] / "settings.ini").read_text())
    done = zsd(tmp_path, "--version", preload="light")
    assert (done.status, done.out, done.err) == (0, f"zero_shot_distill {version}\n", "")


def test_no_arguments_show_the_help(tmp_path):
    done = zsd(tmp_path)
    assert "Usage: zsd" in done.out + done.err
    assert (done.status, "zsd: " in done.err) == (2, False)


# Predicting with a student that was just trained


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    "A folder with a tiny student of each method."
    from zero_shot_distill.annotate.rows import AnnotatedRow
    from zero_shot_distill.student.config import TrainingConfig
    from zero_shot_distill.student.job import TrainingJob, train_student

    folder = tmp_path_factory.mktemp("students")
    project = Project(folder).write()
    project.make_student()
    task = load_task(folder / "my_task.yaml")
    annotated = [
        AnnotatedRow(row["id"], f"premise: {row['premise']} hypothesis: {row['hypothesis']}", row["label"], row["label"], row["rationale"])
        for row in project.rows["train"]
    ]
    for method in ("standard", "step-by-step"):
        config = TrainingConfig(method, "gold", steps=40, learning_rate=1e-2)
        train_student(TrainingJob(folder / "tiny", "tiny T5", task, annotated[:18], annotated[18:]), config, folder / method)
    return folder


PREDICT = ("predict", "--input", "train.jsonl", "--student")


def test_predict_and_explain(students):
    done = zsd(students, *PREDICT, "step-by-step", "--explain", "--json")
    assert (done.status, done.err) == (0, "")
    rows = json.loads(done.out)
    given = [json.loads(line) for line in (students / "train.jsonl").read_text().splitlines()]
    added = [{name: row.pop(name) for name in ("predicted_label", "predicted_score", "predicted_rationale")} for row in rows]
    assert rows == given  # every column comes back, the gold label too
    assert {one["predicted_label"] for one in added} <= {*LABELS, None}
    assert {one["predicted_label"] for one in added} != {None}
    assert all(isinstance(one["predicted_rationale"], str) and 0 <= one["predicted_score"] <= 1 for one in added)


def test_predict_without_labels(students):
    "A user's file has no labels. CSV in gives CSV out, with all columns, and none for what was not asked."
    (students / "new.csv").write_text('who,premise,hypothesis\n"Ann, Ben",A dog sleeps.,An animal sleeps.\n')
    done = zsd(students, "predict", "--input", "new.csv", "--student", "standard")
    assert (done.status, done.err) == (0, "")
    head, row = done.out.splitlines()
    assert head == "who,premise,hypothesis,predicted_label,predicted_score"
    assert row.startswith('"Ann, Ben",A dog sleeps.,An animal sleeps.,')
    written = zsd(students, "predict", "--input", "new.csv", "--student", "standard", "--output", "out.jsonl")
    assert written.out.startswith("wrote out.jsonl (rows: 1; "), written.err
    (line,) = (students / "out.jsonl").read_text().splitlines()
    assert list(json.loads(line)) == ["who", "premise", "hypothesis", "predicted_label", "predicted_score"]
    is_one_line(zsd(students, *PREDICT, "standard", "--output", "out.xlsx"), 2, "use .csv, .tsv, .jsonl, .json or .parquet")


def test_predict_lines_of_text_needs_one_field(students):
    (students / "lines.txt").write_text("A dog sleeps.\n")
    done = zsd(students, "predict", "--input", "lines.txt", "--student", "standard")
    is_one_line(done, 2, "a line of text is one field, and task 'my_task' has hypothesis, premise; give a .jsonl or .csv file")


def test_predict_without_rows(students):
    is_one_line(zsd(students, "predict", "--student", "standard", "--input", "nowhere.csv"), 2, "nowhere.csv: no such file")


def test_a_standard_student_cannot_explain(students):
    is_one_line(zsd(students, *PREDICT, "standard", "--explain"), 2, "standard method", "cannot explain")


def test_ctrl_c_while_a_record_is_written_is_no_error_of_pydantic(monkeypatch, capsys):
    "A serializer of ours that is interrupted comes out of pydantic as an error of its own."
    from pydantic import BaseModel, model_serializer

    from zero_shot_distill.cli import main as commands

    class Interrupted(BaseModel):
        @model_serializer(mode="wrap")
        def _write(self, handler):
            raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_invoke", lambda arguments: Interrupted().model_dump())
    names = {command.name or command.callback.__name__ for command in commands.app.registered_commands}
    assert names > commands._GO_ON
    for name, then in (
        ("annotate", "what arrived is stored, the same command goes on from there"),
        ("quality", "what arrived is stored, the same command goes on from there"),
        ("predict", "give the same command again"),
    ):
        monkeypatch.setattr("sys.argv", ["zsd", name, "--quiet"])
        with pytest.raises(SystemExit) as ended:
            commands.main()
        assert (ended.value.code, capsys.readouterr().err) == (1, f"zsd: stopped; {then}\n")


def test_doctor_says_what_is_missing_and_what_works_without(tmp_path):
    env = environment(
        HF_ENDPOINT="http://127.0.0.1:9",
        ZSD_CACHE=str(tmp_path / "cache"),
        OPENAI_API_KEY="sk-very-secret-0123456789",
        OPENAI_BASE_URL="http://teacher.example/v1",
    )
    done = zsd(tmp_path, "doctor", "--json", env=env, preload="none")
    found = {finding["about"]: finding for finding in json.loads(done.out)}
    assert (done.status, found["model hub"]["state"], found["hosted teacher"]["state"]) == (0, "missing", "ok")
    assert "package index" in found["model hub"]["advice"]
    assert found["weights: embedded teacher"]["state"] == "missing"
    assert "zsd teacher pull" in found["weights: embedded teacher"]["advice"]
    assert "secret" not in done.out + done.err
    assert not (tmp_path / "cache").exists()  # nothing is fetched or made
    assert not (tmp_path / "zsd-work").exists()


@pytest.mark.slow  # the notebook of `doctor` shows the same findings as a table
def test_doctor_shows_a_hub_that_is_turned_off_and_a_damaged_store(tmp_path):
    (tmp_path / "zsd-work").mkdir()
    (tmp_path / "zsd-work" / "responses.sqlite").write_text("no store")
    shown = zsd(tmp_path, "doctor", env=environment(HF_HUB_OFFLINE="1", OPENAI_API_KEY=""))
    assert shown.status == 0
    assert "turned off by HF_HUB_OFFLINE" in shown.out
    assert "no key" in shown.out
    assert "responses.sqlite" in " ".join(shown.out.split())
    assert "zsd tasks add NAME FILE" in shown.out
