"Starter templates: prompts for a task that has none of its own, from its definition alone."

import json
from pathlib import Path

import pytest
from scripted_server import Scripted, ScriptedServer
from zsd_command import environment, is_one_line, zsd

from zero_shot_distill import Project, load_task
from zero_shot_distill.prompt.library import find_templates
from zero_shot_distill.prompt.parse import parse_reply
from zero_shot_distill.prompt.starter import starter_templates, templates_text
from zero_shot_distill.prompt.template import check_placeholders, load_templates, render
from zero_shot_distill.task.task import Example, Task

FORMS = ["label-first", "reason-first", "json", "few-words", "label-only", "step-by-step"]
REASON = "The passenger was there and says so in plain words."


def defined(name: str, **keys) -> Task:
    content = {"name": name, "fields": {"text": "tweet"}, "label_column": "label", "student_input": "{text}"}
    return Task(**content | {"splits": {"train": {"file": "rows.csv"}}} | keys)


KINDS = {
    "labels": (defined("labels", labels=["negative", "neutral", "positive"]), {"text": "late again"}, "negative"),
    "meanings": (
        defined("meanings", labels=["spam", "not spam"], label_descriptions={"spam": "sent to {everybody}"}, description="Is it {spam}?"),
        {"text": "buy {now}"},
        "not spam",
    ),
    "many labels": (defined("many", labels=[f"intent {word}" for word in "abcdefghijkl"]), {"text": "where is my card"}, "intent c"),
    "odd labels": (defined("odd", labels=["c++", ".net", "(none)"]), {"text": "templates"}, "c++"),
    "choices": (
        defined("choices", fields={"question": "q", "choice_a": "a", "choice_b": "b"}, choices=["choice_a", "choice_b"], student_input="{question}"),
        {"question": "Where does it rain?", "choice_a": "in the hall", "choice_b": "in the yard"},
        "in the yard",
    ),
    "numbers": (defined("numbers", metric="numeric"), {"text": "Two and three?"}, "2 + 3"),
}  # fmt: skip


def ideal_reply(id: str, task: Task, label: str) -> str:
    "What a teacher writes that does as it is told."
    said = "(b) in the yard" if task.choices else label
    last = "b" if task.choices else label
    return {
        "label-first": f"{said}. {REASON}",
        "reason-first": f"{REASON}\nAnswer: {last}",
        "json": json.dumps({"explanation": REASON, "label": last}),
        "few-words": f"{said}, because {REASON[0].lower()}{REASON[1:]}",
        "label-only": said,
        "step-by-step": f"First I look at the words. {REASON} So it is settled.\nAnswer: {last}",
    }[id] if task.metric != "numeric" else {
        "label-first": f"Calculation: {label}\nReason: {REASON}",
        "reason-first": f"{REASON}\nCalculation: {label}",
        "json": json.dumps({"explanation": REASON, "label": label}),
        "few-words": f"Calculation: {label}\nReason: {REASON}",
        "label-only": label,
        "step-by-step": f"First I look at the words. {REASON}\nAnswer: 5",
    }[id]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_all_forms(kind):
    task, fields, _ = KINDS[kind]
    templates = starter_templates(task)
    assert list(templates) == FORMS
    for template in templates.values():
        check_placeholders(template, task, "starter")
        assert template.reply_pattern is None
        [message] = render(template, Example("1", fields, None, None))
        assert all(text in message["content"] for text in fields.values())


