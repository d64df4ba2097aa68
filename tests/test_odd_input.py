"Input that no one means to give: one line that says what is wrong and where, before anything is asked."

import copy
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from zero_shot_distill.cli.options import TeacherOptions
from zero_shot_distill.core.definition import DataError, DefinitionError, ZsdError, check_definition, parse_yaml
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.pipeline import Pipeline, _report_source, _write_report, load_pipeline
from zero_shot_distill.prompt.mix import load_mix
from zero_shot_distill.prompt.template import load_templates
from zero_shot_distill.study.claim import claims_dir, load_claims
from zero_shot_distill.study.sweep import Sweep, load_sweep
from zero_shot_distill.task import load
from zero_shot_distill.task.add import task_of_file
from zero_shot_distill.task.columns import ColumnOptions
from zero_shot_distill.task.rows import read_rows
from zero_shot_distill.task.task import load_task
from zero_shot_distill.teacher.budget import reply_limit
from zero_shot_distill.teacher.settings import check_sampling, load_teacher_settings

TASK = {
    "name": "t",
    "fields": {"text": "text"},
    "label_column": "label",
    "labels": ["a", "b"],
    "student_input": "{text}",
    "splits": {"train": "t.jsonl"},
}
# Each line is nine times the one before: a task file of a kilobyte that stands for 43 million values.
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]" for x, y in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("when: 2024-02-30", "a value cannot be read"),
        ("when: 2024-01-01T25:61:00", "a value cannot be read"),
        (f"version: {'7' * 5000}", "a value cannot be read"),
        ("n: !!int abc", "a value cannot be read"),
        ("n: !!float x", "a value cannot be read"),
        ("is_it: !!bool maybe", "a value cannot be read"),
        ("n: !!python/object:os.system x", "not valid YAML"),
        ("n: !!binary ééé", "not valid YAML"),
        (f"deep: {'[' * 20_000}", "nested too deeply"),
        (f"deep: {'{a: ' * 5_000}", "nested too deeply"),
        ("all: &a [1, *a]", "has no end"),
        ("all: &a {x: {y: *a}}", "has no end"),
        (ALIASES, "more than 100,000 values"),
        (r'said: "half \ud83d"', "half of a character"),
        (r'"half \ud83d": 1', "half of a character"),
        (r'a: [{b: ["\udc00"]}]', "half of a character"),
        (r'file: "mine\0.jsonl"', "a null character"),
        ("- a list", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_yaml_that_makes_no_sense(text, said):
    with pytest.raises(DefinitionError, match=rf"^mine\.yaml: .*{said}") as told:
        parse_yaml(text, "mine.yaml")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500


def test_yaml_with_aliases_that_are_few_is_read():
    assert parse_yaml('a: &a [1, 2]\nb: [*a, *a]\nwhole: "\\U0001F600"', "x") == {"a": [1, 2], "b": [[1, 2], [1, 2]], "whole": "😀"}


ODD_PLACEHOLDERS = [
    "{text:d}",
    "{text!z}",
    "{text!r}",
    "{text:,}",
    "{text:{label}}",
    "{text:{0}}",
    "{text.foo}",
    "{text[x]}",
    "{text.__class__}",
    "{0}",
    "{}",
]


def task(tmp_path: Path, **changes):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(TASK | changes))
    return load_task(str(path))


