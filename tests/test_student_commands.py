"`zsd train` on what `zsd annotate` made, and `zsd predict` with the student: two commands on a file of one's own."

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_server import Scripted, ScriptedServer
from zsd_command import Project, environment, interrupt, is_one_line, zsd

from zero_shot_distill.student import predict_rows as predict_rows_module
from zero_shot_distill.student.config import TrainingConfig, UnusableInput
from zero_shot_distill.student.data import read_answer
from zero_shot_distill.student.job import TrainingJob, train_student
from zero_shot_distill.student.onnx import DECODER, ENCODER
from zero_shot_distill.student.predict_rows import predict_rows
from zero_shot_distill.student.record import RunRecord
from zero_shot_distill.student.student import load_student
from zero_shot_distill.task.rows import read_rows

TEXTS = {
    "good": ["It works well.", "I like this one.", "A fine thing.", "Well made."],
    "bad": ["It broke.", "I hate this one.", "A poor thing.", "Badly made."],
}
OWN = ("--task", "my_task.yaml")


def says_what_it_is(body: dict, n: int) -> Scripted:
    text = body["messages"][-1]["content"]
    label = next(label for label, texts in TEXTS.items() if any(one in text for one in texts))
    return Scripted(text=f"{label}: the words of the writer say so.", prompt_tokens=30, completion_tokens=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "A task with one field, and an annotation of its train and valid rows."
    folder = tmp_path_factory.mktemp("reviews")
    rows = [{"text": f"{text} {number}", "label": label} for label, texts in TEXTS.items() for number, text in enumerate(texts)]
    project = Project(folder, rows={"train": rows[::2] + rows[1:2], "valid": rows[3::2], "test": rows})
    project.task |= {
        "fields": {"text": "text"},
        "labels": list(TEXTS),
        "aliases": {},
        "id_column": None,
        "student_input": "{text}",
    }
    project.prompts = {
        "task": "my_task",
        "templates": [{"id": "tell", "user_message": "{text} Good or bad?", "reply_pattern": "(?P<label>good|bad): (?P<rationale>.*)"}],
    }
    project.write().make_student()
    with ScriptedServer(says_what_it_is) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        options = (*OWN, "--prompts", "my_prompts.yaml", "--mix", "tell", "--model", "some-model", "--json")
        for splits in ("train,valid", "train", "train,valid,test"):
            done = zsd(folder, "annotate", *options, "--splits", splits, env=env)
            assert done.status == 0, done.err
            (folder / f"{splits}.id").write_text(json.loads(done.out)["id"])
    return folder


def train(folder: Path, *more: str, splits: str = "train,valid"):
    id = (folder / f"{splits}.id").read_text()
    return zsd(folder, "train", *OWN, "--annotations", id, "--student", "./tiny", "--steps", "4", *more)


def test_train_then_predict(folder):
    done = train(folder, "--method", "step-by-step", "--labels", "teacher", "--alpha", "0.7", "--seed", "3", "--json")
    assert done.status == 0, done.err
    said = json.loads(done.out)
    assert (said["method"], said["labels"], said["alpha"], said["seed"], said["n_rationales"], said["test"]["n"]) == (
        "step-by-step",
        "teacher",
        0.7,
        3,
        5,
        8,
    )
    record = RunRecord.read(folder / "zsd-work" / "runs" / f"{said['run_id']}.json")
    assert record.test.n == 8
    again = train(folder, "--method", "step-by-step", "--alpha", "0.7", "--seed", "3")
    assert f"Student: zsd-work/students/{said['run_id']}" in again.out, again.err
    student = f"zsd-work/students/{said['run_id']}"
    (folder / "lines.txt").write_text("It works well.\n\nIt broke.\n")
    predicted = zsd(folder, "predict", "--student", student, "--input", "lines.txt", "--explain")
    rows = list(csv.DictReader(io.StringIO(predicted.out)))
    assert [list(row) for row in rows] == [["text", "predicted_label", "predicted_score", "predicted_rationale"]] * 2
    assert [row["text"] for row in rows] == ["It works well.", "It broke."]
    (folder / "table.txt").write_text("number\ttext\n7\tIt works well.\n8\tIt broke.\n")  # as `zsd tasks add` reads a .txt file
    rows = list(csv.DictReader(io.StringIO(zsd(folder, "predict", "--student", student, "--input", "table.txt").out)))
    assert [(row["number"], row["text"]) for row in rows] == [("7", "It works well."), ("8", "It broke.")]


def test_agreement_with_the_teacher_and_gold_accuracy_on_the_test_rows(folder):
    "Both where the teacher annotated the test rows, too; beside them what needs no model."
    done = train(folder, "--method", "standard", splits="train,valid,test")
    said = " ".join(done.out.split())
    for part in (
        "teacher agreement (valid)",
        "gold accuracy (valid)",
        "teacher agreement (test)",
        "gold accuracy (test)",
        "always “good”",
        "chance",
    ):
        assert part in said, (part, done.out, done.err)
    record = json.loads(train(folder, "--method", "standard", "--json", splits="train,valid,test").out)
    assert record["test"]["agrees"] == record["test"]["correct"]  # this teacher is always right
    assert sum(map(sum, record["valid_confusion"]["counts"])) == 3
    assert "teacher agreement (test)" not in train(folder, "--method", "standard").out


def test_a_row_without_text_comes_back_without_a_label(folder):
    "And whatever else its columns hold: a label of another task, an empty name."
    said = json.loads(train(folder, "--method", "standard", "--json").out)
    (folder / "new.csv").write_text("name;text;label\na;It works well.;neutral\n;;good\nc;It broke.;\n")
    done = zsd(folder, "predict", "--student", f"zsd-work/students/{said['run_id']}", "--input", "new.csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["name"] for row in rows] == ["a", "", "c"]
    assert rows[1] == {"name": "", "text": "", "label": "good", "predicted_label": "", "predicted_score": ""}
    assert "new.csv was read with semicolons between the columns" in done.err
    (folder / "empty.csv").write_text('text\n""\n')
    is_one_line(zsd(folder, "predict", "--student", f"zsd-work/students/{said['run_id']}", "--input", "empty.csv"), 2, "'text' is empty")
    (folder / "other.csv").write_text("body\nIt broke.\n")
    is_one_line(zsd(folder, "predict", "--student", f"zsd-work/students/{said['run_id']}", "--input", "other.csv"), 2, "no column 'text'")


def test_gold_labels_by_the_standard_method(folder):
    done = train(folder, "--method", "standard", "--labels", "gold", "--json")
    said = json.loads(done.out)
    assert (said["method"], said["labels"], said["alpha"], said["n_rationales"]) == ("standard", "gold", None, 0)


@pytest.mark.parametrize(
    ("more", "splits", "parts"),
    [
        ((), "train", ["no rows of split 'valid'", "--splits train,valid"]),
        (("--method", "both"), "train,valid", ["method 'both': must be one of standard, step-by-step"]),
        (("--alpha", "2"), "train,valid", ["alpha 2.0: must be between 0 and 1"]),
        (("--task", "pocket_nli"), "train,valid", ["is of task 'my_task'"]),
        (("--student", "nowhere"), "train,valid", ["nowhere"]),
        (("--annotations", "nowhere"), "train,valid", ["no annotation 'nowhere'", "there are my_task-"]),
        (("--annotations", "nowhere.csv"), "train,valid", ["nowhere.csv: no such file"]),
        (("--seeds", "0;1"), "train,valid", ["--seeds 0;1: whole numbers from 0 with commas between"]),
        (("--set", "batch=4"), "train,valid", ["--set batch=4: write NAME=VALUE, NAME one of alpha,"]),
        (("--preset", "huge"), "train,valid", ["no preset 'huge'; known: "]),
        (("--label", "stars"), "train,valid", ["fields, label and rationale name columns of a file"]),
    ],
)
def test_mistakes(folder, more, splits, parts):
    is_one_line(train(folder, *more, splits=splits), 2, *parts)


@pytest.fixture(scope="module")
def own_file(folder) -> Path:
    "Forty rows with a label and a reason, as anybody's table has them; each text stands in two rows."
    rows = [
        {"Review text": f"{text} {number}", "Sentiment": label, "why": "the words say so"}
        for label, texts in TEXTS.items()
        for text in texts
        for number in range(5)
    ]
    with (folder / "reviews.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "reviews.csv"


def train_on_file(folder: Path, *more: str, name: str = "reviews.csv"):
    return zsd(folder, "train", "--annotations", name, "--student", "./tiny", "--steps", "4", *more)


def test_a_file_of_rows_trains_students_for_several_seeds(folder, own_file):
    "No task is named, no annotation made: the columns tell; every seed has a student, and a second run trains none again."
    done = train_on_file(folder, "--seeds", "0,1", "--set", "batch_size=4", "--set", "learning-rate=1e-3", "--json")
    assert done.status == 0, done.err
    assert "reviews.csv: input Review text; label Sentiment; rationale why. 32 rows to train on, 4 valid, 4 test" in done.err
    records = json.loads(done.out)
    settings = [(one["seed"], one["batch_size"], one["learning_rate"], one["labels"], one["n_train"], one["test"]["n"]) for one in records]
    assert settings == [(0, 4, 1e-3, "gold", 32, 4), (1, 4, 1e-3, "gold", 32, 4)]
    assert records[0]["n_rationales"] == 32
    made = [(folder / "zsd-work" / "students" / one["run_id"] / "student.json").stat().st_mtime_ns for one in records]
    again = train_on_file(folder, "--seeds", "1,0,2", "--set", "batch_size=4", "--set", "learning-rate=1e-3", "--json")
    assert [one["seed"] for one in json.loads(again.out)] == [1, 0, 2]
    assert made == [(folder / "zsd-work" / "students" / one["run_id"] / "student.json").stat().st_mtime_ns for one in records]


def together(folder: Path, *given: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    "Run a script in two processes that train together."
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *given)
    return subprocess.run(command, cwd=folder, env=env or environment(), capture_output=True, text=True)


TOGETHER = ("train", "--annotations", "reviews.csv", "--student", "tiny", "--set", "learning_rate=1e-3", "--json")


@pytest.mark.slow  # nbs/0_core/02_progress asks which process reports, nbs/9_cli/05_student trains in one
def test_processes_that_train_together(folder, own_file):
    "The first one reports, once, and lists what would be uploaded; the losses are those of one process."
    options = ("--steps", "4", "--set", "eval_every=2")
    alone = json.loads(train_on_file(folder, *options, "--set", "learning_rate=1e-3", "--json").out)
    more = ("--work-dir", "together", "--push-to-hub", "me/reviews", "--dry-run")
    done = together(folder, Path(sys.executable).with_name("zsd"), *TOGETHER, *options, *more)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert done.stderr.count("reviews.csv: input Review text") == done.stderr.count("Would be uploaded") == 1
    assert [point["loss"] for point in found["history"]] == pytest.approx([point["loss"] for point in alone["history"]], rel=1e-3)


OFTEN = """
import os, signal
from zero_shot_distill.cli.main import main
from zero_shot_distill.student import checkpoint, trainer
checkpoint.EVERY_S = 0.0  # after every tenth step, when processes that train together look
ended = trainer._Watch.on_step_end
def on_step_end(self, args, state, control, **more):
    ended(self, args, state, control, **more)
    if state.global_step == 1:
        print("began", flush=True)
    if state.global_step == int(os.environ.get("DIE_AT", 0)) and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
trainer._Watch.on_step_end = on_step_end
main()
"""


@pytest.mark.slow  # tests/test_training.py kills a training in one process
def test_processes_that_were_killed_go_on_together(folder, own_file, tmp_path):
    "One of two is killed after 25 steps: the same command goes on after the twentieth, and ends with the weights of an unbroken training."
    (script := tmp_path / "often.py").write_text(OFTEN)
    unbroken, killed, again = (
        together(folder, script, *TOGETHER, "--steps", "40", "--set", "eval_every=20", "--work-dir", name, env=environment(**more))
        for name, more in (("unbroken", {}), ("killed", {"DIE_AT": "25"}), ("killed", {}))
    )
    assert unbroken.returncode == 0, unbroken.stderr
    assert killed.returncode != 0
    assert again.returncode == 0, again.stderr
    assert [done.stdout.count("began") for done in (unbroken, killed, again)] == [2, 2, 0]
    weights = [next((folder / name).glob("students/*/model.safetensors")).read_bytes() for name in ("unbroken", "killed")]
    assert weights[0] == weights[1]
    assert [path.name for path in (folder / "killed" / "students").iterdir() if path.name.startswith(".")] == []


def test_a_file_is_read_as_a_task_says(folder, own_file):
    (folder / "text.jsonl").write_text(
        "".join(
            json.dumps({"text": f"{one} {n}", "label": label}) + "\n" for label, texts in TEXTS.items() for one in texts for n in range(5)
        )
    )
    done = train_on_file(folder, *OWN, "--method", "standard", "--json", name="text.jsonl")
    assert done.status == 0, done.err
    assert json.loads(done.out)["task"] == "my_task"
    is_one_line(train_on_file(folder, *OWN, "--label", "label", name="text.jsonl"), 2, "task my_task.yaml says what the columns are")


@pytest.mark.parametrize(
    ("content", "more", "parts"),
    [
        ("text,label\nIt works well,good\nI like it very much,good\n", (), ["column 'label' has 'good' in each of its 2 rows: there is nothing to learn"]),
        ("text,label\nIt works well,fine\n", OWN, ["mine.csv:2: label 'fine' is none of good, bad"]),
        ("body,label\nIt works well,good\n", OWN, ["mine.csv:2: no column 'text'; the row has body, label"]),
        ("first part,second part,stars\nIt works well,It does,5\nIt broke again,It did,1\n", (), ["no column is called label or answer; say with --label which"]),
        ("text,label\nIt works well,good\n", ("--labels", "teacher"), ["nothing to learn"]),
        ("text,label\n" + "".join(f"It works well for {n},{['good', 'bad'][n % 2]}\n" for n in range(30)), ("--labels", "teacher"), ["--labels teacher: the labels of a file count as gold"]),
        ("text,label\n" + "".join(f"It works well for {n},{['good', 'bad'][n % 2]}\n" for n in range(30)), ("--quiet",), ["no training row has a rationale; train with the standard method"]),
    ],
)  # fmt: skip
def test_files_that_cannot_be_trained_on(folder, content, more, parts):
    (folder / "mine.csv").write_text(content)
    is_one_line(train_on_file(folder, *more, name="mine.csv"), 2, *parts)


@pytest.mark.slow  # nbs/1_weights/04_hub_model asks such a hub and hears the same
def test_a_model_of_the_hub_that_cannot_be_reached(folder, own_file):
    "Nothing listens at this address; it is said at once."
    env = environment(HF_ENDPOINT="http://127.0.0.1:9")
    done = zsd(folder, "train", "--annotations", "reviews.csv", "--student", "google/byt5-small", env=env)
    is_one_line(done, 1, "model 'google/byt5-small' cannot be fetched from the Hugging Face hub")


@pytest.fixture(scope="module")
def student(folder) -> str:
    "A trained student of the task, which explains itself."
    return f"zsd-work/students/{json.loads(train(folder, '--json').out)['run_id']}"


def write_reviews(path: Path, n: int) -> Path:
    "As many rows as wanted, the first with a text that a spreadsheet would compute."
    words = [text for texts in TEXTS.values() for text in texts]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "text"])
        writer.writerows([number, words[number % len(words)] if number else "=1+1"] for number in range(n))
    return path


@pytest.fixture(scope="module")
def labels_of_ten(folder, student) -> list[str | None]:
    "What the student says of ten rows in this process."
    source = write_reviews(folder / "ten-here.csv", 10)
    return [row["predicted_label"] for window in predict_rows(folder / student, source, explain=True) for row in window]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_form_holds_the_same_labels(folder, student, labels_of_ten, form):
    write_reviews(folder / "ten.csv", 10)
    done = zsd(folder, "predict", "--student", student, "--input", "ten.csv", "--output", f"ten.{form}", "--explain")
    assert done.status == 0, done.err
    assert done.out.startswith(f"wrote ten.{form} (rows: 10;")
    rows = [row for _, row in read_rows(folder / f"ten.{form}")]
    assert [list(row) for row in rows] == [["number", "text", "predicted_label", "predicted_score", "predicted_rationale"]] * 10
    assert rows[0]["text"] == ("'=1+1" if form in ("csv", "tsv") else "=1+1")
    assert [row["predicted_label"] or None for row in rows] == labels_of_ten


def test_lines_of_standard_input(folder, student):
    done = zsd(folder, "predict", "--student", student, "--input", "-", stdin="It works well.\n\nIt broke.\n")
    assert [row["text"] for row in csv.DictReader(io.StringIO(done.out))] == ["It works well.", "It broke."], done.err


def test_windows_change_nothing(folder, student, monkeypatch):
    write_reviews(folder / "ten.csv", 10)
    [whole] = predict_rows(folder / student, folder / "ten.csv")
    monkeypatch.setattr(predict_rows_module, "WINDOW", 3)
    windows = list(predict_rows(folder / student, folder / "ten.csv"))
    assert [len(window) for window in windows] == [3, 3, 3, 1]
    assert [row for window in windows for row in window] == whole
    assert all(row["predicted_score"] >= 0.5 for row in whole)  # of two labels the more likely one
    written = [row for window in predict_rows(folder / student, folder / "ten.csv", read="generated") for row in window]
    assert [list(row) for row in written] == [["number", "text", "predicted_label"]] * 10
    with pytest.raises(UnusableInput, match="read 'both': must be one of generated, scored"):
        predict_rows(folder / student, folder / "ten.csv", read="both")


PEAK = """
import resource, sys
from pathlib import Path
from zero_shot_distill.student.predict_rows import predict_rows, write_rows
seen = []
print(write_rows(predict_rows(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=lambda done, total: seen.append((done, total))), "csv", Path(sys.argv[3])).n_rows)
assert seen[0] == (0, seen[0][1]) and seen[-1][0] == seen[-1][1] - 1, seen[-1]  # the header is a line, too
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(folder, student):
    "Peak memory for 20,000 rows is that for 2,000, one window, but for a few megabytes."
    peaks = []
    for n in (2_000, 20_000):
        source = write_reviews(folder / f"{n}.csv", n)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, folder / student, source, folder / f"{n}-out.csv"],
            env=environment(),
            capture_output=True,
            text=True,
        )
        n_rows, peak = done.stdout.split() if not done.returncode else pytest.fail(done.stderr)
        assert int(n_rows) == n
        peaks.append(float(peak))
    assert peaks[1] - peaks[0] < 30, peaks


def test_a_full_disk_leaves_no_half_file(folder, student):
    # More than the disk takes; a longer file would fail in its first window, too.
    write_reviews(folder / "many.csv", 600)
    done = zsd(folder, "predict", "--student", student, "--input", "many.csv", "--output", "full.jsonl", max_file_bytes=30_000)
    is_one_line(done, 1, "full.jsonl: File too large; free some space and run again")
    assert not list(folder.glob("full.jsonl*"))


def test_ctrl_c_leaves_no_half_file(folder, student):
    write_reviews(folder / "many.csv", 100_000)
    done = interrupt(
        folder, lambda _: any(path.stat().st_size for path in folder.glob("half.jsonl.*.partial")), "predict", "--student", student, "--input", "many.csv", "--output", "half.jsonl",
    )  # fmt: skip
    assert done.status == 1
    assert not list(folder.glob("half.jsonl*"))


def test_folders_that_are_no_student(folder, student):
    write_reviews(folder / "ten.csv", 10)
    predict = ("predict", "--input", "ten.csv", "--student")
    is_one_line(zsd(folder, *predict, "tiny"), 2, "tiny: no trained student (student.json is missing)")
    is_one_line(zsd(folder, *predict, "nowhere"), 2, "nowhere: no trained student")
    shutil.copytree(folder / student, folder / "other-kind", dirs_exist_ok=True)
    config = json.loads((folder / "other-kind" / "config.json").read_text())
    (folder / "other-kind" / "config.json").write_text(json.dumps(config | {"model_type": "vit", "architectures": ["ViTModel"]}))
    is_one_line(zsd(folder, *predict, "other-kind"), 2, "other-kind", "vit")


def test_what_cannot_be_uploaded_is_said_before_training(folder, own_file):
    is_one_line(train_on_file(folder, "--push-to-hub", "me/reviews", "--seeds", "0,1"), 2, "--push-to-hub takes one student; give one seed")


@pytest.mark.slow  # test_publish.py asks such a hub in its own process, and test_tasks.py by a command
def test_a_hub_that_cannot_be_reached_is_said_before_training(folder, own_file):
    env = environment(HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_none")
    done = zsd(folder, "train", "--annotations", "reviews.csv", "--student", "./tiny", "--push-to-hub", "me/reviews", env=env)
    is_one_line(
        done, 1, "model me/reviews: the hub at http://127.0.0.1:9 cannot be reached or does not answer as a hub", "Nothing was begun"
    )


@pytest.mark.slow  # test_release.py runs the code of the other card, test_student_models.py reads such folders
def test_the_code_of_the_card_runs_as_it_stands(folder, student):
    "In another process, with transformers alone; it says what `predict` says."
    card = (folder / student / "README.md").read_text()
    for part in ("annotation: `", "Test rows had no part in training", "accuracy"):
        assert part in card.replace("Annotation", "annotation"), part
    code = card.split("```python\n")[1].partition("```")[0].replace('text="..."', 'text="It works well. 3"')
    asked = subprocess.run([sys.executable, "-c", code], cwd=(folder / student).parent, env=environment(), capture_output=True, text=True)
    (folder / "one.txt").write_text("It works well. 3\n")
    [[row]] = predict_rows(folder / student, folder / "one.txt", explain=True, read="generated")
    answers = asked.stdout.splitlines()
    assert read_answer(load_student(folder / student).task, answers[0]) == row["predicted_label"], asked.stderr
    assert answers[1].strip() == row["predicted_rationale"]


@pytest.mark.parametrize("form", ["onnx", pytest.param("onnx-int8", marks=pytest.mark.slow)])
def test_an_exported_student_is_asked_like_any_other(folder, student, form):
    "It is written with its figures beside the original's, and says the same where nothing was rounded."
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="needs pip install 'zero_shot_distill[onnx]'")
    write_reviews(folder / "ten.csv", 10)
    done = zsd(folder, "export", "--student", student, "--to", form, "--output", form, "--test", "test.jsonl", "--json")
    original, exported = json.loads(done.out)
    assert (original["student"], exported["student"]) == ("original", {"onnx": "float32", "onnx-int8": "8-bit weights"}[form])
    labels = [
        [row["predicted_label"] for window in predict_rows(folder / one, folder / "ten.csv") for row in window] for one in (student, form)
    ]
    if form == "onnx-int8":
        import onnx

        for part in (ENCODER, DECODER):  # and how large it is, the notebook compares
            assert "MatMulNBits" in {node.op_type for node in onnx.load(folder / form / part).graph.node}
    else:
        assert labels[0] == labels[1]
        assert original["gold accuracy"] == exported["gold accuracy"]
    assert "## This export" in (folder / form / "README.md").read_text()
    assert zsd(folder, "predict", "--student", form, "--input", "ten.csv", "--explain").status == 0
    again = zsd(folder, "train", *OWN, "--annotations", (folder / "train,valid.id").read_text(), "--student", f"./{form}", "--quiet")
    is_one_line(again, 2, f"{form} is not a transformers folder")
    with pytest.raises(UnusableInput, match="an exported student cannot be trained; begin with the one that it was exported from"):
        train_student(
            TrainingJob(folder / form, form, load_student(folder / student).task, [], []),
            TrainingConfig("standard", "gold"),
            folder / "again",
        )


def test_what_cannot_be_exported(folder, student):
    is_one_line(zsd(folder, "export", "--student", student, "--to", "gguf"), 2, "no form 'gguf'; known: onnx, onnx-int8")
    is_one_line(zsd(folder, "export", "--student", "tiny"), 2, "tiny: no trained student")
