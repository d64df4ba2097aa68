"""How far the label headroom can be trusted: `python tests/benchmarks/headroom.py` prints the table of `nbs/3_prompt/09_headroom.ipynb`.

Worlds in which the truth is known, and the thesis's 84 `cqa` templates where the shared data is there: 40 rows are looked at, the gain of the best template is
then measured on the other 35.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zero_shot_distill.prompt.headroom import best_elsewhere, headroom
from zero_shot_distill.prompt.outcome import Objective
from zero_shot_distill.prompt.parse import Reply
from zero_shot_distill.prompt.replies import ReadReply
from zero_shot_distill.prompt.template import load_templates
from zero_shot_distill.store.request import Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.task import Example, Task, load_task
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.teacher import StoredTeacher
from zero_shot_distill.thesis.evaluation import imported_replies
from zero_shot_distill.thesis.imported import ImportedFolder
from zero_shot_distill.thesis.importer import import_thesis

N_ROWS = 40
RESPONSE = Response("0" * 64, "", "stop", None, None, 0.0, 1, "2026-11-26T00:00:00+00:00", "simulated")
TASK = load_task("pocket_nli").model_copy(update={"group_field": None})
ROWS = [Example(f"r{row}", {}, TASK.labels[row % 3], None) for row in range(N_ROWS)]
World = tuple[np.ndarray, float]  # (templates, rows): whether each label is right, the incumbent first; what the best template really gains


def guessing(rng: np.random.Generator, n: int) -> World:
    "55 % of the rows are known, the others guessed among three labels; no template is better than another."
    return (rng.random(N_ROWS) < 0.55) | (rng.random((n, N_ROWS)) < 1 / 3), 0.0


def noisy(rng: np.random.Generator, n: int) -> World:
    "Rows are right with a probability of their own, the same for all templates."
    return rng.random((n, N_ROWS)) < rng.beta(0.8, 0.5, N_ROWS), 0.0


def standout(rng: np.random.Generator, n: int) -> World:
    "As in the noisy world, but one template gets half of what it got wrong right."
    right, _ = noisy(rng, n)
    right[1] |= rng.random(N_ROWS) < 0.5
    return right, 0.5 * (1 - 0.8 / 1.3)


def simulated(right: np.ndarray) -> dict[str, list[ReadReply]]:
    "Make replies of which some labels are right, the others the next label of the task; all have a rationale."
    replies = {label: Reply(label, "for a reason", None, None) for label in TASK.labels}
    following = dict(zip(TASK.labels, [*TASK.labels[1:], TASK.labels[0]], strict=True))
    return {
        str(id): [
            ReadReply(str(id), row, RESPONSE, replies[row.label if is_right else following[row.label]], "")
            for row, is_right in zip(ROWS, rights, strict=True)
        ]
        for id, rights in enumerate(right)
    }


def figures(task: Task, replies: dict[str, list[ReadReply]], truth: float, objective: Objective = "explained_accuracy") -> dict[str, float]:
    "Compute what several ways of counting say of one draw; the first template is the incumbent."
    incumbent = next(iter(replies))
    found = headroom(task, replies, incumbent, objective)
    others = [{read.example.id: read for read in asked} for id, asked in replies.items() if id != incumbent]
    n_most = 0
    for read in replies[incumbent]:
        right = [is_right(task, other[read.example.id]) for other in others]
        n_most += read.reply is not None and not is_right(task, read) and 2 * sum(right) > len(right)
    return {
        "any": found.n_any / found.right.n,
        "guesses": found.n_guessed / found.right.n,
        "most": n_most / found.right.n,
        "the best": found.label.value,
        "net gain": found.gain.total.value,
        "truth": truth,
        "called better": float(found.gain.is_shown),
    }


def is_right(task: Task, read: ReadReply) -> bool:
    return read.reply is not None and task.is_right(read.reply.label, read.example.label)


def thesis_replies(shared: Path) -> tuple[Task, dict[str, dict[str, ReadReply]]]:
    "Read the thesis's replies to the 75 rows that every template answered; a label counts without a rationale."
    gold = {
        str(line["idx"]): line["label"] for line in map(json.loads, (shared / "thesis" / "cqa_train_gold.jsonl").read_text().splitlines())
    }
    with tempfile.TemporaryDirectory() as folder, ResponseStore(Path(folder) / "responses.sqlite") as store:
        imported = ImportedFolder.of(Path(folder))
        import_thesis(shared / "thesis", store, imported)
        task = load_task("cqa")
        templates = load_templates(task, imported.templates("cqa"))
        client = TeacherClient(StoredTeacher("gpt-3.5-turbo"), store)
        found = imported_replies(task, "train", templates.values(), imported, client, [])
    return task, {
        id: {read.example.id: read for read in replies if read.example.id.rpartition("-")[2] in gold} for id, replies in found.items()
    }


def thesis_draws(shared: Path, n: int, n_draws: int, rng: np.random.Generator) -> Iterator[dict[str, float]]:
    task, found = thesis_replies(shared)
    rows = sorted(set.intersection(*map(set, found.values())))
    for _ in range(n_draws):
        seen, unseen = np.split(rng.permutation(rows), [N_ROWS])
        ids = list(rng.choice(list(found), n, replace=False))
        of_seen = {id: [found[id][row] for row in seen] for id in ids}
        share = {id: np.mean([is_right(task, found[id][row]) for row in unseen]) for id in ids}
        others = {id: {read.example.id: read for read in of_seen[id]} for id in ids[1:]}
        best, _ = best_elsewhere(task, of_seen[ids[0]], others, "accuracy")
        yield figures(task, of_seen, share[best] - share[ids[0]], "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=300)
    n_draws = parser.parse_args().draws
    shared = Path(os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    rng = np.random.default_rng(0)
    columns: list[str] = []
    for n in (1, 3, 7, 15, 31):
        worlds = {
            make.__name__: [figures(TASK, simulated(right), truth) for right, truth in (make(rng, n + 1) for _ in range(n_draws))]
            for make in (guessing, noisy, standout)
        }
        if shared.is_dir():
            worlds["thesis, cqa"] = list(thesis_draws(shared, n + 1, n_draws, rng))
        for name, draws in worlds.items():
            if not columns:
                columns = list(draws[0])
                print(f"| templates | others | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
            print(
                f"| {name} | {n} | {' | '.join(f'{100 * np.mean([draw[column] for draw in draws]):.1f}' for column in columns)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
