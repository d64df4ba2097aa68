"""Replies in any number: asked at once, read and kept a part at a time, the same as all together; memory does not grow with their words."""

import gc
import tracemalloc
from dataclasses import replace
from functools import partial

import pytest
from scripted_server import Scripted, ScriptedServer

from zero_shot_distill.annotate.asked import AskedReplies
from zero_shot_distill.annotate.confidence import ConfidencePlan
from zero_shot_distill.annotate.job import Annotation, AnnotationJob, ask_split, run_annotation
from zero_shot_distill.annotate.plan import ExplanationRate
from zero_shot_distill.annotate.report import AnnotationReport
from zero_shot_distill.core.definition import ZsdError
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.prompt.collect import collect_replies, imported_for, missing_ways, read_replies, requests_for
from zero_shot_distill.prompt.mix import PromptMix
from zero_shot_distill.prompt.parse import Reply
from zero_shot_distill.prompt.replies import ReadFault, ReadReply, read_each
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.store.request import AttemptResult, Request, Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import Example, load_task
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.completion import SCHEMA_REFUSED, ErrorKind
from zero_shot_distill.teacher.options import AskOptions
from zero_shot_distill.teacher.request_queue import RequestQueue
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, StoredTeacher

MODEL = "scripted-model"
SAMPLING = {"temperature": 0, "max_tokens": 60}
TASK = load_task("pocket_nli")
ROWS = load_examples(TASK, "train")[:23]
PLAIN = PromptTemplate(id="plain", user_message="{premise} {hypothesis} One word, and why.", read="label-first")
BY_SCHEMA = PLAIN.model_copy(
    update={"id": "by-schema", "user_message": "{premise} {hypothesis} Label and reason.", "reply_schema": ("label", "rationale")}
)
NEEDS_MORE = PLAIN.model_copy(update={"id": "needs-more", "user_message": "{premise} {note}"})
PAIRS = [(template, row) for row in ROWS for template in (PLAIN, BY_SCHEMA, NEEDS_MORE)]


def scripted(body: dict, n: int) -> Scripted:
    "One question in seven is answered with nothing that can be read, one in eleven is never answered."
    number = sum(body["messages"][-1]["content"].encode())
    if number % 11 == 0:
        return Scripted(status=400, error="scripted: not this one")
    return Scripted(text="It depends." if number % 7 == 0 else f"Neutral, because nobody has said so {number} times.")


@pytest.fixture
def server():
    with ScriptedServer(scripted, refuses=["response_format"]) as server:
        yield server


def blocks_of(n: int, monkeypatch) -> None:
    for name in ("prompt.collect._N_BLOCK", "teacher.request_queue._N_LOOKED_UP", "annotate.job._N_BLOCK", "store.store._KEYS_A_QUERY"):
        monkeypatch.setattr(f"zero_shot_distill.{name}", n)


def asked_in(folder, server: ScriptedServer, pairs=PAIRS, **options) -> list[ReadReply]:
    with HostedTeacher(MODEL, server.base_url, "sk-x") as teacher, ResponseStore(folder / "responses.sqlite") as store:
        return list(collect_replies(pairs, TASK, TeacherClient(teacher, store, SAMPLING, AskOptions(**options))))


def told(replies: list[ReadReply]) -> list[tuple]:
    return [(one.template_id, one.example.id, one.reply, one.error, one.fault, one.response and one.response.text) for one in replies]


