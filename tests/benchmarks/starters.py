"""How good the starter templates are beside the hand-written ones of a task. Prints Markdown tables.

    python tests/benchmarks/starters.py                              # the embedded teacher; asks what is not stored, then prints
    python tests/benchmarks/starters.py --seconds 170                # stops asking after that; the same command goes on
    python tests/benchmarks/starters.py --base-url URL --model NAME  # any OpenAI-compatible server, key in OPENAI_API_KEY

The best starter template and the best hand-written one of each task are chosen on some rows (tune) and compared on others (report), row by row.
The rows are those of the shared data (ZSD_SHARED_DATA, or ../shared/data beside the project): e-SNLI dev with one row a premise; SVAMP train;
the 75 CommonsenseQA rows whose gold labels are known. Wordings were tuned on tune rows only. All replies are kept in a store, which the next run reads.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zero_shot_distill.prompt.collect import collect_replies, requests_for, run_experiment
from zero_shot_distill.prompt.replies import ReadReply
from zero_shot_distill.prompt.starter import starter_templates
from zero_shot_distill.prompt.template import PromptTemplate, load_templates
from zero_shot_distill.stats.interval import Interval, wilson
from zero_shot_distill.stats.paired import paired_shares
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import Example, Task, load_task
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.embedded import EmbeddedTeacher
from zero_shot_distill.teacher.teacher import HostedTeacher, StoredTeacher, Teacher
from zero_shot_distill.weights.pull import pull

EMBEDDED = "qwen2.5-coder-1.5b-instruct"
SAMPLING = {"temperature": 0.0, "max_tokens": 120, "seed": 0}
N_TUNE = {"esnli": 100, "svamp": 80, "cqa": 25}
N_AT_A_TIME = 24
KINDS = {"starter": starter_templates, "hand-written": load_templates}


def shared_dir() -> Path:
    "The folder of the shared data."
    return Path(os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def _cqa_rows() -> list[Example]:
    "The rows of CommonsenseQA that the thesis asked about and whose gold labels are known."
    thesis, found = shared_dir() / "thesis", {}
    gold = {row["idx"]: row["label"] for row in map(json.loads, (thesis / "cqa_train_gold.jsonl").open(encoding="utf-8"))}
    for reply in map(json.loads, (thesis / "query-results" / "cqa" / "train" / "1" / "responses.json").open(encoding="utf-8")):
        if reply["idx"] in gold:
            found[reply["idx"]] = Example(str(reply["idx"]), reply["prompt_values"], gold[reply["idx"]].lower(), None)
    return [found[idx] for idx in sorted(found)]


def rows_of(task: Task, part: str) -> list[Example]:  # in an order of their own, fewer are part of more
    "The tune or report rows of a task."
    if task.name == "cqa":
        rows = _cqa_rows()
    elif task.name == "svamp":
        rows = load_examples(task, "train")
    else:
        rows = load_examples(task, "valid")
    random.Random(0).shuffle(rows)
    rows = list({task.group_of(row): row for row in rows}.values())
    return rows[: N_TUNE[task.name]] if part == "tune" else rows[N_TUNE[task.name] :]


def named(kind: str, templates: Mapping[str, PromptTemplate]) -> dict[str, PromptTemplate]:
    "Templates of two kinds may have the same id: name them by both."
    return {id: template.model_copy(update={"id": f"{kind}: {id}"}) for id, template in templates.items()}


def ask(task: Task, templates: Mapping[str, PromptTemplate], rows: Sequence[Example], client: TeacherClient, until_s: float) -> int:
    "Ask what is not stored, row by row, until the time is over; returns how many questions are still open."
    pairs = [(template, row) for row in rows for template in templates.values()]
    missing = {
        request.key for request in client.store.missing(requests_for(*pair, task, client.model, client.sampling)[0] for pair in pairs)
    }
    open_pairs = [pair for pair in pairs if requests_for(*pair, task, client.model, client.sampling)[0].key in missing]
    while open_pairs and time.monotonic() < until_s:
        now, open_pairs = open_pairs[:N_AT_A_TIME], open_pairs[N_AT_A_TIME:]
        collect_replies(now, task, client)
    return len(open_pairs)


def read(task: Task, templates: Mapping[str, PromptTemplate], rows: Sequence[Example], client: TeacherClient) -> dict[str, list[ReadReply]]:
    "Read what is stored, on the rows that all templates were asked about."
    stored = TeacherClient(StoredTeacher(client.model), client.store, client.sampling)
    asked = run_experiment(task, {template.id: template for template in templates.values()}, rows, stored)
    found = {name: asked[template.id] for name, template in templates.items()}
    complete = [all(replies[place].response for replies in found.values()) for place in range(len(rows))]
    return {id: [reply for reply, is_it in zip(replies, complete, strict=True) if is_it] for id, replies in found.items()}


def is_right(task: Task, replies: Iterable[ReadReply]) -> list[int]:
    "1 for each row that was read right, else 0."
    return [int(task.is_right(reply.reply.label if reply.reply else None, reply.example.label)) for reply in replies]


def percent(interval: Interval, sign: str = "") -> str:
    "In per cent, with its interval."
    return f"{100 * interval.value:{sign}.1f} [{100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f}]"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    "A Markdown table."
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])] if rows else []
    return "\n".join([*lines, *("| " + " | ".join(map(str, row.values())) + " |" for row in rows)])


def tuned(
    task: Task, kinds: Mapping[str, Mapping[str, PromptTemplate]], n: int, client: TeacherClient
) -> tuple[dict[str, str], list[dict]]:
    "The best template of each kind on the tune rows, and a line of the table for each template."
    best, lines = {}, []
    for kind, templates in kinds.items():
        replies = read(task, templates, rows_of(task, "tune")[:n], client)
        right = {id: is_right(task, read) for id, read in replies.items()}
        best[kind] = max(right, key=lambda id, right=right: sum(right[id]))
        for id, of_rows in right.items():
            unread = sum(reply.reply is None for reply in replies[id])
            explained = sum(bool(reply.reply and reply.reply.rationale) for reply in replies[id])
            share = percent(wilson(sum(of_rows), len(of_rows))) if of_rows else "-"
            lines.append(
                {
                    "task": task.name,
                    "kind": kind,
                    "template": id,
                    "n": len(of_rows),
                    "accuracy, %": share,
                    "not read": unread,
                    "with a rationale": explained,
                }
            )
    return best, lines


def compared(task: Task, chosen: Mapping[str, PromptTemplate], n: int, client: TeacherClient) -> dict[str, object]:
    "A line of the table: starter against hand-written on the report rows."
    rows = rows_of(task, "report")[:n]
    replies = read(task, chosen, rows, client)
    starter, written = (is_right(task, replies[kind]) for kind in ("starter", "hand-written"))
    line = {"task": task.name, **{kind: template.id.partition(": ")[2] for kind, template in chosen.items()}, "n": len(starter)}
    if not starter:
        return line | {"starter, %": "-", "hand-written, %": "-", "difference, points": "-"}
    return line | {
        "starter, %": percent(wilson(sum(starter), len(starter))),
        "hand-written, %": percent(wilson(sum(written), len(written))),
        "difference, points": percent(paired_shares(starter, written), "+"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="esnli,svamp,cqa")
    parser.add_argument("--tune-rows", type=int, default=25, help="of each task, for each of its templates")
    parser.add_argument("--report-rows", type=int, default=100, help="of each task, for the two chosen templates; CommonsenseQA has 50")
    parser.add_argument("--seconds", type=float, default=36_000, help="stop asking after that")
    parser.add_argument("--base-url", help="an OpenAI-compatible server instead of the embedded teacher")
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--store", type=Path, default=Path("zsd-work/starters.sqlite"))
    options = parser.parse_args()
    os.environ["ZSD_DATA"] = str(shared_dir())  # it holds svamp/SVAMP.json and esnli/esnli_dev.jsonl
    options.store.parent.mkdir(parents=True, exist_ok=True)
    until_s, n_open, tuning, lines = time.monotonic() + options.seconds, 0, [], []
    teacher: Teacher
    if options.base_url:
        teacher = HostedTeacher(options.model, options.base_url, os.environ.get("OPENAI_API_KEY") or "none")
    else:
        teacher = EmbeddedTeacher(lambda: pull(EMBEDDED), options.model, n_parallel=8)
    with teacher, ResponseStore(options.store) as store:
        client = TeacherClient(teacher, store, SAMPLING)
        for name in options.tasks.split(","):
            task = load_task(name)
            kinds = {kind: named(kind, of_kind(task)) for kind, of_kind in KINDS.items()}
            tune_rows = rows_of(task, "tune")[: options.tune_rows]
            n_open += sum(ask(task, templates, tune_rows, client, until_s) for templates in kinds.values())
            best, of_task = tuned(task, kinds, options.tune_rows, client)
            chosen = {kind: kinds[kind][id] for kind, id in best.items()}
            n_open += ask(task, chosen, rows_of(task, "report")[: options.report_rows], client, until_s)
            tuning += of_task
            lines.append(compared(task, chosen, options.report_rows, client))
    print(f"{options.model}, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores; {n_open} questions still open\n")
    print("On the rows that the choice was made on:\n", table(tuning), "\nOn other rows, 95 % intervals:\n", table(lines), sep="\n")


if __name__ == "__main__":
    main()
