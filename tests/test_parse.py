"""Replies as JSON: a real small teacher that is held to a schema, and servers that refuse it or ignore it, which say that they are scripted."""

import json
import re
from dataclasses import replace

import pytest
from scripted_server import NAME, Scripted, ScriptedServer

from zero_shot_distill.prompt.collect import collect_replies, requests_for
from zero_shot_distill.prompt.parse import MIN_RATIONALE_WORDS, ParseError, parse_reply
from zero_shot_distill.prompt.replies import ReadReply, mark_reply
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.store.request import Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.study.records import PromptRecord, read_prompts, recorded_run_dir
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task
from zero_shot_distill.teacher.client import AskOptions, TeacherClient
from zero_shot_distill.teacher.embedded import EmbeddedTeacher
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, StoredTeacher
from zero_shot_distill.weights.pull import pull

SMALL = "smollm2-135m-instruct"
TASK = load_task("pocket_nli")
ROWS = load_examples(TASK, "train")[:12]
SAMPLING = {"temperature": 0, "max_tokens": 120, "seed": 0}
PLAIN = PromptTemplate(
    id="plain",
    user_message="Premise: {premise}\nHypothesis: {hypothesis}\nIs this entailment, neutral or contradiction? Explain in one sentence.",
    reply_pattern=r"(?P<label>entailment|neutral|contradiction)\b(?P<rationale>.*)",
)
BY_SCHEMA = PLAIN.model_copy(update={"id": "by-schema", "reply_schema": ("rationale", "label")})
LABEL_FIRST = PLAIN.model_copy(update={"id": "label-first", "reply_schema": ("label", "rationale")})
LABEL_ONLY = PromptTemplate(
    id="label-only", user_message=PLAIN.user_message, reply_pattern="(?P<label>entailment|neutral|contradiction)", reply_schema=("label",)
)
WORDS = f"Neutral, as the {NAME} has read neither sentence."
AS_JSON = json.dumps({"explanation": f"The {NAME} has read neither sentence.", "label": "neutral"})


