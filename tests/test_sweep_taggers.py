"`zsd sweep` with students that tag words: what is planned, trained, shared and refused, with a BERT of two narrow layers."

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from test_ner_student import CITIES, PEOPLE, ROWS, TASK, TEST, TYPES, VALID, text_of
from test_student import refused
from zsd_command import is_one_line, zsd

from zero_shot_distill.ner.config import TaggerConfig
from zero_shot_distill.ner.model import make_tiny_bert
from zero_shot_distill.ner.record import TaggerRecord
from zero_shot_distill.ner.schedule import SCHEDULES
from zero_shot_distill.student.config import UnusableInput
from zero_shot_distill.student.model import make_tiny_t5
from zero_shot_distill.student.run import run_id_of
from zero_shot_distill.student.training_rows import TrainingRows
from zero_shot_distill.study.mechanical import train_mechanically
from zero_shot_distill.study.sweep import Sweep, load_sweep, plan_sweep, precision_note, seconds_left
from zero_shot_distill.study.sweep_ray import train_apart

pytestmark = pytest.mark.usefixtures("one_thread")
BOTH = TrainingRows("travels-0123", "", TASK, ROWS, VALID, TEST, "teacher")  # 8 rows with a gold label, 24 with a teacher's
SETTINGS = {"steps": 4, "eval_every": 2, "batch_size": 4}


def plan(rows: TrainingRows, *vary: dict, student: str = "tiny", **settings):
    sweep = Sweep(name="tags", annotations="x", students=(student,), settings=SETTINGS | settings, vary=vary, seeds=(0, 1))
    return plan_sweep(sweep, rows, lambda _: "a tiny BERT")


# --- the plan


def test_what_a_schedule_does_not_read_makes_no_other_student():
    every = {"schedule": list(SCHEDULES), "gold_sentences": [3, 5], "mix": [0.2, 0.8], "first_phase": [0.3, 0.6]}
    every["distilled_weight"] = [0.5, 2.0]
    planned = plan(BOTH, every, steps=40)
    assert len({run.run_id for run in planned}) == len(planned)
    # of each seed
    assert {name: n / 2 for name, n in Counter(run.way for run in planned).items()} == {
        "gold": 2,
        "distilled": 1,
        "mix": 2 * 2 * 2,
        "gold-gold": 2 * 2,
        "distilled-gold": 2 * 2,
        "simple-mix": 2**4,
        "linear": 2**3,
        "sigmoid": 2**3,
        "power": 2**3,
    }


def test_a_student_has_the_name_that_zsd_train_gives_it_and_all_gold_sentences_are_one_student():
    planned = plan(BOTH, {"schedule": ["linear"], "gold_sentences": [3, 8, 0]})
    wanted = [TaggerConfig("linear", seed=seed, gold_sentences=n, **SETTINGS) for seed in (0, 1) for n in (3, 0)]
    assert {run.run_id for run in planned} == {run_id_of(config, BOTH.id, "a tiny BERT") for config in wanted}


def test_the_shipped_sweep_has_every_schedule_at_every_size(tmp_path):
    sweep = load_sweep(Path("ner_two_phase"), "x")
    assert (sweep.students, len(sweep.seeds)) == (("all-minilm-l6-v2",), 5)
    rows = replace(BOTH, train=[replace(ROWS[n % 8], id=f"row-{n}") for n in range(501)])
    planned = plan_sweep(sweep, rows, str)
    assert Counter(run.way for run in planned) == {name: 5 if name == "distilled" else 30 for name in SCHEDULES}
    with refused(UnusableInput, "gold_sentences 500: only 499 training rows have a gold label; take fewer, or 0"):
        plan_sweep(sweep, replace(rows, train=rows.train[:499]), lambda _: pytest.fail("looked for weights"))
    with refused(UnusableInput, "task 'pocket_nli' is not of entities; name a method"):
        train_mechanically("ner_two_phase", tmp_path)


def test_labels_that_are_not_there_are_refused_before_anything_is_fetched():
    gold_alone = replace(BOTH, labels="gold", train=[replace(row, label=None) for row in ROWS])
    assert len(plan(gold_alone, {"schedule": ["gold", "gold-gold"]})) == 4
    with refused(UnusableInput, "no training row has a teacher label, which schedule 'sigmoid' needs"):
        plan(gold_alone, {"schedule": ["gold", "sigmoid"]})
    with refused(UnusableInput, "no training row has a gold label, which schedule 'mix' needs"):
        plan(replace(BOTH, train=ROWS[8:]), {"schedule": ["distilled", "mix"]})


# --- trained where the files are not


