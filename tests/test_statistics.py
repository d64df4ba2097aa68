"""Intervals hold the truth about as often as they say, and verdicts are seldom wrong: small simulations with wide margins.

`tests/benchmarks/coverage.py` measures the same with thousands of runs; here its models are drawn a few hundred times each.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zero_shot_distill.stats.cluster import clustered_mean, effective_rows
from zero_shot_distill.stats.compare import mean_over_seeds, not_worse, paired_difference, probability_better, verdict
from zero_shot_distill.stats.family import holm
from zero_shot_distill.stats.interval import Interval, bootstrap_mean, share_of, wilson
from zero_shot_distill.stats.paired import mcnemar_mid_p, paired_shares
from zero_shot_distill.stats.power import rows_needed, smallest_difference
from zero_shot_distill.stats.ppi import powered_share
from zero_shot_distill.stats.total import Stratum, predict_total

BENCHMARK = Path(__file__).parent / "benchmarks" / "coverage.py"
N = 300  # runs of a simulation: two standard errors of 95 % are 2.5 points


@pytest.fixture(scope="module")
def benchmark():
    "The script that measures coverage; its models are used here."
    spec = importlib.util.spec_from_file_location("coverage_benchmark", BENCHMARK)
    module = sys.modules["coverage_benchmark"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def coverage(draw: Callable[[np.random.Generator], tuple[Interval, float]], seed: int = 0, n: int = N) -> float:
    "The share of drawn intervals that hold the truth; one without ends holds it."
    random, inside = np.random.default_rng(seed), 0
    for _ in range(n):
        interval, truth = draw(random)
        inside += not interval.has_ends or interval.low - 1e-9 <= truth <= interval.high + 1e-9
    return inside / n


# Two methods, and one, over seeds and rows


@pytest.mark.parametrize(("n_groups", "k"), [(44, 3), (133, 3), (400, 3), (133, 5)])
@pytest.mark.parametrize("level", [0.5, 3.0])
def test_equal_methods_are_seldom_told_apart(benchmark, n_groups, k, level):
    model, random = benchmark.Students(n_groups, level, seed_sd=0.2), np.random.default_rng(n_groups + k)
    n_wrong = sum(verdict(paired_difference(*model.draw((k, k), random), model.groups)) != "undetermined" for _ in range(N))
    assert n_wrong / N <= 0.085


def test_a_great_difference_is_seen(benchmark):
    random = np.random.default_rng(0)
    better, worse = benchmark.Students(133, 2.0), benchmark.Students(133, 0.0)
    pairs = [(better.draw((3,), random)[0], worse.draw((3,), random)[0]) for _ in range(50)]
    assert sum(verdict(paired_difference(a, b, better.groups)) == "holds" for a, b in pairs) >= 48
    assert all(verdict(paired_difference(a[:2], b, better.groups)) == "undetermined" for a, b in pairs)
    assert "at least 3 seeds" in paired_difference(pairs[0][0][:2], pairs[0][1]).reason
    assert "these students only" in paired_difference(pairs[0][0][:1], pairs[0][1][:1]).reason


@pytest.mark.parametrize(("n_groups", "k"), [(10, 1), (44, 1), (44, 2), (44, 5), (133, 3)])
@pytest.mark.parametrize("level", [0.5, 3.0])
def test_the_mean_over_seeds(benchmark, n_groups, k, level):
    model = benchmark.Students(n_groups, level, seed_sd=0.0 if k == 1 else 0.2)
    truth = model.accuracy()
    assert coverage(lambda random: (mean_over_seeds(model.draw((k,), random)[0], model.groups), truth)) >= 0.91


def test_one_seed_is_one_student():
    rows, groups = [1, 0, 1, 1, 0, 1, 1, 0] * 4, [row // 2 for row in range(32)]
    assert mean_over_seeds([rows], groups) == share_of(rows, groups)
    both = paired_difference([rows], [rows[::-1]], groups)
    assert (both.low, both.high) == (paired_shares(rows, rows[::-1], groups).low, paired_shares(rows, rows[::-1], groups).high)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_all_right_is_no_certainty(seeds):
    right = [[1] * 60] * seeds
    groups = [row // 3 for row in range(60)]
    assert mean_over_seeds(right, groups).low < 0.9 < mean_over_seeds(right, groups).high == 1
    same = paired_difference(right, right, groups)
    assert same.low < 0 < same.high


def test_one_row_or_one_group_says_nothing():
    for found in (mean_over_seeds([[1], [1]]), mean_over_seeds([[1, 0]] * 3, ["a", "a"]), paired_difference([[1]] * 3, [[0]] * 3)):
        assert not found.has_ends
    assert verdict(paired_difference([[1, 1]] * 3, [[0, 0]] * 3, ["a", "a"])) == "undetermined"


def test_a_p_value_says_what_the_interval_says(benchmark):
    model, random = benchmark.Students(44, 0.5), np.random.default_rng(0)
    for _ in range(30):
        a, b = model.draw((3, 4), random)
        found, (lower, upper) = paired_difference(a, b, model.groups), sorted(random.uniform(-0.2, 0.2, 2))
        assert found.p_value == pytest.approx(paired_difference(b, a, model.groups).p_value)
        for margin in (lower, 0.0, upper):
            assert (found.p_against(margin) < 0.05) == (verdict(found, margin) != "undetermined")
        assert found.p_against(found.high) == pytest.approx(0.05)
        assert not_worse(found, 0.1) == verdict(found, -0.1)


def test_too_few_seeds_have_no_p_value_and_make_no_family():
    rows = [[1, 1, 0, 1] * 20] * 2
    p_value = paired_difference(rows, [[0, 1, 0, 0] * 20] * 3).p_value
    assert np.isnan(p_value)
    np.testing.assert_allclose(holm([0.02, p_value, 0.03]), [0.04, np.nan, 0.04])


@pytest.mark.parametrize(("n_a", "n_b"), [(3, 3), (3, 10), (5, 5)])
@pytest.mark.parametrize("gain", [0, 1, 3])
def test_the_probability_that_a_student_is_better(n_a, n_b, gain):
    "On 400 rows, with seeds that move as many right rows as chance: its interval holds what many students show."
    random = np.random.default_rng(n_a + n_b + gain)

    def students(n: int, mean: float) -> np.ndarray:
        return np.arange(400) < random.normal(mean, 20, (n, 1))

    truth = probability_better(students(1000, 200 + 20 * gain), students(1000, 200)).value
    assert coverage(lambda _: (probability_better(students(n_a, 200 + 20 * gain), students(n_b, 200)), truth)) >= 0.93


# Rows in groups


@pytest.mark.parametrize("n_groups", [10, 44, 133])
@pytest.mark.parametrize(("share", "correlation"), [(0.67, -1), (0.67, 0), (0.67, 0.3), (0.5, 0.6), (0.95, 0.3)])
def test_shares_of_grouped_rows(benchmark, n_groups, share, correlation):
    def draw(random: np.random.Generator) -> tuple[Interval, float]:
        sizes = random.integers(1, 6, n_groups)
        return share_of(*benchmark.grouped_rows(sizes, share, correlation, random)), share

    assert coverage(draw) >= 0.90


def test_groups_that_differ_on_purpose_narrow_the_interval():
    "Of three hypotheses about a premise always two are right: that share is not known as badly as that of 132 rows drawn one by one."
    hits, groups = [1, 1, 0] * 44, [row // 3 for row in range(132)]
    narrow, plain = share_of(hits, groups), wilson(88, 132)
    assert 0.01 < narrow.high - narrow.low < 0.6 * (plain.high - plain.low)
    assert effective_rows(hits, groups) > 200 > effective_rows([1, 1, 1, 0, 0, 0] * 22, groups)


def test_groups_of_one_row_change_nothing():
    hits = [1, 0, 1, 1, 0, 1, 1, 0]
    assert share_of(hits, range(8)) == share_of(hits) == wilson(5, 8)
    assert clustered_mean(hits, range(8)) == clustered_mean(hits)


# Few gold labels


@pytest.mark.parametrize(("size", "n_gold"), [(1, 30), (3, 90)])
@pytest.mark.parametrize("share", [0.67, 0.95])
def test_few_gold_labels_and_a_teacher(benchmark, size, n_gold, share):
    "The interval holds the accuracy, is never wider than that of the gold rows alone, and mostly narrower with a good teacher."
    n_narrower = 0

    def draw(random: np.random.Generator) -> tuple[Interval, float]:
        nonlocal n_narrower
        hits, groups = benchmark.grouped_rows(np.full(600 // size, size), share, 0.3 if size > 1 else 0.0, random)
        judged = [bool(hit) if group < n_gold // size else None for hit, group in zip(hits, groups, strict=True)]
        strata = random.integers(0, 3, len(hits)) if share < 0.9 else ()
        found = powered_share(judged, hits ^ (random.random(len(hits)) > 0.95), groups, strata)
        assert found.high - found.low <= found.gold_alone.high - found.gold_alone.low + 1e-12
        n_narrower += found.n_worth > found.n
        return found, share

    assert coverage(draw, n=200) >= 0.90
    assert n_narrower >= 100


# One run, two prompts


@pytest.mark.parametrize(("n_rows", "only_a", "only_b"), [(8, 0.2, 0.2), (16, 0.1, 0.1), (50, 0.02, 0.02), (100, 0.15, 0.05)])
def test_paired_shares(n_rows, only_a, only_b):
    def draw(random: np.random.Generator) -> tuple[Interval, float]:
        chance = random.random(n_rows)
        return paired_shares(chance < only_a, (only_a <= chance) & (chance < only_a + only_b)), only_a - only_b

    assert coverage(draw) >= 0.92


def test_the_mid_p_keeps_its_level():
    "Of two equally good templates one is called better at 10 % in about 10 % of the samples."
    random = np.random.default_rng(0)
    differ = random.binomial(40, 0.3, 2000)
    said = np.mean([mcnemar_mid_p(only_a, n - only_a) < 0.1 for n in differ for only_a in [random.binomial(n, 0.5)]])
    assert 0.06 <= said <= 0.115


def test_planned_rows_are_enough():
    "With the rows that are asked for, four comparisons in five exclude zero."
    difference, discordance, random = 0.1, 0.3, np.random.default_rng(0)
    n = rows_needed(difference, discordance)
    assert smallest_difference(n, discordance) == pytest.approx(difference, abs=0.002)
    seen = 0
    for _ in range(N):
        chance = random.random(n)
        seen += paired_shares(chance < 0.2, (chance >= 0.2) & (chance < 0.3)).low > 0
    assert 0.72 <= seen / N <= 0.88


# Lengths and totals


@pytest.mark.parametrize("n", [8, 16, 40])
@pytest.mark.parametrize("sigma", [0.3, 0.8])
def test_means_of_skewed_lengths(n, sigma):
    def draw(random: np.random.Generator) -> tuple[Interval, float]:
        return bootstrap_mean(np.exp(random.normal(3, sigma, n))), float(np.exp(3 + sigma**2 / 2))

    assert coverage(draw) >= 0.90


def test_means_of_lengths_in_groups():
    def draw(random: np.random.Generator) -> tuple[Interval, float]:
        sizes = random.integers(1, 5, 25)
        groups = np.repeat(np.arange(25), sizes)
        return bootstrap_mean(50 + random.normal(0, 8, 25)[groups] + random.normal(0, 4, len(groups)), groups), 50.0

    assert coverage(draw) >= 0.91


@pytest.mark.parametrize("n_pilot", [8, 20, 40])
@pytest.mark.parametrize("share", [0.005, 0.02, 0.05])
def test_rare_long_replies_are_below_the_upper_end(benchmark, n_pilot, share):
    random, n_above = np.random.default_rng(1), 0
    for _ in range(N):
        values = np.where(random.random(600) < share, 120.0, 25.0)
        n_above += values[n_pilot:].sum() > predict_total([benchmark.open_total(values, n_pilot, 120)]).high + 1e-6
    assert n_above / N <= 0.07


def test_a_pilot_at_its_limit_may_be_followed_by_shorter_replies():
    stratum = Stratum(np.arange(40), np.full(40, 80.0), np.arange(40, 1000), np.zeros(960), 0.0, 80.0)
    estimate = predict_total([stratum])
    assert estimate.low < 0.95 * estimate.value
    assert estimate.high == estimate.value
