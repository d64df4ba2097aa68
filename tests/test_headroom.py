"Headroom before a search: parts that add up, others chosen on other rows, no flattery by many templates, and a second sample."

import json

import numpy as np
import pytest
from scripted_server import Scripted, ScriptedServer
from zsd_command import environment, zsd

from zero_shot_distill import Project
from zero_shot_distill.project import recorded_project
from zero_shot_distill.prompt.headroom import HeadroomError, Worth, best_elsewhere, gain_split, headroom
from zero_shot_distill.prompt.parse import ReadFault, Reply
from zero_shot_distill.prompt.replies import ReadReply
from zero_shot_distill.store.request import Response
from zero_shot_distill.task.task import Example, load_task
from zero_shot_distill.teacher.settings import TeacherSettings

TASK = load_task("pocket_nli")
RESPONSE = Response("0" * 64, "text", "stop", None, None, 0.0, 1, "2026-11-26T00:00:00+00:00", "made-up")


def read(row: int, label: str | None, rationale: str | None = "a reason", gold: str | None = "neutral", group: str = "") -> ReadReply:
    "A reply to a row; each row is a group of its own unless one is named."
    example = Example(f"r{row}", {"premise": group or f"p{row}", "hypothesis": "h"}, gold, None)
    reply = Reply(label, rationale, None, None) if label else None
    return ReadReply("t", example, RESPONSE, reply, "" if label else str(ReadFault.NO_LABEL), None if label else ReadFault.NO_LABEL)


