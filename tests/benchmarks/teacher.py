"""How fast, how complete and how frugal asking is, beside other ways to ask. Prints Markdown tables, from one run.

    python tests/benchmarks/teacher.py            # everything: about ten minutes
    python tests/benchmarks/teacher.py --quick    # a small version, in seconds: shows that it works, measures nothing

Everything is asked of the scripted server (tests/scripted_server.py) in a process of its own, each peer in another one, on this machine.
"""

import argparse
import asyncio
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = Path(__file__).resolve().parents[1] / "scripted_server.py"
MODEL = "scripted-model"
KEY = "no-key-is-needed"
CURATOR = "0.1.31"
INSTALL_LIMIT_S = 600.0
RUN_LIMIT_S = 900.0


@dataclass(frozen=True)
class Load:
    "What is asked, and of what kind of server."

    n_requests: int
    latency_ms: float = 0.0  # mean, log-normal with sigma 0.5
    rate_per_minute: float | None = None  # bucket of one second
    faults: float = 0.0  # share of attempts

    @property
    def server_arguments(self) -> list[str]:
        arguments = ["--latency-ms", str(self.latency_ms), "--faults", str(self.faults)]
        return arguments + (["--rate-per-minute", str(self.rate_per_minute)] if self.rate_per_minute else [])


def question(number: int) -> str:
    "A prompt of the size that the built-in task has (about 90 tokens)."
    return (
        f"Case {number}. Premise: two people in winter coats carry a long wooden ladder across a snowy courtyard while a dog watches them. "
        "Hypothesis: somebody is outdoors. Is the hypothesis entailed by the premise, does it contradict it, or can one not tell? "
        "Explain in one or two sentences, and end with the answer in the form: Answer: <entailment, contradiction or neutral>."
    )


def body(number: int) -> dict[str, Any]:
    "What every peer sends."
    return {"model": MODEL, "messages": [{"role": "user", "content": question(number)}], "temperature": 0, "max_tokens": 64}


# The peers: each asks all questions and returns how many replies it has in hand


def ask_ours(base_url: str, n: int, load: Load) -> int:
    "zero_shot_distill: adaptive, and every reply stored on disk before it counts."
    from zero_shot_distill.store.request import Request
    from zero_shot_distill.store.store import ResponseStore
    from zero_shot_distill.teacher.client import TeacherClient
    from zero_shot_distill.teacher.teacher import HostedTeacher

    requests = [Request.build(**body(number)) for number in range(n)]
    with (
        tempfile.TemporaryDirectory() as folder,
        ResponseStore(Path(folder) / "responses.sqlite") as store,
        HostedTeacher(MODEL, base_url, KEY) as teacher,
    ):
        return len(TeacherClient(teacher, store).ask(requests).responses)


def ask_one_by_one(base_url: str, n: int, load: Load) -> int:
    "The loop of the thesis: the blocking client, one question at a time, its own two retries."
    import openai

    n_replies = 0
    with openai.OpenAI(base_url=base_url, api_key=KEY) as client:
        for number in range(n):
            with suppress(openai.OpenAIError):
                n_replies += bool(client.chat.completions.create(**body(number)).choices)
    return n_replies


def _gather(base_url: str, n: int, n_parallel: int, http_client: Any = None) -> int:
    import openai

    async def ask_all() -> int:
        async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY, http_client=http_client) as client:
            semaphore = asyncio.Semaphore(n_parallel)

            async def ask_one(number: int) -> bool:
                async with semaphore:
                    try:
                        return bool((await client.chat.completions.create(**body(number))).choices)
                    except openai.OpenAIError:
                        return False

            return sum(await asyncio.gather(*[ask_one(number) for number in range(n)]))

    return asyncio.run(ask_all())


def ask_gather(base_url: str, n: int, load: Load) -> int:
    "asyncio.gather, a semaphore of 64, the bare AsyncOpenAI client with its own two retries."
    return _gather(base_url, n, 64)


def ask_gather_32(base_url: str, n: int, load: Load) -> int:
    "The same with 32: about what this latency and this limit call for, which a user does not know beforehand."
    return _gather(base_url, n, 32)


