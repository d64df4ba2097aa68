"Which prompt finds entities best: races, confirmations, searches and their headroom go by F1. A scripted server stands in for teacher and optimiser."

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scripted_server import Scripted, ScriptedServer

from zero_shot_distill.core.definition import DataError
from zero_shot_distill.entities.align import occurrences
from zero_shot_distill.entities.entity import read_entities
from zero_shot_distill.entities.words import split_words
from zero_shot_distill.project import Project
from zero_shot_distill.prompt.choose import ContestJob
from zero_shot_distill.prompt.contest_rows import draw_contest
from zero_shot_distill.prompt.headroom import gain_split, headroom
from zero_shot_distill.prompt.outcome import results_of
from zero_shot_distill.prompt.planner import plan_contest
from zero_shot_distill.prompt.score import best_templates
from zero_shot_distill.prompt.search_job import OproSettings
from zero_shot_distill.prompt.search_result import PromptSearch, search_tables
from zero_shot_distill.prompt.select import SelectionPlan, select
from zero_shot_distill.stats.paired import mcnemar_mid_p, swap_mid_p
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task

TASK = load_task("pocket_names")
ROWS = {row.fields["text"]: row for row in load_examples(TASK, "train")}
COUNTS = {text: len(read_entities(row.label)) for text, row in ROWS.items()}


def surplus(text: str) -> str:
    "A word that is no entity, and stands there once."
    words, taken = [text[slice(*place)] for place in split_words(text)], " ".join(one.text for one in read_entities(ROWS[text].label))
    return next(word for word in words if word.isalpha() and word not in taken and len(occurrences(text, word)) == 1)


def reply(text: str, is_careful: bool) -> str:
    "A careful reply names all entities and one too many; the other is right where there is one entity at most, and names nothing elsewhere."
    found = [{"phrase": one.text, "type": one.type} for one in read_entities(ROWS[text].label)]
    if is_careful:
        return json.dumps({"entities": [*found, {"phrase": surplus(text), "type": "work"}]})
    return json.dumps({"entities": found if len(found) < 2 else []})


def asked(body: dict) -> tuple[str, str]:
    "The sentence that is asked about, and all that is asked."
    content = body["messages"][-1]["content"]
    return next(text for text in ROWS if text in content), content


@pytest.fixture
def project(tmp_path, monkeypatch) -> Callable[..., Project]:
    "Make a project whose teacher is scripted."

    def made(server: ScriptedServer) -> Project:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")
        found = Project("pocket_names", model="some-model", work_dir=tmp_path)
        base = found.templates["list"]
        for id in ("careful", "curt"):
            message = base.user_message.replace("\n\n", f"\n\nBe {id}.\n\n", 1)
            found.templates[id] = base.model_copy(update={"id": id, "user_message": message})
        return found

    return made


def by_words(body: dict, n: int) -> Scripted:
    text, content = asked(body)
    return Scripted(text=reply(text, "Be careful." in content), prompt_tokens=50, completion_tokens=20)


def test_a_choice_goes_by_f1_and_not_by_rows_that_are_right_as_a_whole(project):
    "The curt prompt has more rows wholly right, the careful one a greater F1."
    with ScriptedServer(by_words) as server:
        mine = project(server)
        scores = {score.template_id: score for score in mine.score("careful", "curt", n=40)}
        careful, curt = scores["careful"], scores["curt"]
        assert careful.accuracy.value == 0 < curt.accuracy.value
        assert careful.f1.value > curt.f1.value + 0.1
        assert [one.template_id for one in best_templates(scores.values())] == ["careful"]
        choice = mine.select("curt", "careful", n=18, n_confirmation=20)
    found = choice.confirmation
    assert (choice.selection.ranking[0], choice.chosen, found.objective) == ("careful", "careful", "f1")
    more = found.difference("careful")
    assert more.value == pytest.approx(found.scores["careful"].f1.value - found.scores["curt"].f1.value)
    assert more.low < more.value < more.high
    assert found.difference("careful", "accuracy").value < 0
    assert 0 < found.smallest_difference < 1
    assert choice.gain.total.value == pytest.approx(more.value)
    assert choice.gain.label.value == pytest.approx(more.value)
    assert choice.gain.format.value == 0  # all was read
    shown = repr(choice)
    assert "F1, points more" in shown
    assert "all entities right" in shown
    assert "explanation" not in shown
    assert choice.as_dict()["flattered"].keys() == {"careful", "curt"}


