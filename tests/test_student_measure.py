"What is measured of a student beside its accuracy, and the files that its predictions are kept in."

import csv
import io
import json
import random
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from zero_shot_distill.annotate.rows import AnnotatedRow
from zero_shot_distill.core.definition import DataError
from zero_shot_distill.core.files import write_csv
from zero_shot_distill.student.config import TrainingConfig, UnusableInput
from zero_shot_distill.student.job import TrainingJob
from zero_shot_distill.student.measure import AgainstTeacher, PredictedRows, Reading, Stated, calibration, rouge_l, stated_in
from zero_shot_distill.student.model import load_student_model, make_tiny_t5
from zero_shot_distill.student.record import RunRecord, predictions_path
from zero_shot_distill.student.run import train_and_record
from zero_shot_distill.student.student import evaluate_student, load_student, predict
from zero_shot_distill.task.task import Example, Task

# --- tables for a spreadsheet

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("http://x","a, b")',
    "＝1+1",
    "- 3 pens",
]
PLAIN = ["-3", "+3.5", "-3,000", "-3 %", "-1e-5", "-.5", "a cat = an animal", "not -3", "a\r=1", -3, 2.5]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_no_cell_of_a_csv_file_is_a_formula(delimiter):
    file = io.StringIO(newline="")
    write_csv([{"=name": cell} for cell in FORMULAS + PLAIN], file, ["=name"], delimiter)
    read = [row[0] for row in csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=delimiter)]
    assert read == ["'=name", *("'" + cell for cell in FORMULAS), *map(str, PLAIN)]
    table = pd.read_csv(io.StringIO(file.getvalue(), newline=""), sep=delimiter)
    assert table["'=name"].tolist() == read[1:]


def test_numbers_of_a_csv_file_are_numbers():
    file = io.StringIO(newline="")
    write_csv([{"id": "a", "label": "-3"}, {"id": "b", "label": -3.5}, {"id": "c"}], file, ["id", "label"])
    assert pd.read_csv(io.StringIO(file.getvalue()))["label"].sum() == -6.5


# --- calibration


def test_calibration_error_by_hand():
    # Bins of a fifteenth: 0.70 and 0.72 share one, 0.95 and 1.0 another, 0.3 is alone.
    found = calibration([0.70, 0.72, 0.95, 1.0, 0.3], [True, False, True, True, True])
    gaps = [abs(1 - 1.42), abs(2 - 1.95), abs(1 - 0.3)]
    assert found.error.value == pytest.approx(sum(gaps) / 5)
    assert found.frame["n"].tolist() == [1, 2, 2]
    assert found.frame["accuracy"].tolist() == [1.0, 0.5, 1.0]


@pytest.mark.parametrize("too_sure_by", [0.0, 0.15])
@pytest.mark.parametrize("copies", [1, 4])
def test_the_interval_of_the_calibration_error_covers(too_sure_by, copies):
    generator, covered = np.random.default_rng(3), 0
    for _ in range(40):
        says = np.repeat(1 - 0.6 * generator.beta(1, 5, 150), copies)
        right = np.repeat(generator.random(150), copies) < says - too_sure_by
        error = calibration(says, right, np.repeat(np.arange(150), copies).tolist() if copies > 1 else ()).error
        covered += error.low <= too_sure_by <= error.high
        assert error.low <= error.value <= error.high
    assert covered >= 36


def test_rows_of_one_group_give_no_interval():
    assert not calibration([0.5, 0.9], [True, True], ["a", "a"]).error.has_ends
    assert calibration([], []).error.n == 0
    assert Reading((1, 0, 0), 1, (0.9, None, 0.4)).calibration(["a", "b", "c"]).error.n == 2


# --- rationales


@pytest.mark.parametrize(
    ("text", "reference", "f1"),
    [
        ("police kill the gunman", "police killed the gunman", 0.75),  # Lin 2004, section 3.1
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("The cat, the dog!", "the dog the cat", 0.5),
        ("a b c", "a x b y c z", 2 * 3 / 9),
        ("same words", "Same   WORDS.", 1.0),
        ("", "anything", 0.0),
        ("nothing shared", "at all", 0.0),
        ("猫は動物", "猫も動物だ", 2 * 3 / 9),
    ],
)
def test_rouge_l_by_hand(text, reference, f1):
    assert rouge_l(text, reference) == pytest.approx(f1)
    assert rouge_l(reference, text) == pytest.approx(f1)


def test_rouge_l_finds_the_longest_common_subsequence():
    drawn = random.Random(0)
    for _ in range(50):
        a, b = (drawn.choices("abc", k=drawn.randint(1, 8)) for _ in range(2))
        common = max(n for n in range(len(a) + 1) if {*combinations(a, n)} & {*combinations(b, n)})  # every subsequence, tried one by one
        assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(2 * common / (len(a) + len(b)))


