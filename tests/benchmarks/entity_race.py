"""Simulate races and comparisons by F1 of entities: how often the best prompt is lost, what is spent, how often tests err and intervals hold.

`python tests/benchmarks/entity_race.py [--quick]` prints the tables of README.md; it asks nobody.
"""

import argparse

import numpy as np

from zero_shot_distill.prompt.outcome import ratio_parts
from zero_shot_distill.prompt.select import SelectionPlan, select
from zero_shot_distill.stats.f_measure import f1_parts
from zero_shot_distill.stats.paired import paired_shares, swap_mid_p

# Of a prompt: probability that an entity is found, and mean number of names too many in a sentence.
KINDS = {
    "F1 71 %": (0.75, 0.45),
    "F1 71 % of another kind": (0.9, 0.863),  # finds more, names more: the same F1 on very many rows, by `true_f1`
    "F1 56 %": (0.6, 0.75),
    "F1 43 %": (0.45, 1.0),
}
MEAN_ENTITIES = 1.5  # of a sentence, as in WNUT-17 and CoNLL-2003 (0.6 and 1.7), and a third of them without any


def drawn(kinds: list[tuple[float, float]], n_rows: int, rng: np.random.Generator) -> np.ndarray:
    "Counts of some prompts on the same rows: right, gold and predicted. Rows are harder or easier for all prompts alike."
    gold = np.where(rng.random(n_rows) < 1 / 3, 0, rng.poisson(MEAN_ENTITIES * 1.5 - 1, n_rows) + 1)
    gold = np.where(gold > 0, gold, 0)
    ease = rng.normal(0, 1, n_rows)
    found = []
    for recall, surplus in kinds:
        logit = np.log(recall / (1 - recall)) + ease
        right = rng.binomial(gold, 1 / (1 + np.exp(-logit)))
        found.append(np.stack([right, gold, right + rng.poisson(surplus * np.exp(-0.3 * ease - 0.045), n_rows)], axis=-1))
    return np.array(found)


def true_f1(kinds: list[tuple[float, float]]) -> np.ndarray:
    "F1 on very many rows."
    parts = ratio_parts(drawn(kinds, 400_000, np.random.default_rng(5))).sum(axis=1)
    return parts[:, 0] / parts[:, 1]


def test_and_interval(n_rows: int, n_draws: int, kinds: tuple[str, str]) -> tuple[float, float]:
    "Shares of draws in which the swap test calls the first prompt better at 0.05, and in which the paired interval holds the true difference."
    rng, chosen = np.random.default_rng(1), [KINDS[kind] for kind in kinds]
    f1 = true_f1(chosen)
    truth = f1[0] - f1[1]
    n_called = n_held = n_known = 0
    for _ in range(n_draws):
        counts = drawn(chosen, n_rows, rng)
        a, b = ratio_parts(counts)
        n_called += swap_mid_p(a, b) < 0.05
        interval = paired_shares(f1_parts(*counts[0].T), f1_parts(*counts[1].T))
        if interval.value == interval.value:
            n_known += 1
            n_held += interval.low <= truth <= interval.high
    return n_called / n_draws, n_held / max(n_known, 1)


def races(n_rows: int, n_draws: int, others: str, n_others: int) -> tuple[float, float, float]:
    "Shares of races that lost the best prompt, of the questions that were asked, and of choices on all rows that are not the best one."
    rng, lost, spent, missed = np.random.default_rng(2), 0, [], 0
    kinds = [KINDS["F1 71 %"]] + [KINDS[others]] * n_others
    for _ in range(n_draws):
        counts = drawn(kinds, n_rows, rng)
        found = select(range(len(kinds)), n_rows, lambda ids, rows, of=counts: of[np.ix_(list(ids), list(rows))], SelectionPlan("f1"))
        lost += 0 not in found.looks[-1].left
        spent.append(found.n_questions / found.n_all)
        parts = ratio_parts(counts).sum(axis=1)
        missed += (parts[1:, 0] / parts[1:, 1]).max() > parts[0, 0] / parts[0, 1]
    return lost / n_draws, float(np.mean(spent)), missed / n_draws


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--quick", action="store_true", help="a tenth of the draws")
    n = 100 if asked.parse_args().quick else 1000
    print("| two prompts | rows | swap test calls the first better, % | interval holds the difference, % |\n| --- | --- | --- | --- |")
    same, other = "F1 71 %", "F1 71 % of another kind"
    for title, kinds in {"alike": (same, same), "same F1, other kind": (same, other), "same F1, other kind, turned": (other, same)}.items():
        for n_rows in (8, 16, 40, 100):
            called, held = test_and_interval(n_rows, 4 * n, kinds)
            print(f"| {title} | {n_rows} | {100 * called:.1f} | {100 * held:.1f} |", flush=True)
    for n_rows in (16, 40, 100):
        called, held = test_and_interval(n_rows, n, (same, "F1 56 %"))
        print(f"| 71 against 56 % | {n_rows} | {100 * called:.1f} | {100 * held:.1f} |", flush=True)
    print("\n| race on 50 rows | best one lost, % | questions, % of all | best one not first on all rows, % |\n| --- | --- | --- | --- |")
    for others, n_others in (("F1 43 %", 7), ("F1 56 %", 7), ("F1 56 %", 1), ("F1 71 % of another kind", 1)):
        lost, spent, missed = races(50, n // 2, others, n_others)
        print(f"| 71 % and {n_others} of {others} | {100 * lost:.1f} | {100 * spent:.0f} | {100 * missed:.1f} |", flush=True)


if __name__ == "__main__":
    main()
