"""Replay searches on stored replies: what choosing a prompt costs, and what it loses. Prints Markdown tables.

    python tests/benchmarks/select.py                          # the thesis's cqa replies, 1,000 replays a line: some minutes
    python tests/benchmarks/select.py --quick                  # 20 replays: shows that it works, measures nothing
    python tests/benchmarks/select.py --data FOLDER --task T   # other replies, laid out as the shared thesis data

FOLDER holds `prompt-templates/T.yaml`, `query-results/T/train/<template>/responses.json` and `T_train_gold.jsonl` (a line for each row: idx, label). The
replies are read by the rules of the thesis. Every race and halving is `prompt.select.select`, every choice after a confirmation
`prompt.confirm.first_not_worse`: the code that `zsd select` runs.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zero_shot_distill.prompt.confirm import first_not_worse
from zero_shot_distill.prompt.outcome import OBJECTIVES, Objective, Outcome, objectives_of, successes
from zero_shot_distill.prompt.select import FIRST_ROWS, STEP_ROWS, SelectionPlan, select
from zero_shot_distill.task.numbers import same_value
from zero_shot_distill.thesis.files import NUMERIC_DATASETS, ThesisResponse, read_thesis_responses, read_thesis_templates
from zero_shot_distill.thesis.score import ThesisReply, read_thesis_replies

N_THESIS = 25  # rows that the thesis scored a template on
N_FRESH = 100  # rows of a selection and of a confirmation, where rows are drawn with replacement
FEWEST_ROWS = 12
ENOUGH_COMMON = 40  # rows that all templates answered: then the others are left out


def shared_data() -> Path:
    "The folder of the thesis's replies; may be missing."
    return Path(os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "thesis"


# Replies


def gold_path(folder: Path, task: str) -> Path:
    return folder / f"{task}_train_gold.jsonl"


def require_gold(folder: Path, task: str) -> None:
    "End with one line where the gold labels are missing."
    if not (path := gold_path(folder, task)).is_file():
        sys.exit(f"{path}: no such file; give --data FOLDER, or set ZSD_SHARED_DATA")


def read_gold(folder: Path, task: str) -> dict[int, str]:
    "Read the gold label of each row, in small letters."
    lines = gold_path(folder, task).read_text(encoding="utf-8").splitlines()
    return {row["idx"]: str(row["label"]).strip().lower() for row in map(json.loads, filter(None, lines))}


def read_templates(folder: Path, task: str, rows: Collection[int]) -> Iterator[tuple[int, dict[Hashable, ThesisReply]]]:
    "Read what each template that has replies said of these rows; rows without a reply are left out."
    for id, template in read_thesis_templates(folder / "prompt-templates" / f"{task}.yaml").items():
        path = folder / "query-results" / task / "train" / str(id) / "responses.json"
        if not path.is_file():
            continue
        replies = {one.idx: one for one in read_thesis_responses(path) if isinstance(one, ThesisResponse) and one.idx in rows}
        asked = ((row, one.response, one.prompt_values) for row, one in replies.items())
        yield id, read_thesis_replies(asked, template.in_our_form(task), task)


def read_outcomes(folder: Path, task: str) -> tuple[list[int], np.ndarray]:  # template ids; (templates, rows) of `Outcome`
    "Read all replies to the rows with a gold label."
    gold = read_gold(folder, task)
    is_right = same_value if task in NUMERIC_DATASETS else str.__eq__
    ids, grid = [], []
    for id, read in read_templates(folder, task, gold):
        ids.append(id)
        grid.append([_outcome(read.get(row), label, is_right) for row, label in gold.items()])
    return ids, np.array(grid, dtype=np.int8).reshape(len(ids), len(gold))


def _outcome(read, gold: str, is_right: Callable[[str, str], bool]) -> Outcome:
    if read is None:
        return Outcome.NO_REPLY
    if read.label is None or not is_right(read.label.strip().lower(), gold):
        return Outcome.WRONG
    return Outcome.RIGHT if read.explanation is None else Outcome.EXPLAINED


def block(outcomes: np.ndarray) -> np.ndarray:  # (templates, rows)
    "Take the rows that all templates answered, or, where these are few, those that half of them did and the templates that answered half of these."
    answered = outcomes > Outcome.NO_REPLY
    common = answered.all(axis=0)
    if common.sum() >= ENOUGH_COMMON:
        return outcomes[:, common]
    rows = answered.sum(axis=0) * 2 >= len(outcomes)
    return outcomes[:, rows][answered[:, rows].mean(axis=1) >= 0.5]


# Ways to choose


@dataclass(frozen=True)
class Found:
    "What a search has found."

    best: int  # number of the template
    n_questions: int
    own: float  # its share of successes on the rows that it was chosen on
    left: frozenset[int]  # templates that were not dropped
    second: int = -1  # the runner-up; -1: not known


Way = Callable[[np.ndarray, Objective, np.random.Generator], Found]  # (templates, rows) of the selection rows, in random order


def shares(outcomes: np.ndarray, objective: Objective) -> np.ndarray:  # (templates,): of the answered rows
    "Share of successes of each template; unread is wrong, unanswered does not count."
    return successes(outcomes, objective).sum(axis=1) / np.maximum((outcomes > Outcome.NO_REPLY).sum(axis=1), 1)


def best_of(outcomes: np.ndarray, objective: Objective) -> int:
    other = next(name for name in objectives_of(of_entities=False) if name != objective)
    return int(np.argmax(shares(outcomes, objective) + shares(outcomes, other) / 10_000))


def exhaustive(outcomes: np.ndarray, objective: Objective, generator: np.random.Generator) -> Found:
    best = best_of(outcomes, objective)
    return Found(best, outcomes.size, float(shares(outcomes[[best]], objective)[0]), frozenset(range(len(outcomes))))


def thesis_style(outcomes: np.ndarray, objective: Objective, generator: np.random.Generator) -> Found:
    "Each template on rows of its own."
    n = min(N_THESIS, outcomes.shape[1])
    drawn = np.stack([generator.permutation(outcomes.shape[1])[:n] for _ in outcomes])
    found = exhaustive(np.take_along_axis(outcomes, drawn, axis=1), objective, generator)
    return replace(found, n_questions=n * len(outcomes))


def raced(plan: SelectionPlan, budget: float | None = None) -> Way:  # budget: share of the exhaustive questions
    def way(outcomes: np.ndarray, objective: Objective, generator: np.random.Generator) -> Found:
        ids = range(len(outcomes))
        most = None if budget is None else max(int(budget * outcomes.size), len(outcomes) * plan.first_rows)
        asked = replace(plan, objective=objective, max_questions=most)
        done = select(ids, outcomes.shape[1], lambda some, rows: outcomes[np.ix_(list(some), list(rows))], asked)
        best, n = done.ranking[0], done.looks[-1].n_rows
        own = float(shares(outcomes[[best], :n], objective)[0])
        return Found(best, done.n_questions, own, frozenset(done.looks[-1].left), done.ranking[1])

    return way


RACE = raced(SelectionPlan())
BOLD = 0.2  # level of a race that drops whoever is two rows behind
WAYS: dict[str, Way] = {
    "any template (the first)": lambda outcomes, objective, generator: Found(0, 0, float("nan"), frozenset({0})),
    f"thesis style: {N_THESIS} rows each, the best": thesis_style,
    "exhaustive: all rows each, the best": exhaustive,
    "halving: 8 rows, then twice as many for the better half": raced(SelectionPlan(halving=True)),
    "race of the same level, 8 rows, then every 4": raced(SelectionPlan(first_rows=8, step_rows=4)),
    "race as first tried: 8 rows, then every 4, level 0.1": raced(SelectionPlan(first_rows=8, step_rows=4, level=0.1)),
    f"**race: {FIRST_ROWS} rows, then every {STEP_ROWS}**": RACE,
    "race, a budget of half of the exhaustive questions": raced(SelectionPlan(), 0.5),
    f"race, bold: level {BOLD:g}": raced(SelectionPlan(level=BOLD)),
}
GRID = [(first, level) for first in (2, 3, 4, 8) for level in (0.05, 0.07, 0.12, 0.15, 0.2, 0.3)]


# Replays


@dataclass(frozen=True)
class Draw:
    "One replay: the selection rows, and what each template is worth."

    outcomes: np.ndarray  # (templates, rows)
    truth: np.ndarray  # (templates,)
    fresh: np.ndarray  # (templates, rows): rows to confirm on; may be empty


def halves(outcomes: np.ndarray, objective: Objective, n_replays: int, seed: int) -> Iterator[tuple[Draw, np.random.Generator]]:
    "Half of the rows select, the others are the truth; templates in random order, so that a tie has no favourite."
    for replay in range(n_replays):
        generator = np.random.default_rng([seed, replay])
        shown = outcomes[generator.permutation(len(outcomes))][:, generator.permutation(outcomes.shape[1])]
        n = outcomes.shape[1] // 2
        yield Draw(shown[:, :n], shares(shown[:, n:], objective), shown[:, :0]), generator


def redrawn(outcomes: np.ndarray, objective: Objective, n_replays: int, seed: int) -> Iterator[tuple[Draw, np.random.Generator]]:
    "Rows drawn with replacement to select and to confirm; the truth is the share of all rows."
    for replay in range(n_replays):
        generator = np.random.default_rng([seed, replay])
        shown = outcomes[generator.permutation(len(outcomes))]
        selection, fresh = (shown[:, generator.integers(0, shown.shape[1], N_FRESH)] for _ in range(2))
        yield Draw(selection, shares(shown, objective), fresh), generator


def points(values: Sequence[float]) -> str:
    "Mean in points with its standard error over the replays."
    array = 100 * np.asarray(values, dtype=float)
    return "-" if np.isnan(array).all() else f"{array.mean():+.2f} ± {array.std() / len(array) ** 0.5:.2f}"


def table(lines: Sequence[dict[str, str]]) -> str:
    head = f"| {' | '.join(lines[0])} |\n|{' --- |' * len(lines[0])}"
    return "\n".join([head, *(f"| {' | '.join(line.values())} |" for line in lines)])


Draws = Callable[[np.ndarray, Objective, int, int], Iterator[tuple[Draw, np.random.Generator]]]


def compare(outcomes: np.ndarray, objective: Objective, draws: Draws, n_replays: int, ways: dict[str, Way]) -> list[dict[str, str]]:
    "What each way spends and loses, against the exhaustive choice from the same rows."
    n_selection = next(draws(outcomes, objective, 1, 0))[0].outcomes.shape[1]
    ways = {name: way for name, way in ways.items() if n_selection >= 8 or "8 rows" not in name}  # the first look of these
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in ways}
    best_known = best_of(outcomes, objective)
    hindsight = []
    for draw, generator in draws(outcomes, objective, n_replays, 0):
        reference = draw.truth[exhaustive(draw.outcomes, objective, generator).best]
        for name, way in ways.items():
            one = way(draw.outcomes, objective, generator)
            worth = draw.truth[one.best]
            found[name].append((one.n_questions / draw.outcomes.size, worth, reference - worth, one.own - worth))
        hindsight.append(reference)
    lines = []
    for name, results in found.items():
        spent, worth, lost, flattery = np.array(results).T
        lines.append(
            {
                "way": name,
                "questions, % of exhaustive": f"{100 * spent.mean():.1f}",
                "accuracy on unseen rows, %": f"{100 * worth.mean():.1f}",
                "points lost against exhaustive": points(lost),
                "its own score above the truth, points": points(flattery),
            }
        )
    top = float(shares(outcomes[[best_known]], objective)[0])
    lines.append(
        {
            "way": "hindsight: the template that is best on all rows",
            "questions, % of exhaustive": "-",
            "accuracy on unseen rows, %": f"{100 * top:.1f}",
            "points lost against exhaustive": f"{100 * (np.mean(hindsight) - top):+.2f}",
            "its own score above the truth, points": "-",
        }
    )
    return lines


def best_rule(outcomes: np.ndarray, objective: Objective, n_replays: int) -> str:
    "The race setting that lost least at no more than a quarter of the questions, known only afterwards."
    results = {}
    for first, level in GRID:
        if first > outcomes.shape[1] // 2:
            continue
        way = raced(SelectionPlan(first_rows=first, step_rows=1, level=level))
        spent, lost = [], []
        for draw, generator in halves(outcomes, objective, n_replays, 0):
            one, reference = way(draw.outcomes, objective, generator), exhaustive(draw.outcomes, objective, generator)
            spent.append(one.n_questions / draw.outcomes.size)
            lost.append(draw.truth[reference.best] - draw.truth[one.best])
        results[first, level] = float(np.mean(spent)), lost
    within = {setting: lost for setting, (spent, lost) in results.items() if spent <= 0.25}
    if not within:
        cheapest = min(results, key=lambda setting: results[setting][0])
        return f"no setting stays within 25 % of the questions; the cheapest ({cheapest[0]} rows, level {cheapest[1]:g}) takes {results[cheapest][0]:.0%}"
    first, level = min(within, key=lambda setting: np.mean(within[setting]))
    return f"{first} rows, then every one, level {level:g}: {100 * results[first, level][0]:.1f} % of the questions, {points(within[first, level])} points lost"


def dropped(outcomes: np.ndarray, objective: Objective, n_replays: int) -> list[dict[str, str]]:
    "How often a race drops the best of clearly unequal templates."
    known = shares(outcomes, objective)
    best, lines = best_of(outcomes, objective), []
    for gap in (0.1, 0.15, 0.2):
        others = np.flatnonzero(known <= known[best] - gap)
        if not len(others):
            continue
        some = outcomes[[best, *others]]
        counts = {name: [0, 0] for name in ("race", "bold", "exhaustive")}
        ways = {"race": RACE, "bold": raced(SelectionPlan(level=BOLD)), "exhaustive": exhaustive}
        for replay in range(n_replays):
            generator = np.random.default_rng([1, replay])
            order = generator.permutation(len(some))
            shown, place = some[order][:, generator.permutation(some.shape[1])[: some.shape[1] // 2]], int(np.argmin(order))
            for name, way in ways.items():
                one = way(shown, objective, generator)
                counts[name][0] += place not in one.left
                counts[name][1] += place != one.best
        shown = {name: (f"{gone / n_replays:.1%}", f"{not_taken / n_replays:.1%}") for name, (gone, not_taken) in counts.items()}
        lines.append(
            {
                "the best is ahead by at least": f"{100 * gap:.0f} points",
                "other templates": str(len(others)),
                "race drops it": shown["race"][0],
                "race does not choose it": shown["race"][1],
                "exhaustive does not choose it": shown["exhaustive"][1],
                "bold race drops it": shown["bold"][0],
            }
        )
    return lines


def reported(outcomes: np.ndarray, objective: Objective, n_replays: int) -> list[dict[str, str]]:
    "How far the score that is reported lies above the truth."
    off: dict[str, list[float]] = {}
    gained: list[float] = []
    for draw, generator in redrawn(outcomes, objective, n_replays, 2):
        thesis, race = thesis_style(draw.outcomes, objective, generator), RACE(draw.outcomes, objective, generator)
        off.setdefault(f"thesis style: the score on its {N_THESIS} rows", []).append(thesis.own - draw.truth[thesis.best])
        off.setdefault("race: the winner's own score", []).append(race.own - draw.truth[race.best])
        fresh = shares(draw.fresh, objective)
        off.setdefault(f"race: the winner's score on {N_FRESH} fresh rows", []).append(fresh[race.best] - draw.truth[race.best])
        last = dict.fromkeys([race.best, race.second, 0])  # the template in use is any of them: their order is random
        chosen = first_not_worse({id: draw.fresh[id] for id in last}, 0, objective)
        off.setdefault("**zsd select: the chosen template's confirmed score**", []).append(fresh[chosen] - draw.truth[chosen])
        gained.append(draw.truth[chosen] - draw.truth[0])
    lines = [{"score": name, "above the truth, points": points(values)} for name, values in off.items()]
    return [*lines, {"score": "*gained on the template in use, in truth*", "above the truth, points": points(gained)}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=shared_data(), help="a folder laid out as the shared thesis data")
    parser.add_argument("--task", default="cqa", help="the data set in it")
    parser.add_argument("--replays", type=int, default=1000, help="for each line")
    parser.add_argument("--quick", action="store_true", help="20 replays: shows that it works, measures nothing")
    arguments = parser.parse_args()
    n_replays = 20 if arguments.quick else arguments.replays
    require_gold(arguments.data, arguments.task)
    ids, outcomes = read_outcomes(arguments.data, arguments.task)
    outcomes = block(outcomes)
    if len(outcomes) < 2 or outcomes.shape[1] < FEWEST_ROWS:
        sys.exit(
            f"{arguments.task}: {len(outcomes)} templates with replies to {outcomes.shape[1]} common rows; 2 and {FEWEST_ROWS} are needed"
        )
    missing = (outcomes == Outcome.NO_REPLY).mean()
    print(
        f"{arguments.task}: {len(outcomes)} of {len(ids)} templates, {outcomes.shape[1]} rows with gold labels, {missing:.1%} of the replies missing"
    )
    print(
        f"Our race drops below a mid-p of {SelectionPlan().level_of(len(outcomes)):g}. {n_replays:,} replays a line; ± is the standard error over the replays, which share the same replies."
    )
    n = outcomes.shape[1] // 2
    for objective in objectives_of(of_entities=False):
        known, title = shares(outcomes, objective), OBJECTIVES[objective]
        span = ", ".join(f"{100 * value:.0f}" for value in np.quantile(known, [0, 0.25, 0.5, 0.75, 1]))
        print(f"\n### {title}\n\nTemplates (least, quarter, half, three quarters, most): {span} %.", flush=True)
        print(f"\nChosen on {n} rows, measured on the other {outcomes.shape[1] - n}:\n", flush=True)
        print(table(compare(outcomes, objective, halves, n_replays, WAYS)), flush=True)
        print(
            f"\nThe best race setting in hindsight, of {len(GRID)}: {best_rule(outcomes, objective, max(n_replays // 10, 20))}.", flush=True
        )
        print(f"\nChosen on {N_FRESH} rows drawn with replacement, measured on all rows:\n", flush=True)
        print(table(compare(outcomes, objective, redrawn, n_replays, WAYS)), flush=True)
        if lines := dropped(outcomes, objective, n_replays):
            print(f"\nClearly unequal templates, {n} rows:\n\n{table(lines)}", flush=True)
        print(f"\nThe score that is reported, {N_FRESH} rows to select and {N_FRESH} to confirm:\n", flush=True)
        print(table(reported(outcomes, objective, n_replays)), flush=True)


if __name__ == "__main__":
    main()
