"""How `tests/benchmarks/opro_peers.py` lets another library search: a hand-written stand-in asks as they ask, and a scripted server answers (no teacher wrote its replies)."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Scripted, ScriptedServer
from test_opro import LABEL_OF, answers

from zero_shot_distill.core.definition import ZsdError
from zero_shot_distill.prompt.candidate import Refusal
from zero_shot_distill.prompt.objective import SearchObjective
from zero_shot_distill.prompt.search_job import OproSettings
from zero_shot_distill.prompt.search_result import StopReason
from zero_shot_distill.teacher.settings import TeacherSettings

sys.path.append(str(Path(__file__).parent / "benchmarks"))  # at the end: some benchmarks are named as modules of Python are
import opro
import opro_peers

N_ROWS, N_CONFIRM, N_QUERIES = 4, 6, 75


def script(body: dict[str, Any], n: int) -> Scripted:
    content = body["messages"][-1]["content"]
    if any(premise in content and hypothesis in content for premise, hypothesis in LABEL_OF):
        return answers(body)
    if "response_format" in body:
        return Scripted(
            400,
            error="Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
            param="response_format",
        )
    return Scripted(text=f"Scripted words {body['seed']}", prompt_tokens=30, completion_tokens=4)


def greedy(peer: opro_peers.PeerSearch) -> list[str]:
    "Propose and ask for ever, as a library that takes every error for a bad prompt; name the last ones first."
    texts, n_refused = [], 0
    while n_refused < 5:
        try:
            (words,) = peer.propose([[{"role": "user", "content": f"Proposal {len(texts)}"}]])
            texts.append(f"{words} {{premise}} {{hypothesis}}" if len(texts) % 3 else f"{words} and only {{premise}}")
            peer.ask([(text, row) for row in peer.job.rows.selection[: 1 + len(texts) % 4] for text in (texts[-1], peer.texts[0])])
        except Exception:
            n_refused += 1
    return texts[::-1]


Found = tuple[opro.PromptSearch, dict[str, Any], int]


@pytest.fixture
def searched(tmp_path, monkeypatch) -> Callable[..., Found]:
    "Let a stand-in search; returns what it found, its line of the table, and the number of requests that the server received."
    monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")

    def run(peer: Callable[[opro_peers.PeerSearch], list[str]], n_queries: int = N_QUERIES) -> Found:
        monkeypatch.setitem(opro_peers.PEERS, "stand-in", peer)
        settings = OproSettings(rows=N_ROWS, candidates=2, iterations=10_000, plateau=None)
        with ScriptedServer(script) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
            teacher = TeacherSettings(model="scripted")
            setting = opro.Setting("pocket_nli", teacher, None, settings, SearchObjective(), N_CONFIRM, n_queries, "train", tmp_path)
            found = opro.search(setting, "stand-in", 1)
            assert not isinstance(found, str), found
            return found, opro.line("stand-in", 1, found, setting.objective), len(server.ledger)

    return run


def test_a_peer_is_stopped_at_its_number_of_questions(searched):
    found, line, n_received = searched(greedy)
    assert found.stop is StopReason.BUDGET_QUERIES
    n_search = N_QUERIES - 3 * N_CONFIRM  # the confirmation of three prompts is kept back
    assert found.steps[0].n_questions + found.steps[1].n_questions == n_search, "all of them were used, and no more"
    assert line["queries"] == n_received == n_search + N_CONFIRM * len(found.confirmation.scores) <= N_QUERIES
    assert searched(greedy)[1:] == (line, 0), "the same once more, from the store"


def test_what_a_peer_asks_again_is_not_counted_and_nothing_found_is_no_difference(searched):
    def repeats(peer: opro_peers.PeerSearch) -> list[str]:
        before = peer.n_questions
        for _ in range(50):
            peer.ask([(peer.texts[0], row) for row in peer.job.rows.selection])
        assert (peer.n_questions, peer.is_over) == (before, False)
        return []

    nothing, line, _ = searched(repeats)
    assert nothing.stop is StopReason.EXHAUSTED
    assert line["handed out"] == 0
    assert "difference" not in line
    assert opro.single(line)["best found, confirmed"] == "-" == opro.single(line)["difference"]
    assert opro.summary("stand-in", [line])["confirmed difference of the best found"] == "-"


def test_a_text_that_loses_a_placeholder_is_refused_without_a_question(searched):
    def careless(peer: opro_peers.PeerSearch) -> list[str]:
        before, row = peer.n_questions, peer.job.rows.selection[0]
        asked = peer.ask([("Look at {premise} alone", row), ("Look at {premise} and {conclusion} {hypothesis}", row), ("Look {", row)])
        assert (asked, peer.n_questions) == ([None] * 3, before)
        peer.show(row)
        peer.propose([[{"role": "user", "content": "Mend it"}]])
        quoted = f"{{premise}} {{hypothesis}} as in: {row.fields['premise']}"
        assert peer.ask([(quoted, row)]) == [None], "the optimiser has just been shown this row"
        assert peer.ask([("Just decide with care", row)])[0].response.text, "the row is put below words that show none"
        return ["Look at {premise} alone", quoted, "Just decide with care"]

    found, line, _ = searched(careless)
    refused = [one.refusal for one in found.steps[1].candidates if one.refusal]
    assert refused == [Refusal.MISSING, Refusal.UNKNOWN, Refusal.BRACES, Refusal.EXAMPLE]
    (named,) = found.steps[1].tried
    assert named.template.user_message.startswith("Just decide with care\n\nPremise: {premise}")
    assert set(found.confirmation.scores) == {named.id, found.incumbent}
    assert named.score.n == N_ROWS
    assert line["refused"].startswith("4 of 5")


def test_a_schema_that_the_server_does_not_take_is_left_out_and_nothing_counted_for_it(searched):
    def asks_by_schema(peer: opro_peers.PeerSearch) -> list[str]:
        schema = {"type": "json_schema", "json_schema": {"name": "reply", "schema": {"type": "object"}}}
        for n in (1, 2):
            (said,) = peer.propose([[{"role": "user", "content": "Proposal"}]], schema)
            assert said.startswith("Scripted words")
            assert peer.n_proposals == n
        return []

    _, line, n_received = searched(asks_by_schema)
    assert n_received == line["queries"] + 1, "it is tried once"


def test_it_is_confirmed_on_the_rows_of_our_searches(searched):
    asked = []

    def looks(peer: opro_peers.PeerSearch) -> list[str]:
        asked.append(peer.job.rows)
        return ["Decide with care"]

    found, _, _ = searched(looks)
    ours = opro.draw_contest(opro.load_task("pocket_nli"), N_ROWS, N_CONFIRM, 1, "train")
    assert asked == [ours]
    assert found.about["rows"] == [row.id for row in ours.selection]
    task = opro.load_task("pocket_nli")
    assert found.confirmation.groups == tuple(map(task.group_of, ours.confirmation))


def test_an_error_that_a_library_swallows_is_told(searched):
    def swallows(peer: opro_peers.PeerSearch) -> list[str]:
        peer.optimiser = None  # as a fault in an adapter
        with pytest.raises(AttributeError):
            peer.propose([[]])
        return []

    with pytest.raises(AssertionError, match="stand-in: AttributeError"):
        searched(swallows)


def test_a_library_that_is_missing_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dspy", None)
    monkeypatch.setitem(sys.modules, "promptolution", None)
    for name, package in {"gepa": "dspy", "capo": "promptolution"}.items():
        with pytest.raises(ZsdError, match=f"pip install {package}") as refused:
            opro_peers.PEERS[name](None)
        assert "\n" not in str(refused.value)
