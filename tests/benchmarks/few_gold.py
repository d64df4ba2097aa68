"""How much a few gold labels gain by the labels of a teacher, on real replies. Prints a Markdown table, from one run.

    python tests/benchmarks/few_gold.py                          # the thesis's cqa replies, 8 samples a pair: two minutes of one core
    python tests/benchmarks/few_gold.py --quick                  # 2 samples: shows that it works, measures little
    python tests/benchmarks/few_gold.py --data FOLDER --task T   # other replies, laid out as `replay.py` says

Each prompt template is a labeller of the 75 rows with a gold label that all templates answered. A pair is a labeller whose accuracy is wanted and a teacher. Of the
rows, taken for a population, gold rows and rows without are drawn with replacement; the truth is the labeller's accuracy on the 75.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from replay import read_gold, read_templates, require_gold, shared_data

from zero_shot_distill.stats.ppi import powered_share

N_ALL = 1000  # rows of a sample
FEWEST = 4  # templates: three teachers, and one to judge


def read_labels(folder: Path, task: str) -> tuple[np.ndarray, np.ndarray]:  # (templates, rows); (rows,) gold
    "Read the label that each template gave each row; empty where none could be read. Templates that did not answer all rows are left out."
    gold = read_gold(folder, task)
    answered = (read for _, read in read_templates(folder, task, gold) if len(read) == len(gold))
    labels = [[(read[row].label or "").strip().lower() for row in gold] for read in answered]
    return np.array(labels), np.array(list(gold.values()))


def measure(labels: np.ndarray, gold: np.ndarray, n_gold: int, teachers: Sequence[int], n_samples: int, random: np.random.Generator) -> str:
    "Make a line of the table: all other templates as labellers, each with each teacher."
    inside, widths, worth, n = np.zeros(2), [], [], 0
    for teacher in teachers:
        for labeller in range(len(labels)):
            if labeller == teacher:
                continue
            right = labels[labeller] == gold
            agrees = (labels[labeller] == labels[teacher]) & (labels[labeller] != "")
            for _ in range(n_samples):
                drawn = random.integers(0, len(gold), N_ALL)
                found = powered_share([*right[drawn[:n_gold]].tolist(), *[None] * (N_ALL - n_gold)], agrees[drawn])
                alone, truth = found.gold_alone, right.mean()
                inside += [one.low - 1e-9 <= truth <= one.high + 1e-9 for one in (alone, found)]
                widths.append((found.high - found.low) / (alone.high - alone.low))
                worth.append(found.n_worth)
                n += 1
    accuracy = np.mean([(labels[teacher] == gold).mean() for teacher in teachers])
    covered = " | ".join(f"{100 * share:.1f} ({100 * (share * (1 - share) / n) ** 0.5:.1f})" for share in inside / n)
    return f"| {n_gold} | {len(teachers)}, {100 * accuracy:.0f} % right | {n:,} | {covered} | {100 * np.mean(widths):.0f} | {np.mean(worth):.0f} | {100 * np.max(widths):.0f} |"


def run_benchmark(labels: np.ndarray, gold: np.ndarray, n_samples: int) -> Iterator[str]:
    yield "| gold rows of 1,000 | teachers | samples | gold alone holds the truth, % | with the teacher, % | width, % | worth gold rows | widest, % |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    by_accuracy = np.argsort([(of == gold).mean() for of in labels], kind="stable")
    for n_gold in (25, 50, 100):
        for place in (by_accuracy[-3:], by_accuracy[len(labels) // 2 - 1 :][:3], by_accuracy[:3]):
            yield measure(labels, gold, n_gold, place.tolist(), n_samples, np.random.default_rng(n_gold))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=shared_data())
    parser.add_argument("--task", default="cqa")
    parser.add_argument("--quick", action="store_true", help="2 samples a pair")
    given = parser.parse_args()
    require_gold(given.data, given.task)
    labels, gold = read_labels(given.data, given.task)
    if len(labels) < FEWEST:
        sys.exit(f"{given.task}: {len(labels)} templates answered all {len(gold)} rows with a gold label; {FEWEST} are needed")
    print(f"{len(labels)} templates, {len(gold)} rows\n")
    for line in run_benchmark(labels, gold, 2 if given.quick else 8):
        print(line, flush=True)


if __name__ == "__main__":
    main()
