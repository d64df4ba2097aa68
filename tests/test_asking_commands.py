"""`zsd experiment`, `evaluate`, `forecast` and `annotate` as a user has them, against a scripted server that says so."""

import json
import re
import shlex
from pathlib import Path

import pytest
from scripted_server import Scripted, ScriptedServer
from zsd_command import Done, Project, environment, is_one_line, zsd

MODEL = ("--model", "some-model")
PRICES = ("--price-in", "2", "--price-out", "8")
TASK = ("--task", "pocket_nli")
MIX = (*TASK, "--mix", "one-sentence")


def at(server: ScriptedServer) -> dict[str, str]:
    return environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")


def says_neutral(body: dict, n: int) -> Scripted:
    return Scripted(text="Neutral: nobody said so in the premise at all.", prompt_tokens=90, completion_tokens=40)


def test_a_budget_over_three_runs(tmp_path):
    "It stops before the cap, says what is left, spends nothing more under the same cap, and goes on under a higher one."
    with ScriptedServer(says_neutral) as server:

        def annotate(cap: str) -> dict:
            done = zsd(tmp_path, "annotate", *MIX, *MODEL, *PRICES, "--rows", "40", "--budget-usd", cap, "--json", env=at(server))
            report = json.loads(done.out)
            assert done.status == (1 if report["n_rows_left"] else 0), done.err
            return report

        first = annotate("0.01")
        assert 0 < first["n_rows_left"] < 40
        assert first["usage"]["cost_usd"] <= 0.01
        assert first["left_usd"]["value"] == pytest.approx(first["n_rows_left"] * 0.0005)
        left = [json.loads(line) for line in (tmp_path / first["folder"] / "unanswered.jsonl").read_text().splitlines()]
        assert len(left) == first["n_rows_left"]
        assert annotate("0.01")["n_rows_left"] == first["n_rows_left"]
        assert annotate("1")["n_rows_left"] == 0
        assert len(server.bodies) == 40


def test_retry_and_offline(tmp_path):
    outcomes = ["length", "stop"]
    with ScriptedServer(lambda body, n: Scripted(text="Neutral: nobody said so here.", finish_reason=outcomes[0])) as server:
        done = zsd(tmp_path, "annotate", *MIX, *MODEL, "--rows", "5", env=at(server))
        assert "not complete: 5 length; `--retry length` asks for these again" in done.out, done.err
        outcomes.pop(0)
        again = zsd(tmp_path, "annotate", *MIX, *MODEL, "--rows", "5", "--retry", "length,refused", "--json", env=at(server))
        assert json.loads(again.out)["outcomes"] == {"complete": 5}
        assert len(server.bodies) == 10
    offline = zsd(tmp_path, "annotate", *MIX, *MODEL, "--rows", "7", "--offline")
    assert offline.status == 1
    assert "2 rows are left; without --offline the same command asks for them (" in offline.out


def test_the_report_says_what_was_done_otherwise(tmp_path):
    with ScriptedServer(says_neutral, refuses=("max_tokens", "temperature")) as server:
        done = zsd(tmp_path, "annotate", *MIX, *MODEL, "--rows", "4", "--json", "--quiet", env=at(server))
    assert [note.partition(": ")[2] for note in json.loads(done.out)["notes"]] == [
        "the model takes no max_tokens: sent as max_completion_tokens",
        "the model takes no temperature: left out",
    ]


def test_a_forecast_is_reused(tmp_path):
    with ScriptedServer(says_neutral) as server:
        forecast = ("forecast", *MIX, *MODEL, *PRICES, "--rows", "60", "--pilot", "10", "--json")
        made = json.loads(zsd(tmp_path, *forecast, env=at(server)).out)
        assert len(server.bodies) == 10
        assert made["plan"]["cost_usd"]["value"] == pytest.approx(60 * 0.0005)
        assert {other["name"].split(",")[0] for other in made["others"]} >= {"few-shot", "by the provider's batch"}
        done = zsd(tmp_path, "annotate", *MIX, *MODEL, *PRICES, "--rows", "60", "--json", env=at(server))
        assert (json.loads(done.out)["usage"]["cost_usd"], len(server.bodies)) == (pytest.approx(0.03), 60)


