"""How well the order of `zsd quality` puts wrong labels first, where a simulated teacher's errors are known. Prints a Markdown table.

    python tests/benchmarks/entity_quality.py [--cross-fit 3] [--steps 200] [--rows 3394] [--gold 100]

The sentences are WNUT-17's, from the shared data. The simulated teacher gives the gold entities, of which one in five is left out, one in ten has another
type and one in twenty lacks its last word, and in one sentence of ten names a capitalised phrase that is none. The order sees the gold labels of `--gold` of
the sentences, drawn at random; the other sentences with a finding are ordered by it, and counted. `--cross-fit` also trains that many students, which judge
the sentences that they have not learned.
"""

import argparse
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from zero_shot_distill.annotate.entity_quality import EntityQuality, Judgement, check_entities
from zero_shot_distill.annotate.rows import AnnotatedRow
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.entities.capitals import capital_runs
from zero_shot_distill.entities.entity import Entity, entities_text, read_entities
from zero_shot_distill.ner.config import TaggerConfig
from zero_shot_distill.ner.cross_fit import cross_fit
from zero_shot_distill.student.job import TrainingJob
from zero_shot_distill.student.training_rows import default_weights, weights_for
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import Task, load_task

SHARED = os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
FIRST = (50, 100, 200, 500)  # sentences that somebody looks at


def labelled(text: str, gold: Sequence[Entity], types: Sequence[str], draw: random.Random) -> list[Entity]:
    "Give what the simulated teacher says of a sentence."
    said = []
    for one in gold:
        kind = draw.random()
        if kind < 0.2:
            continue
        if kind < 0.3:
            one = replace(one, type=draw.choice([type for type in types if type != one.type]))
        elif kind < 0.35 and " " in one.text:
            one = Entity.of(text, one.start, one.start + one.text.rindex(" "), one.type)
        said.append(one)
    runs = [run for run in capital_runs(text) or () if all(run[1] <= one.start or one.end <= run[0] for one in gold)]
    if runs and draw.random() < 0.1:
        said.append(Entity.of(text, *draw.choice(runs), draw.choice(types)))
    return said


def simulated(task: Task, n_rows: int, seed: int) -> list[AnnotatedRow]:
    draw, rows = random.Random(seed), []
    for example in load_examples(task, "train")[:n_rows]:
        text = task.input_text(example)
        label = entities_text(labelled(text, read_entities(example.label), list(task.types), draw))
        rows.append(AnnotatedRow(example.id, text, example.label, label, None))
    return rows


def judged(rows: Sequence[AnnotatedRow], task: Task, n_folds: int, steps: int) -> dict[str, Judgement]:
    weights = weights_for(default_weights(task), Progress(quiet=True))
    job = TrainingJob(weights.path, weights.title, task, rows, ())
    config = TaggerConfig("distilled", steps=steps, eval_every=steps)
    with tempfile.TemporaryDirectory() as folder, Progress().bar("training (steps)") as on_progress:
        return cross_fit(job, config, n_folds, Path(folder), on_progress=on_progress)


def line(name: str, quality: EntityQuality, known: set[int], is_wrong: Sequence[bool]) -> str:
    "Count the wrong labels among those that come first, and say how often a wrong one comes before a right one; no finding is last."
    order = [place for place, _ in quality.ranked() if place not in known]
    wrong = np.array([is_wrong[place] for place in order])
    rank = dict.fromkeys(range(len(is_wrong)), len(order)) | {place: at for at, place in enumerate(order)}
    sides = [np.array([rank[place] for place in rank if place not in known and is_wrong[place] == side]) for side in (True, False)]
    before = np.mean(sides[0][:, None] < sides[1]) + np.mean(sides[0][:, None] == sides[1]) / 2
    firsts = " | ".join(f"{wrong[:n].mean():.0%}" if n <= len(wrong) else "–" for n in FIRST)
    return f"| {name} | {len(known)} | {len(order):,} | {wrong.mean():.0%} | {firsts} | {before:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3394, help="sentences")
    parser.add_argument("--gold", type=int, default=100, help="of them with a gold label that the order sees")
    parser.add_argument("--cross-fit", type=int, default=0, help="students; 0: none")
    parser.add_argument("--steps", type=int, default=200, help="of each student")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated teacher")
    given = parser.parse_args()
    os.environ.setdefault("ZSD_DATA", str(SHARED))
    task = load_task("wnut17")
    rows = simulated(task, given.rows, given.seed)
    is_wrong = [not task.is_right(row.label, row.gold) for row in rows]
    drawn = random.Random(given.seed).sample(range(len(rows)), given.gold)
    ways: dict[str, dict[str, Judgement] | None] = {"checks alone": None}
    if given.cross_fit:
        blind = [replace(row, gold=None) for row in rows]
        ways[f"and {given.cross_fit} students of {given.steps} steps"] = judged(blind, task, given.cross_fit, given.steps)
    print(f"{len(rows):,} sentences, {np.mean(is_wrong):.0%} of the labels wrong\n")
    print(f"| order by | gold labels | with a finding | of them wrong | {' | '.join(f'first {n}' for n in FIRST)} | wrong before right |")
    print("|---|---:|---:|---:|" + "---:|" * (len(FIRST) + 1))
    for name, student in ways.items():
        for known in (set(), set(drawn)):
            seen = [row if place in known else replace(row, gold=None) for place, row in enumerate(rows)]
            print(line(name, check_entities(seen, task, student=student), known, is_wrong), flush=True)


if __name__ == "__main__":
    main()