@pytest.mark.parametrize("n", [1, 4, 7, 1000])
def test_replies_are_the_same_in_blocks(n, server, monkeypatch, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = asked_in(tmp_path / "whole", server)
    n_asked = len(server.bodies)
    blocks_of(n, monkeypatch)
    parts = asked_in(tmp_path / "parts", server)
    assert told(parts) == told(whole)
    assert {one.fault for one in whole} > {None, ReadFault.NO_RESPONSE, ReadFault.NO_LABEL}
    assert len(server.bodies) - n_asked <= n_asked + 1, "a server that takes no schema is not asked by one again and again"
    n_asked = len(server.bodies)
    with ResponseStore(tmp_path / "parts" / "responses.sqlite") as store:
        nobody = TeacherClient(StoredTeacher(MODEL), store, SAMPLING)
        again = collect_replies(PAIRS, TASK, nobody)
        left = list(missing_ways(((*pair, {}) for pair in PAIRS), TASK, nobody))
    assert len(server.bodies) == n_asked
    assert [one.response for one in again] == [one.response for one in parts]
    assert len(left) == sum(one.is_open for one in parts)


def test_a_reply_that_is_asked_for_once_more_is_the_new_one(server, monkeypatch, tmp_path):
    blocks_of(3, monkeypatch)
    server.script = lambda body, n: Scripted(text="Neutral, because it was cut", finish_reason="length")
    pairs = [(PLAIN, row) for row in ROWS]
    asked_in(tmp_path, server, pairs)
    server.script = lambda body, n: Scripted(text="Neutral, because it is whole")
    again = asked_in(tmp_path, server, pairs, retry_outcomes=frozenset({"length"}))
    assert {one.response.outcome for one in again} == {"complete"}
    assert [one.response.text for one in asked_in(tmp_path, server, pairs)] == [one.response.text for one in again]


def test_questions_that_were_plain_from_the_start_are_not_asked_again_where_a_schema_is_refused(server, tmp_path):
    "Replies that were cut are asked for once more, once."
    server.script = lambda body, n: Scripted(text="Neutral, because it was cut", finish_reason="length")
    asked_in(tmp_path, server, [(PLAIN, row) for row in ROWS[:4]])
    server.bodies.clear()
    pairs = [*((PLAIN, row) for row in ROWS[:4]), *((BY_SCHEMA, row) for row in ROWS[4:6])]
    asked_in(tmp_path, server, pairs, retry_outcomes=frozenset({"length"}))
    plain = [body["messages"][-1]["content"] for body in server.bodies if "response_format" not in body]
    assert len(plain) == len(set(plain)) == 6


def test_imported_replies_show_that_the_teacher_answers(server, tmp_path):
    "Rows that the provider refuses do not end an annotation whose other replies were taken over from elsewhere."
    server.script = lambda body, n: Scripted(status=400, error="scripted: not this one")
    template = PLAIN.model_copy(update={"imported": True})
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for row in ROWS[:20]:
            request, _ = imported_for(template, row, MODEL)
            store.put(request, replace(response_of(request, "Neutral, because nobody has said so."), via="import"))
    replies = asked_in(tmp_path, server, [(template, row) for row in ROWS])
    assert [one.fault for one in replies] == [None] * 20 + [ReadFault.NO_RESPONSE] * 3


def refused(store: ResponseStore, row: Example) -> None:
    "Note that the server did not take the schema of this question."
    by_schema, _ = requests_for(BY_SCHEMA, row, TASK, MODEL, SAMPLING)
    store.exchange(wanted=[by_schema])
    store.exchange([AttemptResult(by_schema, None, SCHEMA_REFUSED, charged=False, failure_kind=ErrorKind.SCHEMA)])


def put_plain(store: ResponseStore, row: Example) -> None:
    "Store a reply to the plain form of a question by schema."
    (_, request) = requests_for(BY_SCHEMA, row, TASK, MODEL, SAMPLING)
    store.put(request, response_of(request, "Neutral, because nobody has said so."))


@pytest.mark.parametrize("n", [2, 1000])
@pytest.mark.parametrize("place", [0, 5])
def test_a_schema_that_is_known_to_be_refused_is_known_in_all_blocks(place, n, monkeypatch, tmp_path):
    blocks_of(n, monkeypatch)
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for row in ROWS[:6]:
            put_plain(store, row)
        refused(store, ROWS[place])
        nobody = TeacherClient(StoredTeacher(MODEL), store, SAMPLING)
        assert [one.error for one in collect_replies([(BY_SCHEMA, row) for row in ROWS[:6]], TASK, nobody)] == [""] * 6


@pytest.mark.parametrize("n", [2, 1000])
def test_what_was_asked_is_read_though_the_server_takes_the_schema_now(n, monkeypatch, tmp_path):
    "The first question is asked by schema, which the server takes by now; the plain replies to the others count still."
    blocks_of(n, monkeypatch)
    with ScriptedServer(lambda body, n: Scripted(text='{"label": "neutral", "rationale": "so it is"}')) as server:
        with ResponseStore(tmp_path / "responses.sqlite") as store:
            refused(store, ROWS[0])
            for row in ROWS[1:6]:
                put_plain(store, row)
        replies = asked_in(tmp_path, server, [(BY_SCHEMA, row) for row in ROWS[:6]])
    assert [one.error for one in replies] == [""] * 6
    assert [one.read_by for one in replies] == ["schema"] + ["label-first"] * 5
    assert len(server.bodies) == 1


def test_a_rationale_counts_though_a_vote_is_missing(tmp_path):
    "Of ten rows five keep a rationale, also where another vote may still come."
    rows, confidence = ROWS[:10], ConfidencePlan("agreement", 3)
    rate = ExplanationRate(0.5)
    job = AnnotationJob(TASK, {"train": rows}, {"plain": PLAIN}, PromptMix.single("plain"), MODEL, SAMPLING, rate, confidence=confidence)
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for number, row in enumerate(rows):
            for change in confidence.changes(SAMPLING, row.id)[: 2 if number < 6 else 3]:
                put(store, PLAIN, row, "Neutral, because nobody has said so.", **change)
        report = run_annotation(job, TeacherClient(StoredTeacher(MODEL), store, SAMPLING), tmp_path, Progress(quiet=True))
    assert (report.splits["train"].n_rationales, report.n_rows_left) == (5, 6)


def test_a_report_is_of_the_replies_that_are_stored(tmp_path):
    "The same rows in two splits: what the second asked for once more is what both count."
    job = AnnotationJob(TASK, {"train": ROWS[:3], "test": ROWS[:3]}, {"plain": PLAIN}, PromptMix.single("plain"), MODEL, SAMPLING)
    with ScriptedServer(lambda body, n: Scripted(text="Neutral, because", finish_reason="length" if n < 6 else "stop")) as server:
        asked_in(tmp_path, server, [(PLAIN, row) for row in ROWS[:3]])
        with HostedTeacher(MODEL, server.base_url, "sk-x") as teacher, ResponseStore(tmp_path / "responses.sqlite") as store:
            client = TeacherClient(teacher, store, SAMPLING, AskOptions(retry_outcomes=frozenset({"length"})))
            report = run_annotation(job, client, tmp_path, Progress(quiet=True))
    assert (report.outcomes, report.usage.n_responses) == ({"complete": 3}, 3)


def test_a_pattern_that_takes_too_long_is_given_up_whatever_the_blocks(monkeypatch, tmp_path):
    blocks_of(2, monkeypatch)
    monkeypatch.setattr("zero_shot_distill.prompt.collect.read_each", partial(read_each, timeout_s=0.05))
    slow = PromptTemplate(id="slow", user_message="{premise} {hypothesis}", reply_pattern=r"(?P<label>(a|aa)+)$")
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for row in ROWS[:9]:
            put(store, slow, row, "a" * 60 + "b")
        replies = collect_replies([(slow, row) for row in ROWS[:9]], TASK, TeacherClient(StoredTeacher(MODEL), store, SAMPLING))
    assert [one.fault for one in replies] == [ReadFault.TIMED_OUT] * 5 + [ReadFault.NOT_TRIED] * 4


def response_of(request: Request, text: str) -> Response:
    return Response(request.key, text, "stop", 10, 5, 0.1, 1, "2026-01-01T00:00:00+00:00", MODEL)


def put(store: ResponseStore, template: PromptTemplate, row: Example, text: str, **change) -> None:
    (request,) = requests_for(template, row, TASK, MODEL, {**SAMPLING, **change})
    store.put(request, response_of(request, text))


def annotated(job: AnnotationJob, store: ResponseStore, folder) -> tuple[AnnotationReport, float]:
    "Annotate from the store; the second is the peak of memory in MB."
    gc.collect()
    tracemalloc.start()
    try:
        report = run_annotation(job, TeacherClient(StoredTeacher(MODEL), store, SAMPLING), folder, Progress(quiet=True))
        return report, tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def peak_of(folder, n: int, confidence: ConfidencePlan | None) -> float:  # MB
    "Annotate so many rows from the store, each reply with 40,000 letters."
    rows = ROWS[:n]
    job = AnnotationJob(TASK, {"train": rows}, {"plain": PLAIN}, PromptMix.single("plain"), MODEL, SAMPLING, confidence=confidence)
    folder.mkdir()
    with ResponseStore(folder / "responses.sqlite") as store:
        for row in rows:
            for change in confidence.changes(SAMPLING, row.id) if confidence else [{}]:
                put(store, PLAIN, row, "Neutral. " + "Nobody has said so. " * 2_000, **change)
        report, peak = annotated(job, store, folder)
    assert (report.splits["train"].n_labels, report.splits["train"].n_rationales, report.n_rows_left) == (n, n, 0)
    assert [row.label for row in Annotation.open(folder / "annotations" / job.id).rows["train"]] == ["neutral"] * n
    assert {path.name for path in folder.iterdir()} == {"responses.sqlite", "annotations"}, "what was put aside is gone"
    return peak


@pytest.mark.parametrize("confidence", [None, ConfidencePlan("agreement", 3)])
def test_memory_does_not_grow_with_the_words_of_the_replies(confidence, monkeypatch, tmp_path):
    blocks_of(2, monkeypatch)
    monkeypatch.setattr("zero_shot_distill.annotate.asked._IN_MEMORY", 2**16)
    peak_of(tmp_path / "warm", 2, confidence)  # imports count, too
    few, many = (peak_of(tmp_path / str(n), n, confidence) for n in (5, 20))
    assert many < few + 0.5, f"{few:.1f} MB with 5 rows, {many:.1f} with 20"


def memory_of_questions(folder, n: int) -> float:  # MB
    "Annotate rows of a few words from a store that holds a short reply to each."
    rows = [Example(f"row {number}", {"premise": f"{number} dogs bark.", "hypothesis": "It is loud."}, None, None) for number in range(n)]
    job = AnnotationJob(TASK, {"train": rows}, {"plain": PLAIN}, PromptMix.single("plain"), MODEL, SAMPLING)
    folder.mkdir()
    with ResponseStore(folder / "responses.sqlite") as store:
        asked = (requests_for(PLAIN, row, TASK, MODEL, SAMPLING)[0] for row in rows)
        store.put_many((request, response_of(request, "Neutral, because nobody counted.")) for request in asked)
        report, peak = annotated(job, store, folder)
    assert (report.splits["train"].n_labels, report.n_rows_left) == (n, 0)
    return peak


def test_a_question_takes_a_fraction_of_a_kilobyte(monkeypatch, tmp_path):
    blocks_of(50, monkeypatch)
    monkeypatch.setattr("zero_shot_distill.annotate.asked._IN_MEMORY", 2**16)
    memory_of_questions(tmp_path / "warm", 20)  # imports count, too
    few, many = (memory_of_questions(tmp_path / str(n), n) for n in (500, 2_500))
    assert (many - few) * 1e6 / 2_000 < 450, f"{(many - few) * 1e6 / 2_000:.0f} bytes a question"


def test_an_iterator_of_requests_is_asked_as_a_list_is(server, tmp_path):
    server.script = lambda body, n: Scripted(text="Neutral, because nobody has said so.")
    with (
        HostedTeacher(MODEL, server.base_url, "sk-x") as teacher,
        ResponseStore(tmp_path / "responses.sqlite") as store,
    ):
        requests = (requests_for(PLAIN, row, TASK, MODEL, SAMPLING)[0] for row in ROWS)
        assert TeacherClient(teacher, store, SAMPLING).settle(requests).n_asked == len(server.bodies) == len(ROWS)


def test_questions_that_wait_are_not_held(server, monkeypatch, tmp_path):
    blocks_of(2, monkeypatch)
    monkeypatch.setattr(RequestQueue, "_N_BLOCK", 2)
    n_held = []

    def scripted_and_counted(body: dict, n: int) -> Scripted:
        n_held.append(sum("aardvarks" in str(one.messages) for one in gc.get_objects() if isinstance(one, Request)))  # of this test
        return Scripted(text="Neutral, because nobody has said so.")

    server.script = scripted_and_counted
    rows = [Example(str(number), {"premise": f"{number} aardvarks", "hypothesis": "cats"}, None, None) for number in range(100)]
    with (
        HostedTeacher(MODEL, server.base_url, "sk-x", RequestLimits(n_parallel=2)) as teacher,
        ResponseStore(tmp_path / "responses.sqlite") as store,
    ):
        replies = list(read_replies([(PLAIN, row, {}) for row in rows], TASK, TeacherClient(teacher, store, SAMPLING)))
    assert {reply.reply.label for reply in replies} == {"neutral"}
    assert (len(n_held), max(n_held) < 50) == (100, True), f"{max(n_held)} of 100 requests at once"


def test_replies_on_the_disk_are_those_that_were_put_there(monkeypatch, tmp_path):
    monkeypatch.setattr("zero_shot_distill.annotate.asked._IN_MEMORY", 100)
    rows = [Example(str(number), {"text": "x"}, None, None) for number in range(50)]
    replies = {
        ("ask", number): ReadReply("ask", row, None, Reply(f"yes {number} \ud800", "so" * number, None, None), "")
        for number, row in enumerate(rows)
    }
    with AskedReplies(rows, tmp_path) as asked:
        asked.add(replies.items())
        assert dict(asked) == replies
        assert all(asked["ask", number].example is row for number, row in enumerate(rows))


def test_a_fault_of_the_asking_is_not_told_as_one_of_the_file(tmp_path):
    def replies():
        yield ("ask", 0), ReadReply("ask", ROWS[0], None, Reply("yes", None, None, None), "")
        raise ConnectionResetError("the teacher went away")

    with AskedReplies(ROWS, tmp_path) as asked, pytest.raises(ConnectionResetError, match="went away"):
        asked.add(replies())


def test_no_room_for_the_replies_is_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("zero_shot_distill.annotate.asked._IN_MEMORY", 1000)
    job = AnnotationJob(TASK, {"train": ROWS}, {"plain": PLAIN}, PromptMix.single("plain"), MODEL, SAMPLING)
    monkeypatch.setattr("zero_shot_distill.annotate.job._scratch", lambda _: tmp_path / "gone")
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for row in ROWS:
            put(store, PLAIN, row, "Neutral. " + "Nobody has said so. " * 100)
        with pytest.raises(
            ZsdError, match=r"gone: the replies cannot be put aside .*; see that there is room and write access, and run"
        ) as caught:
            ask_split(job, "train", TeacherClient(StoredTeacher(MODEL), store, SAMPLING))
    assert "\n" not in str(caught.value)
