"Every `zsd …` in README, pages, docstrings and messages is a command that there is, with options that it has."

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from repository import ROOT, tracked_files
from zsd_command import zsd

from zero_shot_distill.cli.main import app

COMMAND = typer.main.get_command(app)
OTHERS = {"--help", "--experiment", "--evaluate", "--generate_trainingdata"}  # the last three are of the thesis code


def texts() -> Iterator[tuple[str, str]]:  # (where, text)
    "What a reader sees: pages, the prose of notebooks, and modules with their docstrings and messages."
    for path in tracked_files():
        where = path.relative_to(ROOT)
        if path.name == "CHANGELOG.md" or where.parts[0] == "tests" or not path.is_file():
            continue  # a changelog tells of what was
        if path.suffix in {".md", ".yaml", ".py"}:
            yield str(where), path.read_text(encoding="utf-8")
        elif path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            yield str(where), "\n\n".join("".join(cell["source"]) for cell in cells)


def commands_in(text: str) -> Iterator[str]:
    "Each command in backticks, or on a line of its own."
    yield from (found.replace("\n", " ") for found in re.findall(r"`(zsd [a-z][^`]*)`", text))
    yield from re.findall(r"(?m)^\s*(?:@?\$\(BIN\)/|\.venv/bin/|# ?)?(zsd [a-z][^`\n]*)$", text)


def fault_of(line: str) -> str:  # empty: none
    "What is wrong with a command as it is written."
    words = re.sub(r"\s#.*$", "", line).replace("…", "").replace("[", " ").replace("]", " ")
    try:
        tokens = shlex.split(words)[1:]
    except ValueError:  # a single quotation mark in prose
        tokens = words.split()[1:]
    command = COMMAND
    while tokens and isinstance(command, type(COMMAND)) and hasattr(command, "commands"):
        name = tokens[0].rstrip(".,;:)")
        if name not in command.commands:
            return f"no command {name!r}" if not name.startswith("-") and command is COMMAND else ""
        command, tokens = command.commands[name], tokens[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    strays = [
        token for token in (token.partition("=")[0].rstrip(".,;:)") for token in tokens) if token.startswith("--") and token not in known
    ]
    return f"zsd {command.name} has no {', '.join(strays)}" if strays else ""


def test_every_documented_command_is_there():
    found = [(where, line) for where, text in texts() for line in commands_in(text)]
    assert len(found) > 100
    assert {"README.md", "nbs/index.ipynb", "zero_shot_distill/cli/annotate.py"} <= {where for where, _ in found}
    assert [f"{where}: {line}: {fault}" for where, line in found if (fault := fault_of(line))] == []


def test_every_documented_option_is_one_of_some_command():
    "Those of prose, in backticks."

    def options_of(command) -> set[str]:
        own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        return own.union(*map(options_of, getattr(command, "commands", {}).values()))

    known = options_of(COMMAND) | OTHERS
    pages = [(where, text) for where, text in texts() if Path(where).suffix in {".md", ".ipynb"}]
    strays = [
        f"{where}: {option}" for where, text in pages for option in re.findall(r"`(--[a-z][\w-]*)[^`]*`", text) if option not in known
    ]
    assert strays == [], "one of another program's belongs into OTHERS"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("zsd tasks add reviews --file train.jsonl", "zsd add has no --file"),
        ("zsd anotate --task x", "no command 'anotate'"),
        ("zsd annotate --task x --mix y --budget-usd 2  # --file", ""),
        ("zsd store export --task=x", "zsd export has no --task"),
    ],
)
def test_what_is_wrong_is_seen(line, fault):
    assert fault_of(line) == fault


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_a_benchmark_asked_for_help_starts_no_work(path, tmp_path):
    program = f"import runpy, sys; sys.argv[:] = [{str(path)!r}, '--help']; sys.path.insert(0, {str(path.parent)!r}); "
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = zsd(tmp_path, "-c", program)  # in a process that has imported what most of them do
    assert (done.status, done.out.split()[:2]) == (0, ["usage:", path.name]), done.err
    assert [left.name for left in tmp_path.iterdir()] == ["streams"]
