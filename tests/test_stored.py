"Stored replies are found: whatever they were asked with, on whichever rows an earlier version drew, under the name of the model that gave them."

import json
import re
import shlex

import pytest
from scripted_server import Scripted, ScriptedServer
from zsd_command import environment, is_one_line, zsd

from zero_shot_distill import Project
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.load import load_examples, sample_examples
from zero_shot_distill.task.task import load_task
from zero_shot_distill.teacher.settings import TeacherSettings, open_teacher

MODEL = ("--model", "some-model")
TASK = ("--task", "pocket_nli")
MIX = (*TASK, "--mix", "one-sentence", "--rows", "8")


def says_neutral(body: dict, n: int) -> Scripted:
    return Scripted(text="Neutral: nobody said so in the premise at all.", prompt_tokens=90, completion_tokens=40)


@pytest.fixture
def asked(tmp_path):
    "A function that runs `zsd`; and what the server was asked."
    with ScriptedServer(says_neutral) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")

        def run(*arguments: str):
            done = zsd(tmp_path, *arguments, env=env)
            assert done.status == 0, done.err
            return done

        run.bodies = server.bodies
        yield run


def test_replies_asked_with_other_sampling_are_used(tmp_path, asked):
    "As after the demonstration, whose file asks for 80 tokens: commands and notebooks that are told nothing find its replies."
    asked("annotate", *MIX, *MODEL, "--sampling", "{max_tokens: 80}")
    assert [body["max_tokens"] for body in asked.bodies] == [80] * 8
    again = asked("annotate", *MIX, *MODEL, "--json")
    assert (json.loads(again.out)["n_rows_left"], len(asked.bodies)) == (0, 8)
    line = "8 of 8 questions are stored with {max_tokens: 80}, where the default is {max_tokens: 120}: {max_tokens: 80} is used; "
    assert line in again.err
    offline = asked("annotate", *MIX, *MODEL, "--offline", "--json")
    assert json.loads(offline.out) | {"notes": []} == json.loads(again.out) | {"notes": []}
    scored = json.loads(asked("evaluate", *TASK, *MODEL, "--json").out)
    assert {id: one["n_rows"] for id, one in scored.items()} == {"one-sentence": 8}
    forecast = json.loads(asked("forecast", *MIX, *MODEL, "--offline", "--json").out)
    assert forecast["n_stored"] == 8
    project = Project("pocket_nli", model="some-model", work_dir=tmp_path / "zsd-work", offline=True)
    assert all(read.response for read in project.ask("one-sentence", n=8))
    assert project.annotate("one-sentence", rows=8, splits="train").report.n_rows_left == 0
    project.close()


def test_sampling_that_was_named_stays_and_the_way_out_is_said(asked):
    asked("annotate", *MIX, *MODEL, "--sampling", "{max_tokens: 80, seed: null}")
    named = asked("annotate", *MIX, *MODEL, "--sampling", "{max_tokens: 90}")
    assert [body["max_tokens"] for body in asked.bodies] == [80] * 8 + [90] * 8
    (line,) = [line for line in named.err.splitlines() if "are not used" in line]
    assert (
        "8 of 8 questions are stored with {max_tokens: 80, seed: null}, and are not used because {max_tokens: 90, seed: 0} is asked for"
        in line
    )
    option = shlex.split(re.search(r"(--sampling '[^']+')", line)[1])
    asked("annotate", *MIX, *MODEL, *option)
    assert len(asked.bodies) == 16


def test_what_was_begun_with_the_default_is_not_left(asked):
    "Some rows are stored with the default, more of them otherwise: the default goes on, and the others are named."
    asked("annotate", *TASK, *MODEL, "--mix", "one-sentence", "--rows", "2")
    asked("annotate", *MIX, *MODEL, "--sampling", "max_tokens: 80")
    done = asked("annotate", *MIX, *MODEL)
    assert [body["max_tokens"] for body in asked.bodies] == [120] * 2 + [80] * 8 + [120] * 6
    assert "6 of 8 questions are stored with {max_tokens: 80}, and are not used" in done.err


