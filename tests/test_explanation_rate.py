"""The share of rows with a rationale, with a teacher that does not always give one; what it costs, and what imported replies save."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_server import Scripted, ScriptedServer

from zero_shot_distill.annotate.forecast import forecast
from zero_shot_distill.annotate.job import AnnotationJob, annotated_rows, ask_split, run_annotation
from zero_shot_distill.annotate.plan import ExplanationRate
from zero_shot_distill.annotate.rows import AnnotatedRow
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.prompt.collect import imported_for
from zero_shot_distill.prompt.mix import PromptMix
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.store.request import Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task
from zero_shot_distill.teacher.budget import Budget
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.options import AskOptions
from zero_shot_distill.teacher.price import Price
from zero_shot_distill.teacher.teacher import HostedTeacher, StoredTeacher, Teacher

PRICE = Price(1.0, 2.0, "example")
MODEL = "scripted-model"
SAMPLING = {"temperature": 0, "max_tokens": 60}
TASK = load_task("pocket_nli")
EXAMPLES = load_examples(TASK, "train")[:200]
PATTERN = r"(?P<label>entailment|neutral|contradiction)\.?(?P<rationale>.*)"
LABEL = PromptTemplate(id="label", user_message="{premise} {hypothesis} One word.", reply_pattern=PATTERN)
WHY = PromptTemplate(id="why", user_message="{premise} {hypothesis} Why?", reply_pattern=PATTERN, imported=True)
OTHER = PromptTemplate(id="other", user_message="{premise} {hypothesis} Explain.", reply_pattern=PATTERN)
MUTE = PromptTemplate(id="mute", user_message="{premise} {hypothesis} Say nothing else.", reply_pattern=PATTERN)
GIVEN = PromptTemplate(id="given", user_message="{premise} {hypothesis} It is {label}. Why?", reply_pattern=PATTERN)
TEMPLATES = {template.id: template for template in (LABEL, WHY, OTHER, MUTE, GIVEN)}
MIX = PromptMix(label={"label": 1.0}, explanation={"why": 1.0}, seed=7)
REASON = "Neutral. Nobody has said that it is so."


def explains(question: str) -> bool:
    "Every question for a reason is answered with one or is not, half and half, the same each time."
    return random.Random(question).random() < 0.5


def scripted(body: dict, n: int) -> Scripted:
    said = body["messages"][-1]["content"]
    silent = said.endswith(("One word.", "Say nothing else.")) or not explains(said)
    return Scripted(text="Neutral." if silent else REASON, prompt_tokens=40, completion_tokens=3 if silent else 12)


@pytest.fixture
def server():
    with ScriptedServer(scripted) as server:
        yield server


@pytest.fixture
def teacher(server):
    with HostedTeacher(MODEL, server.base_url, "sk-x") as teacher:
        yield teacher


@pytest.fixture
def store(tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        yield store


def job(**changes) -> AnnotationJob:
    made = AnnotationJob(TASK, {"train": EXAMPLES}, TEMPLATES, MIX, MODEL, SAMPLING, ExplanationRate(0.4))
    return replace(made, **changes)


def asking(teacher: Teacher, store: ResponseStore, **options) -> TeacherClient:
    return TeacherClient(teacher, store, SAMPLING, AskOptions(**options))


def annotate(client: TeacherClient, **changes) -> list[AnnotatedRow]:
    "The rows of a job with all rationales wanted, unless told otherwise."
    wanted = job(**{"rate": ExplanationRate(), **changes})
    return list(annotated_rows(wanted, "train", ask_split(wanted, "train", client)))


def explained(rows) -> set[str]:
    return {row.id for row in rows if row.rationale}


def import_replies(store: ResponseStore, texts: dict[int, str]) -> None:
    "As `zsd import-thesis` leaves them."
    for row, text in texts.items():
        request = imported_for(WHY, EXAMPLES[row], MODEL)[-1]
        store.put(request, Response(request.key, text, "unknown", None, None, 0.0, 1, "2026-01-01T00:00:00+00:00", MODEL, via="import"))


def test_the_share_is_true_and_nested(server, teacher, store):
    "40 and 80 of 200 rows; more than that are asked, but not all; a smaller rate asks nothing that the larger has not."
    kept, n_asked = {}, {}
    for rate in (0.2, 0.4):
        kept[rate] = explained(annotate(asking(teacher, store), rate=ExplanationRate(rate)))
        n_asked[rate] = len(server.bodies) - len(EXAMPLES)
    assert {rate: len(rows) for rate, rows in kept.items()} == {0.2: 40, 0.4: 80}
    assert kept[0.2] < kept[0.4]
    assert 40 < n_asked[0.2] < n_asked[0.4] < 200
    again = explained(annotate(asking(StoredTeacher(MODEL), store), rate=ExplanationRate(0.2)))
    assert again == kept[0.2]


def test_the_rate_of_existing_rationales(server, teacher, store):
    "The thesis's meaning: all rows are asked, and half of the rationales stay."
    everything = explained(annotate(asking(teacher, store)))
    half = explained(annotate(asking(teacher, store), rate=ExplanationRate(0.5, of_existing=True)))
    assert len(half) == round(len(everything) / 2)
    assert half < everything
    assert len(server.bodies) == 400


def test_few_rounds(monkeypatch, server, teacher, store):
    "A round may be a provider's batch of a day."
    rounds = []
    import zero_shot_distill.annotate.job as module

    read = module.read_replies
    monkeypatch.setattr(module, "read_replies", lambda pairs, *rest: rounds.append(len(pairs)) or read(pairs, *rest))
    ask_split(job(), "train", asking(teacher, store))
    assert len(rounds) <= 4
    assert sum(rounds) == len(server.bodies)


def test_a_template_that_never_explains_is_given_up(server, teacher, store):
    said = []
    mix = PromptMix(label={"label": 1.0}, explanation={"mute": 1.0})
    rows = annotate(asking(teacher, store, on_message=said.append), mix=mix, rate=ExplanationRate(0.3))
    assert explained(rows) == set()
    assert len(server.bodies) == 200 + 60
    assert said[-1] == "template mute gave no rationale in its first 50 replies; not asking it for more"


def test_another_template_steps_in(server, teacher, store):
    "Half of the rows are asked in vain; the others make up for it."
    mix = PromptMix(label={"label": 1.0}, explanation={"mute": 0.5, "other": 0.5})
    rows = annotate(asking(teacher, store), mix=mix, rate=ExplanationRate(0.2))
    assert len(explained(rows)) == 40


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_the_forecast_knows_how_often_it_explains_itself(server, teacher, store, rate):
    made = forecast(job(rate=ExplanationRate(rate)), asking(teacher, store, price=PRICE), n_pilot=40)
    annotate(asking(teacher, store), rate=ExplanationRate(rate))
    assert abs(made.plan.n_questions - len(server.bodies)) <= 0.1 * len(server.bodies)
    after = forecast(job(rate=ExplanationRate(rate)), asking(StoredTeacher(MODEL), store, price=PRICE))
    assert after.open_usd.value < 0.1 * made.open_usd.value


def test_a_forecast_pilots_every_template_that_the_rate_needs(server, teacher, store):
    "The first half of the rows has too few rationales, so the second template is needed, which the first plan did not see."
    mix = PromptMix(label={"label": 1.0}, explanation={"why": 0.5, "other": 0.5}, seed=7)
    made = forecast(job(mix=mix), asking(teacher, store, price=PRICE), n_pilot=20)
    assert set(made.pilot) == {"label", "why", "other"}
    rows = annotate(asking(teacher, store), mix=mix, rate=ExplanationRate(0.4))
    assert len(explained(rows)) == 80


def test_imported_replies_are_not_asked_again_nor_forecast(server, teacher, store):
    "Rationales of 80 rows were bought before, 40 of them worth the name: what is missing is asked, and that is what the forecast says."
    order = MIX.order(len(EXAMPLES))
    import_replies(store, {row: REASON if place % 2 else "Neutral." for place, row in enumerate(order[:80])})
    rate = ExplanationRate(0.4)
    made = forecast(job(rate=rate), asking(teacher, store, price=PRICE), n_pilot=20)
    rows = annotate(asking(teacher, store), rate=rate)
    assert len(explained(rows)) == 80
    asked = [body["messages"][-1]["content"] for body in server.bodies]
    bought = {WHY.user_message.format(**EXAMPLES[row].fields) for row in order[:80]}
    assert not bought & set(asked)
    assert abs(made.plan.n_questions - len(asked)) <= 0.1 * len(asked)


def test_where_all_was_imported_nothing_is_to_be_paid(store):
    import_replies(store, dict.fromkeys(range(len(EXAMPLES)), REASON))
    made = forecast(job(mix=PromptMix.single("why"), rate=ExplanationRate()), asking(StoredTeacher(MODEL), store, price=PRICE))
    assert (made.plan.n_questions, made.open_usd.value) == (0, 0.0)
    assert "all 200 replies were taken over" in made.plan.note


def test_a_budget_is_not_charged_for_imported_replies(server, teacher, store, tmp_path):
    "200 labels at 46 millionths of a dollar, and nothing for the rationales, which are there."
    import_replies(store, dict.fromkeys(range(len(EXAMPLES)), REASON))
    budget = Budget(0.02, PRICE)
    report = run_annotation(job(), asking(teacher, store, price=PRICE, budget=budget), tmp_path, Progress(quiet=True))
    assert (report.n_rows_left, report.splits["train"].n_rationales) == (0, 80)
    assert report.n_imported == 80
    assert report.usage.n_responses == len(server.bodies) == 200
    assert budget.spent_usd == pytest.approx(200 * 46e-6)


def test_retry_asks_for_imported_replies_that_are_empty(server, teacher, store, tmp_path):
    import_replies(store, {row: "" if row < 5 else REASON for row in range(20)})
    some = job(rows={"train": EXAMPLES[:20]}, mix=PromptMix.single("why"), rate=ExplanationRate())
    first = run_annotation(some, asking(teacher, store, price=PRICE), tmp_path, Progress(quiet=True))
    assert (len(server.bodies), first.outcomes, first.n_imported) == (0, {"empty": 5, "complete": 15}, 20)
    again = run_annotation(some, asking(teacher, store, price=PRICE, retry_outcomes=frozenset({"empty"})), tmp_path, Progress(quiet=True))
    assert (len(server.bodies), again.outcomes, again.n_imported, again.usage.n_responses) == (5, {"complete": 20}, 15, 5)
    later = run_annotation(some, asking(teacher, store, price=PRICE), tmp_path, Progress(quiet=True))
    assert (later.outcomes, later.n_imported) == ({"complete": 20}, 15)


def test_a_row_without_gold_is_not_shown_to_a_template_that_shows_it(server, teacher, store, tmp_path):
    "It is a row with a reason; the others are asked, the report is written, and nothing is left to be asked."
    rows = [replace(example, label=None) if place == 3 else example for place, example in enumerate(EXAMPLES[:40])]
    given = job(rows={"train": rows}, mix=PromptMix(label={"label": 1.0}, explanation={"given": 1.0}), rate=ExplanationRate())
    report = run_annotation(given, asking(teacher, store, price=PRICE), tmp_path, Progress(quiet=True))
    assert (report.n_rows_left, len(server.bodies)) == (0, 79)
    lines = [json.loads(line) for line in (Path(report.folder) / "train.jsonl").read_text().splitlines()]
    assert "shows {label}, which row" in lines[3]["rationale_error"]
    assert lines[3]["label"] == "neutral"
