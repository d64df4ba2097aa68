"`zsd sweep` as a user has it: a grid that fails in part, is stopped, killed and run again."

import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
import yaml
from zsd_command import ended, interrupt, is_one_line, start, wait_until, zsd

from zero_shot_distill.student.model import make_tiny_t5
from zero_shot_distill.student.record import RunRecord

TEXTS = [
    (f"{thing} {number}", label, f"a {thing} is {label}") for number in range(30) for thing, label in (("rose", "red"), ("sky", "blue"))
]
SWEEP = {
    "name": "flowers",
    "annotations": "rows.jsonl",
    "students": ["./tiny"],
    "settings": {"steps": 6, "eval_every": 3},
    "vary": [{"method": ["standard", "step-by-step"]}],
    "seeds": [0, 1, 2],
}


@pytest.fixture
def folder(tmp_path) -> Path:
    lines = [json.dumps({"text": text, "label": label, "rationale": why}) for text, label, why in TEXTS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    make_tiny_t5(tmp_path / "tiny", ["predict: explain:", *(part for row in TEXTS for part in row)])
    return tmp_path


def sweep(folder: Path, *options: str, **changes):
    (folder / "flowers.yaml").write_text(yaml.safe_dump(SWEEP | changes))
    # The processes in which it trains are begun anew, as a user's are.
    return zsd(folder, "sweep", "flowers.yaml", *options)


def records(folder: Path) -> list[RunRecord]:
    return [RunRecord.read(path) for path in sorted((folder / "zsd-work" / "runs").glob("*.json"))]


NO_RATIONALES = {"method": ["step-by-step"], "rationale_share": [0.0]}


def test_a_sweep_trains_what_is_not_there_and_compares(folder):
    first = sweep(folder, "--dry-run", seeds=[0, 1])
    assert (first.status, first.out.count(" no")) == (0, 4), first.err
    assert not records(folder)
    # One that fails stops no other.
    done = sweep(folder, "--workers", "2", "--records", "shared", seeds=[0, 1], vary=[*SWEEP["vary"], NO_RATIONALES])
    assert done.status == 1
    assert "no training row has a rationale" in done.err
    assert done.last_line.startswith("zsd: 2 of 6 students failed; their tracebacks are in zsd-work/sweeps/flowers")
    tracebacks = [path.read_text() for path in (folder / "zsd-work" / "sweeps" / "flowers").iterdir()]
    assert ["UnusableInput: no training row has a rationale" in text for text in tracebacks] == [True, True]
    assert "step by step less label-only" in done.out
    assert "4 records in zsd-work/runs" in done.out
    found = records(folder)
    assert [one.config.rationale_share for one in found] == [1.0] * 4
    assert {(one.config.method, one.config.seed) for one in found} == {
        (way, seed) for way in ("standard", "step-by-step") for seed in (0, 1)
    }
    assert not list((folder / "zsd-work" / "students").iterdir())
    # Another machine finds them at the address, and trains none of them again.
    other = ("--records", "shared", "--work-dir", "elsewhere", "--dry-run")
    elsewhere = sweep(folder, *other, seeds=[0, 1])
    assert "4 records fetched from shared" in elsewhere.err
    assert "4 students, 4 trained already" in elsewhere.err
    # What zsd train has trained is not trained again.
    how = ("--preset", "quick", "--method", "standard", "--steps", "6", "--set", "eval_every=3", "--seed", "2", "--quiet")
    trained = zsd(folder, "train", "--annotations", "rows.jsonl", "--student", "./tiny", *how)
    assert trained.status == 0, trained.err
    assert re.search(r"6 students, 5 trained already, 1 to do, 1 at a time; about \d+:\d\d", sweep(folder, "--dry-run").err)


def test_the_command_names_task_or_columns_in_place_of_the_file(folder):
    rows = [json.dumps({"words": text, "label": label, "gold": label, "note": why}) for text, label, why in TEXTS]
    (folder / "own.jsonl").write_text("\n".join(rows) + "\n")
    own = ("--annotations", "own.jsonl", "--dry-run")
    refused = sweep(folder, *own)
    assert refused.status == 2
    assert "could each hold the label; name one, e.g. --label" in refused.err
    taken = sweep(folder, *own, "--label", "gold", "--fields", "words", "--rationale", "note", task="cqa")
    assert taken.status == 0, taken.err
    assert "input words; label gold; rationale note" in taken.err
    added = zsd(folder, "tasks", "add", "own", "own.jsonl", "--label", "gold", "--fields", "words", "--rationale", "note")
    assert added.status == 0, added.err
    taken = sweep(folder, *own, "--task", "own.yaml", label="label", fields=["text"])
    assert taken.status == 0, taken.err
    assert taken.out.count(" no") == 6, taken.out


LONG = {"settings": {"steps": 400, "eval_every": 400}, "seeds": [0, 1]}


@pytest.mark.slow
def test_ctrl_c_and_a_kill_leave_nothing_behind_that_goes_on(folder):
    (folder / "flowers.yaml").write_text(yaml.safe_dump(SWEEP | LONG))
    runs = folder / "zsd-work" / "runs"
    stopped = interrupt(folder, lambda _: len(list(runs.glob("*.json"))) >= 1, "sweep", "flowers.yaml", "--workers", "2", preload="none")
    assert stopped.last_line == "zsd: stopped; what arrived is stored, the same command goes on from there"
    assert "Traceback" not in stopped.err
    n_there = len(records(folder))
    assert n_there < 4
    process = start(folder, "sweep", "flowers.yaml", "--workers", "2")
    watched = psutil.Process(process.pid)
    wait_until(lambda: sum("spawn_main" in " ".join(one.cmdline()) for one in watched.children(recursive=True)) == 2, process, folder)
    time.sleep(2)  # the processes begin to watch the one that began them
    children = watched.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert ended(children)
    done = sweep(folder, **LONG)
    assert done.status == 0, done.err
    assert len(records(folder)) == 4


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"settings": {"stepps": 3}}, ["flowers.yaml: settings: no setting 'stepps'; did you mean 'steps'?"]),
        ({"settings": {"alpha": 3}}, ["alpha 3.0: must be between 0 and 1"]),
        ({"vary": [{"labels": ["teacher"]}]}, ["labels teacher: the labels of a file count as gold"]),
        ({"annotations": "none.csv"}, ["none.csv"]),
        ({"students": ["./nothing"]}, ["nothing"]),
        ({"preset": "tiny"}, ["no preset 'tiny'; known: smoke, quick, hsieh, thesis"]),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(folder, changes, parts):
    is_one_line(sweep(folder, "--quiet", **changes), 2, *parts)
    assert not records(folder)