def at_random(rng: np.random.Generator, n: int = 40) -> list[ReadReply]:
    "Replies of all kinds."
    labels = rng.choice(["neutral", "entailment", "contradiction", ""], n)
    return [read(row, str(label) or None, None if rng.random() < 0.2 else "a reason") for row, label in enumerate(labels)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("objective", ["explained_accuracy", "accuracy"])
def test_every_row_is_counted_once(seed, objective):
    rng = np.random.default_rng(seed)
    replies = {id: at_random(rng) for id in "abc"}
    found = headroom(TASK, replies, "a", objective)
    n = found.right.n
    assert n == 40
    assert round(n * (found.right.value + found.format.value)) + found.n_wrong == n
    assert found.in_reach.value == pytest.approx(found.format.value + found.label.value)
    assert sum(found.causes.values()) == round(n * found.format.value)
    for part in (found.right, found.format, found.label, found.in_reach):
        assert 0 <= part.low <= part.value <= part.high <= 1
    gain = gain_split(TASK, replies["a"], replies["b"], objective)
    assert gain.total.value == pytest.approx(gain.format.value + gain.label.value)
    right_of_b = headroom(TASK, replies, "b", objective).right
    assert gain.total.value == pytest.approx(right_of_b.value - found.right.value)
    back = gain_split(TASK, replies["b"], replies["a"], objective)
    assert back.total.value == pytest.approx(-gain.total.value)


def test_many_guessing_templates_do_not_make_headroom():
    "What the best one of many gets right by luck grows little with their number, and what it really gains is nothing."
    rng = np.random.default_rng(0)
    reached, lucky, net = {2: [], 16: []}, {2: [], 16: []}, {2: [], 16: []}
    for n_others in reached:
        for _ in range(100):
            known = rng.random(40) < 0.5
            guesses = [np.where(known, "neutral", rng.choice(TASK.labels, 40)) for _ in range(n_others + 1)]
            replies = {str(id): [read(row, str(label)) for row, label in enumerate(labels)] for id, labels in enumerate(guesses)}
            found = headroom(TASK, replies, "0")
            reached[n_others].append(found.label.value)
            lucky[n_others].append(found.n_any / 40)
            net[n_others].append(found.gain.total.value)
            assert abs(found.n_guessed - found.n_any) < 12
    assert np.mean(lucky[16]) > np.mean(lucky[2]) + 0.1
    assert np.mean(reached[16]) - np.mean(reached[2]) < 0.5 * (np.mean(lucky[16]) - np.mean(lucky[2]))
    assert abs(np.mean(net[16])) < 0.03


def test_the_best_template_is_chosen_on_the_other_half_of_the_groups():
    "A template that is right on one premise alone is not chosen for the rows of that premise."
    incumbent = [read(row, "entailment", group=f"g{row // 4}") for row in range(8)]
    others = {
        "lucky": {f"r{row}": read(row, "neutral" if row < 4 else "entailment", group=f"g{row // 4}") for row in range(8)},
        "plain": {f"r{row}": read(row, "neutral" if row in (0, 4, 5) else "entailment", group=f"g{row // 4}") for row in range(8)},
    }
    best, chosen = best_elsewhere(TASK, incumbent, others)
    assert best == "lucky"
    assert [one.reply.label == "neutral" for one in chosen] == [True, False, False, False] + [False] * 4


def test_a_template_that_is_no_better_is_seldom_called_better():
    rng = np.random.default_rng(1)
    n_shown = 0
    for _ in range(150):
        replies = {str(id): [read(row, "neutral" if rng.random() < 0.6 else "entailment") for row in range(40)] for id in range(9)}
        n_shown += headroom(TASK, replies, "0").gain.is_shown
    assert n_shown <= 10  # 2.5 % are meant; 11 or more have a chance of 1 in 1,500


def test_rows_that_say_nothing_are_left_out():
    open_row = ReadReply("t", read(5, "neutral").example, None, None, "no response: x", ReadFault.NO_RESPONSE)
    asked = [*(read(row, "neutral") for row in range(4)), open_row, read(6, "neutral", gold=None)]
    found = headroom(TASK, {"a": asked, "b": [read(row, "neutral") for row in range(3, 9)], "c": [open_row]}, "a")
    assert found.right.n == 4
    assert found.others == ("b",)
    assert found.gain.total.n == 1
    assert not found.gain.is_shown


def test_without_another_template_every_wrong_label_counts():
    found = headroom(TASK, {"a": [read(row, "neutral" if row % 2 else "entailment") for row in range(40)]}, "a")
    assert (found.label.value, found.gain, found.others) == (0.5, None, ())
    assert "no other template was asked" in repr(found)


@pytest.mark.parametrize(
    ("lost", "worth"),
    [({}, Worth.NO), (dict.fromkeys(range(60), None), Worth.YES), (dict.fromkeys(range(8), "entailment"), Worth.OPEN)],
)
def test_the_verdict(lost, worth):
    asked = [read(row, lost.get(row, "neutral")) for row in range(120)]
    found = headroom(TASK, {"a": asked}, "a")
    assert found.worth is worth
    assert found.sentence in repr(found)
    assert found.sentence.partition(":")[0] in found._repr_html_()
    assert headroom(TASK, {"a": asked[:1]}, "a").worth is Worth.OPEN


@pytest.mark.parametrize(
    ("replies", "line"),
    [
        ({}, "template 'a' was not asked; asked were none"),
        ({"b": []}, "asked were b"),
        ({"a": []}, "no reply to a row with a gold label"),
        ({"a": [read(0, "neutral", gold=None)]}, "no reply to a row with a gold label"),
    ],
)
def test_mistakes_are_one_line(replies, line):
    with pytest.raises(HeadroomError, match=line) as raised:
        headroom(TASK, replies, "a")
    assert "\n" not in str(raised.value)
    assert raised.value.exit_status == 2


def test_recorded_replies_of_a_project(tmp_path):
    recorded = recorded_project(tmp_path)
    found = recorded.headroom("one-sentence", n=16)
    assert (found.incumbent, found.right.n, set(found.others)) == ("one-sentence", 16, set(recorded.templates) - {"one-sentence"})
    assert recorded.headroom("one-sentence", "can-we-tell", n=16).others == ("can-we-tell",)
    assert recorded.headroom(n=16).incumbent == next(iter(recorded.templates))
    recorded.close()


def says_entailment(body: dict, n: int) -> Scripted:
    is_unread = "Can we be sure" in body["messages"][-1]["content"]
    return Scripted(text="Hm." if is_unread else "Entailment. The premise says all of it.", prompt_tokens=90, completion_tokens=12)


def test_the_command_says_it_and_stops(tmp_path):
    with ScriptedServer(says_entailment) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        command = ("select", "--task", "pocket_nli", "--model", "scripted-teacher", "--samples", "12", "--headroom")
        ran = zsd(tmp_path, *command, "--incumbent", "can-we-tell", env=env)
        assert ran.status == 0, ran.err
        assert "headroom of can-we-tell on 12 rows" in ran.out
        assert "no label found: 12" in ran.out
        assert "48 questions to scripted-teacher, none of them stored" in ran.err
        assert server.summary()["attempts"] == 48
        content = json.loads(zsd(tmp_path, *command, "--json", "--budget-queries", "32", env=env).out)
        assert (content["incumbent"], content["right"]["n"], content["worth"]) == ("one-sentence", 8, "open")
        assert server.summary()["attempts"] == 48


def test_a_second_sample_is_asked_once(tmp_path, monkeypatch):
    def answer(body: dict, n: int) -> Scripted:
        label = "Neutral" if body.get("temperature") else "Entailment"
        return Scripted(text=f"{label}. The premise says nothing at all about it.", prompt_tokens=90, completion_tokens=12)

    with ScriptedServer(answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")
        teacher = TeacherSettings(model="scripted-teacher", sampling={"max_tokens": 40, "temperature": 0})
        project = Project("pocket_nli", teacher, work_dir=tmp_path)
        for _ in range(2):
            found = project.headroom("one-sentence", "can-we-tell", n=12, second_sample=True)
            assert server.summary()["attempts"] == 36
        assert "one-sentence, second sample" in found.others
        assert found.n_any >= 1  # rows whose label is neutral
        project.close()
