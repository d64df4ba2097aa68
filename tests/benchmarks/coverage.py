"""How often our intervals hold the truth and our verdicts are wrong, by simulation. Prints a Markdown table, from one run.

    python tests/benchmarks/coverage.py                      # ten minutes of one core
    python tests/benchmarks/coverage.py p_values few_gold    # these lines alone: names of functions below
    python tests/benchmarks/coverage.py --quick              # some seconds: shows that it works, measures little

Each line is one setting whose truth is known: rows in groups (three hypotheses about one premise), students of several seeds, lengths of replies. "before" is
what this project did until November 2026, written again here (a dash: nothing), or what is said there; "now" is the function of the library. In per cent; in brackets
the standard error.
An interval of 95 % should hold the truth in about 95 %, a verdict of 5 % be wrong in at most 5 %, the upper end of a forecast be passed in at most 5 %.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from zero_shot_distill.prompt.score import PromptScore, Reading, choose_template, score_readings
from zero_shot_distill.stats.compare import mean_over_seeds, not_worse, paired_difference, probability_better, verdict
from zero_shot_distill.stats.family import holm
from zero_shot_distill.stats.interval import Interval, bootstrap_mean, share_of, wilson
from zero_shot_distill.stats.paired import paired_shares
from zero_shot_distill.stats.ppi import powered_share
from zero_shot_distill.stats.total import Stratum, predict_total
from zero_shot_distill.store.request import Response

Number = tuple[float, float]  # a figure of the table, and its standard error


@dataclass(frozen=True)
class Line:
    "One line of the table."

    what: str
    setting: str
    before: Number | None
    now: Number
    aim: str  # e.g. "95"

    def cells(self) -> str:
        before, now = ("–" if number is None else f"{number[0]:.1f} ({number[1]:.1f})" for number in (self.before, self.now))
        return f"| {self.what} | {self.setting} | {before} | {now} | {self.aim} |"


def rates(what: str, setting: str, counts: Sequence[int], n: int, aim: str) -> Line:
    "Make a line of two counts, before and now, of n runs: in per cent."
    shares = [count / n for count in counts]
    return Line(what, setting, *((100 * share, 100 * (share * (1 - share) / n) ** 0.5) for share in shares), aim)


def rate(what: str, setting: str, count: int, n: int, aim: str) -> Line:
    "Make a line of one count, of what there was nothing of before."
    return replace(rates(what, setting, (count, count), n, aim), before=None)


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

    def rows(self, random: np.random.Generator) -> np.ndarray:  # (rows,)
        "Draw rows, with their log-odds of being right."
        n = self.n_groups * self.group_size
        return self.level + random.normal(0, self.group_sd, self.n_groups)[self.groups] + random.normal(0, self.row_sd, n)

    def method(self, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:  # (rows,)
        "Draw a method, which moves the log-odds of each row."
        return rows + random.normal(0, self.method_sd, len(rows))

    def results(self, odds: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:  # (seeds, rows)
        "Draw the results of students of a method."
        odds = odds + random.normal(0, self.seed_sd, (k, 1))
        return (random.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(int)

    def draw(self, seeds: Sequence[int], random: np.random.Generator) -> list[np.ndarray]:  # one array (seeds, rows) for each method
        "Draw the results of equally good methods."
        rows = self.rows(random)
        return [self.results(self.method(rows, random), k, random) for k in seeds]

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


ROWS = (17, 67, 333)  # groups of three: 51, 201 and 999 rows
LEVELS = (-2.5, 0.5, 4.0, 6.5)  # log-odds of an ordinary row: 23, 56, 88 and 97 % right


def settings() -> Iterator[tuple[int, int, float]]:  # groups, seeds, level
    "Vary rows and seeds at one level, and the level with five seeds."
    return ((n_groups, k, level) for n_groups in ROWS for k in (3, 5, 10) for level in (LEVELS if k == 5 else LEVELS[1:2]))


def p_values(n: int, random: np.random.Generator) -> Iterator[Line]:
    "Two equal methods: how often the p-value is below a level; the distribution should lie on or above the even one."
    for n_groups, k, level in settings():
        model = Students(n_groups, level)
        found = np.array([paired_difference(*model.draw((k, k), random), model.groups).p_value for _ in range(n)])
        about = f"{3 * n_groups} rows, {k} seeds each, {100 * model.accuracy():.0f} % right"
        for limit in (0.01, 0.05, 0.5):
            yield rate(f"two equal methods: p below {limit:g}", about, int((found < limit).sum()), n, f"at most {100 * limit:g}")


def families(n: int, random: np.random.Generator) -> Iterator[Line]:
    "Ten methods as good as a baseline, each compared with it: families in which any is said to differ, without and with Holm's correction."
    for n_groups, k in ((67, 3), (67, 5), (333, 5)):
        model, wrong = Students(n_groups, 0.5), [0, 0]
        for _ in range(n):
            base, *others = model.draw((k,) * 11, random)
            found = [paired_difference(one, base, model.groups).p_value for one in others]
            wrong[0] += min(found) < 0.05
            wrong[1] += min(holm(found)) < 0.05
        about = f"{3 * n_groups} rows, {k} seeds each; before: each for itself"
        yield rates("ten equal methods against one: any wrong verdict", about, wrong, n, "at most 5")


def margins(n: int, random: np.random.Generator) -> Iterator[Line]:
    "A method that is worse by exactly the margin: how often it is said to be less than that worse, and how often the interval holds the difference."
    for n_groups, k, level in settings():
        better = Students(n_groups, level)
        margin = better.accuracy() - Students(n_groups, level - 0.6).accuracy()
        wrong, inside = 0, 0
        for _ in range(n):
            rows = better.rows(random)
            worse, good = (better.results(better.method(rows, random) - loss, k, random) for loss in (0.6, 0))
            found = paired_difference(worse, good, better.groups)
            wrong += not_worse(found, margin) == "holds"
            inside += holds(found, -margin)
        about = f"{3 * n_groups} rows, {k} seeds each, {100 * better.accuracy():.0f} % right, {100 * margin:.1f} points worse"
        yield rate("method worse by the margin: called less", about, wrong, n, "at most 2.5")
        yield rate("method worse by the margin: interval holds the difference", about, inside, n, "95")


def win_probability(model: Students, a: np.ndarray, b: np.ndarray) -> float:
    "Integrate over the seeds how probably a student of one method has more of these rows right than one of another."
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    means, variances = [], []
    for odds in (a, b):
        chances = 1 / (1 + np.exp(-odds - model.seed_sd * nodes[:, None]))
        means.append(chances.sum(axis=1))
        variances.append((chances * (1 - chances)).sum(axis=1))
    ahead = (means[0][:, None] - means[1]) / np.sqrt(variances[0][:, None] + variances[1])
    return float((np.outer(weights, weights) * norm.cdf(ahead)).sum() / weights.sum() ** 2)


def next_students(n: int, random: np.random.Generator) -> Iterator[Line]:
    "The probability that a student of one method beats one of another on the same rows. Before: the bootstrap over students that the source recommends."
    for n_groups in ROWS:
        for k in (2, 3, 5, 10):
            for gain in (0.0, 0.4, 1.0):
                model, inside, truths = Students(n_groups, 0.5), [0, 0], []
                for _ in range(n):
                    rows = model.rows(random)
                    odds = [model.method(rows, random) + shift for shift in (gain, 0)]
                    a, b = (model.results(one, k, random) for one in odds)
                    truths.append(win_probability(model, *odds))
                    drawn = random.integers(0, k, size=(2, 200, k))
                    ours, theirs = a.sum(axis=1)[drawn[0]], b.sum(axis=1)[drawn[1]]
                    low, high = ends((np.sign(ours[:, :, None] - theirs[:, None]).mean(axis=(1, 2)) + 1) / 2)
                    inside[0] += low <= truths[-1] <= high
                    inside[1] += holds(probability_better(a, b), truths[-1])
                about = f"{3 * n_groups} rows, {k} seeds each, P(A > B) {100 * np.mean(truths):.0f} % on average"
                yield rates("next student better: interval holds P(A > B)", about, inside, n, "95")


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


def alike(n: int, random: np.random.Generator) -> Iterator[Line]:
    "The hardest of what was tried: very alike rows in unequal groups, and in large groups with differences to one side alone."
    for n_groups, share, correlation in ((60, 0.9, 0.6), (60, 0.9, 0.9)):
        inside = 0
        for _ in range(n):
            sizes = np.minimum(15, random.geometric(0.3, n_groups))
            inside += holds(share_of(*grouped_rows(sizes, share, correlation, random)), share)
        about = f"{n_groups} groups of 1 to 15, {100 * share:.0f} % right, correlation {correlation}"
        yield rate("share of very alike rows: interval holds it", about, inside, n, "95")
    for n_groups, share, correlation in ((20, 0.1, 0.3), (20, 0.1, 0.9), (40, 0.1, 0.9), (100, 0.05, 0.3), (100, 0.05, 0.9)):
        inside = 0
        for _ in range(n):
            hits, groups = grouped_rows(np.full(n_groups, 10), share, correlation, random)
            inside += holds(paired_shares(hits, np.zeros(len(hits), dtype=bool), groups), share)
        about = f"{n_groups} groups of 10, {100 * share:.0f} % of the rows differ, all to one side, correlation {correlation}"
        yield rate("two prompts, alike rows: interval holds the difference", about, inside, n, "95")


def few_gold(n: int, random: np.random.Generator) -> Iterator[Line]:
    "An accuracy from some gold rows of 1,002, all labelled by a teacher. Before: the gold rows alone."
    for size, n_gold in ((1, 20), (1, 51), (1, 201), (3, 51), (3, 201)):
        for share in (0.3, 0.67, 0.95):
            for teacher in (0.7, 0.9):
                inside, widths, n_groups = [0, 0], [], 1002 // size
                for _ in range(n):
                    hits, groups = grouped_rows(np.full(n_groups, size), share, 0.3 if size > 1 else 0.0, random)
                    agrees = hits ^ (random.random(len(hits)) > teacher)
                    has_gold = np.isin(groups, random.permutation(n_groups)[: n_gold // size])
                    judged = [bool(hit) if gold else None for hit, gold in zip(hits, has_gold, strict=True)]
                    found = powered_share(judged, agrees, groups)
                    inside[0] += holds(found.gold_alone, share)
                    inside[1] += holds(found, share)
                    widths.append(100 * (found.high - found.low) / (found.gold_alone.high - found.gold_alone.low))
                about = (
                    f"{n_gold} gold rows{' in groups of 3' * (size > 1)}, {100 * share:.0f} % right, teacher right on {100 * teacher:.0f} %"
                )
                yield rates("few gold labels: interval holds the accuracy", about, inside, n, "95")
                yield Line(
                    "few gold labels: width of the interval",
                    about,
                    (100, 0),
                    (float(np.mean(widths)), float(np.std(widths) / n**0.5)),
                    "less than 100",
                )


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


def run_benchmark(quick: bool, names: Sequence[str] = ()) -> Iterator[Line]:
    "Measure all lines, or those of some functions."
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
        (p_values, 1000),
        (families, 400),
        (margins, 1000),
        (next_students, 1000),
        (few_gold, 1000),
        (alike, 1000),
    )
    if unknown := set(names) - {measure.__name__ for measure, _ in plans}:
        raise SystemExit(f"no such lines: {', '.join(sorted(unknown))}; there are {', '.join(measure.__name__ for measure, _ in plans)}")
    for number, (measure, n) in enumerate(plans):
        if names and measure.__name__ not in names:
            continue
        yield from measure(20 if quick else n, np.random.default_rng(number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="functions whose lines are measured; none: all")
    parser.add_argument("--quick", action="store_true", help="20 runs a line")
    given = parser.parse_args()
    print("| what | setting | before | now | aim |\n|---|---|---:|---:|---|")
    for line in run_benchmark(given.quick, given.names):
        print(line.cells(), flush=True)


if __name__ == "__main__":
    main()
