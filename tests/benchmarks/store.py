"""A store with a million responses: how long its parts take and how much memory they need.

    python tests/benchmarks/store.py --rows 1000000

Each phase is a process of its own, so that its peak memory is its own. The file is made first, in a temporary folder unless
`--store` names one to keep (which is then used again); a million rows need about 4 GB of disk for a while.
Prompts have about 600 bytes, replies about 400. "cold" means that the system's file cache was asked to forget the file first.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from zero_shot_distill.store.maintenance import store_info, verify_store
from zero_shot_distill.store.read_only import ReadOnlyStore
from zero_shot_distill.store.request import AttemptResult, Request, Response
from zero_shot_distill.store.store import ResponseStore

GROUP = 100  # replies a transaction: what arrives in about a second
WORDS = "a dog sleeps on the grey roof while two children watch from an open window and wonder how it climbed up there"
SYSTEM = (
    "Decide whether the second sentence follows from the first one, contradicts it, or neither. Explain, then end with Label: and one word."
)


def _prose() -> str:
    chance = random.Random(0)
    return " ".join(chance.choices(WORDS.split(), k=20_000))


PROSE = _prose()


def request_number(n: int) -> Request:
    "About 600 bytes of prompt, different for every number."
    start = n * 37 % 90_000
    said = f"Row {n}. Premise: {PROSE[start : start + 330]} Hypothesis: {PROSE[start + 400 : start + 480]}?"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": said}]
    return Request.build("some-model", messages, temperature=0, max_tokens=256, seed=0)


def response_number(n: int, request: Request) -> Response:
    "About 400 bytes of reply."
    start = n * 53 % 90_000
    text = f"{PROSE[start : start + 380]}. Label: neutral"
    via = "batch" if n % 4 == 0 else "chat"
    finish_reason = "length" if n % 50 == 0 else "stop"
    return Response(
        request.key,
        text,
        finish_reason,
        170,
        95,
        0.8,
        1,
        "2026-01-01T12:00:00+00:00",
        "some-model-2026",
        0,
        0,
        via,
        None if n % 10 == 0 else 2e-4,
    )


def requests(numbers: Iterable[int]) -> Iterator[Request]:
    return (request_number(n) for n in numbers)


# The phases. Each returns what the table shows beside its time.


def build(path: Path, n_rows: int) -> str:
    numbers = iter(range(n_rows))
    with ResponseStore(path) as store:
        while group := [(request_number(n), n) for n in islice(numbers, GROUP)]:
            store.put_many([(request, response_number(n, request)) for request, n in group])
    return f"{n_rows / 1000:.0f} k replies, {GROUP} a transaction"


def open_and_close(path: Path, n_rows: int) -> str:
    start = time.perf_counter()
    ResponseStore(path).close()
    return f"{1000 * (time.perf_counter() - start):.1f} ms, with closing"


def count(path: Path, n_rows: int) -> str:
    with ResponseStore(path) as store:
        return f"{len(store)} replies"


def make_requests(path: Path, n_rows: int) -> str:
    made = sum(1 for _ in requests(range(n_rows // 2, n_rows // 2 + n_rows)))
    return f"{made} requests, no keys"


def make_keys(path: Path, n_rows: int) -> str:
    made = sum(len(request.key) == 64 for request in requests(range(n_rows // 2, n_rows // 2 + n_rows)))
    return f"{made} requests and their keys, no store"


def plan(path: Path, n_rows: int, again: tuple[str, ...] = ()) -> str:
    with ResponseStore(path) as store:
        missing = sum(1 for _ in store.missing(requests(range(n_rows // 2, n_rows // 2 + n_rows)), again))
    return f"{n_rows} requests, {missing} missing"


def plan_again(path: Path, n_rows: int) -> str:
    return plan(path, n_rows, ("length", "empty"))


def _forget(path: Path) -> None:
    "Ask the system to drop the file from its cache, where it lets one ask."
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def look_up_cold(path: Path, n_rows: int) -> str:
    _forget(path)
    return look_up(path, n_rows, 2_000)


def look_up(path: Path, n_rows: int, n_keys: int = 20_000) -> str:
    chance = random.Random(0)
    keys = [request_number(chance.randrange(n_rows)).key for _ in range(n_keys)]
    taken = []
    with ResponseStore(path) as store:
        for key in keys:
            start = time.perf_counter()
            store.get(key)
            taken.append(time.perf_counter() - start)
    return f"one look-up: median {1e6 * statistics.median(taken):.0f} µs, p99 {1e6 * statistics.quantiles(taken, n=100)[98]:.0f} µs"


def exchange(path: Path, n_rows: int) -> str:
    "What an asking run does: claim some, settle them while claiming the next."
    groups = [list(requests(range(10 * n_rows + start, 10 * n_rows + start + 32))) for start in range(0, 6400, 32)]
    settlements: list[AttemptResult] = []
    start = time.perf_counter()
    with ResponseStore(path) as store:
        for group in [*groups, []]:
            taken = store.exchange(settlements, group).taken
            settlements = [AttemptResult(request, response_number(n, request)) for n, request in enumerate(taken)]
        each = (time.perf_counter() - start) / (len(groups) * 32)
        with store.reading() as connection:
            connection.executemany("DELETE FROM responses WHERE key = ?", [(request.key,) for group in groups for request in group])
    return f"claim and settle: {1e6 * each:.0f} µs a request, 32 a transaction"


def info(path: Path, n_rows: int) -> str:
    with ReadOnlyStore(path) as store:
        return f"{store_info(store).total.n_responses} replies"


def verify(path: Path, n_rows: int) -> str:
    found = verify_store(path)
    return f"{found.n_responses} replies, {found.n_faults} faults"


def export(path: Path, n_rows: int) -> str:
    from zero_shot_distill.store.export import export_parquet

    with tempfile.TemporaryDirectory() as folder, ReadOnlyStore(path) as store:
        table = Path(folder) / "responses.parquet"
        return f"{export_parquet(store, table)} rows, {os.path.getsize(table) / 1e6:.0f} MB"


def salvage(path: Path, n_rows: int) -> str:
    from zero_shot_distill.store.salvage import salvage_store

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        return f"{salvage_store(path, Path(folder) / 'new.sqlite').n_responses} replies, of a sound file"


PHASES: dict[str, Callable[[Path, int], str]] = {
    "build": build,
    "open": open_and_close,
    "len": count,
    "requests": make_requests,
    "keys": make_keys,
    "plan": plan,
    "plan again": plan_again,
    "look up": look_up,
    "look up, cold": look_up_cold,
    "exchange": exchange,
    "info": info,
    "verify": verify,
    "export": export,
    "salvage": salvage,
}


def measure(name: str, path: Path, n_rows: int) -> None:
    "Run one phase in this process; its figures go to standard output."
    started_s = time.process_time()
    start = time.perf_counter()
    said = PHASES[name](path, n_rows)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak_mib = used.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)  # Linux counts in KiB, macOS in bytes
    print(json.dumps({"seconds": seconds, "cpu_s": used.ru_utime + used.ru_stime - started_s, "peak_mib": peak_mib, "said": said}))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--store", type=Path, help="where to make the store, and keep it; used as it is where it exists")
    arguments.add_argument("--phase", choices=PHASES, help="one phase, in this process")
    given = arguments.parse_args()
    if given.phase:
        measure(given.phase, given.store, given.rows)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = given.store or Path(folder) / "responses.sqlite"
        print("| phase | seconds | of them CPU | peak memory, MiB | |\n|---|---|---|---|---|", flush=True)
        for name in PHASES:
            if name == "build" and path.exists():
                continue
            command = [sys.executable, __file__, "--phase", name, "--store", str(path), "--rows", str(given.rows)]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"| {name} | {done['seconds']:.2f} | {done['cpu_s']:.2f} | {done['peak_mib']:.0f} | {done['said']} |", flush=True)
        print(f"\nfile: {os.path.getsize(path) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