@pytest.fixture
def store(tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        yield store


def hosted(server: ScriptedServer, **settings) -> HostedTeacher:
    return HostedTeacher("some-model", server.base_url, "sk-scripted", RequestLimits(**{"n_parallel": 4, "n_retries": 0, **settings}))


def asking(server: ScriptedServer, store: ResponseStore, options: AskOptions = AskOptions(), **settings) -> TeacherClient:
    return TeacherClient(hosted(server, **settings), store, SAMPLING, options)


def each_with(*templates: PromptTemplate, rows=ROWS) -> list[tuple[PromptTemplate, object]]:
    return [(template, row) for row in rows for template in templates]


def ways_asked(server: ScriptedServer) -> tuple[int, int]:
    "How many requests came with a schema, and how many without."
    n_by_schema = sum("response_format" in body for body in server.bodies)
    return n_by_schema, len(server.bodies) - n_by_schema


# The real small teacher


@pytest.fixture(scope="module")
def small():
    with EmbeddedTeacher(lambda: pull(SMALL), SMALL, n_parallel=4) as teacher:
        yield teacher


@pytest.mark.parametrize(
    "template", [BY_SCHEMA, pytest.param(LABEL_FIRST, marks=pytest.mark.slow), LABEL_ONLY], ids=lambda template: template.id
)
def test_a_real_teacher_keeps_to_the_schema(template, small, store):
    read = collect_replies(each_with(template, rows=ROWS[:4]), TASK, TeacherClient(small, store, SAMPLING))
    for one in read:
        # A model of this size does not always come to an end; what it wrote until then is in the form.
        assert re.match(rf'\{{\s*"{next(iter(template.reply_keys.values()))}":', one.response.text)
        if one.reply is None:
            assert one.error == "broken JSON (reply cut off)"
        elif one.response.outcome == "complete":
            assert one.read_by == "schema"
            assert list(json.loads(one.response.text)) == list(template.reply_keys.values())
            assert one.reply.label in TASK.labels
            assert one.response.text[slice(*one.reply.label_span)] == one.reply.label
    assert any(one.read_by == "schema" for one in read)
    assert len(store) == 4


# What the JSON looks like


@pytest.mark.parametrize(
    ("text", "label", "n_words"),
    [
        (AS_JSON, "neutral", 6),
        (json.dumps(json.loads(AS_JSON), indent=2), "neutral", 6),
        (f"```json\n{AS_JSON}\n```", "neutral", 6),
        (f"```\n{AS_JSON}", "neutral", 6),
        (f"Sure! Not entailment:\n{AS_JSON}\nI hope this helps.", "neutral", 6),
        ('{"label": "Cannot tell.", "explanation": "one two three four five"}', "neutral", 5),
        ('{"explanation": "one two\nthree four five", "label": "True"}', "entailment", 5),
        ('{"explanation": "one two three four", "label": "neutral"}', "neutral", 0),
        ('{"label": "neutral", "confidence": 0.5}', "neutral", 0),
        ('{"explanation": null, "label": "neutral"}', "neutral", 0),
        ('{"explanation": ["one", "two", "three", "four", "five"], "label": "neutral"}', "neutral", 0),
        (AS_JSON + "\n" + AS_JSON, "neutral", 6),
        ("{'label': 'neutral'}", "neutral", 0),
        ('{"label": ["neutral"]}', "neutral", 0),
    ],
)
def test_json_is_read(text, label, n_words):
    reply = parse_reply(text, BY_SCHEMA, TASK)
    assert (reply.label, len((reply.rationale or "").split()), reply.read_by) == (label, n_words, "schema")
    assert (reply.rationale_span is None) == (n_words < MIN_RATIONALE_WORDS)
    if reply.rationale_span:
        assert text[slice(*reply.rationale_span)].split() == reply.rationale.split()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (AS_JSON[:-1], "broken JSON"),
        (AS_JSON[:20], "broken JSON"),
        (f"```json\n{AS_JSON[:-20]}", "broken JSON"),
        ("{", "broken JSON"),
        ("{}", "JSON without a label"),
        ('{"explanation": "It is neutral."}', "JSON without a label"),
        ('{"label": ["neutral", "entailment"]}', "JSON without a label"),
        ('{"label": 1}', "label not allowed"),
        ('{"label": "neutral", "label": "entailment"}', "more than one label"),
        ('{"label": "unclear"}', "label not allowed"),
        (AS_JSON + "\n" + AS_JSON.replace('"neutral"', '"entailment"'), "more than one JSON object"),
        ('{"label": ' + "[" * 100_000, "broken JSON"),
        ('{"label": ' + "9" * 10_000 + "}", "label not allowed"),
    ],
)
def test_json_that_cannot_be_read_is_not_searched_by_the_pattern(text, reason):
    with pytest.raises(ParseError) as raised:
        parse_reply(text, BY_SCHEMA, TASK)
    assert raised.value.reason == reason


def test_spans_are_exact():
    def read(text):
        reply = parse_reply(text, BY_SCHEMA, TASK)
        return [span and text[slice(*span)] for span in (reply.rationale_span, reply.label_span)]

    quoting = r'{"explanation": "He wrote \"label\": \"entailment\" on the wall", "label": "neutral"}'
    assert read(quoting) == [r"He wrote \"label\": \"entailment\" on the wall", "neutral"]
    nested = '{"more": {"label": "entailment"}, "explanation": "one two three four five", "label": "neutral"}'
    assert read(nested) == ["one two three four five", "neutral"]
    escaped_key = r'{"explanation": "one two three four five", "l\u0061bel": "neutral"}'
    assert read(escaped_key) == ["one two three four five", "neutral"]