def test_a_student_is_trained_apart_and_tells_how_long_the_others_take(tmp_path):
    tiny = make_tiny_bert(tmp_path / "tiny", [row.input for row in ROWS])
    planned = plan(BOTH, {"schedule": ["linear", "gold"]}, student=str(tiny))
    assert seconds_left(planned, tmp_path, 1) is None
    trained = train_apart(planned[0], BOTH, 1)
    assert trained.fault == "", trained.trace
    path = planned[0].record_path(tmp_path)
    path.parent.mkdir()
    path.write_text(trained.files[path.name])
    record = planned[0].read_record(tmp_path)
    assert isinstance(record, TaggerRecord)
    assert replace(record.config, precision="auto") == planned[0].config
    assert seconds_left(planned, tmp_path, 1) == pytest.approx(3 * record.train_s)
    other = "fp32" if record.precision == "bf16" else "bf16"
    elsewhere = [replace(run, config=replace(run.config, precision=other)) for run in planned]
    assert precision_note(planned, tmp_path) == ""
    assert precision_note(elsewhere, tmp_path).startswith(f"1 of 1 students that are there were trained in {record.precision}")


# --- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("travels")
    rows = []
    for n in range(60):
        text, person, city = text_of(n), PEOPLE[n % 5], CITIES[n % 7]
        spans = [[0, len(person), "person"], [len(text) - len(city), len(text), "city"]]
        rows.append(json.dumps({"text": text, "spans": spans}))
    (folder / "rows.jsonl").write_text("\n".join(rows))
    (folder / "plain.jsonl").write_text("\n".join(json.dumps({"text": f"row {n}", "label": "ab"[n % 2]}) for n in range(60)))
    definition = {"name": "travels", "metric": "entities", "types": TYPES, "fields": {"text": "text"}, "label_column": "spans"}
    (folder / "travels.yaml").write_text(yaml.safe_dump(definition | {"student_input": "{text}", "splits": {"train": "rows.jsonl"}}))
    make_tiny_bert(folder / "tiny", [text_of(n) for n in range(60)])
    make_tiny_t5(folder / "t5", ["a text"])
    return folder


def sweep(folder: Path, *options: str, **changes):
    content = {"name": "travels", "annotations": "rows.jsonl", "task": "travels.yaml", "students": ["./tiny"], "settings": SETTINGS}
    content |= {"vary": [{"schedule": ["gold", "gold-gold"], "gold_sentences": [4, 0]}], "seeds": [0, 1]} | changes
    (folder / "travels_sweep.yaml").write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not None}))
    return zsd(folder, "sweep", "travels_sweep.yaml", *options)


def test_a_sweep_trains_what_is_not_there_and_lists_the_schedules(folder):
    how = ("--method", "gold", "--steps", "4", "--set", "eval_every=2", "--set", "batch_size=4", "--set", "gold_sentences=4")
    where = ("--annotations", "rows.jsonl", "--task", "travels.yaml", "--student", "./tiny")
    assert zsd(folder, "train", *where, *how, "--quiet").status == 0
    # What zsd train has trained is not trained again; one that fails stops no other.
    done = sweep(folder, "--records", "shared", students=["./tiny", "./t5"], seeds=[0])
    assert done.status == 1
    assert re.search(r"8 students, 1 trained already, 7 to do, 1 at a time; about \d+:\d\d", done.err)
    assert done.last_line.startswith("zsd: 4 of 8 students failed; their tracebacks are in zsd-work/sweeps/travels")
    assert done.err.count("a t5 model; words are tagged by an encoder") == 4
    assert len(list((folder / "zsd-work" / "sweeps" / "travels").iterdir())) == 4
    assert "4 records in zsd-work/runs" in done.out
    for words in ("F1 of 6 test sentences", "gold alone", "gold in two phases", "mean F1 (test)"):
        assert words in done.out
    records = [TaggerRecord.read(path) for path in (folder / "zsd-work" / "runs").glob("*.json")]
    assert {(one.config.schedule, one.n_gold) for one in records} == {(name, n) for name in ("gold", "gold-gold") for n in (4, 48)}
    assert [path.name for path in (folder / "zsd-work" / "students").iterdir()] == [
        one.run_id for one in records if one.config.schedule == "gold" and one.n_gold == 4
    ], "the one of zsd train"
    # Another machine finds them at the address, and trains none of them again.
    other = sweep(folder, "--records", "shared", "--work-dir", "elsewhere", "--dry-run")
    assert "4 records fetched from shared" in other.err
    assert "8 students, 4 trained already" in other.err
    assert (other.out.count(" yes"), other.out.count(" no")) == (4, 4)


NO_WEIGHTS = {"students": ["./nothing"]}  # what is refused before they are looked for


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"vary": [{}]}, ["task 'travels' is of entities, whose students tag words: name a schedule"]),
        ({"annotations": "plain.jsonl", "task": None}, ["is not of entities; name a method, one of standard, step-by-step"]),
        ({"vary": [{"schedule": ["gold"], "gold_sentences": [4, 49]}]}, ["gold_sentences 49: only 48 training rows have a gold label"]),
        (
            {"vary": [{"schedule": ["gold"]}, {"method": ["standard"]}]},
            ["travels_sweep.yaml: method is of", "a sweep is of one kind: make two"],
        ),
        ({"preset": "hsieh"}, ["no preset 'hsieh'; known: smoke, quick, bert"]),
        ({}, ["nothing"]),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(folder, changes, parts):
    is_one_line(sweep(folder, "--quiet", "--work-dir", "none", **NO_WEIGHTS | changes), 2, *parts)
    assert not list(folder.glob("none/runs/*"))