def test_headroom_and_plan_are_in_f1(project):
    with ScriptedServer(by_words) as server:
        mine = project(server)
        found = mine.headroom("curt", "careful", n=40)
        client = mine.client()
        plan = plan_contest(TASK, {id: mine.templates[id] for id in ("careful", "curt")}, list(ROWS.values()), client)
        replies = {id: mine.ask(id, n=40) for id in ("careful", "curt")}
    curt = headroom(TASK, replies, "curt")
    assert (found.right, curt.objective) == (curt.right, "f1")
    assert found.format.value == 0
    # The careful list is better where there are two entities or more, and worse elsewhere.
    both = {text: 2 * n / (2 * n + 1) for text, n in COUNTS.items() if n > 1}
    right = sum(COUNTS[text] for text in COUNTS)
    n_more = len(both)
    assert found.label.value == pytest.approx(2 * right / (2 * right + n_more) - found.right.value)
    assert "points of F1 at most" in found.sentence
    assert "in F1" in repr(found)
    assert (plan.n_pairs, plan.objective) == (1, "f1")
    assert plan.discordance > 0
    assert "F1 of two templates" in plan.about
    alone = headroom(TASK, {"curt": replies["curt"]}, "curt")
    assert alone.in_reach.value == pytest.approx(1 - alone.right.value)


def test_a_gain_by_format_is_told_from_one_by_entities(project):
    "Where replies were not read all is lost by format."
    with ScriptedServer(by_words) as server:
        mine = project(server)
        good = mine.ask("careful", n=12)
    broken = [
        read if place % 2 else type(read)(read.template_id, read.example, read.response, None, "not JSON")
        for place, read in enumerate(good)
    ]
    gain = gain_split(TASK, broken, good)
    assert gain.total.value > 0
    assert gain.format.value == pytest.approx(gain.total.value)
    assert gain.label.value == pytest.approx(0)
    assert headroom(TASK, {"broken": broken}, "broken").format.value > 0
    assert results_of(broken, TASK, "f1")[0].tolist()[::2] == [0, 0]


# Races


@pytest.mark.parametrize("seed", range(20))
def test_with_one_entity_a_row_the_race_by_f1_is_the_race_by_rows(seed):
    "Found, or another one in its place: F1 is the share of the rows, and both tests are one."
    hits = np.random.default_rng(seed).random((4, 11)) < np.array([0.9, 0.8, 0.3, 0.6])[:, None]
    counts = np.stack([hits, np.ones_like(hits), np.ones_like(hits)], axis=-1).astype(int)
    by_rows = select(range(4), 11, lambda ids, rows: np.where(hits, 1, 0)[np.ix_(ids, rows)], SelectionPlan("accuracy"))
    by_f1 = select(range(4), 11, lambda ids, rows: counts[np.ix_(ids, rows)], SelectionPlan("f1"))
    assert by_f1 == by_rows
    parts = np.stack([2 * hits, np.full(hits.shape, 2)], axis=-1)
    n_only = (int((hits[0] & ~hits[2]).sum()), int((~hits[0] & hits[2]).sum()))
    assert swap_mid_p(parts[0], parts[2]) == pytest.approx(mcnemar_mid_p(*n_only))