@pytest.mark.parametrize("odd", ODD_PLACEHOLDERS)
def test_a_placeholder_is_a_name(odd, tmp_path):
    with pytest.raises(DefinitionError, match=r"student_input: placeholder .* is more than a name") as told:
        task(tmp_path, student_input=f"Read: {odd}")
    assert "\n" not in str(told.value)
    mine = task(tmp_path)
    (tmp_path / "p.yaml").write_text(
        yaml.safe_dump({"task": "t", "templates": [{"id": "one", "user_message": f"{{text}} {odd}", "read": "label-first"}]})
    )
    with pytest.raises(ZsdError, match=r"template .one.: placeholder .* is more than a name") as told:
        load_templates(mine, tmp_path / "p.yaml")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}", r"a\.jsonl:2: .*nested too deeply"),
        ("a.jsonl", '{"n": ' + "9" * 5000 + "}", r"a\.jsonl:2: a value cannot be read"),
        ("a.json", "[" * 100_000 + "]" * 100_000, r"a\.json: .*nested too deeply"),
        ("a.json", '[{"n": ' + "9" * 5000 + "}]", r"a\.json: a value cannot be read"),
    ],
)
def test_rows_that_make_no_sense(name, text, said, tmp_path):
    first = '{"text": "a row before"}\n' if name.endswith("l") else ""
    (tmp_path / name).write_text(first + text + "\n")
    with pytest.raises(DataError, match=said) as told:
        list(read_rows(tmp_path / name))
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_half_a_character_becomes_the_sign_for_what_is_unknown(name, tmp_path):
    "A text that was cut within an emoji is a row like others; whole emoji stay, escaped or not."
    row = {"id": "r1\ud83d", "text": ["cut \ud83d", "\udc00 x", "whole 😀", r"told: \ud83d"], "more": {"\ud83d": 1}}
    text = json.dumps(row)
    (tmp_path / name).write_text(text if name == "a.jsonl" else f"[{text}]")
    ((_, read),) = read_rows(tmp_path / name)
    assert read["id"] == "r1\ufffd"
    assert read["text"] == ["cut \ufffd", "\ufffd x", "whole 😀", r"told: \ud83d"]
    assert json.dumps(read, ensure_ascii=False).encode()


def test_a_date_that_python_does_not_have(tmp_path):
    when = pa.array([569_000_000_000], pa.timestamp("s"))  # in the year 20000
    pq.write_table(pa.table({"text": ["a"], "when": when}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: a row from number 1 on holds a value that cannot be read"):
        list(read_rows(tmp_path / "a.parquet"))


@pytest.mark.parametrize("value", ["'120'", "true", ".nan", ".inf", "[1]", "{a: 1}", "many"])
def test_sampling_parameters_that_are_numbers(value, tmp_path):
    (tmp_path / "teacher.yaml").write_text(f"model: m\nsampling: {{max_tokens: {value}}}\n")
    with pytest.raises(DefinitionError, match=r"teacher\.yaml: sampling: max_tokens .* is no number"):
        load_teacher_settings(tmp_path / "teacher.yaml")
    with pytest.raises(Exception, match=r"--sampling: max_tokens .* is no number"):
        TeacherOptions(sampling=f"{{max_tokens: {value}}}").settings(load_task("pocket_nli"))


def test_a_number_that_no_float_holds_is_one():
    assert check_sampling({"seed": 10**400, "temperature": 0.5}) == {"seed": 10**400, "temperature": 0.5}


def test_other_sampling_parameters_are_the_servers_own(tmp_path):
    (tmp_path / "teacher.yaml").write_text(
        "model: m\nsampling: {stop: ['\\n'], logit_bias: {'5': 1}, max_tokens: 5, seed: null, mine: true}\n"
    )
    assert load_teacher_settings(tmp_path / "teacher.yaml").sampling["mine"] is True


@pytest.mark.parametrize(
    ("sampling", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7, "n": 2}, 14),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": 0, "max_completion_tokens": 7}, 7),
        ({"max_tokens": True}, None),
        ({"max_tokens": 5.5}, None),
        ({"max_tokens": -1, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "n": True}, None),
        ({"max_tokens": 5, "n": -2}, None),
        ({}, None),
    ],
)
def test_what_limits_a_reply(sampling, limit):
    "A hard cap needs a limit: what a server may take for no limit counts as none."
    assert reply_limit(sampling) == limit


# Names that become files

ODD_NAMES = ["../../evil", "/tmp/mine", "a/b", "..", ".hidden", "-rf", "tab\tbed", "C:mine", "", "x" * 101]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_refused_as_they_are_loaded(name, tmp_path):
    for changes in ({"name": name}, {"splits": {name: "t.jsonl"}}):
        with pytest.raises(DefinitionError, match=r"names files") as told:
            task(tmp_path, **changes)
        assert "\n" not in str(told.value)
    for model, content in ((Pipeline, {"task": "pocket_nli"}), (Sweep, {"annotations": "a"})):
        with pytest.raises(DefinitionError, match=r"name: .* names files"):
            check_definition(content | {"name": name}, model, "mine.yaml")


