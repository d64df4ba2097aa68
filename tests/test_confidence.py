"""How sure a teacher is of its labels: asked, stored once, counted, and what a filter by it is worth."""

import json
import math
import random
import sqlite3
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
from scripted_server import Scripted, ScriptedServer
from zsd_command import environment, zsd

from zero_shot_distill.annotate.announce import announce_job, check_any_stored
from zero_shot_distill.annotate.confidence import ConfidenceFault, ConfidencePlan
from zero_shot_distill.annotate.forecast import forecast
from zero_shot_distill.annotate.job import AnnotationJob, JobError, annotated_rows, ask_split, run_annotation
from zero_shot_distill.annotate.rows import AnnotatedRow, ConfidenceKind, read_annotations
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.prompt.mix import PromptMix
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.store.export import export_parquet
from zero_shot_distill.store.maintenance import verify_store
from zero_shot_distill.store.request import AttemptResult, Request, Response
from zero_shot_distill.store.salvage import salvage_store
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task
from zero_shot_distill.teacher.batch import settle_by_batch
from zero_shot_distill.teacher.budget import Budget
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.embedded import EmbeddedTeacher
from zero_shot_distill.teacher.options import AskOptions
from zero_shot_distill.teacher.price import Price
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, StoredTeacher, Teacher
from zero_shot_distill.weights.pull import pull

SMALL = "smollm2-135m-instruct"
MODEL = "scripted-model"
SAMPLING = {"temperature": 0, "max_tokens": 60, "seed": 3}
TASK = load_task("pocket_nli")
EXAMPLES = load_examples(TASK, "train")[:12]
SAY = PromptTemplate(id="say", user_message="{premise} {hypothesis} Entailment, neutral or contradiction? Say why.", read="label-first")
WHY = PromptTemplate(id="why", user_message="{premise} {hypothesis} Explain.", read="label-first")
TEMPLATES = {"say": SAY, "why": WHY}
VOTE = ConfidencePlan(ConfidenceKind.AGREEMENT, 5)
LOGPROB = ConfidencePlan(ConfidenceKind.LOGPROB)
REASON = "Nobody has said that it is so."
PRICE = Price(1.0, 2.0, "example")