def test_a_report_marks_what_was_found():
    text = r'{"explanation": "A \"<b>dog</b>\" is an animal, you know", "l\u0061bel": "neutral"}'
    reply = parse_reply(text, BY_SCHEMA, TASK)
    assert text[slice(*reply.label_span)] == "neutral"
    response = Response("0" * 64, text, "stop", None, None, 0.0, 1, "2025-11-20T09:00:00+00:00", NAME)
    page = mark_reply(ReadReply("by-schema", ROWS[0], response, reply, ""))
    assert r'<mark class="rationale">A \&quot;&lt;b&gt;dog&lt;/b&gt;\&quot; is an animal, you know</mark>' in page
    assert '<mark class="label">neutral</mark>&quot;}' in page


def test_half_a_character_does_not_reach_a_file(tmp_path):
    reply = parse_reply(r'{"explanation": "one two three four five \ud83d", "label": "neutral"}', BY_SCHEMA, TASK)
    (tmp_path / "rationale.txt").write_text(reply.rationale, encoding="utf-8")


def test_a_template_without_a_schema_knows_no_json():
    assert parse_reply(AS_JSON, PLAIN, TASK).read_by == "pattern"


# Servers that refuse a schema, or ignore it


def refusing(body: dict, n: int) -> Scripted:
    if "response_format" in body:
        return Scripted(400, error="Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.")
    return Scripted(text=WORDS)


def test_a_refused_schema_is_asked_plainly_and_never_again(store):
    pairs = each_with(BY_SCHEMA)
    with ScriptedServer(refusing) as server:
        first = collect_replies(pairs, TASK, asking(server, store))
        n_by_schema, n_plain = ways_asked(server)
        assert 1 <= n_by_schema <= 4  # those under way when the first refusal came
        assert n_plain == len(ROWS) == len(store)
        assert {one.read_by for one in first} == {"pattern"}
        assert {one.reply.label for one in first} == {"neutral"}
        again = collect_replies(pairs, TASK, asking(server, store))
        assert again == first
        assert collect_replies(pairs, TASK, TeacherClient(StoredTeacher("some-model"), store, SAMPLING)) == first
        assert len(server.bodies) == n_by_schema + n_plain


def test_rows_that_are_new_try_the_schema_first(store):
    "A refusal is no secret of the model for ever: the same name may stand at a better server tomorrow."
    with ScriptedServer(refusing) as server:
        collect_replies(each_with(BY_SCHEMA, rows=ROWS[:4]), TASK, asking(server, store))
    with ScriptedServer(lambda body, n: Scripted(text=AS_JSON)) as server:
        read = collect_replies(each_with(BY_SCHEMA, rows=ROWS[:6]), TASK, asking(server, store))
        assert ways_asked(server) == (2, 0)
    assert [one.read_by for one in read] == ["pattern"] * 4 + ["schema"] * 2


def test_only_the_refused_rows_are_asked_twice(store):
    with ScriptedServer(refusing) as server:
        read = collect_replies(each_with(PLAIN, BY_SCHEMA, LABEL_ONLY, rows=ROWS[:5]), TASK, asking(server, store))
        n_by_schema, n_plain = ways_asked(server)
        assert n_by_schema <= 4
        assert n_plain == 5 == len(store)  # all three ask the same plain question
    assert len(read) == 15
    assert {one.read_by for one in read} == {"pattern"}


def test_a_template_is_compared_with_itself(store):
    "Plain replies that are stored are no reason to leave out the schema."
    with ScriptedServer(lambda body, n: Scripted(text=AS_JSON if "response_format" in body else WORDS)) as server:
        collect_replies(each_with(PLAIN), TASK, asking(server, store))
        read = collect_replies(each_with(PLAIN, BY_SCHEMA), TASK, asking(server, store))
        assert ways_asked(server) == (12, 12)
    assert [one.read_by for one in read] == ["pattern", "schema"] * 12


def test_a_server_that_ignores_the_schema_is_read_by_the_pattern(store):
    with ScriptedServer(lambda body, n: Scripted(text=WORDS)) as server:
        read = collect_replies(each_with(BY_SCHEMA), TASK, asking(server, store))
        assert ways_asked(server) == (12, 0)
    assert {(one.read_by, one.reply.label) for one in read} == {("pattern", "neutral")}