COLOURS = Task(
    name="colours",
    fields={"text": "text"},
    label_column="label",
    labels=("red", "green"),
    student_input="{text}",
    splits={},
    group_field="of",
)
CHOICES = Task(
    name="pets",
    fields={"q": "q", "one": "one", "two": "two"},
    label_column="label",
    choices=("one", "two"),
    student_input="{q} {one} {two}",
    splits={},
)


def test_the_label_that_a_rationale_states():
    said = {"Blood is like that, so the answer is red.": Stated.SAME, "It is grass, so the answer is green.": Stated.OTHER, "": Stated.NONE}
    for text, found in said.items():
        assert stated_in(text, "red", COLOURS) == found
    row = Example("a", {"q": "who barks ?", "one": "a dog", "two": "a cat"}, "a dog", None)
    assert stated_in("Dogs bark. Therefore, the answer is a dog.", "a dog", CHOICES, row) == Stated.SAME


# --- student and teacher


def test_student_and_teacher_are_paired_row_by_row():
    pair = AgainstTeacher.of([1] * 9 + [0], [0] * 8 + [1, None])
    assert (pair.difference.n, pair.n_only_student, pair.n_only_teacher) == (9, 8, 0)
    assert pair.p == pytest.approx(2 * 0.5 * 0.5**8)  # half of the one outcome that is as far off, on both sides
    assert AgainstTeacher.of([1, 0], [1, 0]).p == 1.0


# --- a student that was trained

COLOUR_ROWS = [
    AnnotatedRow(f"{thing}-{n}", f"{word} {thing}", label, label, f"{word} means {label}")
    for thing in ("apple", "wall", "shoe")
    for n, (word, label) in enumerate([("blood", "red"), ("rust", "red"), ("grass", "green"), ("moss", "green")])
]
EXAMPLES = [Example(row.id, {"text": row.input, "of": row.id.partition("-")[0]}, row.gold, None) for row in COLOUR_ROWS]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    "A work folder with a student that knows a dozen rows by heart, and its record; the teacher had two test rows wrong."
    folder = tmp_path_factory.mktemp("run")
    tiny = make_tiny_t5(folder / "tiny", [*(f"{row.input} {row.rationale}" for row in COLOUR_ROWS), "predict: explain:"])
    turned = [replace(row, label="red" if row.label == "green" else "green", rationale=None) for row in COLOUR_ROWS[:2]]
    valid = [replace(row, id=f"valid-{row.id}") for row in COLOUR_ROWS]
    job = TrainingJob(tiny, "tiny T5", COLOURS, COLOUR_ROWS, valid, EXAMPLES, [*turned, *COLOUR_ROWS[2:8]])
    config = TrainingConfig("step-by-step", "gold", steps=60, eval_every=60, batch_size=12, learning_rate=1e-2, precision="fp32")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_and_record(job, config, folder, "by-heart")
    yield folder
    torch.set_num_threads(n_threads)


def test_a_record_holds_what_was_measured(run):
    test = RunRecord.read(run / "runs" / "by-heart.json").test
    assert (test.n_correct, test.read) == (12, "generated")
    assert test.readings["generated"].correct == test.readings["scored"].correct == test.correct
    assert test.calibration.error.n == 12
    assert test.calibration.error.has_ends  # three groups
    pair = test.against_teacher
    assert (pair.difference.n, pair.n_only_student, pair.n_only_teacher, pair.p) == (8, 2, 0, None)
    assert (test.rationales.length.n, test.rationales.overlap.n, test.rationales.length.value) == (12, 6, 3.0)
    assert test.rationales.overlap.value == 1.0
    assert test.predictions == []
    for title in ("by their probability", "teacher on the same rows", "Rationales that the student writes"):
        assert title in test._repr_html_()
    assert test.frame["student less teacher"].tolist() == [0.25]


def test_predictions_row_by_row_are_beside_the_record(run, tmp_path):
    said = load_student(run / "students" / "by-heart").predictions
    assert said == PredictedRows.read(predictions_path(run / "runs", "by-heart"))
    assert (
        said
        == evaluate_student(
            run / "students" / "by-heart", EXAMPLES, [replace(row, label=one.teacher) for row, one in zip(COLOUR_ROWS, said, strict=True)]
        ).predictions
    )
    assert list(said.frame) == ["id", "text", "of", "gold", "teacher", "label", "score", "rationale", "is_right", "group"]
    assert (said[0].teacher, said[-1].teacher, said[0].rationale) == ("green", None, "blood means red")
    assert "predicted" not in json.loads((run / "runs" / "by-heart.json").read_text())["test"]
    risky = PredictedRows([replace(said[0], fields={"text": "=1+1"}, rationale="- so", label="-3"), *said[1:]])
    read = pd.read_csv(risky.write(tmp_path / "said.csv"))
    assert read.loc[0, ["text", "rationale", "label"]].tolist() == ["'=1+1", "'- so", "-3"]
    same = pd.read_parquet(risky.write(tmp_path / "said.parquet"))
    assert same.loc[0, ["text", "rationale", "label"]].tolist() == ["=1+1", "- so", "-3"]
    with pytest.raises(DataError, match="unknown kind of file"):
        risky.write(tmp_path / "said.xlsx")