def test_offline_nothing_found_leaves_nothing(tmp_path, asked):
    "Neither under the name of another model nor with other parameters is an empty annotation written."
    asked("annotate", *MIX, *MODEL)
    before = sorted((tmp_path / "zsd-work" / "annotations").iterdir())
    other = zsd(tmp_path, "annotate", *MIX, "--model", "other-model", "--offline")
    is_one_line(other, 2, "no reply of other-model to these 8 questions is stored", "replies of some-model are stored")
    named = zsd(tmp_path, "annotate", *MIX, *MODEL, "--offline", "--sampling", "max_tokens: 30")
    assert (named.status, named.out) == (2, "")
    assert "--sampling '{max_tokens: 120}'" in named.err
    assert sorted((tmp_path / "zsd-work" / "annotations").iterdir()) == before


def test_one_row_order(asked):
    "The rows of an experiment are the first that are annotated, and the first of a notebook."
    asked("experiment", *TASK, *MODEL, "--samples", "5", "--templates", "one-sentence")
    done = asked("annotate", *MIX, *MODEL)
    assert len(asked.bodies) == 8
    assert "8 questions to some-model, 5 of them stored" in done.err
    asked("forecast", *MIX, *MODEL, "--pilot", "4")
    assert len(asked.bodies) == 8


def test_the_thesis_s_draw_stays_and_so_do_experiments_that_were_begun_with_it(asked):
    experiment = ("experiment", *TASK, *MODEL, "--samples", "5", "--templates", "one-sentence", "--json")
    published = asked(*experiment, "--published")
    assert len(asked.bodies) == 5
    asked(*experiment, "--profile", "thesis")
    assert len(asked.bodies) == 5
    again = asked(*experiment)
    assert (len(asked.bodies), json.loads(again.out)) == (5, json.loads(published.out))
    assert "rows drawn as the thesis code draws them: 5 questions about them are stored" in again.err
    asked(*experiment, "--seed", "7")
    rows = sample_examples(load_examples(load_task("pocket_nli"), "train"), 5, 7)
    shown = [body["messages"][-1]["content"] for body in asked.bodies[5:]]
    assert len(shown) == 5
    assert all(any(row.fields["hypothesis"] in text for text in shown) for row in rows)


def stored_under(path, *models: str) -> None:
    with ResponseStore(path) as store:
        for model in models:
            request = Request.build(model, [{"role": "user", "content": "?"}], max_tokens=5)
            store.put(request, Response(request.key, "No.", "stop", 5, 2, 0.1, 1, "2026-01-01T00:00:00+00:00", model))


def test_offline_the_weights_that_answered_are_meant(tmp_path):
    "Not those that stand first and could not be had; a file that is gone is known by the name of its replies."
    path = tmp_path / "responses.sqlite"

    def name(settings: TeacherSettings) -> str:
        return open_teacher(settings, Progress(quiet=True), offline=True, store_path=path).teacher.model

    assert name(TeacherSettings()) == "qwen2.5-coder-1.5b-instruct"  # nothing is stored yet
    stored_under(path, "smollm2-135m-instruct", "mine.v1.5@0123456789ab")
    assert name(TeacherSettings()) == "smollm2-135m-instruct"
    stored_under(path, "qwen2.5-coder-1.5b-instruct")
    assert name(TeacherSettings()) == "qwen2.5-coder-1.5b-instruct"
    assert name(TeacherSettings(weights=(str(tmp_path / "mine.v1.5.gguf"),))) == "mine.v1.5@0123456789ab"


def test_offline_a_file_of_ones_own_has_the_name_that_it_was_asked_under(tmp_path):
    file = tmp_path / "mine.v1.5.gguf"
    file.write_bytes(b"GGUF and more")
    settings = TeacherSettings(weights=(str(file),))
    names = [open_teacher(settings, Progress(quiet=True), offline=offline).teacher.model for offline in (False, True)]
    assert names[0] == names[1]
    assert names[0].startswith("mine.v1.5@")


@pytest.mark.parametrize("text", ["max_tokens=80", "80", "[1]", "{a: "])
def test_sampling_that_is_none(tmp_path, text):
    is_one_line(
        zsd(tmp_path, "annotate", *MIX, *MODEL, "--sampling", text), 2, "write names and values, e.g. --sampling '{max_tokens: 80}'"
    )