def ask_gather_aiohttp(base_url: str, n: int, load: Load) -> int:
    "The same with 64 on openai[aiohttp]."
    import openai

    return _gather(base_url, n, 64, openai.DefaultAioHttpClient())


def ask_curator(base_url: str, n: int, load: Load) -> int:
    """bespokelabs-curator: its own ten retries.

    It reads the limit of requests from the server's headers. Told by us: no limit of tokens (else it would keep to a guess of its own),
    and where the server names no limit, a very high one.
    """
    from bespokelabs import curator

    limits = {"max_tokens_per_minute": 10**12} | ({} if load.rate_per_minute else {"max_requests_per_minute": 10**6})
    asker = curator.LLM(
        model_name=MODEL,
        backend="openai",
        generation_params={"temperature": 0, "max_tokens": 64},
        backend_params={"base_url": base_url, "api_key": KEY, "require_all_responses": False, **limits},
    )
    return sum(bool(row["response"]) for row in asker([question(number) for number in range(n)]).dataset)


PEERS: dict[str, tuple[str, Callable[[str, int, Load], int]]] = {
    "ours": ("**zero_shot_distill**", ask_ours),
    "loop": ("loop, one at a time", ask_one_by_one),
    "gather": ("gather, 64 at once", ask_gather),
    "gather-32": ("gather, 32 at once (tuned by hand)", ask_gather_32),
    "gather-aiohttp": ("gather, 64 at once, openai[aiohttp]", ask_gather_aiohttp),
    "curator": (f"bespokelabs-curator {CURATOR}", ask_curator),
}


# One peer in one process


def _cpu_s() -> float:
    "Processor seconds, user and system, of this process, its threads and its children that have ended."
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _be_peer(name: str, base_url: str, n: int, load: Load) -> None:
    "Body of the child process. Imports are done before the clock starts: they are paid once, not for each request."
    if name == "ours":
        import zero_shot_distill.teacher.client
        import zero_shot_distill.teacher.teacher  # noqa: F401
    elif name == "curator":
        # It fetches a tokenizer's file from the network; the same file comes with one of its requirements.
        bundled = Path(importlib.util.find_spec("litellm").origin).parent / "litellm_core_utils" / "tokenizers"
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(bundled))
        from bespokelabs import curator  # noqa: F401
    else:
        import openai

        openai.resources.chat.completions  # noqa: B018 (loads lazily)
    print(json.dumps({"event": "asking"}), flush=True)
    cpu_s, start_s = _cpu_s(), time.perf_counter()
    n_replies = PEERS[name][1](base_url, n, load)
    wall_s, cpu_s = time.perf_counter() - start_s, _cpu_s() - cpu_s
    print(json.dumps({"event": "done", "n_replies": n_replies, "wall_s": wall_s, "cpu_s": cpu_s}), flush=True)


@dataclass(frozen=True)
class Measured:
    "What one peer did."

    name: str
    n_requests: int  # that it was given
    n_replies: int  # in its hands at the end
    wall_s: float
    cpu_s: float
    peak_mb: float  # resident memory, most while asking
    growth_mb: float  # that above what it was just before
    late_growth_mb: float  # at the end above what it was at half time
    ledger: dict[str, Any]  # the server's


@contextmanager
def _server(load: Load, seed: int) -> Iterator[str]:
    "A fresh scripted server in a process of its own."
    command = [sys.executable, str(SERVER), "--seed", str(seed), *load.server_arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)


class _Memory:
    "Resident memory of a process and its children, ten times a second."

    def __init__(self, pid: int):
        import psutil

        self._process, self._error = psutil.Process(pid), psutil.Error
        self.samples: list[tuple[float, float]] = []  # clock, MB
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._is_over.wait(0.1):
            try:
                processes = [self._process, *self._process.children(recursive=True)]
                self.samples.append((time.perf_counter(), sum(process.memory_info().rss for process in processes) / 1e6))
            except self._error:
                return

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def between(self, start_s: float, end_s: float) -> list[float]:
        return [mb for at_s, mb in self.samples if start_s - 0.1 <= at_s <= end_s] or [0.0]