def test_an_unknown_price_is_unknown(tmp_path):
    with ScriptedServer(says_neutral) as server:
        done = zsd(tmp_path, "forecast", *MIX, *MODEL, "--rows", "20", "--pilot", "5", env=at(server))
        assert "still to be paid: unknown; give --price-in and --price-out" in done.out, done.err
        assert "\nNext: zsd annotate with the same options" in done.out
        done = zsd(tmp_path, "experiment", *MIX[:2], *MODEL, "--samples", "5", "--templates", MIX[3], env=at(server))
        assert "costs: unknown; give --price-in and --price-out (US dollars for a million tokens); figures" in done.out, done.err
        done = zsd(tmp_path, "annotate", *MIX, *MODEL, "--rows", "5", env=at(server))
        assert "cost unknown" in done.out
        refused = zsd(tmp_path, "annotate", *MIX, *MODEL, "--rows", "6", "--budget-usd", "1", env=at(server))
        is_one_line(refused, 2, "the teacher's price is not known", "--price-in and --price-out")


def test_a_task_without_templates(tmp_path):
    Project(tmp_path).write()
    done = zsd(tmp_path, "templates", "my_task.yaml")
    assert (done.status, done.err) == (0, "")
    assert "Starter templates: the task has none of its own. To change them: zsd templates my_task.yaml new" in done.out


def test_experiment_then_evaluate(tmp_path):
    options = (*TASK, *MODEL, *PRICES, "--samples", "6", "--templates", "one-sentence,can-we-tell", "--json")
    with ScriptedServer(says_neutral) as server:
        done = zsd(tmp_path, "experiment", *options, env=at(server))
        assert (done.status, len(server.bodies)) == (0, 12), done.err
        scores = json.loads(done.out)
        assert list(scores) == ["one-sentence", "can-we-tell"]
        first = scores["one-sentence"]
        assert (first["n_rows"], first["intervals"]["explanation_rate"]["value"]) == (6, 1.0)
        assert first["performance"]["n_correct"] + first["performance"]["n_wrong"] == 6
        assert first["costs"]["total_accumulated_costs"] == pytest.approx(6 * 0.0005)
        again = zsd(tmp_path, "evaluate", *options)
        assert (again.status, json.loads(again.out)) == (0, scores)
        assert list(json.loads(zsd(tmp_path, "evaluate", *TASK, *MODEL, "--json").out)) == list(scores)  # of all rows: what is stored
        shown = zsd(tmp_path, "evaluate", *options[:-1], env=environment(COLUMNS="110"))
        # Both say the same of every row, so neither has won.
        assert "a tie: one-sentence and can-we-tell have the same accuracy with explanation and the same accuracy" in shown.out
        assert "best (" not in shown.out
        assert re.search(r"always “\w+” +\d+ %", shown.out)
        assert re.search(r"(?m)^chance +33 %", shown.out)


def test_no_reply_could_be_read(tmp_path):
    "No template is best where none got a row right."
    with ScriptedServer(lambda body, n: Scripted(text="Who knows?")) as server:
        done = zsd(tmp_path, "experiment", *TASK, *MODEL, "--samples", "4", "--templates", "one-sentence,can-we-tell", env=at(server))
    assert done.status == 0, done.err
    assert done.out.count("no label was read in any of 4 replies") == 2
    assert "none is best" in done.out
    assert "best (" not in done.out