def test_the_order_of_the_parts_is_sent_as_written_and_survives_the_store(store):
    with ScriptedServer(lambda body, n: Scripted(text=AS_JSON)) as server:
        collect_replies(each_with(BY_SCHEMA, LABEL_FIRST, rows=ROWS[:1]), TASK, asking(server, store, n_parallel=1))
        sent = [list(body["response_format"]["json_schema"]["schema"]["properties"]) for body in server.bodies]
    assert sorted(sent) == [["explanation", "label"], ["label", "rationale"]]
    for template in (BY_SCHEMA, LABEL_FIRST):
        (request, _) = requests_for(template, ROWS[0], TASK, "some-model", SAMPLING)
        (kept,) = store.requests_of([request.key]).values()
        schema = dict(kept.sampling)["response_format"]["json_schema"]["schema"]
        assert list(schema["properties"]) == schema["required"] == list(template.reply_keys.values())


def test_the_fallback_failing_is_a_reason_and_goes_on_later(store):
    broken = True

    def script(body: dict, n: int) -> Scripted:
        if "response_format" not in body and broken and ROWS[0].fields["hypothesis"] in body["messages"][0]["content"]:
            return Scripted(500)
        return refusing(body, n)

    with ScriptedServer(script) as server:
        first, *others = collect_replies(each_with(BY_SCHEMA, rows=ROWS[:4]), TASK, asking(server, store))
        assert (first.error, first.response) == ("no response: HTTP 500: scripted fault", None)
        assert {one.read_by for one in others} == {"pattern"}
        broken, n_before = False, len(server.bodies)
        (first, *_) = collect_replies(each_with(BY_SCHEMA, rows=ROWS[:4]), TASK, asking(server, store))
        assert first.read_by == "pattern"
        assert len(server.bodies) == n_before + 2  # the schema once more, then the plain question


def test_a_plain_reply_that_was_cut_off_is_asked_again_plainly(store):
    finish_reason = "length"

    def script(body: dict, n: int) -> Scripted:
        return replace(refusing(body, n), finish_reason=finish_reason)

    with ScriptedServer(script) as server:
        collect_replies(each_with(BY_SCHEMA, rows=ROWS[:4]), TASK, asking(server, store))
        n_before, finish_reason = len(server.bodies), "stop"
        options = AskOptions(retry_outcomes=frozenset({"length"}))
        read = collect_replies(each_with(BY_SCHEMA, rows=ROWS[:4]), TASK, asking(server, store, options=options))
        assert len(server.bodies) == n_before + 4
    assert {one.response.outcome for one in read} == {"complete"}


# What is no answer


def test_refusals_and_filtered_replies_are_counted_and_not_read(store):
    def script(body: dict, n: int) -> Scripted:
        if ROWS[0].fields["hypothesis"] in body["messages"][0]["content"]:
            return Scripted(text=None, refusal="I'm neutral on this and cannot help.", finish_reason="stop")
        if ROWS[1].fields["hypothesis"] in body["messages"][0]["content"]:
            return Scripted(text="Neutral, because", finish_reason="content_filter")
        return Scripted(text=AS_JSON[:12], finish_reason="length")

    with ScriptedServer(script) as server:
        read = collect_replies(each_with(BY_SCHEMA, rows=ROWS[:3]), TASK, asking(server, store))
    reasons = ["refused by the teacher", "held back by the provider's filter", "broken JSON (reply cut off)"]
    assert [(one.error, one.reply, one.read_by) for one in read] == [(reason, None, "") for reason in reasons]


# Records of earlier versions


def test_what_was_written_before_there_were_schemas_reads_back():
    record: PromptRecord = read_prompts(recorded_run_dir() / "prompts.json")
    assert {template.reply_schema for template in record.templates.values()} == {()}
    sample: ReadReply = record.samples[0]
    assert sample.read_by == "pattern"
