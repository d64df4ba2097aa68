"Replies in the forms in which people and models write them: what is read, and what must not be read."

import json
import os
import random
import sys
from pathlib import Path

import pytest
from repository import ROOT
from zsd_command import zsd

from zero_shot_distill.annotate.rows import annotated_row
from zero_shot_distill.prompt.parse import ParseError, ReadFault, Reply, parse_reply
from zero_shot_distill.prompt.replies import read_text
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.prompt.visible import visible
from zero_shot_distill.task.task import Example, Task

SHARED = Path(os.environ.get("ZSD_SHARED_DATA") or ROOT.parent / "shared" / "data") / "replies" / "cases.jsonl"
OURS = sorted((Path(__file__).parent / "replies").glob("*.jsonl"))
MAX_UNREAD = 0.05  # of the replies that a careful reader would read
MAX_UNREAD_FRESH = 30  # of 1,153, written from public reports before they were read


def given(definition: dict) -> tuple[Task, Example]:
    "A task of a case, and a row of it."
    choices = definition.get("choices", ())
    row = {"text": "some words"} | {f"choice_{place}": words for place, words in enumerate(choices)}
    labels = {key: value for key, value in definition.items() if key != "choices"} | {"choices": list(row)[1:]}
    names = {name: name for name in row}
    task = Task(name="t", fields=names, label_column="label", student_input="{text}", splits={}, **labels)
    return task, Example("1", row, None, None)


def read(case: dict) -> Reply | ReadFault:
    task, row = given(case["task"])
    template = PromptTemplate(id="t", user_message="{text}", read=case["read"], after=case.get("after", ""))
    try:
        return parse_reply(case["reply"], template, task, example=row, is_cut_off=case.get("cut_off", False))
    except ParseError as error:
        return error.fault