@pytest.fixture
def store(tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        yield store


def job(confidence: ConfidencePlan | None, **changes) -> AnnotationJob:
    mix = PromptMix.single("say")
    return replace(AnnotationJob(TASK, {"train": EXAMPLES}, TEMPLATES, mix, MODEL, SAMPLING, confidence=confidence), **changes)


def hosted(server: ScriptedServer) -> HostedTeacher:
    return HostedTeacher(MODEL, server.base_url, "sk-x", RequestLimits(n_parallel=4, n_retries=1))


def asking(teacher: Teacher, store: ResponseStore, **options) -> TeacherClient:
    return TeacherClient(teacher, store, SAMPLING, AskOptions(**options))


def rows_of(client: TeacherClient, wanted: AnnotationJob) -> list:
    return list(annotated_rows(wanted, "train", ask_split(wanted, "train", client)))


def vote_of(body: dict) -> int:
    "Which vote a request is, from the first seed on: what a row adds of its own are thousands."
    return body["seed"] % 1000


def votes(*said: str):
    "Answer the first, second, … reply to each question in this way."

    def script(body: dict, n: int) -> Scripted:
        return Scripted(text=said[vote_of(body) - 3])

    return script


def with_logprobs(body: dict, n: int) -> Scripted:
    "Tell log-probabilities where they are asked for; half of the labels are less probable."
    sure = -0.1 if random.Random(body["messages"][-1]["content"]).random() < 0.5 else -1.2
    tokens = (("Neut", sure), ("ral", -0.05), (".", 0.0), (f" {REASON}", -2.0), ("<|im_end|>", -0.3))
    return Scripted(text=f"Neutral. {REASON}", tokens=tokens if body.get("logprobs") else None)


# Votes


def test_a_vote_asks_as_often_as_it_says_and_never_twice(store):
    said = ("Neutral.", f"Entailment. {REASON}", f"Neutral. {REASON}", "Hm.", "Neutral.")
    with ScriptedServer(votes(*said)) as server, hosted(server) as teacher:
        rows = rows_of(asking(teacher, store), job(VOTE))
        assert {(body["temperature"], vote_of(body)) for body in server.bodies} == {(0.7, 3 + number) for number in range(5)}
        assert len(server.bodies) == 5 * len(EXAMPLES)
        assert rows_of(asking(teacher, store), job(VOTE)) == rows
        more = rows_of(asking(teacher, store), job(ConfidencePlan(ConfidenceKind.AGREEMENT, 3)))  # the first three are there
        assert len(server.bodies) == 5 * len(EXAMPLES)
    assert {(row.label, row.confidence, row.confidence_kind, row.rationale) for row in rows} == {("neutral", 0.6, "agreement", REASON)}
    assert {(row.label, row.confidence) for row in more} == {("neutral", round(2 / 3, 6))}
    assert rows_of(asking(StoredTeacher(MODEL), store), job(VOTE)) == rows


def test_of_labels_with_as_many_votes_the_first_counts(store):
    with ScriptedServer(votes("Contradiction.", "Neutral.", "Neutral.", "Contradiction.")) as server, hosted(server) as teacher:
        rows = rows_of(asking(teacher, store), job(ConfidencePlan(ConfidenceKind.AGREEMENT, 4)))
    assert {(row.label, row.confidence) for row in rows} == {("contradiction", 0.5)}


def test_a_rationale_alone_is_asked_once_and_without_a_vote(store):
    mix = PromptMix(label={"say": 1.0}, explanation={"why": 1.0})
    with ScriptedServer(lambda body, n: Scripted(text=f"Neutral. {REASON}")) as server, hosted(server) as teacher:
        rows = rows_of(asking(teacher, store), job(VOTE, mix=mix))
        asked = Counter(body["messages"][-1]["content"].endswith("Explain.") for body in server.bodies)
        assert asked == {False: 5 * len(EXAMPLES), True: len(EXAMPLES)}
        assert all(body["temperature"] == 0 for body in server.bodies if body["messages"][-1]["content"].endswith("Explain."))
    assert {(row.confidence, row.rationale) for row in rows} == {(1.0, REASON)}


def test_a_vote_that_was_interrupted_goes_on(store, tmp_path):
    "Some replies fail in the first run: those rows have no confidence and are left; the second run asks for these replies alone."
    bad = {EXAMPLES[0].fields["premise"], EXAMPLES[1].fields["premise"]}

    def script(body: dict, n: int) -> Scripted:
        is_bad = vote_of(body) == 5 and any(premise in body["messages"][-1]["content"] for premise in bad)
        return Scripted(400, error="scripted") if is_bad else Scripted(text="Neutral.")

    with ScriptedServer(script) as server, hosted(server) as teacher:
        report = run_annotation(job(VOTE), asking(teacher, store, price=PRICE), tmp_path, Progress(quiet=True))
    rows = read_annotations(Path(report.folder) / "train.jsonl")
    open_rows = [row for row in rows if row.confidence is None]
    assert report.n_rows_left == len(open_rows) > 0
    assert {(row.label, row.confidence_kind, row.confidence_error) for row in open_rows} == {("neutral", "", str(ConfidenceFault.OPEN))}
    with ScriptedServer(lambda body, n: Scripted(text="Neutral.")) as server, hosted(server) as teacher:
        report = run_annotation(job(VOTE), asking(teacher, store, price=PRICE), tmp_path, Progress(quiet=True))
        assert len(server.bodies) == len(open_rows)
    assert (report.n_rows_left, report.usage.n_responses) == (0, 5 * len(EXAMPLES))
    assert {row.confidence for row in read_annotations(Path(report.folder) / "train.jsonl")} == {1.0}


def test_faults_on_the_way_change_no_vote(store):
    "Errors that pass, replies without a word and refusals: what can come comes, the rest counts against the label."

    def script(body: dict, n: int) -> Scripted:
        kinds = {
            3: Scripted(text="Neutral."),
            4: Scripted(text=""),
            5: Scripted(text=None, refusal="I can't: neutral."),
            6: Scripted(text="Neutral."),
        }
        return Scripted(500) if n in (0, 7, 19) else kinds.get(vote_of(body), Scripted(text="Entailment."))

    with ScriptedServer(script) as server, hosted(server) as teacher:
        rows = rows_of(asking(teacher, store), job(VOTE))
        assert len(server.bodies) == 5 * len(EXAMPLES) + 3
    assert {(row.label, row.confidence) for row in rows} == {("neutral", 0.4)}


def test_a_budget_counts_every_vote(store, tmp_path):
    with (
        ScriptedServer(lambda body, n: Scripted(text="Neutral.", prompt_tokens=100, completion_tokens=50)) as server,
        hosted(server) as teacher,
    ):
        budget = Budget(0.005, PRICE)
        report = run_annotation(job(VOTE), asking(teacher, store, price=PRICE, budget=budget), tmp_path, Progress(quiet=True))
        n_asked = len(server.bodies)
    assert 0 < n_asked < 5 * len(EXAMPLES)
    assert report.usage.n_responses == n_asked
    assert report.usage.cost_usd == pytest.approx(n_asked * 0.0002)
    assert report.usage.cost_usd <= 0.005
    assert report.n_rows_left
    assert report.left_usd.value == pytest.approx((5 * len(EXAMPLES) - n_asked) * 0.0002)


def test_by_batch_all_votes_go_at_once(store, monkeypatch):
    monkeypatch.setattr("zero_shot_distill.teacher.client.settle_by_batch", partial(settle_by_batch, poll_s=0.05))
    with ScriptedServer(lambda body, n: Scripted(text="Neutral.")) as server, hosted(server) as teacher:
        rows = rows_of(asking(teacher, store, via="batch"), job(VOTE))
        assert len(server.batches.batches) == 1
    assert {row.confidence for row in rows} == {1.0}


def test_a_forecast_counts_every_vote(store):
    "The pilot asks all votes on its rows, none of them is asked again, and the interval holds what it came to."

    def script(body: dict, n: int) -> Scripted:
        rng = random.Random(f"{body['messages'][-1]['content']} {body['seed']}")
        return Scripted(text="Neutral.", prompt_tokens=len(body["messages"][-1]["content"]) // 4, completion_tokens=rng.randrange(3, 30))

    wanted = job(VOTE, rows={"train": load_examples(TASK, "train")[:60]}, sampling={**SAMPLING, "max_tokens": 40})
    with ScriptedServer(script) as server, hosted(server) as teacher:
        client = TeacherClient(teacher, store, wanted.sampling, AskOptions(price=PRICE))
        made = forecast(wanted, client, n_pilot=12)
        assert (len(server.bodies), made.pilot, made.plan.n_questions) == (60, {"say": 60}, 300)
        pilot_usd = spent(store)
        ask_split(wanted, "train", client)
        assert len(server.bodies) == 300
        after = forecast(wanted, client, n_pilot=12)
    assert made.open_usd.low <= after.plan.cost_usd.value - pilot_usd <= made.open_usd.high
    assert after.plan.cost_usd.low == after.plan.cost_usd.high == pytest.approx(spent(store))
    assert after.plan.completion_tokens.value == sum(reply.completion_tokens for reply in store.get_many(store_keys(store.path)).values())


def spent(store: ResponseStore) -> float:
    "US dollars for all replies."
    return sum(reply.cost_usd for reply in store.get_many(store_keys(store.path)).values())


def test_the_command_says_what_a_filter_keeps(tmp_path):
    "Surer labels are made right: the table shows it, and the files hold what it is made of."
    gold = {example.fields["hypothesis"]: example.label for example in load_examples(TASK, "train")}

    def script(body: dict, n: int) -> Scripted:
        question = body["messages"][-1]["content"]
        label = next(label for hypothesis, label in gold.items() if hypothesis in question)
        is_easy = random.Random(question).random() < 0.5
        said = label if is_easy or vote_of(body) == 1 else "neutral" if vote_of(body) else "contradiction"
        return Scripted(text=f"{said.capitalize()}: nobody has said that it is so.")

    with ScriptedServer(script) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        asked = ("annotate", "--task", "pocket_nli", "--mix", "one-sentence", "--model", MODEL, "--rows", "60")
        done = zsd(tmp_path, *asked, "--confidence", "agreement", "--votes", "3", env=env)
        assert done.status == 0, done.err
        assert len(server.bodies) == 180
        again = zsd(tmp_path, *asked, "--confidence", "agreement", "--votes", "3", "--json", "--offline")
        refused = zsd(tmp_path, *asked, "--votes", "3", env=env)
        assert len(server.bodies) == 180
    assert "train: labels by confidence (agreement)" in done.out
    worth = json.loads(again.out)["confidence"]["train"]
    top = worth["thresholds"][-1]
    assert top["at_least"] == 1
    assert top["kept"]["n_right"] == top["kept"]["n"] > 0
    assert top["rest"]["n_right"] < top["rest"]["n"]
    folder = tmp_path / json.loads(again.out)["folder"]
    assert {row.confidence for row in read_annotations(folder / "train.jsonl")} <= {1.0, 0.666667, 0.333333}
    assert "## Confidence" in (folder / "README.md").read_text()
    assert (refused.status, "--votes goes with --confidence agreement" in refused.err) == (2, True)
    loaded = datasets.load_from_disk(str(folder / "dataset"))["train"]
    assert loaded.features["confidence"].dtype == "float64"
    assert [AnnotatedRow(**row) for row in loaded] == read_annotations(folder / "train.jsonl")


# Log-probabilities


def test_log_probabilities_of_the_label_are_stored_and_read(store, tmp_path):
    with ScriptedServer(with_logprobs) as server, hosted(server) as teacher:
        rows = rows_of(asking(teacher, store), job(LOGPROB))
        assert all(body["logprobs"] is True and body["temperature"] == 0 for body in server.bodies)
        assert len(server.bodies) == len(EXAMPLES)
        assert rows_of(asking(teacher, store), job(LOGPROB)) == rows
        assert len(server.bodies) == len(EXAMPLES)
    assert {row.confidence for row in rows} == {round(math.exp(-0.15), 6), round(math.exp(-1.25), 6)}
    assert {row.confidence_kind for row in rows} == {"logprob"}
    assert verify_store(store.path).n_faults == 0
    export_parquet(store, tmp_path / "replies.parquet")
    told = pyarrow.parquet.read_table(tmp_path / "replies.parquet")["token_logprobs"].to_pylist()
    assert all(sum(n for n, _ in json.loads(one)) == len(f"Neutral. {REASON}") for one in told)


def test_a_server_that_tells_no_log_probabilities_is_told_of_once(store, tmp_path):
    lines: list[str] = []
    with ScriptedServer(lambda body, n: Scripted(text="Neutral." if n else "Hm.")) as server, hosted(server) as teacher:
        options = {"on_message": lines.append, "price": PRICE}
        report = run_annotation(job(LOGPROB), asking(teacher, store, **options), tmp_path, Progress(quiet=True))
    rows = read_annotations(Path(report.folder) / "train.jsonl")
    faults = Counter((row.label, row.confidence, row.confidence_kind, row.confidence_error) for row in rows)
    assert faults == {("neutral", None, "", str(ConfidenceFault.NO_LOGPROBS)): 11, (None, None, "", ""): 1}
    (line,) = lines
    assert "11 of 11 labels" in line
    assert "agreement" in line
    assert report.confidence["train"].errors == {str(ConfidenceFault.NO_LOGPROBS): 11}


def test_a_model_that_refuses_log_probabilities_is_asked_without(store):
    def script(body: dict, n: int) -> Scripted:
        if "logprobs" in body:
            return Scripted(400, error="Unsupported parameter: 'logprobs' is not supported with this model.", code="unsupported_parameter")
        return Scripted(text="Neutral.")

    with ScriptedServer(script) as server, hosted(server) as teacher:
        rows = rows_of(asking(teacher, store), job(LOGPROB))
    assert {(row.label, row.confidence_error) for row in rows} == {("neutral", str(ConfidenceFault.NO_LOGPROBS))}


# What stays as it was


def test_without_a_confidence_nothing_changes(store, tmp_path):
    "The same name, the same requests, and lines without a word of it."
    with ScriptedServer(lambda body, n: Scripted(text="Neutral.")) as server, hosted(server) as teacher:
        report = run_annotation(job(None), asking(teacher, store), tmp_path, Progress(quiet=True))
        assert all("logprobs" not in body and body["temperature"] == 0 for body in server.bodies)
    assert "confidence" not in (Path(report.folder) / "train.jsonl").read_text()
    assert "confidence" not in json.loads((Path(report.folder) / "report.json").read_text())
    assert len({job(plan).id for plan in (None, VOTE, LOGPROB, ConfidencePlan(ConfidenceKind.AGREEMENT, 4))}) == 4
    assert job(LOGPROB).id == job(ConfidencePlan(ConfidenceKind.LOGPROB, 9)).id


def test_only_what_is_stored(store, capsys):
    with pytest.raises(JobError, match="no reply of scripted-model"):
        check_any_stored(job(VOTE), asking(StoredTeacher(MODEL), store))
    with ScriptedServer(lambda body, n: Scripted(text="Neutral.")) as server, hosted(server) as teacher:
        announce_job(job(VOTE), asking(teacher, store), Progress())
        rows_of(asking(teacher, store), job(VOTE))
    check_any_stored(job(VOTE), asking(StoredTeacher(MODEL), store))
    announce_job(job(VOTE), asking(StoredTeacher(MODEL), store), Progress())
    said = capsys.readouterr()
    assert "60 questions to scripted-model, none of them stored" in said.out + said.err
    assert "60 questions to scripted-model, all of them stored" in said.out + said.err


def test_stores_of_before_are_read_and_salvaged(tmp_path):
    "A store with superseded replies from before there were log-probabilities, then with them; the salvage tells all of them apart."
    path = Path(__file__).parent / "stores" / "schema_2.sqlite"
    old = tmp_path / "responses.sqlite"
    old.write_bytes(path.read_bytes())
    requests = [Request.build("some-model", [{"role": "user", "content": f"question {n}"}], logprobs=True) for n in range(3)]
    reply = Response(
        "", "Neutral.", "stop", 10, 3, 0.1, 1, "2026-01-01T12:00:00+00:00", "some-model", token_logprobs="[[7, -0.5], [1, 0.0]]"
    )
    with ResponseStore(old) as store:
        assert {response.token_logprobs for response in store.get_many(store_keys(old)).values()} == {None}
        store.put_many((request, replace(reply, key=request.key)) for request in requests)
        cut = Request.build("some-model", [{"role": "user", "content": "cut"}], logprobs=True)
        store.put(cut, replace(reply, key=cut.key, finish_reason="length"))
        store.exchange(wanted=[cut], retry_outcomes=["length"])
        store.exchange([AttemptResult(cut, replace(reply, key=cut.key))], retry_outcomes=["length"])
    assert verify_store(old).n_faults == 0
    salvaged = salvage_store(old, tmp_path / "new.sqlite")
    assert (salvaged.n_responses, salvaged.n_rejected) == (6, 0)
    with ResponseStore(old) as before, ResponseStore(tmp_path / "new.sqlite") as after:
        keys = store_keys(old)
        assert after.get_many(keys) == before.get_many(keys)
        assert sorted(map(str, after.superseded(keys))) == sorted(map(str, before.superseded(keys)))
        assert len(after.superseded(keys)) == 2


def store_keys(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM responses")]


# A real teacher


def test_the_small_teacher_tells_log_probabilities(store):
    with EmbeddedTeacher(lambda: pull(SMALL), SMALL, n_parallel=4) as teacher:
        by_schema = {"say": SAY.model_copy(update={"reply_schema": ("label",)})}
        sampling, rows = {"temperature": 0, "max_tokens": 40}, {"train": EXAMPLES[:6]}
        wanted = job(LOGPROB, templates=by_schema, rows=rows, model=SMALL, sampling=sampling)
        client = TeacherClient(teacher, store, wanted.sampling)
        read = ask_split(wanted, "train", client)
    rows = list(annotated_rows(wanted, "train", read))
    assert all(reply.response.token_logprobs for reply in read.values())
    for reply in read.values():
        lengths = json.loads(reply.response.token_logprobs)
        assert sum(n for n, _ in lengths) == len(reply.response.text.encode())
    assert all(row.label is not None for row in rows)
    assert all(0 < row.confidence < 1 and row.confidence_kind == "logprob" for row in rows)
