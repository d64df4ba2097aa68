"Few test rows with a gold label, many others with a teacher's: `zsd annotate` and `zsd train` on a file of one's own."

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripted_server import Scripted, ScriptedServer
from zsd_command import Project, environment, zsd

from zero_shot_distill.annotate.job import Annotation
from zero_shot_distill.prompt.fault import ReadFault
from zero_shot_distill.student.few_gold import RowsWithoutGold
from zero_shot_distill.student.record import RunRecord
from zero_shot_distill.student.student import evaluate_student
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task

TEXTS = {"It works well.": "good", "I like this one.": "good", "It broke.": "bad", "A poor thing.": "bad"}
N_TEST, N_GOLD = 160, 40
MUTE = "who knows"


def gold_of(number: int) -> str:
    "What the writer of a test row meant, which the words alone, and so the student, get wrong in three of ten."
    label = [*TEXTS.values()][number % 4]
    return label if number % 10 not in (1, 5, 8) else {"good": "bad", "bad": "good"}[label]


def row_of(number: int) -> dict[str, str]:
    return {"id": f"test-{number}", "text": f"{[*TEXTS][number % 4]} Case {number}", "label": gold_of(number)}


def knows_better(body: dict, n: int) -> Scripted:
    "A teacher that is right on 12 of 13 test rows, and gives no label for one of 17."
    text = body["messages"][-1]["content"]
    label = next(label for words, label in TEXTS.items() if words in text)
    if "Case" in text:
        number = int(text.partition("Case ")[2].split()[0])
        label = gold_of(number if number % 13 else number + 1)
        label = MUTE if number % 17 == 3 else label
    return Scripted(text=f"{label}: the words of the writer say so.", prompt_tokens=30, completion_tokens=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "A task with a test file of which a quarter, drawn at random, has a label, and annotations with and without its rows."
    folder = tmp_path_factory.mktemp("few")
    learned = [
        {"id": f"{split}-{n}", "text": text, "label": label}
        for split in ("train", "valid")
        for n, (text, label) in enumerate(TEXTS.items())
    ]
    chosen = set(random.Random(1).sample(range(N_TEST), N_GOLD))
    test = [row_of(n) if n in chosen else row_of(n) | {"label": ""} for n in range(N_TEST)]
    project = Project(folder, rows={"train": learned[:4], "valid": learned[4:], "test": test})
    project.task |= {"fields": {"text": "text"}, "labels": ["good", "bad"], "aliases": {}, "student_input": "{text}"}
    template = {"id": "tell", "user_message": "{text} Good or bad?", "reply_pattern": "(?P<label>good|bad): (?P<rationale>.*)"}
    project.prompts = {"task": "my_task", "templates": [template]}
    project.write().make_student()
    with ScriptedServer(knows_better) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        for splits in ("train,valid", "train,valid,test"):
            options = ("--task", "my_task.yaml", "--prompts", "my_prompts.yaml", "--mix", "tell", "--model", "some-model", "--json")
            done = zsd(folder, "annotate", *options, "--splits", splits, env=env)
            assert done.status == 0, done.err
            (folder / f"{splits}.id").write_text(json.loads(done.out)["id"])
    return folder


def train(folder: Path, splits: str, *more: str):
    settings = ("--method", "standard", "--steps", "60", "--set", "learning_rate=0.01", "--set", "batch_size=4")
    named = ("--task", "my_task.yaml", "--annotations", (folder / f"{splits}.id").read_text(), "--student", "./tiny")
    done = zsd(folder, "train", *named, *settings, *more)
    assert done.status == 0, done.err
    return done


@pytest.fixture(scope="module")
def trained(folder):
    "What `zsd train` said where the test rows are annotated, too, and the student."
    done = train(folder, "train,valid,test")
    return done, folder / re.search(r"Student: (\S+)", done.out)[1]


def test_the_teachers_labels_narrow_the_interval(folder, trained):
    done, student = trained
    said = " ".join((done.out + done.err).split())
    assert "40 test rows of the task; 120 others without a label help by the teacher's" in said
    assert "with the help of the teacher's labels of 120 test rows without a gold label" in said
    assert "NOTE" not in done.out  # nothing is left out, and the gold rows were drawn at random
    test = RunRecord.read(folder / "zsd-work" / "runs" / f"{student.name}.json").test
    found = test.powered
    assert (test.n, found.n, found.n_rows, found.gold_alone) == (N_GOLD, N_GOLD, N_TEST, test.interval)
    assert 0.5 < test.accuracy < 0.9, "the student has not learnt its texts"
    assert found.high - found.low < 0.9 * (test.interval.high - test.interval.low)
    assert f"worth {found.n_worth:.0f} gold rows" in said
    assert found.low < 0.7 < found.high  # three of ten are wrong by construction


def test_rows_that_help_nothing_are_counted(folder):
    done = train(folder, "train,valid")
    said = " ".join((done.out + done.err).split())
    assert "40 test rows of the task; 120 test rows without a label are left out" in said
    assert "NOTE" in done.out
    assert "120 test rows without a gold label are left out: there is no teacher's reply to them" in said
    assert "with the teacher" not in " ".join(done.out.split("NOTE")[0].split())


@pytest.fixture(scope="module")
def measured(folder, trained):
    "The student, its test rows, and what the teacher said of them."
    examples = load_examples(load_task(str(folder / "my_task.yaml")), "test")
    taught = Annotation.open(folder / "zsd-work" / "annotations" / (folder / "train,valid,test.id").read_text()).rows["test"]
    return trained[1], examples, taught


def test_an_unread_reply_is_no_agreement_on_either_kind_of_rows(measured):
    student, examples, taught = measured
    mute = {row.id for row in taught if row.label is None}
    others = evaluate_student(student, examples, taught).without_gold
    assert mute
    assert not any(row.is_open for row in taught)
    known = [one for one, row in zip(others.gold_agrees, (row for row in examples if row.label), strict=True) if row.id in mute]
    assert known
    assert set(known) == {0}
    assert (others.n, others.n_answered, len(others.agrees), others.gold_agrees.count(None)) == (120, 120, 120, 0)


def test_rows_that_are_not_answered_yet_count_on_neither_kind(measured):
    student, examples, taught = measured
    whole = evaluate_student(student, examples, taught)
    unanswered = f"{ReadFault.NO_RESPONSE}: not asked: the budget is used up"
    half = [replace(row, label=None, label_error=unanswered) if place % 2 else row for place, row in enumerate(taught)]
    found = evaluate_student(student, examples, half)
    is_gold = {row.id for row in examples if row.label is not None}
    n_gold_open = sum(row.is_open and row.id in is_gold for row in half)
    assert (found.without_gold.n_answered, found.without_gold.gold_agrees.count(None)) == (
        sum(not row.is_open for row in half) - N_GOLD + n_gold_open,
        n_gold_open,
    )
    assert (found.correct, found.interval) == (whole.correct, whole.interval)  # gold rows count, whether the teacher saw them or not
    assert found.powered.gold_alone == whole.interval
    assert found.agreement is None or found.agreement.n < whole.agreement.n
    (note,) = found.notes
    assert "are left out" in note


def test_gold_rows_that_were_picked_are_noticed(measured):
    student, examples, taught = measured
    whole = evaluate_student(student, [replace(row, label=gold_of(int(row.id[5:]))) for row in examples], taught)
    easy = {row.id for row in whole.predictions if row.is_right and row.teacher == row.label}
    picked = [replace(row, label=gold_of(int(row.id[5:])) if row.id in easy else None) for row in examples]
    (note,) = evaluate_student(student, picked, taught).notes
    assert "are no random part" in note


@pytest.mark.parametrize("teacher", [0.5, 0.7, 0.9, 1.0])
def test_never_wider_than_the_gold_labels_alone(teacher):
    draw = np.random.default_rng(int(10 * teacher))
    for n_gold in (1, 2, 5, 12, 50):
        for share in (0.0, 0.3, 0.9, 1.0):
            hits = draw.random(n_gold + 300) < share
            agrees = [int(one) for one in hits ^ (draw.random(len(hits)) > teacher)]
            groups = [str(place // 2) for place in range(len(hits))]
            gold = tuple(one if draw.random() < 0.9 else None for one in agrees[:n_gold])
            others = RowsWithoutGold(300, 300, tuple(agrees[n_gold:]), tuple(groups[n_gold:]), gold)
            correct = hits[:n_gold].astype(int).tolist()
            found = others.accuracy(correct, groups[:n_gold])
            alone = found.gold_alone
            assert found.has_ends == alone.has_ends
            assert not alone.has_ends or found.high - found.low <= alone.high - alone.low
            assert others.as_row(correct, groups[:n_gold])["gain"]
