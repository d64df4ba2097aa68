"""Train students by several methods on the shared SVAMP and e-SNLI, five seeds each, and print how far they lie apart.

python tests/benchmarks/methods.py [--work-dir zsd-work/methods] [--seeds 5] [--workers 2] [--quick]

SVAMP: the thesis's 720 train, 80 validation and 200 test problems, with rationales that GPT-3.5 wrote (template 2 of the thesis) and the published
equations. e-SNLI: 3,000 train, 300 validation and 1,000 test pairs of its published validation file, no premise in two of them, with the explanations that
people wrote. All students of a study have the same rows, settings and number of steps; the rows' order, dropout and which rationales are left follow the
seed. The ways of a grid take turns in an order drawn anew for each seed. Grids share students: step by step with all rationales is in each. What was stopped goes on; a record that is there is kept. `--quick` shows that it works, and measures nothing.

The records (`runs/*.json` in the work directory) are those of `zsd train`; the notebooks of `nbs/experiments` read them.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

SHARED = Path(os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data").resolve()
os.environ["ZSD_DATA"] = str(SHARED)  # before the package is asked for rows

from zero_shot_distill.annotate.rows import AnnotatedRow  # noqa: E402
from zero_shot_distill.core.display import table_text  # noqa: E402
from zero_shot_distill.student.config import TrainingConfig  # noqa: E402
from zero_shot_distill.student.job import TrainingJob  # noqa: E402
from zero_shot_distill.student.run import run_id_of  # noqa: E402
from zero_shot_distill.study.method_comparison import read_method_studies  # noqa: E402
from zero_shot_distill.study.sweep import PlannedRun, SweepEnd, precision_note  # noqa: E402
from zero_shot_distill.study.sweep_processes import train_all  # noqa: E402
from zero_shot_distill.task.load import load_examples, load_whole  # noqa: E402
from zero_shot_distill.task.task import Example, Task, load_task  # noqa: E402
from zero_shot_distill.thesis.files import read_thesis_reply, read_thesis_templates  # noqa: E402
from zero_shot_distill.weights.pull import pull  # noqa: E402

STANDARD, STEP_BY_STEP = {"method": "standard"}, {"method": "step-by-step"}
SHUFFLED, LABEL_FIRST = STEP_BY_STEP | {"rationale_control": "shuffled"}, {"method": "label-then-rationale"}
ONE_ENCODING = {"method": "shared-encoder"}
GRIDS = {  # name -> settings of each way to train
    "methods": [STANDARD, STEP_BY_STEP, LABEL_FIRST, SHUFFLED],
    "rates": [STANDARD, *(STEP_BY_STEP | {"rationale_share": share} for share in (0.15, 0.33, 0.5, 0.66, 0.85)), STEP_BY_STEP],
    "contents": [
        STANDARD,
        STEP_BY_STEP,
        *(STEP_BY_STEP | {"rationale_control": kind} for kind in ("shuffled", "other-row", "length-matched")),
        LABEL_FIRST,
    ],
    "alphas": [
        STANDARD,
        *(STEP_BY_STEP | {"alpha": alpha} for alpha in (0.1, 0.3)),
        STEP_BY_STEP,
        *(STEP_BY_STEP | {"alpha": alpha} for alpha in (0.7, 0.9)),
    ],
    "missing": [STANDARD, *(STEP_BY_STEP | {"rationale_share": 0.33, "missing_rationale": kind} for kind in ("mask", "blank", "drop"))],
    "sizes": [*(way | {"train_share": share} for share in (0.1, 0.25, 0.5) for way in (STANDARD, STEP_BY_STEP)), STANDARD, STEP_BY_STEP],
    "shared-encoder": [STANDARD, STEP_BY_STEP, ONE_ENCODING],  # of students with an encoder
}


@dataclass(frozen=True)
class Study:
    "What all students that are compared have in common."

    task: str
    weights: str
    settings: dict[str, Any]  # of `TrainingConfig`
    has_encoder: bool = True
    suffix: str = ""  # of the name, for another study of the same task and weights

    @property
    def name(self) -> str:
        return f"{self.task}-{self.weights}{self.suffix}"


STUDIES = {
    study.name: study
    for study in (
        # five seeds of these two, by all four methods, took two cores that other work shared some two hours
        Study("svamp", "flan-t5-small", {"steps": 80, "eval_every": 40}),
        Study("esnli", "flan-t5-small", {"steps": 240, "eval_every": 80}),
        # for a GPU: after 80 steps a student solves 4 to 12 of 100 problems
        Study("svamp", "flan-t5-small", {"steps": 400, "eval_every": 100}, suffix="-long"),
        # for a GPU: 12 steps of eight rows, with two evaluations, took a core 151 s
        Study("esnli", "smollm2-135m", {"steps": 240, "eval_every": 80, "learning_rate": 2e-4}, has_encoder=False),
    )
}
Rows = tuple[Task, list[AnnotatedRow], list[AnnotatedRow], list[Example]]  # to train on, to choose the checkpoint by, to test on


def svamp_rows() -> Rows:
    task = load_task("svamp")
    template = read_thesis_templates(SHARED / "thesis/prompt-templates/svamp.yaml")[2].in_our_form("svamp")
    with (SHARED / "thesis/query-results/svamp/train/2/responses.json").open() as lines:
        replies = [json.loads(line) for line in lines]
    read = {reply["prompt_values"]["question"]: read_thesis_reply(reply["response"], template, "svamp", {}) for reply in replies}

    def annotated(split: str) -> list[AnnotatedRow]:
        rows = load_examples(task, split)
        return [AnnotatedRow(row.id, task.input_text(row), row.label, None, read[row.fields["question"]].explanation) for row in rows]

    return task, annotated("train"), annotated("valid"), load_examples(task, "test")


def esnli_rows() -> Rows:
    task = load_task("esnli")
    groups: dict[str, list[Example]] = {}
    for row in load_whole(task, "valid"):
        groups.setdefault(task.group_of(row), []).append(row)
    drawn = sorted(groups)
    random.Random(0).shuffle(drawn)
    rows = [row for group in drawn for row in groups[group]]
    parts, start = [], 0
    for n in (3000, 300, 1000):
        end = start + n
        while task.group_of(rows[end - 1]) == task.group_of(rows[end]):  # a premise stays in one part
            end += 1
        parts.append(rows[start : start + n])
        start = end
    train, valid, test = parts
    annotated = [[AnnotatedRow(row.id, task.input_text(row), row.label, None, row.rationale) for row in part] for part in (train, valid)]
    return task, *annotated, test


@cache
def job_of(study: str) -> TrainingJob:
    of = STUDIES[study]
    rows, pulled = {"svamp": svamp_rows, "esnli": esnli_rows}[of.task](), pull(of.weights)
    return TrainingJob(pulled.path, pulled.title, *rows, annotation=f"shared-{of.task}")


def in_turn(studies: Sequence[Study], ways: Sequence[dict[str, Any]], n_seeds: int) -> list[PlannedRun]:
    "Order the runs: one seed after the other, in each the ways of every study in an order of its own."
    planned = []
    for seed in range(n_seeds):
        runs = [
            (study, TrainingConfig(**way, **study.settings, labels="gold", seed=seed))
            for study in studies
            for way in ways
            if study.has_encoder or way != ONE_ENCODING
        ]
        random.Random(seed).shuffle(runs)
        planned += [PlannedRun(run_id_of(config, f"shared-{study.task}", study.weights), study.name, config) for study, config in runs]
    return planned


def keep_copies(work_dir: Path, folder: Path) -> None:
    "Copy the records without the text of the data sets: groups are numbered, and the second reading of each answer is left out."
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((work_dir / "runs").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        test = record["test"]
        numbers = {group: str(number) for number, group in enumerate(dict.fromkeys(test["groups"]))}
        record["test"] = test | {"groups": [numbers[group] for group in test["groups"]], "readings": {}}
        (folder / path.name).write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def say(end: SweepEnd) -> None:
    print(time.strftime("%H:%M"), end.run.student, end.run.run_id, end.fault, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, help="default: zsd-work/methods; with --quick a folder beside it")
    parser.add_argument("--study", choices=list(STUDIES), nargs="+", default=list(STUDIES), help="default: all")
    parser.add_argument("--grid", choices=list(GRIDS), nargs="+", default=["methods"], help="ways to train; default: methods")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="students trained at a time")
    parser.add_argument("--copies", type=Path, help="folder that takes copies of all records, without text of the data sets")
    parser.add_argument("--quick", action="store_true", help="four steps a student: shows that it works")
    options = parser.parse_args()
    studies, work_dir = (
        [STUDIES[name] for name in options.study],
        options.work_dir or Path("zsd-work", "methods" + "-quick" * options.quick),
    )
    if options.quick:
        studies = [replace(study, settings=study.settings | {"steps": 4, "eval_every": 4}) for study in studies]
    ways = [way for grid in options.grid for way in GRIDS[grid]]
    ways = [way for place, way in enumerate(ways) if way not in ways[:place]]
    planned = in_turn(studies, ways, options.seeds)
    if note := precision_note(planned, work_dir):
        sys.exit(f"{work_dir}: {note}")
    train_all(planned, job_of, (work_dir, "methods"), options.workers, say)
    if options.copies:
        keep_copies(work_dir, options.copies)
    for study in read_method_studies(work_dir / "runs"):
        print(f"\n{study.title}\n\n{table_text(study.as_rows(), 200)}\n")
        print("\n".join(contrast.sentence for contrast in study.contrasts))


if __name__ == "__main__":
    main()
