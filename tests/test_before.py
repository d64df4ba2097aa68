"Stores, annotations, runs and work directories that an earlier version left behind are read, and gone on with. See before/README.md."

import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from scripted_server import BatchScript, Scripted, ScriptedServer
from zsd_command import Done, environment, zsd

from zero_shot_distill.annotate.rows import read_annotations
from zero_shot_distill.store.maintenance import verify_store
from zero_shot_distill.study.records import read_run

BEFORE = Path(__file__).parent / "before"
OWN = ("--task", "my_task.yaml", "--prompts", "my_prompts.yaml", "--model", "some-model", "--price-in", "2", "--price-out", "8")
N_STORED = 33  # 6 of them imported
RUNS = [
    "standard-gold-seed0-b8b9e1abe002",
    "standard-teacher-seed0-d520c5850fc5",
    "step-by-step-gold-seed0-6fd7587596b6",
    "step-by-step-teacher-seed0-5bfd9e7a49d9",
]


@pytest.fixture
def folder(tmp_path) -> Path:
    "The folder in which the commands ran."
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "work").rename(tmp_path / "zsd-work")
    with closing(sqlite3.connect(tmp_path / "zsd-work" / "responses.sqlite")) as connection:
        connection.executescript((tmp_path / "responses.sql").read_text(encoding="utf-8"))
    return tmp_path


def says_neutral(body: dict, n: int) -> Scripted:
    return Scripted(text="Neutral. The premise leaves it open whether that is so.", prompt_tokens=60, completion_tokens=12)


def run(folder: Path, server: ScriptedServer, *arguments: str) -> Done:
    return zsd(folder, *arguments, env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted"))


def rows_of(folder: Path, id: str, split: str) -> list[dict]:
    lines = (folder / "zsd-work" / "annotations" / id / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def give_batch(server: ScriptedServer, folder: Path) -> None:
    "Let the server have the batch that was under way, at its own address."
    (kept,) = (folder / "zsd-work").glob("responses.sqlite.batch-*.jsonl")
    lines = []
    for line in kept.read_text(encoding="utf-8").splitlines():
        key, request = line.split(" ", 1)
        asked = json.loads(request)
        messages = [{"role": role, "content": text} for role, text in asked["messages"]]
        body = {"model": asked["model"], "messages": messages, **asked["sampling"]}
        lines.append(json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}))
    server.batches.begin("\n".join(lines).encode(), {"zsd": kept.name.split("batch-")[1].removesuffix(".jsonl")})
    with closing(sqlite3.connect(folder / "zsd-work" / "responses.sqlite")) as connection, connection:
        connection.execute("UPDATE batches SET base_url = ?", [server.base_url])


def test_a_store_is_sound(folder):
    checked = verify_store(folder / "zsd-work" / "responses.sqlite")
    assert (checked.n_responses, checked.n_faults) == (N_STORED, 0)


def test_a_batch_is_fetched_and_an_annotation_goes_on(folder):
    "Nothing is asked twice, neither what was stored nor what was under way; the annotation keeps its id."
    (old,) = (path.name for path in (folder / "zsd-work" / "annotations").glob("my_task-*"))
    before = {split: rows_of(folder, old, split) for split in ("train", "valid")}
    with ScriptedServer(says_neutral, batch=BatchScript(validating_s=0.01, in_progress_s=0.02)) as server:
        give_batch(server, folder)
        done = run(folder, server, "annotate", *OWN, "--mix", "tell", "--rows", "12", "--via", "batch", "--json", "--quiet")
        assert done.status == 0, done.err
        assert json.loads(done.out)["splits"]["train"]["n_labels"] == 12
        assert (len(server.batches.batches), server.bodies) == (1, [])
        arguments = ("--mix", "mix.yaml", "--rows", "9", "--splits", "train,valid", "--budget-usd", "1")
        done = run(folder, server, "annotate", *OWN, *arguments, "--json", "--quiet")
        assert done.status == 0, done.err
        report = json.loads(done.out)
        assert (report["id"], report["n_rows_left"]) == (old, 0)
        asked = Counter(body["messages"][-1]["content"] for body in server.bodies)
    assert set(asked.values()) == {1}
    with closing(sqlite3.connect(folder / "zsd-work" / "responses.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM responses").fetchone()[0] == N_STORED + 6 + len(asked)
    for split, rows in before.items():
        labelled = {row["id"]: row for row in rows if row["label"] is not None}
        assert len(labelled) == {"train": 6, "valid": 0}[split]
        assert {row["id"]: row for row in rows_of(folder, old, split) if row["id"] in labelled} == labelled


def test_a_pipeline_goes_on(folder):
    "All is done but the page: nobody is asked, nothing is trained, and the runs keep their ids."
    with ScriptedServer(says_neutral) as server:
        done = run(folder, server, "run", "mine.yaml", "--json", "--quiet")
        assert (done.status, server.bodies) == (0, []), done.err
    assert sorted(path.stem for path in (folder / "zsd-work" / "mine" / "runs").glob("*.json")) == RUNS
    assert (folder / "zsd-work" / "mine" / "report" / "first_look.html").is_file()


def test_a_run_is_read(folder):
    read = read_run(folder / "zsd-work" / "mine")
    assert sorted(student.run_id for student in read.students) == RUNS


def test_a_student_predicts(folder):
    (student,) = (folder / "zsd-work" / "mine" / "students").iterdir()
    done = zsd(folder, "predict", "--student", str(student), "--input", "test.jsonl", "--json")
    assert done.status == 0, done.err
    assert len(json.loads(done.out)) == 3


def test_an_annotation_is_read(folder):
    (old,) = (folder / "zsd-work" / "annotations").glob("my_task-*")
    rows = read_annotations(old / "train.jsonl")
    assert (len(rows), sum(row.label is not None for row in rows)) == (9, 6)


def test_what_was_imported_is_still_there(folder):
    "Imported again, nothing is new; scored and annotated, all is as it was."
    (old,) = (path.name for path in (folder / "zsd-work" / "annotations").glob("cqa-*"))
    before = rows_of(folder, old, "test")
    env = environment(ZSD_DATA=str(folder))
    imported = zsd(folder, "import-thesis", "clone", env=env)
    assert "0 replies of gpt-3.5-turbo are new, 6 were stored already" in imported.out, imported.err
    scored = zsd(folder, "evaluate", "--task", "cqa", "--split", "test", "--profile", "thesis", "--json", env=env)
    figures = json.loads(scored.out)["2"]
    assert figures["performance"] == {"accuracy": 0.3333, "n_correct": 2, "n_wrong": 4}
    assert figures["characteristics"]["total_length_of_explanations"] == 452
    teacher = ("--model", "gpt-3.5-turbo", "--offline", "--json")
    done = zsd(folder, "annotate", "--task", "cqa", "--mix", "thesis_mix.yaml", "--splits", "test", *teacher, env=env)
    report = json.loads(done.out)
    assert (done.status, report["id"], report["n_imported"], report["n_rows_left"]) == (0, old, 6, 0)
    assert rows_of(folder, old, "test") == before
