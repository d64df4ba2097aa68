"What others say is printed and does nothing to the terminal: every text of a server or a file goes through one filter."

import io
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from scripted_server import Scripted, ScriptedServer

from zero_shot_distill.cli.main import main
from zero_shot_distill.cli.tables import show_rows
from zero_shot_distill.core.display import result_html, result_text
from zero_shot_distill.core.markdown import code, fence, plain
from zero_shot_distill.core.printable import PlainConsole
from zero_shot_distill.core.progress import Progress

ODD = {
    "title": "\x1b]0;TITLE\x07",
    "clear": "\x1b[2J",
    "colour": "\x1b[31m",
    "one byte": "\x9b31m",
    "string": "\x9dtitle\x9c",
    "over it": "\rzsd: done",
    "back": "\b\b\bok",
    "null": "\x00",
    "turned": "\u202e",
    "isolated": "\u2067",
}
EVERY = "".join(odd for odd in ODD.values() if odd != "\0")  # which no YAML and no argument holds
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def zsd(arguments: list[str], monkeypatch, capsys) -> tuple[int, str, str]:
    "Run a command in this process."
    monkeypatch.setattr(sys, "argv", ["zsd", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    "A task whose rows, templates and teacher are full of controls."
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{n}", "text": f"row {n} {EVERY}", "label": "yes" if n % 2 else "no"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "odd", "fields": {"text": "text"}, "label_column": "label", "id_column": "id", "labels": ["yes", "no"]}
    (tmp_path / "odd.yaml").write_text(yaml.safe_dump(task | {"student_input": "{text}", "splits": {"train": "rows.jsonl"}}))
    template = {"id": "one", "user_message": f"{EVERY} {{text}}", "read": "label-first"}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"task": "odd", "templates": [template]}))
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump({"model": "m", "sampling": {"max_tokens": 8}}))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-used-anywhere-1")
    return tmp_path


ASK = ["--task", "odd.yaml", "--prompts", "p.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["templates", "odd.yaml", "--prompts", "p.yaml"],
        ["templates", "odd.yaml", "--prompts", "p.yaml", "--show", "one"],
        ["tasks", "add", "new", "rows.jsonl"],
        ["tasks", "show", f"none{EVERY}"],
        ["templates", f"none{EVERY}"],
        ["run", f"none{EVERY}"],
        [f"--{EVERY}"],
        ["run", f"{EVERY}.yaml"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]).encode("ascii", "replace").decode().translate({n: "?" for n in range(32)}),
)
def test_texts_of_files_and_arguments(arguments, project, monkeypatch, capsys):
    _, out, err = zsd(arguments, monkeypatch, capsys)
    assert out or err
    assert CONTROLS.findall(out + err) == []


def test_texts_of_a_server(project, monkeypatch, capsys):
    "Its error's message, code and headers, its reply, its model's name and finish reason; now, in the tables, and from the store."

    def odd(body, n):
        reply = {"index": 0, "finish_reason": f"stop{EVERY}", "message": {"role": "assistant", "content": f"yes {EVERY}"}}
        whole = {"id": EVERY, "object": "chat.completion", "model": f"m{EVERY}", "choices": [reply]}
        if n % 3 == 0:
            return Scripted(400, error=f"no {EVERY}", code=f"c{EVERY}")
        return Scripted(body=json.dumps(whole).encode(), headers={"x-request-id": "\x9b31m"})

    with ScriptedServer(odd) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        for arguments in (
            ["experiment", *ASK, "--samples", "6", "--teacher", "teacher.yaml"],
            ["annotate", *ASK, "--mix", "one", "--splits", "train", "--teacher", "teacher.yaml"],
            ["store", "info"],
        ):
            _, out, err = zsd(arguments, monkeypatch, capsys)
            assert out or err
            assert CONTROLS.findall(out + err) == [], arguments


def test_json_has_what_was_there(project, monkeypatch, capsys):
    "A program that reads it gets every character, and a person who looks at it none that acts."
    _, out, _ = zsd(["templates", "odd.yaml", "--prompts", "p.yaml", "--show", "one", "--json"], monkeypatch, capsys)
    assert CONTROLS.findall(out) == []
    assert EVERY in json.loads(out)["messages"][-1]["content"]


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_a_notebook_shows(odd, capsys):
    rows = [{"who": f"a{odd}", "what": f"b{odd}\nsmall{odd}"}]
    show_rows(rows, as_json=False)
    show_rows(rows, as_json=True)
    shown = [capsys.readouterr().out, result_html(odd, rows, odd), result_text(odd, rows, odd), code(odd), fence(odd), plain(odd)]
    assert [CONTROLS.findall(text) for text in shown] == [[]] * len(shown)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_lines_and_bars(odd):
    "On a terminal, where a bar has controls of its own: none of them is from the text, and brackets are no mark-up."
    screen = io.StringIO()
    progress = Progress(console=PlainConsole(file=screen, force_terminal=True, width=100, color_system=None))
    progress.message(f"line {odd}")
    with progress.bar(f"fetching [red]{odd}") as on_progress:
        on_progress(0, 2, f"note {odd}")
        on_progress(1, 2, f"note {odd}")
    shown = screen.getvalue()
    assert "[red]" in shown
    if len(odd) > 3:
        assert odd not in shown
    assert not re.search("\x1b\\]|\x1b\\[31m|[\x00\b\x9b\x9d\u202e\u2067]|\rzsd", shown)


def test_nothing_else_makes_a_console():
    "A console of Rich's own would print what it is given."
    package = Path(sys.modules["zero_shot_distill"].__file__).parent
    makers = {path.name for path in package.rglob("*.py") if re.search(r"(?<!\w)Console\(", path.read_text(encoding="utf-8"))}
    assert makers == set()  # but `PlainConsole`
