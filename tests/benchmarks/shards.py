"""An annotation in four shards on Ray that is killed three times, all its processes with SIGKILL. Prints Markdown tables, from one run.

    python tests/benchmarks/shards.py                  # a million rows: 35 minutes on two cores
    python tests/benchmarks/shards.py --rows 20000     # a small one: some minutes

Needs Ray (`pip install 'zero_shot_distill[ray]'`), which starts on this machine with four processors, however many there are. Everything is asked of
the scripted server (tests/scripted_server.py) in a process of its own. At a quarter, half and three quarters of the rows the command is killed with
all that it has started, and begun again.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from zero_shot_distill.store.read_only import ReadOnlyStore

SERVER = Path(__file__).resolve().parents[1] / "scripted_server.py"
N_SHARDS = 4
# A busy machine may take longer to start Ray than Ray waits.
DRIVER = """
import sys, ray
for _ in range(5):
    try:
        ray.init(address="local", num_cpus=int(sys.argv[1]), log_to_driver=False, logging_level="error")
        break
    except Exception as error:
        print(error, file=sys.stderr)
        ray.shutdown()
del sys.argv[1]
from zero_shot_distill.cli.main import main
sys.argv[0] = "zsd"
main()
"""
TASK = {
    "name": "numbers",
    "fields": {"text": "text"},
    "label_column": "label",
    "id_column": "id",
    "labels": ["even", "odd"],
    "student_input": "{text}",
    "splits": {"train": "train.jsonl"},
}
PROMPTS = {"task": "numbers", "templates": [{"id": "ask", "user_message": "{text}: even or odd, and why?", "read": "label-first"}]}


@dataclass
class Memory:
    "Resident memory of the command and of the processes that ask, by how much the server has answered."

    driver: list[tuple[int, float]] = field(default_factory=list)  # replies so far, MB
    shard: list[tuple[int, float]] = field(default_factory=list)  # likewise, of the largest one

    def look(self, process: psutil.Process, n_answered: int) -> None:
        with suppress(psutil.Error):
            self.driver.append((n_answered, process.memory_info().rss / 1e6))
            asking = [each.memory_info().rss for each in process.children(recursive=True) if each.name().startswith("ray::ask_shard")]
            if asking:
                self.shard.append((n_answered, max(asking) / 1e6))


@dataclass
class Life:
    "One start of the command, until it ended or was killed."

    n_before: int  # replies that the server had sent by then
    n_after: int = 0
    n_under_way: int = 0  # when it was killed: sent, and not in a store yet
    wall_s: float = 0.0
    asking_s: float = 0.0  # from its first reply to its last
    memory: Memory = field(default_factory=Memory)


def write_files(folder: Path, n_rows: int) -> None:
    "Write task, prompts and rows."
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK))
    (folder / "prompts.yaml").write_text(yaml.safe_dump(PROMPTS))
    with (folder / "train.jsonl").open("w") as file:
        for number in range(n_rows):
            file.write(json.dumps({"id": str(number), "text": f"Number {number}", "label": ("even", "odd")[number % 2]}) + "\n")


def told(base_url: str, what: str = "summary") -> dict[str, Any]:
    with urllib.request.urlopen(f"{base_url.removesuffix('/v1')}/{what}") as reply:
        return json.load(reply)


def n_claimed(path: Path) -> int:
    "Count the requests that a store says are under way."
    with ReadOnlyStore(path) as store, store.reading() as connection:
        return connection.execute("SELECT count(*) FROM attempts WHERE holder IS NOT NULL").fetchone()[0]


def live(folder: Path, base_url: str, n_rows: int, kill_at: int | None) -> Life:
    "Run the command to its end, or kill it with all its processes when the server has answered so much."
    arguments = ["annotate", "--task", "task.yaml", "--prompts", "prompts.yaml", "--mix", "ask", "--model", "scripted-model", "--quiet"]
    arguments += ["--rows", str(n_rows), "--engine", "ray", "--shards", str(N_SHARDS), "--sampling", "{max_tokens: 16}"]
    env = os.environ | {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "no-key", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    now = told(base_url, "counts")
    found, start_s = Life(now["completed"]), time.monotonic()
    first_s = last_s = None
    with open(folder / "said", "ab") as said:
        command = [sys.executable, "-c", DRIVER, str(N_SHARDS), *arguments]
        process = subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    watched = psutil.Process(process.pid)
    n_before = now["completed"]
    while process.poll() is None:
        now = told(base_url, "counts")
        if now["completed"] > n_before:
            last_s = time.monotonic()
            first_s, n_before = first_s or last_s, now["completed"]
        found.memory.look(watched, now["completed"])
        if kill_at is not None and now["completed"] >= kill_at:
            everything = [watched, *watched.children(recursive=True)]
            for each in everything:
                with suppress(psutil.Error):
                    each.send_signal(signal.SIGKILL)
            process.wait()
            psutil.wait_procs(everything, 30)
            found.n_under_way = sum(map(n_claimed, (folder / "zsd-work" / "shards").glob("*/*.sqlite")))
            break
        time.sleep(0.5)
    found.n_after, found.wall_s, found.asking_s = (
        told(base_url, "counts")["completed"],
        time.monotonic() - start_s,
        (last_s or 0) - (first_s or 0),
    )
    if process.returncode and process.returncode != -signal.SIGKILL:
        raise SystemExit((folder / "said").read_text()[-2000:])
    return found


def _near(samples: list[tuple[int, float]], n: float) -> str:
    "The resident memory when about so much was answered."
    return f"{min(samples, key=lambda sample: abs(sample[0] - n))[1]:,.0f}" if samples else "-"


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] + ["---:"] * (len(header) - 1), *rows])


def print_tables(lives: list[Life], server: dict[str, Any], folder: Path, n_rows: int) -> None:
    "Print what came of it."
    (written,) = (folder / "zsd-work" / "annotations").glob("*/train.jsonl")
    with written.open() as file:
        n_labels = sum(json.loads(line)["label"] is not None for line in file)
    counts = [f"{n_rows:,}", f"{server['n_requests']:,}", f"{server['attempts']:,}", f"{server['n_completed_twice']:,}"]
    counts += [f"{sum(life.n_under_way for life in lives):,}", f"{n_rows - server['n_requests']:,}", f"{n_labels:,}"]
    header = ["rows", "asked", "attempts", "answered twice", "under way at the kills", "lost", "labels in the end"]
    print(f"\n{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}\n\n{_table(header, [counts])}\n")
    rows = []
    for number, life in enumerate(lives, 1):
        n = life.n_after - life.n_before
        quarters = [life.n_before + n * share for share in (0.25, 0.5, 1.0)]
        ended = "ended" if life is lives[-1] else "killed"
        shard = [_near(life.memory.shard, quarter) for quarter in quarters]
        driver = [_near(life.memory.driver, quarter) for quarter in quarters[:2]] + [f"{max(mb for _, mb in life.memory.driver):,.0f}"]
        rows.append([f"{number}, {ended}", f"{n:,}", f"{life.wall_s:,.0f}", f"{n / max(life.asking_s, 0.1):,.0f}", *shard, *driver])
    memory = ["at a quarter", "at half", "at the end"]
    header = ["start", "replies", "seconds", "replies a second while asking", *(f"a shard {at}, MB" for at in memory)]
    print(_table([*header, *(f"the command {at}, MB" for at in memory[:2]), "its most, MB"], rows))


def main() -> None:
    "Run it and print the tables."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    n_rows = parser.parse_args().rows
    command = [sys.executable, str(SERVER), "--text", "Even, because nobody counted."]
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):
        folder, base_url = Path(name), server.stdout.readline().strip()
        write_files(folder, n_rows)
        lives = []
        for quarter in (1, 2, 3, None):
            lives.append(live(folder, base_url, n_rows, quarter and n_rows * quarter // 4))
            print(
                f"start {len(lives)}: {lives[-1].n_after - lives[-1].n_before:,} replies in {lives[-1].wall_s:,.0f} s",
                file=sys.stderr,
                flush=True,
            )
        print_tables(lives, told(base_url), folder, n_rows)
        server.stdin.close()


if __name__ == "__main__":
    main()