@pytest.mark.parametrize("name", ["my reviews", "Grüße", "日本語", "a.b-c_d", "2024"])
def test_other_names_are_welcome(name, tmp_path):
    assert list(task(tmp_path, name=name, splits={name: "t.jsonl"}).splits) == [name]


@pytest.mark.parametrize("split", ["left", "unanswered"])
def test_a_split_cannot_take_a_file_of_the_annotation(split, tmp_path):
    with pytest.raises(DefinitionError, match=f"splits.{split}: an annotation has a file of that name"):
        task(tmp_path, splits={"train": "t.jsonl", split: "u.jsonl"})


@pytest.mark.parametrize("stem", ["x" * 200, "感" * 60, "what?", "-x", ".hidden", "a:b"])
def test_a_file_of_any_name_makes_a_task(stem, tmp_path):
    path = tmp_path / f"{stem}.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"film {n} is {'good' * (n % 3)}", "label": "ab"[n * n % 7 % 2]}) + "\n" for n in range(40))
    )
    made = task_of_file(path, ColumnOptions())
    assert 0 < len(made.name.encode()) <= 100


PATTERNS = {
    "recursion": (r"(?P<label>yes|(?R))", "calls a part of the pattern within itself"),
    "a numbered call": (r"(?P<label>a|(?1))", "calls a part"),
    "a named call": (r"(?P<label>a|(?&label))", "calls a part"),
    "recursion by name": (r"(?P<label>a(?P>label)?b)", "calls a part"),
    "recursion by name, too": (r"(?P<label>a(?P&label)?b)", "calls a part"),
    "a relative call": (r"(?P<label>a)(?-1)", "calls a part"),
    "a long repeat": (r"(?P<label>a{1000000000})", "is longer than 100,000 characters"),
    "repeats of repeats": (r"(?P<label>(?:(?:a{1000}){1000}){1000})", "is longer than"),
    "an endless number": ("(?P<label>a{" + "9" * 5000 + "})", "is longer than"),
    "no end": ("(?P<label>", "does not compile"),
    "groups in groups": ("(" * 500 + "(?P<label>a)" + ")" * 500, "does not compile"),
    "twice the same": ("(?P<label>a)(?P<label", "does not compile"),
    "a list that nobody gave": (r"(?P<label>\L<words>)", "does not compile"),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_that_could_fill_memory_is_refused(name, tmp_path):
    "In a task and in a template, when it is read and before anything is compiled."
    pattern, said = PATTERNS[name]
    with pytest.raises(DefinitionError, match=said) as told:
        task(tmp_path, label_pattern=pattern)
    assert "\n" not in str(told.value)
    template = {"id": "one", "user_message": "{text}", "reply_pattern": pattern}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"task": "t", "templates": [template]}))
    with pytest.raises(ZsdError, match=said) as told:
        load_templates(task(tmp_path), tmp_path / "p.yaml")
    assert "\n" not in str(told.value)


def test_a_label_pattern_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    "It would have gone on for ages."
    monkeypatch.setattr(load, "_PATTERN_S", 0.2)
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "x", "label": "a" * 60 + "!"}) + "\n")
    with pytest.raises(DataError, match=r"t\.jsonl:1: label_pattern ran for more than 0\.2 s on 'aaa"):
        load.load_examples(task(tmp_path, label_pattern=r"(?:a|aa)+\d"), "train")


def save_notebook(path: Path, parameters: str, *cells: str) -> None:
    "Save a notebook of one's own."
    made = [{"cell_type": "code", "metadata": {}, "source": cell, "outputs": [], "execution_count": None} for cell in (parameters, *cells)]
    made[0]["metadata"] = {"tags": ["parameters"]}
    about = {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}, "language_info": {"name": "python"}}
    path.write_text(json.dumps({"metadata": about, "nbformat": 4, "nbformat_minor": 4, "cells": made}))