def test_scored_labels_are_the_generated_ones_where_the_student_is_clear(run):
    student = run / "students" / "by-heart"
    written, scored = predict(student, EXAMPLES), predict(student, EXAMPLES, explain=True, read="scored")
    assert [one.label for one in written] == [one.label for one in scored] == [row.label for row in EXAMPLES]
    assert {one.score for one in written} == {None}
    assert all(0.5 < one.score <= 1 for one in scored)
    assert scored[0].rationale == "blood means red"
    test = evaluate_student(student, EXAMPLES, read="scored")
    assert (test.read, test.n_correct, test.n_unreadable) == ("scored", 12, 0)
    assert [one.score for one in test.predictions] == pytest.approx([one.score for one in scored], abs=1e-5)


def test_scores_are_what_the_model_says_of_each_label(run):
    "Two labels scored together have the probabilities of two plain passes of the model."
    student = load_student_model(run / "students" / "by-heart")
    (scored,) = predict(run / "students" / "by-heart", EXAMPLES[:1], read="scored")
    ids = student.tokenizer("predict: " + EXAMPLES[0].fields["text"], return_tensors="pt").input_ids.to(student.model.device)
    with torch.inference_mode():
        losses = [
            student.model(input_ids=ids, labels=target).loss.item() * target.shape[1]
            for target in (student.tokenizer(label, return_tensors="pt").input_ids.to(student.model.device) for label in COLOURS.labels)
        ]
    assert scored.score == pytest.approx(torch.tensor(losses).neg().softmax(0)[0].item(), abs=1e-4)


def test_how_many_rows_are_explained(run):
    student = run / "students" / "by-heart"
    assert [one.rationale is not None for one in evaluate_student(student, EXAMPLES, n_explained=4).predictions] == [True, False, False] * 4
    assert evaluate_student(student, EXAMPLES, n_explained=0).rationales is None


def test_each_row_has_its_own_candidates(tmp_path):
    sounds = {"dog": "barks", "cat": "meows", "cow": "moos"}
    rows = [Example(f"{a}-{b}", {"q": f"what {sounds[a]}", "one": a, "two": b}, a, None) for a in sounds for b in sounds if a != b]
    annotated = [AnnotatedRow(row.id, CHOICES.input_text(row), row.label, None, None) for row in rows]
    tiny = make_tiny_t5(tmp_path / "tiny", [*(row.input for row in annotated), "predict: explain:"])
    job = TrainingJob(tiny, "tiny T5", CHOICES, annotated, [replace(row, id=f"valid-{row.id}") for row in annotated], rows)
    config = TrainingConfig("standard", "gold", steps=2, eval_every=2, batch_size=6, precision="fp32")
    test = train_and_record(job, config, tmp_path, "pets").test
    assert test.readings["scored"].n_unreadable == 0  # hardly trained, and yet each answer is a choice of its row
    assert (test.rationales, test.confusion) == (None, None)
    for row, one in zip(rows, predict(tmp_path / "students" / "pets", rows, read="scored"), strict=True):
        assert one.label in (row.fields["one"], row.fields["two"])
    with pytest.raises(UnusableInput, match="the choices of a text are not known; give rows"):
        predict(tmp_path / "students" / "pets", ["what barks dog cat"], read="scored")


@pytest.mark.parametrize("method", ["label-then-rationale", "rationale-then-label"])
def test_labels_in_one_answer_with_their_rationale_are_scored(method, tmp_path):
    "Where the rationale comes first, the labels are scored after the one that the student wrote."
    words = [f"{row.input} {row.rationale}" for row in COLOUR_ROWS]
    tiny = make_tiny_t5(tmp_path / "tiny", [*words, "predict: explain: because: answer:"])
    valid = [replace(row, id=f"valid-{row.id}") for row in COLOUR_ROWS]
    job = TrainingJob(tiny, "tiny T5", COLOURS, COLOUR_ROWS, valid, EXAMPLES, COLOUR_ROWS)
    config = TrainingConfig(method, "gold", steps=100, eval_every=100, batch_size=12, learning_rate=1e-2, precision="fp32")
    test = train_and_record(job, config, tmp_path, "one-answer").test
    assert test.n_correct == 12
    assert test.readings["generated"].correct == test.readings["scored"].correct
    assert min(test.readings["scored"].confidences) > 0.5
    assert (test.rationales.length.n, test.rationales.overlap.value) == (12, 1.0)
    scored = predict(tmp_path / "students" / "one-answer", EXAMPLES[:3], explain=True, read="scored")
    assert [(one.label, one.rationale) for one in scored] == [(row.label, row.rationale) for row in COLOUR_ROWS[:3]]
    assert [one.rationale for one in predict(tmp_path / "students" / "one-answer", EXAMPLES[:2], read="scored")] == [None, None]