@pytest.mark.parametrize("id", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_ideal_reply_is_read(kind, id):
    task, fields, label = KINDS[kind]
    reply = parse_reply(ideal_reply(id, task, label), starter_templates(task)[id], task, example=Example("1", fields, None, None))
    assert task.is_right(reply.label, label)
    assert (reply.rationale is None) == (id == "label-only")


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_file_is_the_same_templates(tmp_path, kind):
    task, *_ = KINDS[kind]
    (tmp_path / "prompts.yaml").write_text(templates_text(starter_templates(task), task, "mine.yaml"), encoding="utf-8")
    assert load_templates(task, tmp_path / "prompts.yaml") == starter_templates(task)


def test_what_the_definition_says_is_asked():
    task, fields, _ = KINDS["meanings"]
    for template in starter_templates(task).values():
        [message] = render(template, Example("1", fields, None, None))
        assert "Is it {spam}?" in message["content"]
        assert "- spam: sent to {everybody}" in message["content"]


# Where a task has none of its own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    "A folder with a definition and its rows."
    rows = [("late again", "negative"), ("when do you open", "neutral"), ("thank you so much", "positive")] * 20
    (tmp_path / "tweets.csv").write_text("tweet,label\n" + "".join(f"{text} {n},{label}\n" for n, (text, label) in enumerate(rows)))
    assert zsd(tmp_path, "tasks", "add", "tweets", "tweets.csv").status == 0
    return tmp_path


def test_a_task_of_ones_own_needs_no_prompts(own):
    task = load_task(own / "tweets.yaml")
    assert load_templates(task) == find_templates(task, None, own / "zsd-work") == starter_templates(task)
    assert list(Project(str(own / "tweets.yaml"), work_dir=own / "zsd-work").templates) == FORMS
    listed = json.loads(zsd(own, "templates", "tweets.yaml", "--json").out)
    assert [row["template"] for row in listed] == FORMS
    with ScriptedServer(lambda body, n: Scripted(text="negative. The passenger says that it was late again.")) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        hosted = ("--model", "scripted-teacher", "--price-in", "1", "--price-out", "4")
        done = zsd(own, "experiment", "--task", "tweets.yaml", "--samples", "4", *hosted, env=env)
        assert done.status == 0, done.err
        done = zsd(own, "annotate", "--task", "tweets.yaml", "--mix", "label-first", "--rows", "6", *hosted, env=env)
        assert done.status == 0, done.err


def test_templates_new(own):
    done = zsd(own, "templates", "tweets.yaml", "new")
    assert done.status == 0, done.err
    written = own / "tweets-prompts.yaml"
    text = written.read_text(encoding="utf-8")
    assert "reply_pattern" not in text
    is_one_line(zsd(own, "templates", "tweets.yaml", "new"), 2, "tweets-prompts.yaml: exists already and stays as it is; --force")
    written.write_text(text.replace("id: label-first", "id: my-own"), encoding="utf-8")
    assert next(iter(load_templates(load_task(own / "tweets.yaml")))) == "my-own"
    assert zsd(own, "templates", "tweets.yaml", "new", "--force").status == 0
    assert written.read_text(encoding="utf-8") == text
    assert zsd(own, "templates", "tweets.yaml", "new", "--prompts", "other.yaml").status == 0
    assert (own / "other.yaml").read_text(encoding="utf-8") == text


def test_templates_new_of_a_built_in_task(tmp_path):
    is_one_line(zsd(tmp_path, "templates", "pocket_nli", "new"), 2, "'pocket_nli' is built in", "--prompts")
    assert zsd(tmp_path, "templates", "pocket_nli", "new", "--prompts", "mine.yaml").status == 0
    assert list(load_templates(load_task("pocket_nli"), tmp_path / "mine.yaml")) == FORMS
    is_one_line(zsd(tmp_path, "templates", "pocket_nli", "list"), 2, "list", "new")


def test_templates_show(own):
    task = load_task(own / "tweets.yaml")
    shown = json.loads(zsd(own, "templates", "tweets.yaml", "--show", "json", "--row", "3", "--json").out)
    assert [message["role"] for message in shown["messages"]] == ["user"]
    assert shown["response_format"]["json_schema"]["schema"]["required"] == ["explanation", "label"]
    assert shown["messages"] == render(starter_templates(task)["json"], Example("x", shown["fields"], None, None))
    text = zsd(own, "templates", "tweets.yaml", "--show", "json", "--row", "3").out
    assert shown["messages"][0]["content"] in text
    assert "tokens (four bytes" in text
    is_one_line(zsd(own, "templates", "tweets.yaml", "--show", "nope"), 2, "no template 'nope'")
    is_one_line(zsd(own, "templates", "tweets.yaml", "--show", "json", "--row", "999"), 2, "999", "48")