def test_a_template_without_replies_is_out_and_rows_without_entities_decide_little():
    silent = np.full((1, 30, 3), -1)
    empty = np.zeros((1, 30, 3), dtype=int)  # nothing to find, and nothing named
    surplus = empty + np.array([0, 0, 1])
    counts = np.concatenate([silent, surplus, empty])
    found = select(
        ["silent", "surplus", "empty"],
        30,
        lambda ids, rows: counts[[["silent", "surplus", "empty"].index(id) for id in ids]][:, rows],
        SelectionPlan("f1"),
    )
    assert found.ranking == ("empty", "surplus", "silent")


def test_objectives_fit_the_task(tmp_path):
    rows, templates = draw_contest(TASK, 8, 20), Project("pocket_names", offline=True, work_dir=tmp_path).templates
    assert ContestJob(TASK, templates, rows, "list").plan.objective == "f1"
    assert ContestJob(TASK, templates, rows, "list", SelectionPlan("accuracy")).plan.objective == "accuracy"
    with pytest.raises(DataError, match="no objective 'explained_accuracy' for task 'pocket_names': use f1 or accuracy"):
        ContestJob(TASK, templates, rows, "list", SelectionPlan())


# A search


def searched(body: dict, n: int) -> Scripted:
    "Proposes a careful prompt now and then, and others that are refused or no better; a teacher's reply is careful where the prompt is."
    content = body["messages"][-1]["content"]
    if "<prompt>" in content:
        (shown, *_) = [text for text in ROWS if text in content and COUNTS[text]] or [next(text for text in ROWS if COUNTS[text])]
        name = read_entities(ROWS[shown].label)[0].text
        texts = [
            "Be careful, and find the names.",
            "Find the names in haste.",
            f"Find names such as {name}.",
            f"As in: {shown}",
            "Find {names}.",
        ]
        return Scripted(text=f"<prompt>{texts[body['seed'] % 5]}</prompt>", prompt_tokens=300, completion_tokens=20)
    text, content = asked(body)
    return Scripted(text=reply(text, "Be careful" in content), prompt_tokens=50, completion_tokens=20)


def test_a_search_finds_refuses_and_confirms_by_f1(project, tmp_path):
    settings = OproSettings(iterations=4, candidates=6, rows=12)
    with ScriptedServer(searched) as server:
        mine = project(server)
        found = mine.search("list", settings=settings, n_confirmation=20)
        n_asked = len(server.bodies)
        assert mine.search("list", settings=settings, n_confirmation=20).confirmation == found.confirmation
        assert len(server.bodies) == n_asked
    assert found.objective.goal == "f1"
    best = found.ranked[0]
    assert "Be careful" in best.text
    assert best.score.accuracy == 0 < best.score.f1
    refused = {one.refusal.name for step in found.steps for one in step.candidates if one.refusal}
    assert refused >= {"EXAMPLE", "UNKNOWN"}
    assert not any(name in one.text for one in found.ranked for row in ROWS.values() for name in [row.fields["text"]])
    assert "Be careful" in found.chosen.user_message
    confirmed = found.confirmation
    assert confirmed.objective == "f1"
    assert confirmed.difference(confirmed.chosen).value > 0.1
    again = PromptSearch.read(found.folder)
    assert again.confirmation == confirmed
    assert repr(again) == repr(found)
    (_, _, note), (_, front, _) = search_tables(found)
    assert "F1 on the 12 selection rows" in note
    assert {"F1", "all entities right"} <= front[0].keys()
    assert found.frame["objective"].tolist() == found.frame["f1"].tolist()


def test_what_a_search_keeps_of_a_task_of_labels_is_as_it_was():
    "Trajectories of earlier versions are read, and go on."
    path = next((Path(__file__).parents[1] / "data" / "recorded_runs" / "search" / "searches").glob("*opro*"))
    before = [json.loads(line) for line in (path / "trajectory.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = PromptSearch.read(path).steps
    assert [step.as_dict() for step in steps] == [line for line in before if "number" in line]