def test_annotate_shows_what_the_teacher_did_by_label(tmp_path):
    "A teacher that says one word to everything: its counts by label, the trivial answers, and one warning for each fault."
    with ScriptedServer(lambda body, n: Scripted(text="Neutral.")) as server:
        done = zsd(tmp_path, "annotate", *MIX, *MODEL, "--rows", "24", env=at(server) | {"COLUMNS": "80"})
    assert done.status == 0, done.err
    n_neutral = int(re.search(r"(?m)^neutral +0 +(\d+) +0 +0 +100 %", done.out)[1])
    assert f"WARNING: 24 of 24 labels are “neutral”, the gold label of {n_neutral} of 24 rows" in done.out
    assert "WARNING: none of 24 replies has a rationale" in done.out
    assert re.search(r"(?m)^always “\w+”", done.out)
    card = next((tmp_path / "zsd-work" / "annotations").glob("*/README.md")).read_text(encoding="utf-8")
    faults = card.split("## Known faults")[1].split()
    assert " ".join(faults[:8]) == "- 24 of 24 labels are “neutral”, the"
    assert "Without a teacher: always “" in card


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (("annotate", *TASK, "--mix", "nope"), 2, ["no template 'nope'; known: one-sentence"]),
        (("annotate", *MIX, *MODEL), 2, ["no key for the teacher"]),
        (("annotate", *MIX, "--retry", "lenght"), 2, ["--retry lenght: use length, refused"]),
        (("annotate", *MIX, "--via", "fax"), 2, ["use chat or batch"]),
        (("annotate", *MIX, *MODEL, "--price-in", "1"), 2, ["give --price-in and --price-out together"]),
        (("annotate", *MIX, *MODEL, "--offline", "--splits", "nope"), 2, ["has no split 'nope'"]),
        (("annotate", *MIX, "--teacher", "nope.yaml"), 2, ["nope.yaml: no such file"]),
        (("experiment", *TASK, *MODEL, "--templates", "nope"), 2, ["no template 'nope'"]),
        (("experiment", *TASK, *MODEL, "--samples", "9999"), 2, ["9999 rows asked for, only 240 there"]),
        (("forecast", *MIX, *MODEL, "--offline"), 1, ["two are needed"]),
        (("store", "verify", "--store", "nope.sqlite"), 2, ["nope.sqlite: no such file"]),
        (("import-thesis", "nope"), 2, ["nope: no such file or folder"]),
    ],
)
def test_mistakes(tmp_path: Path, arguments, status, parts):
    is_one_line(zsd(tmp_path, *arguments), status, *parts)


@pytest.mark.parametrize(
    "arguments",
    [
        ("annotate", *TASK, "--mix", "nope"),
        ("annotate", *MIX, "--splits", "nope"),
        ("annotate", *MIX, "--explanation-rate", "0.5", "--explanation-rate-of-existing", "0.5"),
        ("forecast", *TASK, "--mix", "nope"),
        ("forecast", *MIX, "--splits", "train,valid"),
        ("experiment", *TASK, "--templates", "nope"),
        ("experiment", *TASK, "--samples", "9999"),
        ("select", *TASK, "--templates", "nope"),
        ("select", *TASK, "--samples", "9999"),
        ("opro", *TASK, "--templates", "nope"),
        ("opro", *TASK, "--samples", "9999"),
    ],
)
def test_a_mistake_is_told_before_weights_are_fetched(tmp_path, arguments):
    done = zsd(tmp_path, *arguments, env=environment(ZSD_CACHE=str(tmp_path / "cache")))
    is_one_line(done, 2)
    assert not (tmp_path / "cache").exists()


def named_next(done: Done) -> list[str]:
    "Take the command that the last lines of another one name for reading the replies."
    (command,) = re.findall(r"(?:Next:|^     ) zsd (explore .*) shows the replies", done.out, re.MULTILINE)
    return shlex.split(command)


@pytest.mark.parametrize(
    ("command", "n_rows", "n_replies"),
    [
        (("experiment", *TASK, "--samples", "5", "--seed", "3", "--templates", "one-sentence,can-we-tell"), 5, 10),
        (("select", *TASK, "--samples", "4", "--confirm-rows", "20", "--templates", "one-sentence,can-we-tell"), None, None),
        (("annotate", *MIX, "--splits", "train,valid", "--rows", "6", "--confidence", "agreement", "--votes", "2"), 12, 24),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_the_replies_are_read_by_the_command_that_is_named(tmp_path, command, n_rows, n_replies):
    "With another model, work directory and seed, and where no two commands draw the same rows."
    with ScriptedServer(says_neutral) as server:
        done = zsd(tmp_path, *command, *MODEL, "--work-dir", "my work", env=at(server))
    assert done.status == 0, done.err
    explored = zsd(tmp_path, *named_next(done), "--json")
    assert explored.status == 0, explored.err
    shown = json.loads(explored.out)
    n_shown = len({one["row"] for one in shown})
    assert n_shown == n_rows if n_rows else 20 < n_shown <= 24  # a race may end early
    assert n_replies in (None, len(shown))
    assert all(one["text"] for one in shown)
    if command[0] == "annotate":  # what the user says of the price counts here, too
        priced = zsd(tmp_path, *named_next(done), *MODEL, *PRICES, "--json")
        assert [one["cost"] for one in json.loads(priced.out)] == pytest.approx([0.0005] * n_replies)