def cases(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def judge(path: Path) -> tuple[list[str], list[str]]:
    "Replies that are read wrong, and those that should have been read and were not."
    wrong, unread = [], []
    for case in cases(path):
        found, (task, _) = read(case), given(case["task"])
        label = found.label if isinstance(found, Reply) else None
        if label is None and case["label"] is not None:
            unread.append(f"{case['reply']!r}: {found}")
        elif label is not None and label != case["label"] and not task.is_right(label, case["label"]):
            wrong.append(f"{case['reply']!r}: {label}, not {case['label']}")
        if label and found.rationale and not found.rationale.startswith(case.get("rationale_begins", "")):
            wrong.append(f"{case['reply']!r}: rationale {found.rationale!r}")
    return wrong, unread


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_no_reply_is_read_wrong_and_few_are_not_read(path):
    wrong, unread = judge(path)
    assert wrong == []
    assert len(unread) <= (MAX_UNREAD_FRESH if path.stem == "fresh" else MAX_UNREAD * len(cases(path))), unread


def test_shared_replies():
    if not SHARED.is_file():
        pytest.skip(f"no {SHARED}; ZSD_SHARED_DATA names another folder")
    assert judge(SHARED) == ([], [])


LABELS = (
    *(
        "entailment",
        "neutral",
        "spam",
        "not spam",
        "maybe spam",
        "not_spam_at_all",
        "co-op",
        "c",
        "c++",
        "c#",
        ".net",
        "u.s.",
        "(none)",
        "yes!",
        "n/a",
        "sci/tech",
    ),
    *(
        "yes",
        "no",
        "true",
        "false",
        "unknown",
        "neither",
        "none of the above",
        "not sure",
        "can't tell",
        "don't know",
        "possible, but not certain",
        "likely",
        "unlikely",
    ),
    *(
        "0",
        "1",
        "-1",
        "5 stars",
        "4 stars",
        "18-25",
        "> 50",
        "50%",
        "o'brien",
        "café",
        "straße",
        "ärger",
        "naïve",
        "хорошо",
        "плохо",
        "محايد",
        "إيجابي",
        "中立",
        "正面",
        "負面",
    ),
    *(
        "very positive",
        "positive",
        "very negative",
        "negative",
        "bank",
        "river bank",
        "the sea",
        "a long walk",
        "go to work",
        "question",
        "answer",
        "class a",
        "class b",
    ),
    *(
        "hate speech",
        "offensive",
        "business",
        "world",
        "other",
        "e-mail",
        "customer service issue",
        "can be determined",
        "cannot be determined",
        "support",
        "supports",
        "refutes",
    ),
)
FORMS = (
    *(
        "{label}",
        "{label}.",
        "**{label}**",
        '"{label}"',
        "Label: {label}",
        "**Answer:** {label}",
        "The answer is {label}.",
        "My answer: '{label}'",
        "So the label is {label}.",
    ),
    *(
        "I think it is {label}.",
        "It is {label}.",
        "{label}, because the text says so.",
        "{label} because the text says so.",
        "I would say {label}.",
        "Label: {label} (90%)",
    ),
    *(
        "### Answer\n\n{label}",
        "Answer:\n{label}",
        "\\boxed{{{label}}}",
        "<answer>{label}</answer>",
        'Final answer - "{label}"',
        "The correct label is **{label}**, since the text says so.",
        "答案：{label}",
    ),
)
BEFORE = ("", "The text has a few words on this.\n", "<think>It may be {other}.</think>\n", "It is not {other}.\n")


@pytest.mark.parametrize("n_tasks", [40, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("read_as", ["label-first", "label-last", "json"])
def test_any_label_in_a_plain_sentence_reads_back(read_as, n_tasks):
    "For any task and any of its labels: what is read is that label; nearly always it is read."
    draw = random.Random(read_as)
    unread, n = [], 0
    for _ in range(n_tasks):
        labels = draw.sample(LABELS, draw.randint(2, 6))
        label = draw.choice(labels)
        other = draw.choice([one for one in labels if one != label])
        for form in FORMS:
            text = draw.choice(BEFORE).format(other=other) + form.format(label=label if draw.random() < 0.5 else label.capitalize())
            if read_as == "json":
                text = json.dumps({"explanation": text, "label": label}, ensure_ascii=False)
            found = read({"task": {"labels": labels}, "read": read_as, "reply": text})
            n += 1
            assert isinstance(found, ReadFault) or found.label == label, (labels, text)
            if isinstance(found, ReadFault):
                unread.append((labels, text, str(found)))
    assert len(unread) <= 0.01 * n, unread[:20]


ODD_LABELS = (
    *(["1", "2", "3", "4", "5"], ["a", "b", "tie"], ["yes", "no", "maybe"], ["none", "other", "n/a"], ["spam", "not spam"], ["👍", "👎"]),
    *(
        ["-1", "0", "1"],
        ["high", "low", "high/low"],
        ["hate", "not hate"],
        ["don't know", "know"],
        ["new york", "york"],
        ["<5", "5-10", ">10"],
    ),
    *(
        ["正面", "负面"],
        ["สูง", "ต่ำ"],
        ["نعم", "لا"],
        ["हाँ", "नहीं"],
        ["c", "c++", "c#"],
        ["strongly agree", "agree", "disagree"],
        ["★", "★★", "★★★"],
    ),
    *(
        ["right", "wrong"],
        ["love", "hate"],
        ["ok", "not ok"],
        ["no answer", "answered"],
        ["2024-01-05", "2024-01-06"],
        ["self-harm", "harm"],
    ),
)


@pytest.mark.parametrize("read_as", ["label-first", "label-last"])
def test_odd_labels_read_back(read_as):
    "Numbers, letters, signs, negations and labels within labels: none is read as another, hardly one is not read."
    unread, n = [], 0
    for labels in ODD_LABELS:
        for label in labels:
            for form in FORMS:
                text = form.format(label=label)
                found = read({"task": {"labels": labels}, "read": read_as, "reply": text})
                n += 1
                assert isinstance(found, ReadFault) or found.label == label, (labels, text)
                if isinstance(found, ReadFault):
                    unread.append((labels, text, str(found)))
    assert len(unread) <= 0.01 * n, unread[:20]


UNSTATED = (
    *("This isn't {one}.", "{one} or {other}.", "It could be {one} or {other}.", "Answer: {one} or {other}", "Label: {one} and {other}"),
    *("If it were {one}, he would say so.", "I do not think it is {one}.", "I cannot say if it is {one}.", "Nobody would call it {one}."),
    *("The answer is either {one} or {other}.", "It is anything but {one}.", "{one} would be wrong.", "The student said {one}."),
    *("Options: {one}, {other}", "Choose {one} or {other}.", "Answer: {one}. Wait, no, {other}.", "Label: [{one}, {other}]"),
)


@pytest.mark.parametrize("read_as", ["label-first", "label-last"])
def test_what_is_denied_supposed_or_left_open_is_not_read(read_as):
    for labels in ODD_LABELS:
        for place, one in enumerate(labels):
            for form in UNSTATED:
                text = form.format(one=one, other=labels[place - 1])
                found = read({"task": {"labels": labels}, "read": read_as, "reply": text})
                assert isinstance(found, ReadFault), (labels, text, found.label)


def test_a_reply_can_be_tried_before_anything_is_asked(tmp_path):
    done = zsd(
        tmp_path, "templates", "pocket_nli", "--try", "This is not entailment; it is neutral, since nobody says where he is.", "--json"
    )
    assert done.status == 0, done.err
    tried = {row["template"]: row for row in json.loads(done.out)}
    assert tried["one-sentence"]["label"] == "neutral"
    assert tried["one-sentence"]["rationale"] == "since nobody says where he is."
    assert tried["proves-or-rules-out"]["not read"] == "no label found"


def test_all_faults_of_a_prompt_file_are_listed_at_once(tmp_path):
    (tmp_path / "prompts.yaml").write_text(
        "task: pocket_nli\ntemplates:\n"
        "- {id: a, user_message: '{premise} {hypothesis}'}\n"
        "- {id: b, user_message: '{premise} {hypothesis}', reply_pattern: '(?P<label>yes'}\n"
        "- {id: c, user_message: '{premise} {hypothesis}', read: label-lats}\n",
        encoding="utf-8",
    )
    done = zsd(tmp_path, "templates", "pocket_nli", "--prompts", "prompts.yaml")
    assert done.status == 2
    assert "3 faults" in done.err
    assert all(f"templates.{place}" in done.err for place in range(3))


def test_words_that_are_no_labels_of_the_task_are_named(tmp_path):
    pattern = "(?P<label>yes|perhaps)"
    (tmp_path / "prompts.yaml").write_text(
        f"task: pocket_nli\ntemplates: [{{id: a, user_message: '{{premise}} {{hypothesis}}', reply_pattern: '{pattern}'}}]\n",
        encoding="utf-8",
    )
    done = zsd(tmp_path, "templates", "pocket_nli", "--prompts", "prompts.yaml")
    assert done.status == 2
    assert "template 'a' reads 'perhaps'" in done.err


def test_hidden_reasoning_is_the_rationale_only_where_the_template_says_so():
    task, row = given({"labels": ["spam", "ham"]})
    text = "<think>A friend wrote this, and it asks for nothing.</think>\nham"
    plain = PromptTemplate(id="t", user_message="{text}", read="label-first")
    hidden = plain.model_copy(update={"hidden_rationale": True})
    rows = []
    for template in (plain, hidden):
        (read_reply,) = read_text(text, [template], task, row)
        rows.append(annotated_row(task, row, read_reply, read_reply))
    assert [(one.label, one.rationale, one.read_by) for one in rows] == [
        ("ham", None, "label-first"),
        ("ham", "A friend wrote this, and it asks for nothing.", "label-first, rationale from hidden reasoning"),
    ]


JUNK = (
    "= 3 ",
    "a ",
    "A) ",
    "- a\n",
    "neutral ",
    "the answer is ",
    "not ",
    "\\frac{1}{2} ",
    "<b>",
    "<s>",
    "Hm.</think>",
    '{"a": ',
    "{} ",
    '"label": "neutral", ',
)


def n_calls(task: Task, row: Example, read_as: str, reply: str) -> int:
    "Count the functions that are called while a reply is read."
    n = 0

    def count(frame, event, argument):
        nonlocal n
        n += event in {"call", "c_call"}

    template = PromptTemplate(id="t", user_message="{text}", read=read_as)
    sys.setprofile(count)
    try:
        parse_reply(reply, template, task, example=row)
    except ParseError:
        pass
    finally:
        sys.setprofile(None)
    return n


@pytest.mark.parametrize("read_as", ["label-first", "label-last", "json"])
def test_twice_the_junk_is_at_most_twice_the_work(read_as):
    task, row = given({"choices": ["table", "restaurant", "cupboard", "kitchen drawer", "sink"]})
    for junk in JUNK:
        short, long = (n_calls(task, row, read_as, junk * (n // len(junk))) for n in (4_000, 8_000))
        assert long <= 2.2 * short + 500, (junk, short, long)


def test_reasoning_that_ends_again_and_again_is_kept_once():
    reply = "Hm.</think>" * 1_000 + "Neutral."
    seen = visible(reply)
    assert len(seen.hidden) < len(reply)
    assert (seen.text.strip(), seen.said.strip()) == ("Neutral.", "Neutral.")