class PeerError(Exception):
    "A peer that did not come to an end."


def measure(name: str, load: Load, n: int, python: str = sys.executable, seed: int = 0) -> Measured:
    "Have one peer ask n questions."
    with _server(load, seed) as base_url, tempfile.TemporaryDirectory() as folder:
        command = [python, __file__, "--peer", name, "--base-url", base_url, "--n", str(n), "--load", json.dumps(load.__dict__)]
        # Nothing leaves the machine, no progress bar is drawn, and nothing is answered from a cache.
        quiet = {"CURATOR_VIEWER": "0", "TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_RICH_DISPLAY": "1", "CURATOR_CACHE_DIR": folder}
        offline = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HOME": folder, "OMP_NUM_THREADS": "1"}
        with open(Path(folder) / "errors", "w+b") as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **quiet, **offline})
            memory = _Memory(child.pid)
            watchdog = threading.Timer(RUN_LIMIT_S, child.kill)
            watchdog.start()
            events: dict[str, tuple[float, dict[str, Any]]] = {}
            for line in child.stdout:
                if line.startswith('{"event"'):
                    events[json.loads(line)["event"]] = (time.perf_counter(), json.loads(line))
            child.wait()
            watchdog.cancel()
            memory.stop()
            if "done" not in events:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines() or ["nothing said"]
                raise PeerError(f"ended with status {child.returncode}: {said[-1]:.300}")
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/ledger") as reply:
            ledger = json.load(reply)
    (start_s, _), (end_s, done) = events["asking"], events["done"]
    asking = memory.between(start_s, end_s)
    half = memory.between(start_s, (start_s + end_s) / 2)
    return Measured(
        name,
        n,
        done["n_replies"],
        done["wall_s"],
        done["cpu_s"],
        max(asking),
        max(asking) - asking[0],
        asking[-1] - half[-1],
        ledger,
    )


# Curator's own environment


def curator_python(folder: Path) -> str:
    "The interpreter of an environment that holds curator and nothing of ours; `PeerError` where it cannot be made."
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    if not stamp.exists():
        print(f"Installing bespokelabs-curator {CURATOR} into {folder} …", file=sys.stderr)
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True, timeout=INSTALL_LIMIT_S)
            install = [python, "-m", "pip", "install", "-q", f"bespokelabs-curator=={CURATOR}", "psutil"]
            subprocess.run(install, check=True, capture_output=True, timeout=INSTALL_LIMIT_S)
        except (subprocess.SubprocessError, OSError) as error:
            said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").strip().splitlines()
            raise PeerError(f"does not install: {said[-1]:.300}") from None
        stamp.touch()
    return str(python)


# The tables


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def load_row(measured: Measured, load: Load) -> list[str]:
    "A row of the table under load."
    rate_per_s = load.rate_per_minute / 60
    asked = [entry for entry in measured.ledger["requests"] if entry["content"].startswith("Case ")]
    admitted = sum(entry["attempts"] for entry in asked) - measured.ledger["n_limited"]
    # The bucket is full at the start: it holds what comes in within a second.
    allowed = min(rate_per_s * (measured.wall_s + 1), 1e12)
    label, wall = PEERS[measured.name][0], f"{measured.wall_s:.1f}"
    if measured.n_requests < load.n_requests:
        label += f" ({measured.n_requests} asked)"
        wall = f"{measured.wall_s * load.n_requests / measured.n_requests:.0f} (extrapolated)"
    return [
        label,
        wall,
        f"{measured.n_replies / measured.wall_s:.1f}",
        f"{measured.n_replies / measured.wall_s / rate_per_s:.1%}",
        f"{admitted / allowed:.1%}",
        str(measured.n_requests - measured.n_replies),
        str(sum(entry["completed"] > 1 for entry in asked)),
        str(sum(entry["attempts"] for entry in asked)),
        str(measured.ledger["n_limited"]),
        f"{measured.peak_mb:.0f}",
        f"{measured.growth_mb:+.0f}",
        f"{measured.late_growth_mb:+.1f}",
        f"{1000 * measured.cpu_s / measured.n_requests:.2f}",
    ]


