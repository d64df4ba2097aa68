"""The `zsd` command in a process that has imported already what the command would import first, which takes longer than most commands.

A nursery is a process that imports and waits. For each command it forks a child, which does from there on what the entry point does, in its own
folder and session, with its own environment and streams.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# What a command imports by itself and before it asks or trains, and all that some commands take.
ASKING = ("zero_shot_distill.teacher.connect", "zero_shot_distill.prompt.stored", "zero_shot_distill.prompt.contest_rows", "openai")
LIGHT = (
    "zero_shot_distill.cli.main",
    "zero_shot_distill.pipeline",
    "zero_shot_distill.task.add",
    "rich.table",
    "typer.rich_utils",
    *ASKING,
)
OURS = (
    "prompt.choose",
    "prompt.opro",
    "annotate.announce",
    "annotate.choice",
    "annotate.forecast",
    "annotate.release",
    "annotate.shards",
    "publish",
    "student.job",
    "student.student",
    "student.training_rows",
    "study.experiments",
    "study.papermill",
    "teacher.embedded",
    "thesis.evaluation",
    "thesis.importer",
    "thesis.palm",
    "weights.hub_model",
)
OTHERS = (
    "pandas",
    "scipy.stats",
    "datasets",
    "genai_prices.data",
    "statsmodels.stats.multitest",
    "statsmodels.stats.proportion",
    "ruamel.yaml",
)
ALL = (*LIGHT, *OTHERS, *(f"zero_shot_distill.{name}" for name in OURS))
PRELOADS = {"light": LIGHT, "all": ALL}
# Commands that need no more than the light ones: a child of half a gigabyte takes twice the processor time (0.37 and 0.17 seconds for `zsd tasks`).
LIGHT_COMMANDS = ("tasks", "templates", "store")

# Of the environment, what is only read by the command itself, and so may differ from the nursery's; the last two are set where a test itself trains.
MAY_DIFFER = ("OPENAI_", "ZSD_", "COLUMNS", "PYTEST_", "PYTHONPATH", "ONEDNN_", "TORCHINDUCTOR_", "HF_TOKEN")

PROGRAM = """
import atexit, functools, gc, importlib, json, os, random, resource, signal, sys, tempfile, threading, weakref
signal.signal(signal.SIGINT, signal.default_int_handler)
asked, told = int(sys.argv[1]), int(sys.argv[2])
gc.disable()
for name in sys.argv[3:]:
    importlib.import_module(name)
program = sys.modules["zero_shot_distill.cli.main"]
# The commands and their options are made out of the same functions each time, and take 0.1 s.
program.typer.main.get_command = functools.cache(program.typer.main.get_command)
program.typer.main.get_command(program.app)
# What imported libraries do at the end is for the nursery's end; PyTorch's compiler would count its times, for 0.05 s, in each child.
weakref.finalize._registry.clear()
if compiler := sys.modules.get("torch._dynamo.utils"):
    atexit.unregister(compiler.dump_compile_times)
gc.freeze()  # children share what was imported
gc.enable()
with os.fdopen(asked) as commands:
    for line in commands:
        command = json.loads(line)
        if "wait" in command:
            pid, status = os.waitpid(command["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                break
        os.write(told, (json.dumps(answer) + "\\n").encode())
    else:
        os._exit(0)
    os.setsid()
    os.close(told)
for number, name in ((1, "out"), (2, "err")):
    stream = os.open(os.path.join(command["streams"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, number)
    os.close(stream)
if command["stdin"]:
    its_end, our_end = os.pipe()
    os.write(our_end, command["stdin"].encode())
    os.close(our_end)
    os.dup2(its_end, 0)
    os.close(its_end)
if limit := command["max_file_bytes"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.chdir(command["folder"])
os.environ.clear()
os.environ.update(command["env"])
random.seed()
tempfile.tempdir = None
sys.argv[:] = ["zsd", *command["arguments"]]
status = 0
try:
    if sys.argv[1:2] == ["-c"]:
        del sys.argv[0]
        exec(sys.argv.pop(1), {"__name__": "__main__"})
    else:
        program.main()
except SystemExit as done:
    status = done.code or 0
except BaseException:
    sys.excepthook(*sys.exc_info())
    status = 1
with open(os.path.join(command["streams"], "modules"), "w") as names:
    names.write(" ".join({name.partition(".")[0] for name in sys.modules}))
# As Python ends, but for taking down all that was imported, which takes seconds.
threading._shutdown()
atexit._run_exitfuncs()
try:
    sys.stdout.flush()
    sys.stderr.flush()
finally:
    os._exit(status)
"""


class Nursery:
    "Runs commands in children that have imported some modules already."

    def __init__(self, preload: str, env: dict[str, str]):
        self.env = env
        our_end, its_end = os.pipe(), os.pipe()  # what we ask, what it tells
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(our_end[0]), str(its_end[1]), *PRELOADS[preload]],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(our_end[0], its_end[1]),
        )
        os.close(our_end[0])
        os.close(its_end[1])
        self._ask, self._hear = os.fdopen(our_end[1], "w"), os.fdopen(its_end[0])
        atexit.register(self._ask.close)

    def _tell(self, command: dict) -> int | None:
        self._ask.write(json.dumps(command) + "\n")
        self._ask.flush()
        return json.loads(self._hear.readline())

    def start(
        self,
        folder: Path,
        arguments: tuple[str, ...],  # as with Python itself, the program after `-c` in place of a command
        env: dict[str, str],
        stdin: str = "",  # short: it is written into a pipe before the command begins
        max_file_bytes: int | None = None,  # a limit on the size of files, which stands for a full disk
    ) -> "Child":
        "Begin a command; its streams go to `streams` in the folder."
        streams = folder / "streams"
        streams.mkdir(exist_ok=True)
        for name in ("out", "err"):
            (streams / name).write_bytes(b"")  # those of the command before
        how = {"env": env, "streams": str(streams), "stdin": stdin, "max_file_bytes": max_file_bytes}
        pid = self._tell({"folder": str(folder), "arguments": arguments, **how})
        return Child(pid, arguments, lambda: self._tell({"wait": pid}))


@dataclass
class Child:
    "A command under way, with what `subprocess.Popen` has, too."

    pid: int
    arguments: tuple[str, ...]
    ask: Callable[[], int | None]  # its exit status, asked until there is one
    returncode: int | None = None  # negative: a signal

    def poll(self) -> int | None:
        self.returncode = self.ask() if self.returncode is None else self.returncode
        return self.returncode

    def wait(self, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, f"zsd {' '.join(self.arguments)}: not within {timeout_s} s"
            time.sleep(0.01)
        return status

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _fixed(env: dict[str, str]) -> dict[str, str]:
    "The part of an environment that is taken in while things are imported."
    return {name: value for name, value in env.items() if not name.startswith(MAY_DIFFER)}


# Taken in when the hub's library is imported: tests of another hub, or of one that cannot be reached, share a nursery of their own.
HUB = ("HF_ENDPOINT", "HF_HUB_DISABLE_XET")

_nurseries: dict[tuple[str | None, ...], Nursery] = {}  # by what they have imported and the hub's settings, begun at first use


def nursery_for(
    preload: str, usual: dict[str, str], env: dict[str, str]
) -> Nursery | None:  # None: only a new process takes in such an environment
    "The nursery in which a command with this environment can begin."
    usual = usual | {name: env[name] for name in HUB if name in env}
    if _fixed(usual) != _fixed(env):
        return None
    kind = (preload, *(env.get(name) for name in HUB))
    if kind not in _nurseries:
        _nurseries[kind] = Nursery(preload, usual)
    return _nurseries[kind]
