"""How long a user of the thesis repository waits: `python tests/benchmarks/thesis.py` prints a table.

Imports the shared part of the thesis into an empty work directory, again into the same, and scores every template by both sets of rules.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from zero_shot_distill.prompt.template import load_templates
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.load import load_whole
from zero_shot_distill.task.task import load_task
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.teacher import StoredTeacher
from zero_shot_distill.thesis.evaluation import imported_replies, json_figures, template_figures
from zero_shot_distill.thesis.imported import ImportedFolder
from zero_shot_distill.thesis.importer import import_thesis


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    done = work()
    return time.perf_counter() - start, done


def score_all(work_dir: Path, store: ResponseStore, profile: str) -> int:
    "Every template of every task and split; returns the number of replies."
    folder, n = ImportedFolder.of(work_dir), 0
    for name in ("cqa", "svamp"):
        task = load_task(name)
        templates = load_templates(task, folder.templates(name))
        for split in folder.splits(name):
            rows = load_whole(task, split) if name == "svamp" else []
            replies = imported_replies(task, split, templates.values(), folder, TeacherClient(StoredTeacher("gpt-3.5-turbo"), store), rows)
            for id, read in replies.items():
                json.dumps(json_figures(template_figures(profile, task, templates[id], read)))
                n += len(read)
    return n


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    shared = Path(os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    os.environ["ZSD_DATA"] = str(shared)  # it holds svamp/SVAMP.json
    with tempfile.TemporaryDirectory() as folder, ResponseStore(Path(folder) / "responses.sqlite") as store:
        work_dir = Path(folder)
        imported = ImportedFolder.of(work_dir)
        steps = {
            "import": lambda: import_thesis(shared / "thesis", store, imported).n_taken,
            "import again": lambda: import_thesis(shared / "thesis", store, imported).n_known,
            "score, thesis rules": lambda: score_all(work_dir, store, "thesis"),
            "score, our rules": lambda: score_all(work_dir, store, "ours"),
        }
        print("| step | replies | seconds |\n|---|---|---|")
        for name, work in steps.items():
            seconds, n = timed(work)
            print(f"| {name} | {n:,} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