LOAD_HEADER = [
    "peer",
    "wall, s",
    "replies/s",
    "replies ÷ limit",
    "attempts let in ÷ limit",
    "lost",
    "answered twice",
    "attempts",
    "429s of the limit",
    "peak RSS, MB",
    "growth, MB",
    "in the 2nd half, MB",
    "CPU, ms/request",
]


def hardware() -> str:
    "What it ran on."
    names = ("openai", "httpx2", "aiohttp", "zero_shot_distill")

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({model}), {platform.system()} {platform.machine()}, Python {platform.python_version()}, {versions}; "
        f"load average at the start {load}; {time.strftime('%Y-%m-%d')}"
    )


def main() -> None:
    "Run all peers and print the tables."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small version that shows that it works")
    parser.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zsd-benchmarks" / f"curator-{CURATOR}"
    parser.add_argument("--curator-venv", type=Path, default=cache, help="its environment, made where it is missing (default: %(default)s)")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=lambda text: Load(**json.loads(text)), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        _be_peer(arguments.peer, arguments.base_url, arguments.n, arguments.load)
        return

    load = Load(200, 50, 6000, 0.03) if arguments.quick else Load(5000, 300, 6000, 0.03)
    bare = Load(100) if arguments.quick else Load(2000)
    n_rounds, n_sequential = (1, 20) if arguments.quick else (5, 100)
    peers = [name for name in PEERS if name in arguments.peers.split(",")]
    skipped: dict[str, str] = {}

    def try_measure(name: str, load: Load, n: int, seed: int = 0) -> Measured | None:
        if name in skipped:
            return None
        try:
            python = curator_python(arguments.curator_venv) if name == "curator" else sys.executable
            return measure(name, load, n, python, seed)
        except PeerError as error:
            skipped[name] = str(error)
            return None

    print(f"# Asking a scripted server, {'quick version: no measurement' if arguments.quick else 'measured'}\n\n{hardware()}\n")
    print(
        f"## Under load\n\n{load.n_requests} requests; latency log-normal, mean {load.latency_ms:g} ms; limit {load.rate_per_minute:g} "
        f"requests a minute (a bucket of one second; 429 with Retry-After and x-ratelimit-*); {load.faults:.0%} of attempts meet a fault "
        "(429, 500, 502, 503, closed or reset connection, half-sent body, equally often).\n",
        flush=True,
    )
    rows = []
    for name in peers:
        if measured := try_measure(name, load, min(n_sequential, load.n_requests) if name == "loop" else load.n_requests):
            rows.append(load_row(measured, load))
    print(_table(LOAD_HEADER, rows), flush=True)

    print(
        f"\n## The client's own processor time\n\n{bare.n_requests} requests; no latency, no limit, no fault; {n_rounds} rounds, the peers "
        "in turn within each.\n",
        flush=True,
    )
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for round in range(n_rounds):
        for name in peers:
            if measured := try_measure(name, bare, bare.n_requests, seed=round):
                spent[name].append((1000 * measured.cpu_s / bare.n_requests, bare.n_requests / measured.wall_s))
    rows = []
    for name, values in spent.items():
        if values:
            cpu_ms = [cpu for cpu, _ in values]
            rate = statistics.median(rate for _, rate in values)
            rows.append([PEERS[name][0], f"{statistics.median(cpu_ms):.2f}", f"{min(cpu_ms):.2f} to {max(cpu_ms):.2f}", f"{rate:.0f}"])
    print(_table(["peer", "CPU, ms/request (median)", "range", "requests/s (median)"], rows))
    print("\n## The peers\n")
    for name in peers:
        print(f"- {PEERS[name][0]}: {' '.join(PEERS[name][1].__doc__.split())}")
    for name, reason in skipped.items():
        print(f"- {PEERS[name][0]} was skipped: {reason}")


if __name__ == "__main__":
    main()
