"""What each way to propose prompts finds at equal numbers of questions. Prints Markdown tables, from one run.

    python tests/benchmarks/opro.py --task pocket_nli --teacher teacher.yaml --seeds 3 --queries 2000
    python tests/benchmarks/opro.py --task pocket_nli --quick      # one seed, a few questions: shows that it works, measures nothing

The teacher is the embedded one, or a model behind an OpenAI-compatible address: `model:` in the teacher's file, the address in OPENAI_BASE_URL and the
key in OPENAI_API_KEY. The same model proposes, unless `--optimiser` names another file. Each seed draws its own selection and confirmation rows, which
share no group. All proposers begin with the same templates on the same rows, and may ask the same number of questions, proposals and confirmation
counted; stored replies count like new ones, so that a second run costs nothing and prints the same. `--parallel` runs searches side by side, for a server
that answers many requests at once.

`--proposers opro,gepa,capo` also lets DSPy's GEPA and promptolution's CAPO search, where they are installed (`pip install dspy promptolution`, which this
project does without). `opro_peers.py` says how: they ask the same teacher through the same store, and their questions are counted in the same way.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from opro_peers import PEERS, search_with_peer

from zero_shot_distill.core.definition import ZsdError
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.prompt.contest_rows import draw_contest
from zero_shot_distill.prompt.objective import SearchObjective
from zero_shot_distill.prompt.opro import search_prompt
from zero_shot_distill.prompt.propose import PROPOSERS
from zero_shot_distill.prompt.search_job import META_PROMPT_TOKENS, PRESETS, OproSettings, SearchBudget, SearchJob, begin_with
from zero_shot_distill.prompt.search_result import PromptSearch, SearchTotal, confirmed_share, refusal_text
from zero_shot_distill.prompt.template import load_templates
from zero_shot_distill.prompt.trajectory import tried_by_id
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.task import load_task
from zero_shot_distill.teacher.connect import connect
from zero_shot_distill.teacher.price import format_usd
from zero_shot_distill.teacher.settings import TeacherSettings, load_teacher_settings, open_teacher


@dataclass(frozen=True)
class Setting:
    "What all searches share."

    task: str
    teacher: TeacherSettings
    optimiser: TeacherSettings | None
    settings: OproSettings
    objective: SearchObjective
    n_confirm: int
    queries: int
    split: str
    work_dir: Path


def search(setting: Setting, proposer: str, seed: int) -> PromptSearch | str:
    "One search; an error is told in its place, so that the others go on."
    try:
        return _search(setting, proposer, seed)
    except ZsdError as error:
        return str(error)


def _search(setting: Setting, proposer: str, seed: int) -> PromptSearch:
    task, progress = load_task(setting.task), Progress()
    begun, form = begin_with(task, load_templates(task))
    job = SearchJob(
        task,
        begun,
        form,
        draw_contest(task, setting.settings.rows, setting.n_confirm, seed, setting.split),
        setting.settings,
        setting.objective,
        **({} if proposer in PEERS else {"proposer": proposer}),
        seed=seed,
        budget=SearchBudget(queries=setting.queries),
    )
    with ExitStack() as opened_things:
        store = opened_things.enter_context(ResponseStore(setting.work_dir / "responses.sqlite"))
        opened = open_teacher(setting.teacher, progress, context_tokens=META_PROMPT_TOKENS)
        opened_things.enter_context(opened.teacher)
        proposing, own = opened, None
        if setting.optimiser:
            proposing = open_teacher(setting.optimiser, progress, context_tokens=META_PROMPT_TOKENS)
            opened_things.enter_context(proposing.teacher)
            own = setting.optimiser.sampling if setting.optimiser.has_own_sampling else None
        client = connect(opened, store, setting.teacher.sampling)
        optimiser = connect(proposing, store, setting.settings.optimiser_sampling(setting.teacher.sampling, own))
        if proposer in PEERS:
            return search_with_peer(proposer, job, client, optimiser, progress)
        return search_prompt(job, client, optimiser, setting.work_dir, progress)


def line(proposer: str, seed: int, found: PromptSearch, objective: SearchObjective) -> dict[str, Any]:
    "One search in numbers: in-sample and confirmed shares in per cent, differences in points; without those of the best found where it found none."
    goal, tried = objective.goal, tried_by_id(found.steps)
    total, confirmed = SearchTotal.of(found), found.confirmation
    best = next((one for one in found.ranked if one.id not in {start.id for start in found.steps[0].tried}), None)
    numbers: dict[str, Any] = {
        "proposer": proposer,
        "seed": seed,
        "incumbent": found.incumbent,
        "incumbent, in-sample": 100 * getattr(tried[found.incumbent].score, goal),
        "queries": total.n_questions,
        "tokens": total.n_tokens,
        "usd": total.cost_usd,
        "refused": refusal_text(found.steps),
        "stopped": found.stop and found.stop.name.lower(),
        "chosen": found.chosen.id,
        "text": found.chosen.user_message,
    }
    if best:
        numbers["best found, in-sample"] = 100 * getattr(best.score, goal)
    if confirmed:
        numbers["incumbent, confirmed"] = 100 * confirmed_share(found, found.incumbent).value
        numbers["handed out"] = 100 * confirmed.difference(confirmed.chosen).value
    if confirmed and best:
        gain, split = confirmed.difference(best.id), found.end.gain
        numbers |= {
            "best found, confirmed": 100 * confirmed_share(found, best.id).value,
            "difference": 100 * gain.value,
            "difference_low": 100 * gain.low,
            "difference_high": 100 * gain.high,
            "format": 100 * split.format.value,
            "label": 100 * split.label.value,
        }
    return numbers


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    "A Markdown table."
    names = list(rows[0])
    return "\n".join(
        [
            "| " + " | ".join(names) + " |",
            "|" + "---|" * len(names),
            *("| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows),
        ]
    )


def single(numbers: dict[str, Any]) -> dict[str, Any]:
    "A search as a line of the first table."
    difference, shares = "-", ("incumbent, in-sample", "best found, in-sample", "incumbent, confirmed", "best found, confirmed")
    if "difference" in numbers:
        difference = f"{numbers['difference']:+.1f} [{numbers['difference_low']:+.1f}, {numbers['difference_high']:+.1f}]"
    return {
        "proposer": numbers["proposer"],
        "seed": numbers["seed"],
        **{name: f"{numbers[name]:.0f}" if name in numbers else "-" for name in shares},
        "difference": difference,
        "handed out": numbers["chosen"],
        "queries": f"{numbers['queries']:,}",
        "tokens": f"{numbers['tokens']:,}",
        "cost": format_usd(numbers["usd"]),
        "refused": numbers["refused"],
    }


def summary(proposer: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    "All seeds of a proposer: means, and the spread over seeds."

    def of(name: str) -> str:
        values = [numbers[name] for numbers in lines if name in numbers]
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        return f"{mean(values):+.1f}{spread}" if values else "-"

    for numbers in lines:
        if "best found, in-sample" in numbers:
            numbers["in-sample gain"] = numbers["best found, in-sample"] - numbers["incumbent, in-sample"]
    return {
        "proposer": proposer,
        "seeds": len(lines),
        "in-sample gain, points": of("in-sample gain"),
        "confirmed difference of the best found": of("difference"),
        "confirmed difference of what is handed out": of("handed out"),
        "handed out something else than the incumbent": sum(numbers["chosen"] != numbers["incumbent"] for numbers in lines),
        "mean queries": f"{mean(numbers['queries'] for numbers in lines):,.0f}",
        "mean tokens": f"{mean(numbers['tokens'] for numbers in lines):,.0f}",
    }


def main() -> None:
    "Search with every proposer and seed, and print what came of it."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="pocket_nli")
    parser.add_argument("--teacher", type=Path, help="a teacher's YAML file; the embedded teacher by default")
    parser.add_argument("--optimiser", type=Path, help="another teacher's YAML file, which proposes")
    parser.add_argument("--proposers", default=",".join(PROPOSERS), help=f"with commas between; there are also {' and '.join(PEERS)}")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each proposer")
    parser.add_argument("--queries", type=int, default=2000, help="questions of each search, proposals and confirmation counted")
    parser.add_argument("--preset", default="thesis", choices=PRESETS)
    parser.add_argument("--rows", type=int, help="that score every template")
    parser.add_argument("--candidates", type=int, help="proposals a step")
    parser.add_argument("--confirm", type=int, default=100, help="rows of the confirmation")
    parser.add_argument("--objective", default="explained_accuracy")
    parser.add_argument("--split", default="train")
    parser.add_argument("--parallel", type=int, default=1, help="searches at once")
    parser.add_argument("--work-dir", type=Path, default=Path("zsd-work/benchmark-opro"))
    parser.add_argument("--quick", action="store_true", help="one seed and few questions: shows that it works")
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.queries, given.rows, given.candidates, given.confirm = 1, 120, 6, 3, 12
    changes = {name: value for name in ("rows", "candidates") if (value := getattr(given, name))}
    setting = Setting(
        given.task,
        load_teacher_settings(given.teacher) if given.teacher else TeacherSettings(),
        load_teacher_settings(given.optimiser) if given.optimiser else None,
        replace(PRESETS[given.preset], iterations=10_000, plateau=None, **changes),
        SearchObjective(given.objective),
        given.confirm,
        given.queries,
        given.split,
        given.work_dir,
    )
    grid = list(product(given.proposers.split(","), range(given.seeds)))
    with ThreadPoolExecutor(given.parallel) as pool:
        found = list(pool.map(lambda pair: search(setting, *pair), grid))
    lines = [line(*pair, one, setting.objective) for pair, one in zip(grid, found, strict=True) if not isinstance(one, str)]
    given.work_dir.mkdir(parents=True, exist_ok=True)
    (given.work_dir / "results.json").write_text(json.dumps(lines, ensure_ascii=False, indent=1), encoding="utf-8")
    about = f"{setting.teacher.model or setting.teacher.weights[0]} on {given.task}, {setting.objective}; {setting.settings.rows} selection rows, {given.confirm} confirmation rows, at most {given.queries:,} questions a search."
    print(f"{about} Shares in per cent; differences to the incumbent in points on the confirmation rows, with 95 % intervals.\n")
    if lines:
        print(markdown([single(numbers) for numbers in lines]), end="\n\n")
        print(
            markdown(
                [summary(name, mine) for name in given.proposers.split(",") if (mine := [one for one in lines if one["proposer"] == name])]
            )
        )
    for pair, one in zip(grid, found, strict=True):
        if isinstance(one, str):
            print(f"\n{pair[0]}, seed {pair[1]}: {one}")


if __name__ == "__main__":
    main()
