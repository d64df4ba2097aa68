"The time left that a bar shows, on simulated arrivals; and what a bar looks like on a terminal of 80 columns."

import io
import random
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from zero_shot_distill.core import progress as module
from zero_shot_distill.core.progress import Progress, TimeLeft


def slots(n: int, n_parallel: int, seconds: Callable[[int], float], start_s: float = 0.0) -> list[float]:
    "When each of `n` units is done: every slot takes the next one as soon as it is free."
    free, arrivals = [start_s] * n_parallel, []
    for place in range(n):
        slot = free.index(min(free))
        free[slot] += seconds(place)
        arrivals.append(free[slot])
    return sorted(arrivals)


def shares_right(arrivals: list[float], n_parallel: int) -> list[bool]:
    "At every half second after the first 20: whether the time left is right within a third, or within five seconds near the end."
    estimate, n_done, right = TimeLeft(n_parallel), 0, []
    estimate.update(0, len(arrivals), 0.0)
    for half_seconds in range(int(2 * arrivals[-1])):
        now = half_seconds / 2
        while arrivals[n_done] <= now:
            n_done += 1
            estimate.update(n_done, len(arrivals), arrivals[n_done - 1])
        left_s, true_s = estimate.left_s(now), arrivals[-1] - now
        assert n_done or left_s is None  # nothing is said where nothing is known
        if now >= 20 and left_s is not None:
            right.append(abs(left_s - true_s) <= max(true_s / 3, 5))
    return right


def _waves(draw: random.Random) -> list[tuple[int, list[float]]]:
    return [(n, slots(100, n, lambda _, s=s: s * draw.uniform(0.95, 1.05))) for n, s in ((4, 7), (4, 14), (8, 14), (8, 25), (1, 2))]


def _uneven(draw: random.Random) -> list[tuple[int, list[float]]]:
    return [(n, slots(100, n, lambda _, s=s: s * draw.lognormvariate(0, 0.3))) for n, s in ((4, 7), (4, 14), (8, 14), (8, 25), (1, 2))]


def _slow_start(draw: random.Random) -> list[tuple[int, list[float]]]:
    return [(n, slots(100, n, lambda _, s=s: s * draw.uniform(0.8, 1.2), start_s=3)) for n, s in ((4, 7), (8, 14), (1, 2))]


def _slowing_down(draw: random.Random) -> list[tuple[int, list[float]]]:
    "By half from the beginning to the end, as training steps did on a shared machine."
    return [(n, slots(160, n, lambda k, s=s: s * (1 + k / 320) * draw.uniform(0.9, 1.1))) for n, s in ((1, 0.7), (1, 1.6), (4, 7))]


def _download(draw: random.Random) -> list[tuple[int, list[float]]]:
    "Megabytes, a third slower for a while and then as before."
    return [(1, slots(1100, 1, lambda k: (0.13 if k // 150 % 2 else 0.1) * draw.uniform(0.3, 1.7)))]


@pytest.mark.parametrize(
    ("trace", "least"), [(_waves, 0.98), (_uneven, 0.93), (_slow_start, 0.98), (_slowing_down, 0.97), (_download, 1.0)]
)
def test_the_time_left_is_right_within_a_third(trace, least):
    right = [moment for seed in range(5) for n, arrivals in trace(random.Random(seed)) for moment in shares_right(arrivals, n)]
    assert len(right) > 1000
    assert sum(right) / len(right) >= least


def test_what_was_there_before_is_no_speed():
    "Stored replies and a finished download arrive at once."
    estimate = TimeLeft()
    estimate.update(1117, 1117, 5.0)
    assert (estimate.rate(5.0), estimate.rate(60.0), estimate.left_s(60.0)) == (None, None, None)
    estimate.update(0, 10, 100.0)  # another round of questions begins
    estimate.update(4, 10, 108.0)
    assert estimate.rate(108.0) == pytest.approx(0.5)
    assert estimate.left_s(108.0) == pytest.approx(12.0)


@pytest.mark.parametrize("n_parallel", [1, 8])
@pytest.mark.parametrize("told_together", [True, False])
def test_what_comes_at_once_is_no_speed(n_parallel, told_together):
    "Replies that another process had stored, then two seconds for each question; and the answers of a batch, after an hour."
    estimate = TimeLeft(n_parallel)
    estimate.update(0, 1000, 0.0)
    for done in [500] if told_together else range(1, 501):
        estimate.update(done, 1000, 0.02 + done * 1e-5)
    for done in range(501, 541):
        now = 0.02 + 2 * n_parallel * -(-(done - 500) // n_parallel)
        estimate.update(done, 1000, now)
        assert estimate.rate(now) == pytest.approx(0.5, rel=0.01)
        assert estimate.left_s(now) == pytest.approx(2 * (1000 - done), rel=0.03)
    batch = TimeLeft(n_parallel)
    batch.update(0, 1000, 0.0)
    for done in [800] if told_together else range(1, 801):
        batch.update(done, 1000, 3600 + done * 1e-6)
    assert batch.rate(3600.1) == pytest.approx(800 / 3600, rel=0.01)
    assert batch.left_s(3600.1) == pytest.approx(900, rel=0.05)


def test_a_stall_is_noticed():
    "Nothing comes any more: the time left grows instead of standing still."
    estimate = TimeLeft(4)
    estimate.update(0, 40, 0.0)
    for done, at in enumerate(slots(12, 4, lambda _: 7.0), 1):
        estimate.update(done, 40, at)
    said = [estimate.left_s(now) for now in (21.0, 28.0, 60.0, 120.0)]
    assert said[0] > said[1] < said[2] < said[3]


def test_long_work_keeps_few_points():
    estimate = TimeLeft()
    estimate.update(0, 1_000_000, 0.0)
    for done in range(1, 60_001):
        estimate.update(done, 1_000_000, done / 100)
    assert len(estimate._curve) <= module._MOST_POINTS
    assert estimate.rate(600.0) == pytest.approx(100, rel=0.01)
    assert estimate.left_s(600.0) == pytest.approx(9400, rel=0.01)


def test_a_bar_fits_80_columns(monkeypatch):
    "On one line, with what is done, the rate, the time and the cost."
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with Progress(console=terminal).bar("asking 4 templates on 100 rows", n_parallel=4) as on_progress:
        on_progress(0, 400)
        for done in range(1, 41):
            now[0] += 2.5
            on_progress(done, 400, "$0.0123")
    shown = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]", terminal.file.getvalue())]
    last = [line for line in shown if "40/400" in line][-1]
    assert len(last) <= 80
    assert re.fullmatch(r"asking 4 templates on 100 rows \S+ +40/400 2\.\d s each 1:40, 1\d:\d\d left \$0\.0123", last), last
    assert all(line.startswith("asking") for line in shown if line)
