"""How often our intervals hold the truth and our verdicts are wrong, by simulation. Prints a Markdown table, from one run.

    python tests/benchmarks/coverage.py            # two minutes of one core
    python tests/benchmarks/coverage.py --quick    # some seconds: shows that it works, measures little

Each line is one setting whose truth is known: rows in groups (three hypotheses about one premise), students of several seeds, lengths of replies. "before" is
what this project did until November 2026, written again here; "now" is the function of the library. In per cent; in brackets the standard error.
An interval of 95 % should hold the truth in about 95 %, a verdict of 5 % be wrong in at most 5 %, the upper end of a forecast be passed in at most 5 %.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zero_shot_distill.prompt.score import PromptScore, Reading, choose_template, score_readings
from zero_shot_distill.stats.compare import mean_over_seeds, paired_difference, verdict
from zero_shot_distill.stats.interval import Interval, bootstrap_mean, share_of, wilson
from zero_shot_distill.stats.paired import paired_shares
from zero_shot_distill.stats.total import Stratum, predict_total
from zero_shot_distill.store.request import Response

Number = tuple[float, float]  # a figure of the table, and its standard error


@dataclass(frozen=True)
class Line:
    "One line of the table."

    what: str
    setting: str
    before: Number
    now: Number
    aim: str  # e.g. "95"

    def cells(self) -> str:
        before, now = (f"{value:.1f} ({error:.1f})" for value, error in (self.before, self.now))
        return f"| {self.what} | {self.setting} | {before} | {now} | {self.aim} |"


def rates(what: str, setting: str, counts: Sequence[int], n: int, aim: str) -> Line:
    "Make a line of two counts, before and now, of n runs: in per cent."
    shares = [count / n for count in counts]
    return Line(what, setting, *((100 * share, 100 * (share * (1 - share) / n) ** 0.5) for share in shares), aim)


def holds(interval: Interval, truth: float) -> bool:
    "Tell whether an interval holds the truth; without ends it says nothing, which holds."
    return not interval.has_ends or interval.low - 1e-9 <= truth <= interval.high + 1e-9


# Students: logistic chances of being right, that groups, rows, methods and seeds move


@dataclass(frozen=True)
class Students:
    "Where test results of students come from."

    n_groups: int
    level: float  # log-odds of an ordinary row
    group_size: int = 3
    group_sd: float = 2.0
    row_sd: float = 2.0
    method_sd: float = 0.5  # how far the two methods differ on one row
    seed_sd: float = 0.3

    @property
    def groups(self) -> np.ndarray:
        return np.repeat(np.arange(self.n_groups), self.group_size)

    def draw(self, seeds: Sequence[int], random: np.random.Generator) -> list[np.ndarray]:  # one array (seeds, rows) for each method
        "Draw the results of equally good methods."
        n = self.n_groups * self.group_size
        base = self.level + random.normal(0, self.group_sd, self.n_groups)[self.groups] + random.normal(0, self.row_sd, n)
        found = []
        for k in seeds:
            odds = base + random.normal(0, self.method_sd, n) + random.normal(0, self.seed_sd, (k, 1))
            found.append((random.random((k, n)) < 1 / (1 + np.exp(-odds))).astype(int))
        return found

    def accuracy(self) -> float:
        "Integrate the expected accuracy over everything that moves it."
        spread = (self.group_sd**2 + self.row_sd**2 + self.method_sd**2 + self.seed_sd**2) ** 0.5
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        return float((weights / (1 + np.exp(-(self.level + spread * nodes)))).sum() / weights.sum())


def bootstrap_draws(results: np.ndarray, groups: np.ndarray, drawn: np.ndarray, random: np.random.Generator) -> np.ndarray:
    "Redraw groups and seeds, of k seeds k − 1: what was done before."
    sums = np.stack([np.bincount(groups, weights=row) for row in results])
    accuracies = sums[:, drawn].sum(axis=2) / np.bincount(groups)[drawn].sum(axis=1)
    seeds = random.integers(0, len(results), size=(len(drawn), max(len(results) - 1, 1)))
    return np.take_along_axis(accuracies.T, seeds, axis=1).mean(axis=1)


def ends(draws: np.ndarray) -> tuple[float, float]:
    return tuple(np.percentile(draws, [2.5, 97.5]))


def verdicts(n: int, random: np.random.Generator) -> Iterator[Line]:
    "Two equal methods: how often one is said to be better."
    for n_groups in (44, 133, 400):
        for k in (2, 3, 5):
            model, wrong = Students(n_groups, 0.5), [0, 0]
            for _ in range(n):
                a, b = model.draw((k, k), random)
                drawn = random.integers(0, n_groups, size=(300, n_groups))
                low, high = ends(bootstrap_draws(a, model.groups, drawn, random) - bootstrap_draws(b, model.groups, drawn, random))
                wrong[0] += low > 0 or high < 0
                found = paired_difference(a, b, model.groups)
                wrong[1] += not holds(found, 0) if k < 3 else verdict(found) != "undetermined"
            about = f"{3 * n_groups:,} rows, {k} seeds each" + (" (no verdict: 0 outside the interval)" if k < 3 else "")
            yield rates("two equal methods: wrong verdict", about, wrong, n, "at most 5")


def means(n: int, random: np.random.Generator) -> Iterator[Line]:
    "The accuracy of one method."
    for n_groups, level, k in ((44, 0.5, 1), (44, 0.5, 2), (44, 0.5, 3), (44, 4.0, 3), (133, 4.0, 5), (133, 0.5, 5)):
        model, inside = Students(n_groups, level, seed_sd=0.0 if k == 1 else 0.3), [0, 0]
        truth = model.accuracy()
        for _ in range(n):
            (results,) = model.draw((k,), random)
            drawn = random.integers(0, n_groups, size=(300, n_groups))
            low, high = ends(bootstrap_draws(results, model.groups, drawn, random))
            inside[0] += low <= truth <= high
            inside[1] += holds(mean_over_seeds(results, model.groups), truth)
        about = f"{3 * n_groups} rows, {k} seed{'s' * (k > 1)}, {100 * truth:.0f} % right"
        yield rates("accuracy of a method: interval holds it", about, inside, n, "95")


# Rows in groups


def grouped_rows(sizes: np.ndarray, share: float, correlation: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    "Draw rows that are right or wrong, with a correlation within groups (beta-binomial); a negative one: rows of a group share out their chances."
    groups = np.repeat(np.arange(len(sizes)), sizes)
    if correlation < 0:
        chances = np.concatenate([(random.permutation(size) + random.random(size)) / size for size in sizes])
        return chances < share, groups
    if correlation == 0:
        return random.random(len(groups)) < share, groups
    a, b = (part * (1 - correlation) / correlation for part in (share, 1 - share))
    return random.random(len(groups)) < random.beta(a, b, len(sizes))[groups], groups


def shares(n: int, random: np.random.Generator) -> Iterator[Line]:
    "Shares of rows that were made together."
    for n_groups, share, correlation, kind in (
        (44, 0.67, -0.5, "of 3"),
        (44, 0.67, 0.0, "of 3"),
        (44, 0.67, 0.1, "of 3"),
        (44, 0.67, 0.3, "of 3"),
        (44, 0.67, 0.6, "of 3"),
        (10, 0.67, 0.3, "of 3"),
        (133, 0.95, 0.3, "of 3"),
        (60, 0.67, 0.3, "of 1 to 15"),
    ):
        inside = [0, 0]
        for _ in range(n):
            sizes = np.full(n_groups, 3) if kind == "of 3" else np.minimum(15, random.geometric(0.3, n_groups))
            hits, groups = grouped_rows(sizes, share, correlation, random)
            inside[0] += holds(wilson(int(hits.sum()), len(hits)), share)
            inside[1] += holds(share_of(hits, groups), share)
        about = f"{n_groups} groups {kind}, {100 * share:.0f} % right, correlation {'below 0' if correlation < 0 else correlation}"
        yield rates("share of rows in groups: interval holds it", about, inside, n, "95")


def pairs(n: int, random: np.random.Generator) -> Iterator[Line]:
    "Two prompts on the same rows, one run each."
    for n_rows, only_a, only_b in ((16, 0.1, 0.1), (50, 0.02, 0.02), (100, 0.1, 0.05), (200, 0.01, 0.01)):
        inside = [0, 0]
        for _ in range(n):
            chance = random.random(n_rows)
            a, b = (chance < only_a) | (chance > 0.5), ((only_a <= chance) & (chance < only_a + only_b)) | (chance > 0.5)
            differences = a.astype(float) - b
            low, high = ends(differences[random.integers(0, n_rows, size=(1000, n_rows))].mean(axis=1))
            inside[0] += low <= only_a - only_b <= high
            inside[1] += holds(paired_shares(a, b), only_a - only_b)
        about = f"{n_rows} rows, {100 * (only_a + only_b):.0f} % of them differ"
        yield rates("two prompts, same rows: interval holds the difference", about, inside, n, "95")


# Lengths


def lengths(n: int, random: np.random.Generator) -> Iterator[Line]:
    "Means of skewed numbers."
    for sigma in (0.5, 1.0):
        for n_values in (8, 16, 40):
            inside, truth = [0, 0], np.exp(3 + sigma**2 / 2)
            for _ in range(n):
                values = np.exp(random.normal(3, sigma, n_values))
                low, high = ends(values[random.integers(0, n_values, size=(1000, n_values))].mean(axis=1))
                inside[0] += low <= truth <= high
                inside[1] += holds(bootstrap_mean(values), truth)
            about = f"{n_values} values, log-normal {sigma:g}"
            yield rates("mean length: interval holds it", about, inside, n, "95")


def open_total(values: np.ndarray, n_pilot: int, limit: float) -> Stratum:
    "Take the first values for a pilot, and the rest for open questions."
    n, pilot = len(values), values[:n_pilot]
    return Stratum(np.arange(n_pilot), pilot, np.arange(n_pilot, n), np.zeros(n - n_pilot), max(limit - pilot.max(), 0), pilot.min())


def forecasts(n: int, random: np.random.Generator) -> Iterator[Line]:
    "Totals of 1,000 replies of at most 120 tokens, from a pilot: how often the truth lies above the interval."
    for n_pilot, share, kind in ((20, 0.02, "30 tokens"), (40, 0.02, "30 tokens"), (20, 0.03, "log-normal"), (40, 0.03, "log-normal")):
        passed = [0, 0]
        for _ in range(n):
            common = np.full(1000, 30.0) if kind == "30 tokens" else np.minimum(60, np.round(np.exp(random.normal(3.2, 0.3, 1000))))
            values = np.where(random.random(1000) < share, 120.0, common)
            stratum, truth = open_total(values, n_pilot, 120), values[n_pilot:].sum()
            passed[0] += truth > predict_total([Stratum(stratum.rows, stratum.rest, stratum.open_rows, stratum.open_predicted)]).high + 1e-6
            passed[1] += truth > predict_total([stratum]).high + 1e-6
        about = f"pilot of {n_pilot}; {100 * share:.0f} % of 120 tokens, the others {kind}"
        yield rates("forecast of a total: truth above it", about, passed, n, "at most 5")


def left_to_pay(n: int, random: np.random.Generator) -> Iterator[Line]:
    "What some open questions will take, from many answered ones: the interval of a mean, times their number, is none for a total."
    for n_answered, n_left in ((100, 10), (100, 100), (30, 300)):
        inside = [0, 0]
        for _ in range(n):
            values = np.minimum(120, np.exp(random.normal(3.5, 0.5, n_answered + n_left)))
            truth, answered = values[n_answered:].sum(), values[:n_answered]
            low, high = ends(answered[random.integers(0, n_answered, size=(1000, n_answered))].mean(axis=1))
            inside[0] += n_left * low <= truth <= n_left * high
            found = predict_total([open_total(values, n_answered, 120)])
            inside[1] += found.low <= truth <= found.high
        yield rates("left to pay: interval holds it", f"{n_left} questions, {n_answered} answered", inside, n, "90 or more")


# Prompts


def replies_score(id: str, right: np.ndarray) -> PromptScore:
    "Score replies that are right or wrong, each with a rationale."
    response = Response("0" * 64, "", "stop", None, None, 0.0, 1, "", "")
    return score_readings(id, [Reading(str(row), response, "a", "why", "a" if hit else "b") for row, hit in enumerate(right)], None)


def choices(n: int, random: np.random.Generator) -> Iterator[Line]:
    "A template that is right on half of the rows and answered few of them, beside one that is right on 80 % of 16."
    for n_answered in (1, 2, 4):
        wrong = [0, 0]
        for _ in range(n):
            few, many = random.random(n_answered) < 0.5, random.random(16) < 0.8
            wrong[0] += few.mean() > many.mean()
            wrong[1] += any(few) and choose_template([replies_score("few", few), replies_score("many", many)]).template_id == "few"
        yield rates("worse template chosen", f"it answered {n_answered} of 16 rows", wrong, n, "few")


def selection_rows(n: int, random: np.random.Generator) -> Iterator[Line]:
    "The accuracy of the best of several templates of 60 %, on annotated rows some of which it was chosen on: how many points too high."
    for n_templates, n_selection, n_rows in ((3, 16, 166), (4, 30, 225)):
        errors = np.zeros((2, n))
        for run in range(n):
            right = random.random((n_templates, n_rows)) < 0.6
            chosen = right[right[:, :n_selection].mean(axis=1).argmax()]
            errors[:, run] = chosen.mean() - 0.6, chosen[n_selection:].mean() - 0.6
        numbers = ((100 * of_run.mean(), 100 * of_run.std(ddof=1) / n**0.5) for of_run in errors)
        about = f"best of {n_templates} on {n_selection} of {n_rows} annotated rows"
        yield Line("teacher's accuracy: points too high", about, *numbers, "0")


def run_benchmark(quick: bool) -> Iterator[Line]:
    "Measure all lines."
    plans: tuple[tuple[Callable[[int, np.random.Generator], Iterator[Line]], int], ...] = (
        (verdicts, 1000),
        (means, 2000),
        (shares, 4000),
        (pairs, 4000),
        (lengths, 2000),
        (forecasts, 700),
        (left_to_pay, 700),
        (choices, 800),
        (selection_rows, 5000),
    )
    for number, (measure, n) in enumerate(plans):
        yield from measure(20 if quick else n, np.random.default_rng(number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 runs a line")
    quick = parser.parse_args().quick
    print("| what | setting | before | now | aim |\n|---|---|---:|---:|---|")
    for line in run_benchmark(quick):
        print(line.cells(), flush=True)


if __name__ == "__main__":
    main()
