"The `zsd` command as a user has it: another process, in another folder, with files of one's own."

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import yaml
from nursery import LIGHT_COMMANDS, Child, nursery_for

from zero_shot_distill.core.files import definitions_dir

SMALL = "smollm2-135m-instruct"
LABELS = ["entailment", "neutral", "contradiction"]
SEED = 24  # draws two rows with the first label among the three that decide between templates

# What the entry point does, and then the names of all imported packages, for tests of what must not be imported.
# Where the tests run in the background, a shell has SIGINT ignored, and children inherit that: a terminal's do not.
LAUNCHER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
modules = os.open(os.environ.pop("MODULES_FILE"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
from zero_shot_distill.cli.main import main
sys.argv[0] = "zsd"
try:
    main()
finally:
    os.write(modules, " ".join({name.partition(".")[0] for name in sys.modules}).encode())
"""


@dataclass(frozen=True)
class Done:
    "What came of one command."

    status: int  # negative: the signal that ended it
    out: str
    err: str
    modules: frozenset[str] | None = frozenset()  # imported by the command itself; None: not known
    children: tuple[psutil.Process, ...] = ()  # processes that it had started when a signal was sent

    @property
    def last_line(self) -> str:
        return self.err.splitlines()[-1] if self.err else ""


def environment(**settings: str) -> dict[str, str]:
    "Ours, without a teacher's settings; the package is found as we find it, installed or not."
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    found_here = os.pathsep.join(filter(None, sys.path))
    fixed = {"PYTHONPATH": found_here, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "COLUMNS": "200", "NO_COLOR": "1"}
    return kept | fixed | settings


def start(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen:
    "Start the command in a folder; its streams go to files there, out of the way of `zsd-work`."
    (folder / "streams").mkdir(exist_ok=True)
    env = (env or environment()) | {"MODULES_FILE": str(folder / "streams" / "modules")}
    with open(folder / "streams" / "out", "w") as out, open(folder / "streams" / "err", "w") as err:
        return subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *arguments],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def said(folder: Path, stream: str = "err") -> str:
    return (folder / "streams" / stream).read_text(encoding="utf-8")


def outcome(folder: Path, status: int) -> Done:
    "What a command that has ended left in its streams."
    modules = folder / "streams" / "modules"
    names = frozenset(modules.read_text(encoding="utf-8").split()) if modules.exists() else frozenset()
    return Done(status, said(folder, "out"), said(folder), names)


def finish(folder: Path, process: subprocess.Popen | Child, children: Iterable[psutil.Process] = (), timeout_s: float = 900) -> Done:
    "Wait for the command."
    return replace(outcome(folder, process.wait(timeout_s)), children=tuple(children))


def zsd(folder: Path, *arguments: str, env: dict[str, str] | None = None, preload: str = "", **options: Any) -> Done:
    """Run the command to its end, where possible in a process that has imported "all" or "light" things before (see nursery.py), as the command needs.

    With `preload="none"` the process is new, and `Done.modules` are those that the command has imported; with "light" none of them is one that trains.
    A prepared process takes the `options` of `Nursery.start`, too.
    """
    env = env or environment()
    preload = preload or ("light" if arguments[:1] in {(name,) for name in LIGHT_COMMANDS} else "all")
    prepared = nursery_for(preload, environment(), env) if preload != "none" else None
    if prepared:
        done = outcome(folder, prepared.start(folder, arguments, env, **options).wait(900))
        return replace(done, modules=None) if preload == "all" else done
    assert not options, "only a prepared process takes these"
    return finish(folder, start(folder, *arguments, env=env))


def begin(folder: Path, *arguments: str) -> Child:
    "Begin the command in a prepared process, and let it run."
    return nursery_for("all", environment(), environment()).start(folder, arguments, environment())


def wait_until(reached: Callable[[], bool], process: subprocess.Popen | Child, folder: Path, within_s: float = 600) -> None:
    "Wait for something that a running command does."
    deadline = time.monotonic() + within_s
    while not reached():
        assert process.poll() is None, f"ended with {process.returncode} before that:\n{said(folder)}"
        assert time.monotonic() < deadline, f"not within {within_s} s:\n{said(folder)}"
        time.sleep(0.02)


def interrupt(
    folder: Path,
    reached: Callable[[psutil.Process], bool],
    *arguments: str,
    by: int = signal.SIGINT,
    env: dict[str, str] | None = None,
    preload: str = "all",
) -> Done:
    """Start the command and stop it as soon as it has got somewhere: Ctrl-C goes to its whole group, as a terminal sends it.

    As with `zsd`, it is a new process with `preload="none"`.
    """
    prepared = nursery_for(preload, environment(), env or environment()) if preload != "none" else None
    process = prepared.start(folder, arguments, env or environment()) if prepared else start(folder, *arguments, env=env)
    watched = psutil.Process(process.pid)
    try:
        wait_until(lambda: reached(watched), process, folder)
        children = watched.children(recursive=True)
        os.killpg(process.pid, by)
        return finish(folder, process, children, timeout_s=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def runs(process: psutil.Process, name: str) -> bool:
    "Whether a process has started another whose command line holds a name."
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(name in part for part in child.cmdline()):
                return True
    return False


def ended(processes: Iterable[psutil.Process], within_s: float = 60) -> bool:
    "Whether processes end; one that only waits for its parent to look has ended."
    deadline = time.monotonic() + within_s

    def lives(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    while any(lives(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def stored(folder: Path) -> list[tuple]:
    "All rows of the response store, which another process may be writing."
    path = folder / "zsd-work" / "responses.sqlite"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute("SELECT * FROM responses ORDER BY key").fetchall()
        except sqlite3.OperationalError:  # it is just being made
            return []


def rows_of(split: str, n: int) -> list[dict[str, str]]:
    "As many rows of the built-in task, a third of each label, entailment first."
    lines = (definitions_dir() / "pocket_nli" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for label in LABELS for row in [row for row in rows if row["label"] == label][: n // 3]]


def _letters_as_labels() -> dict[str, str]:
    # The small teacher is at chance and its words differ between machines. The last letter or digit of a reply is always
    # there, and differs between rows: most stand for one label, so that a template has right answers, and some for another.
    return dict.fromkeys("abcdefghijklmnopqrstuvwxyz0123456789", "entailment") | dict.fromkeys("aeinrt", "neutral")


@dataclass
class Project:
    "A user's own folder: pipeline, task, templates and data. Change what is to be wrong, then `write`."

    folder: Path
    pipeline: dict[str, Any] = field(
        default_factory=lambda: {
            "name": "mine",
            "task": "my_task.yaml",
            "seed": SEED,
            "teacher": {"weights": [SMALL], "n_parallel": 1, "sampling": {"temperature": 0, "max_tokens": 24, "seed": 0}},
            "prompts": {"file": "./my_prompts.yaml", "selection_rows": 3, "confirmation_rows": 3},
            "annotate": {"train_rows": 8, "valid_rows": 4},
            "students": {"weights": "./tiny", "steps": 16, "batch_size": 4, "seeds": [0], "gold_seeds": [0]},
            "report": "first_look",
        }
    )
    task: dict[str, Any] = field(
        default_factory=lambda: {
            "name": "my_task",
            "fields": {"premise": "premise", "hypothesis": "hypothesis"},
            "label_column": "label",
            "id_column": "id",
            "labels": LABELS,
            "aliases": _letters_as_labels(),
            "student_input": "premise: {premise} hypothesis: {hypothesis}",
            "splits": {"train": "train.jsonl", "valid": "valid.jsonl", "test": "test.jsonl"},
        }
    )
    prompts: dict[str, Any] = field(
        default_factory=lambda: {
            "task": "my_task",
            "templates": [
                {
                    "id": id,
                    "user_message": f"{{premise}}\n{{hypothesis}}\n{question}",
                    "reply_pattern": r"(?P<rationale>.*)(?P<label>[a-z0-9])[^a-z0-9]*$",
                }
                for id, question in {"tell": "Tell a story about this.", "explain": "Explain both sentences."}.items()
            ],
        }
    )
    rows: dict[str, list[dict[str, str]]] = field(
        default_factory=lambda: {split: rows_of(split, n) for split, n in {"train": 24, "valid": 9, "test": 12}.items()}
    )
    texts: dict[str, str | bytes] = field(default_factory=dict)  # files in place of those above, verbatim

    def write(self) -> "Project":
        "Put the files into the folder."
        definitions = {"mine.yaml": self.pipeline, "my_task.yaml": self.task, "my_prompts.yaml": self.prompts}
        files = {name: yaml.safe_dump(content) for name, content in definitions.items()}
        files |= {f"{split}.jsonl": "".join(json.dumps(row) + "\n" for row in rows) for split, rows in self.rows.items()}
        for name, content in (files | self.texts).items():
            (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return self

    def make_student(self) -> None:
        "A T5 of two narrow layers to train, where the pipeline looks for it."
        from zero_shot_distill.student.model import make_tiny_t5

        texts = [text for rows in self.rows.values() for row in rows for text in row.values()]
        make_tiny_t5(self.folder / "tiny", [*texts, "predict: explain: premise: hypothesis:"])


def is_one_line(done: Done, status: int, *parts: str) -> None:
    "A fault is told in one line, which begins with our name, says the expected, and ends the command with its status."
    assert done.status == status, done.err
    assert done.out == ""
    # Lines of stages may stand before it, and of weights that other tests are fetching at the same time.
    lines = [
        line for line in done.err.splitlines() if not re.match(r"\d/6 |  |another process is pulling |the model hub cannot give ", line)
    ]
    assert len(lines) == 1, done.err
    assert lines[0] == done.last_line
    assert lines[0].startswith("zsd: ")
    for part in parts:
        assert part in lines[0]