def test_a_pipeline_names_no_file_to_be_run(tmp_path, monkeypatch):
    "A shared YAML file is data: only names of experiments, whatever notebook is on the disk. Who runs it may name one."
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "evil.ipynb"
    save_notebook(own, 'run_dir = ""')
    save_notebook(tmp_path / "other.ipynb", "folder = 1")
    (tmp_path / "list.ipynb").write_text("[1]")
    (tmp_path / "text.ipynb").write_text("no JSON")
    (tmp_path / "bare.ipynb").write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    for report in (str(own), str(own.with_suffix("")), "evil", "./evil", "../experiments/first_look", "", "first_look.ipynb", "*"):
        with pytest.raises(DefinitionError, match=r"pipeline 'mine': report: no experiment notebook .*--report-notebook FILE") as told:
            _report_source(Pipeline(name="mine", task="pocket_nli", report=report), None)
        assert "\n" not in str(told.value)
    mine = Pipeline(name="mine", task="pocket_nli")
    assert _report_source(mine, None).stem == "first_look"
    assert _report_source(mine, own) == own
    for name in ("list.ipynb", "text.ipynb", "bare.ipynb", "nowhere.ipynb", "other.ipynb", "."):
        with pytest.raises(
            DefinitionError, match="no parameter 'run_dir'" if name in ("bare.ipynb", "other.ipynb") else "cannot be read as a notebook"
        ) as told:
            _report_source(mine, tmp_path / name)
        assert "\n" not in str(told.value)


def test_a_notebook_of_ones_own_is_the_report(tmp_path):
    "It is run with the run's folder, as an experiment is, and its page bears its name."
    save_notebook(tmp_path / "own.ipynb", 'run_dir = ""', "print('read', run_dir)")
    for name in ("run.json", "prompts.json", "replies.html", "train.jsonl", "valid.jsonl"):
        (tmp_path / name).write_text("{}")
    mine = Pipeline(name="mine", task="pocket_nli")
    run = SimpleNamespace(pipeline=mine, report=tmp_path / "own.ipynb", folder=tmp_path, progress=Progress(quiet=True))
    page = _write_report(run, tmp_path, [])
    assert page == tmp_path / "report" / "own.html"
    assert f"read {tmp_path}" in page.read_text()


ODD_VALUES = {
    "nothing": None,
    "true": True,
    "minus one": -1,
    "huge": 10**30,
    "a fraction": 1.5,
    "no number": float("nan"),
    "endless": float("inf"),
    "a text": "odd",
    "empty": "",
    "5,000 letters": "x" * 5000,
    "a path": "../../x",
    "two lines": "a\nb",
    "a placeholder": "{text:d}",
    "a brace": "{",
    "an escape": "\x1b[31m",
    "a list": [],
    "a list of nothing": [None],
    "lists in lists": [[["a"]]],
    "a mapping": {},
    "a mapping to nothing": {"a": None},
    "numbers as keys": {1: 2},
    "nothing as key": {None: 1},
    "pairs as keys": {("a", "b"): 1},
    "bytes": b"\xff\x00",
    "a set": {"a"},
}
TEMPLATES = {"task": "t", "templates": [{"id": "p", "user_message": "Q: {text}.", "read": "label-first"}]}
CLAIMS = yaml.safe_load((claims_dir() / "papers.yaml").read_text(encoding="utf-8"))
CLAIMS["claims"] = CLAIMS["claims"][:1]
DEFINITIONS = {
    "t.yaml": (
        TASK,
        "description version source licence aliases label_names label_descriptions choices group_field metric guidelines types label_pattern "
        "prompts id_column no_label nobody",
    ),
    "p.yaml": (
        TEMPLATES,
        "version templates.0.note templates.0.system_message templates.0.after templates.0.rationale templates.0.repeats templates.0.examples "
        "templates.0.hidden_rationale templates.0.reply_pattern templates.0.reply_schema templates.0.imported",
    ),
    "teacher.yaml": (
        {"model": "m", "sampling": {"max_tokens": 8}},
        "weights n_parallel requests_per_minute tokens_per_minute timeout_s headers headers.X price price.input sampling.seed",
    ),
    "mine.yaml": (
        {"name": "mine", "task": "t", "teacher": {"model": "m"}, "prompts": {"selection_rows": 2}, "annotate": {"train_rows": 4}},
        "description seed budget_usd report students students.seeds students.methods students.weights prompts.file prompts.templates "
        "prompts.incumbent annotate.mix annotate.confidence annotate.votes annotate.via annotate.retry annotate.explanation_rate",
    ),
    "mix.yaml": ({"label": {"p": 1.0}, "explanation": {"p": 1.0}}, "seed label.q"),
    "sweep.yaml": (
        {"name": "s", "vary": [{"method": ["standard"]}], "seeds": [0], "annotations": "a.jsonl"},
        "about task weights vary.0.alpha vary.0.nobody splits gold_rows schedule",
    ),
    "claims.yaml": (CLAIMS, "about nobody claims.0.nobody"),
}


