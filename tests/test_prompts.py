"The built-in prompts of the public tasks: what they ask, and what is read of the replies."

import pytest

from zero_shot_distill.prompt.parse import ParseError, ReadFault, parse_reply
from zero_shot_distill.prompt.replies import read_each
from zero_shot_distill.prompt.template import PromptTemplate, load_templates, render
from zero_shot_distill.store.request import Response
from zero_shot_distill.task.task import Example, Task, load_task

TASKS = ("esnli", "anli1", "cqa", "svamp", "asdiv")
CHOICES = {"choice_a": "table", "choice_b": "high street", "choice_c": "cupboard", "choice_d": "kitchen (top)", "choice_e": "sink"}
ROWS = {
    "nli": {"premise": "A dog runs on grass.", "hypothesis": "It moves."},
    "cqa": {"question": "Where does dry silverware go?", **CHOICES},
    "arithmetic": {"question": "Steven has 18 peaches and 11 apples. How many more peaches?"},
}
KIND = {"esnli": "nli", "anli1": "nli", "cqa": "cqa", "svamp": "arithmetic", "asdiv": "arithmetic"}


def given(task_name: str, id: str) -> tuple[Task, PromptTemplate, Example]:
    task = load_task(task_name)
    return task, load_templates(task)[id], Example("1", ROWS[KIND[task_name]], None, None)


@pytest.mark.parametrize("name", TASKS)
def test_what_is_asked(name):
    "Every template shows the row and asks briefly; one asks for the label alone, the others for a reason, too."
    task = load_task(name)
    templates = load_templates(task)
    row = Example("1", ROWS[KIND[name]], None, None)
    for template in templates.values():
        (message,) = render(template, row)
        assert all(words in message["content"] for words in row.fields.values())
        assert len(message["content"].split()) - sum(len(words.split()) for words in row.fields.values()) <= 60
        assert template.note
    without = [id for id, template in templates.items() if not template.gives_rationale]
    assert without == ["label-only"]
    assert len(templates) == 5


READ = [
    # what it begins with, in bold, with a reason after it
    ("esnli", "label-then-reason", "**Neutral**: nobody says where the dog is going.", "neutral", "nobody says where the dog is going."),
    (
        "esnli",
        "label-then-reason",
        "The answer is entailment because a dog that runs moves.",
        "entailment",
        "because a dog that runs moves.",
    ),
    ("anli1", "plain-words", "True. What runs has to be moving.", "entailment", "What runs has to be moving."),
    ("esnli", "plain-words", "Uncertain. It is only a guess that it moves.", "neutral", "It is only a guess that it moves."),
    # the reason first, then a last line
    ("esnli", "reason-then-line", "A dog that runs has to move.\n\n**Answer: entailment**", "entailment", "A dog that runs has to move."),
    (
        *("esnli", "complete-sentence", "For this scene, the caption is true because running is a way to move."),
        *("entailment", "because running is a way to move."),
    ),
    ("esnli", "label-only", "Contradiction.", "contradiction", None),
    # a choice by its letter, by its words, by both
    ("cqa", "choice-then-reason", "c) cupboard: dry silverware is kept there.", "cupboard", "dry silverware is kept there."),
    ("cqa", "choice-then-reason", "**B)** because nothing else would do here.", "high street", "because nothing else would do here."),
    ("cqa", "reason-then-line", "It is kept where it stays clean.\nAnswer: c", "cupboard", "It is kept where it stays clean."),
    ("cqa", "plain-words", "Kitchen (top), since it is close at hand.", "kitchen (top", "since it is close at hand."),
    ("cqa", "complete-sentence", "The best answer is c) cupboard because it is dry in there.", "cupboard", "because it is dry in there."),
    ("cqa", "label-only", "(e)", "sink", None),
    # a number, or an expression that has its value
    (
        *("svamp", "calculation-then-reason", "Calculation: 18 - 11\nReason: The difference is what he has more."),
        *("18 - 11", "The difference is what he has more."),
    ),
    (
        *("svamp", "calculation-then-reason", "Calculation: 18 peaches - 11 apples = 7 peaches\nReason: He has that many more of them."),
        *("7", "He has that many more of them."),
    ),
    (
        *("asdiv", "reason-then-calculation", "We take the apples from the peaches.\nCalculation: (18 - 11)"),
        *("(18 - 11)", "We take the apples from the peaches."),
    ),
    (
        *("svamp", "plain-words", "Take eleven away from eighteen peaches. So the answer is $1,007."),
        *("1,007", "Take eleven away from eighteen peaches."),
    ),
    (
        *("svamp", "calculation-then-reason", "Calculation: 18 - 11 = 6\nReason: The difference is what he has more."),
        *("18 - 11", "The difference is what he has more."),
    ),
    ("svamp", "plain-words", "Take them away. So the answer is 18 - 11 = 7.", "7", None),
    ("svamp", "label-only", "`18 - 11`", "18 - 11", None),
]


@pytest.mark.parametrize(("task_name", "id", "text", "label", "rationale"), READ)
def test_replies_that_are_read(task_name, id, text, label, rationale):
    task, template, row = given(task_name, id)
    reply = parse_reply(text, template, task, example=row)
    assert (reply.label, reply.rationale) == (label, rationale)


REFUSED = [
    ("esnli", "label-then-reason", "That cannot be told."),
    ("esnli", "reason-then-line", "A dog that runs has to move."),
    ("esnli", "label-only", "Yes."),
    ("cqa", "choice-then-reason", "The drawer, where forks are kept."),
    ("cqa", "label-only", "I cannot say."),
    # units within: which number is meant would be a guess
    ("svamp", "calculation-then-reason", "Calculation: 18 peaches - 11 apples\nReason: that is the difference."),
    ("svamp", "plain-words", "He has some more peaches than apples."),
    ("svamp", "label-only", "Take 11 from 18."),
    # a list is no answer, nor is the beginning of another word or number
    ("esnli", "label-only", "Entailment, contradiction or neutral?"),
    ("esnli", "complete-sentence", "For this scene, the caption is [false / uncertain / true] because"),
    ("cqa", "label-only", "A fork would go there."),
    ("cqa", "label-only", "d) sink"),
    ("cqa", "plain-words", "Table, high street, cupboard, kitchen (top) or sink."),
    ("cqa", "plain-words", "Tablecloths are kept in there."),
    ("svamp", "plain-words", "He has fewer. So the answer is 5 or 6."),
    ("svamp", "plain-words", "It is a large number. So the answer is 1.5 million."),
    ("svamp", "calculation-then-reason", "Calculation: 528 minus what is left\nReason: that is what was sold."),
]


@pytest.mark.parametrize(("task_name", "id", "text"), REFUSED)
def test_replies_that_are_not_read(task_name, id, text):
    task, template, row = given(task_name, id)
    with pytest.raises(ParseError):
        parse_reply(text, template, task, example=row)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("junk", ["answer is ", "calculation: 1 ", "a) table, ", "entailment or ", "12 + ", "\n", "= 3 ", "x"])
def test_no_reply_takes_long(name, junk):
    task, row = load_task(name), Example("1", ROWS[KIND[name]], None, None)
    long = Response("0" * 64, (junk * 20_000)[:20_000], "stop", 1, 1, 0.1, 1, "2026-01-01T00:00:00+00:00", "m")
    read = list(read_each(((template, row, long) for template in load_templates(task).values()), task))
    assert [reply.template_id for reply in read if reply.fault in (ReadFault.TIMED_OUT, ReadFault.NOT_TRIED)] == []