def places(content, at: tuple = ()):
    "List the places of all values in a definition."
    for key, value in content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ():
        yield (*at, key)
        yield from places(value, (*at, key))


def load_one(name: str, templates) -> None:
    path = Path(name)
    if name == "t.yaml":
        load_task(f"./{name}")
    elif name == "p.yaml":
        for template in load_templates(load_task("./task_of_the_templates.yaml"), path).values():
            assert repr(template)
            assert template._repr_html_()
    elif name == "mix.yaml":
        load_mix(f"./{name}", templates)
    else:
        {"teacher.yaml": load_teacher_settings, "mine.yaml": load_pipeline, "sweep.yaml": load_sweep, "claims.yaml": load_claims}[name](
            path
        )


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_value_of_every_definition_by_every_odd_value(name, every, tmp_path, monkeypatch):
    "What is read is read; all else is one line and the exit status of the user's own input, whatever stands where; in the quick test, where places are many, each by some of the values."
    assert len(ODD_VALUES) % 7  # so that each of them has its turn
    monkeypatch.chdir(tmp_path)
    for file, content in (("task_of_the_templates.yaml", TASK), ("t.yaml", TASK), ("p.yaml", TEMPLATES)):
        (tmp_path / file).write_text(yaml.safe_dump(content))
    templates = load_templates(load_task("./t.yaml"), tmp_path / "p.yaml")
    content, more = DEFINITIONS[name]
    further = [tuple(int(key) if key.isdigit() else key for key in one.split(".")) for one in more.split()]
    (tmp_path / name).write_text(yaml.dump(content))
    load_one(name, templates)
    statuses = defaultdict(list)
    n_refused, tried = 0, [(at, what) for at in (*places(content), *further) for what in ODD_VALUES]
    tried = tried[::every] if len(tried) > 500 else tried
    for at, what in tried:
        changed = inside = copy.deepcopy(content)
        for key in at[:-1]:
            if isinstance(inside, list) and len(inside) <= key:
                inside.append({})
            elif isinstance(inside, dict):
                inside.setdefault(key, {})
            inside = inside[key]
        if isinstance(inside, list) and len(inside) <= at[-1]:
            inside.append(None)
        inside[at[-1]] = ODD_VALUES[what]
        (tmp_path / name).write_text(yaml.dump(changed, allow_unicode=True))
        try:
            load_one(name, templates)
        except ZsdError as told:
            n_refused += 1
            statuses[told.exit_status].append((at, what))
        except Exception as error:
            raise AssertionError(f"{name}: {at} is {what}") from error
    assert list(statuses) == [2]
    assert len(tried) / 5 < n_refused < len(tried)


UNREADABLE = ["{", "}", "{{text}", "{text", "{text }", "{text!s:>10}", "{text:{text}}", "{*}", "{text.}", "{text[}", "{a b}", "{-1}", "{0.real}", "{text!}", "{{}}{", "{\x1b}", "{text:\n}", "{[}", "{!r}", "{:}"]  # fmt: skip


@pytest.mark.parametrize("odd", UNREADABLE, ids=range(len(UNREADABLE)))
def test_braces_that_hold_nothing_known(odd, tmp_path):
    with pytest.raises(ZsdError) as told:
        task(tmp_path, student_input=f"{{text}} {odd}")
    assert told.value.exit_status == 2
    mine = task(tmp_path)
    template = {"id": "one", "user_message": f"{{text}} {odd}", "read": "label-first"}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"task": "t", "templates": [template]}))
    with pytest.raises(ZsdError) as told:
        load_templates(mine, tmp_path / "p.yaml")
    assert told.value.exit_status == 2
