"`Project` in a notebook, against a scripted server: ask, score, forecast, annotate; what was paid for once is not paid for again."

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from scripted_server import Scripted, ScriptedServer

from zero_shot_distill import Project, PromptTemplate, ZsdError
from zero_shot_distill.project import named_teacher, recorded_project
from zero_shot_distill.prompt.search_job import OproSettings
from zero_shot_distill.prompt.search_result import PromptSearch
from zero_shot_distill.student.model import make_tiny_t5
from zero_shot_distill.teacher.settings import PriceSettings, TeacherSettings

TEACHER = TeacherSettings(model="scripted-teacher", sampling={"max_tokens": 40}, price=PriceSettings(input=1.0, output=4.0), n_parallel=8)


def says_neutral(body: dict, n: int) -> Scripted:
    return Scripted(text="Neutral. The premise says nothing at all about it.", prompt_tokens=90, completion_tokens=12)


@pytest.fixture
def server(monkeypatch):
    with ScriptedServer(says_neutral) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-scripted")
        yield running


def n_asked(server: ScriptedServer) -> int:
    return server.summary()["attempts"]


def test_ask_score_forecast_annotate_share_their_rows(server, tmp_path):
    zsd = Project("pocket_nli", TEACHER, work_dir=tmp_path)
    replies = zsd.ask("one-sentence", n=5)
    assert [read.reply.label for read in replies] == ["neutral"] * 5
    assert [read.example for read in replies] == zsd.rows(40)[:5]
    assert n_asked(server) == 5
    scores = zsd.score("one-sentence", "can-we-tell", n=10)
    assert n_asked(server) == 20  # of the 20 questions five were stored
    assert scores.frame.set_index("template").loc["one-sentence", "n"] == 10
    forecast = zsd.forecast("one-sentence", rows=20, pilot=10)
    assert n_asked(server) <= 30
    plan = forecast.frame.iloc[0]
    assert plan["cost_usd_low"] <= plan["cost_usd"] <= plan["cost_usd_high"]
    made = zsd.annotate("one-sentence", rows=20, splits="train")
    assert n_asked(server) == 30  # 20 rows with one template, 10 with the other
    assert made.report.usage.cost_usd == pytest.approx(plan["cost_usd"])
    assert made.frame["label"].tolist() == ["neutral"] * 20
    assert (made.folder / "README.md").is_file()
    again = zsd.annotate("one-sentence", rows=20, splits="train")
    assert (again.report.id, n_asked(server)) == (made.report.id, 30)
    zsd.close()


def test_what_is_stored_needs_no_server(server, tmp_path):
    zsd = Project("pocket_nli", TEACHER, work_dir=tmp_path)
    asked = zsd.ask("one-sentence", n=3)
    zsd.close()
    offline = Project("pocket_nli", TEACHER, work_dir=tmp_path, offline=True)
    assert offline.ask("one-sentence", n=3) == asked
    assert [read.reply is None for read in offline.ask("one-sentence", n=4)] == [False, False, False, True]
    assert n_asked(server) == 3
    offline.close()


def test_a_choice_is_raced_and_confirmed_and_asked_once(server, tmp_path):
    zsd = Project("pocket_nli", TEACHER, work_dir=tmp_path)
    chosen = [zsd.select("one-sentence", "can-we-tell", incumbent="can-we-tell", n=8, n_confirmation=20) for _ in range(2)]
    n = chosen[0].selection.n_questions + 2 * chosen[0].confirmation.n_rows
    assert n_asked(server) == n
    assert chosen[0].confirmation.incumbent == "can-we-tell"
    assert chosen[0].chosen == chosen[1].chosen
    assert chosen[0].confirmation.n_rows == 20
    zsd.close()


def test_a_search_is_stopped_read_and_gone_on_with(server, tmp_path):
    "The scripted optimiser writes no prompt in two steps; the search is kept, and the same call asks nothing."
    settings = OproSettings(iterations=2, candidates=2, rows=6)
    zsd = Project("pocket_nli", TEACHER, work_dir=tmp_path)
    search = zsd.search("one-sentence", settings=settings, n_confirmation=20)
    asked = n_asked(server)
    assert (search.incumbent, search.chosen.id) == ("reason-first", "reason-first")
    assert [len(step.tried) for step in search.steps] == [2, 0, 0]
    again = zsd.search("one-sentence", settings=settings, n_confirmation=20)
    assert (n_asked(server), again.folder) == (asked, search.folder)
    assert PromptSearch.read(search.folder).steps == search.steps
    zsd.close()


def test_a_closed_project_opens_again(server, tmp_path):
    zsd = Project("pocket_nli", TEACHER, work_dir=tmp_path)
    for _ in range(2):
        assert len(zsd.ask("one-sentence", n=2)) == 2
        zsd.close()
    assert n_asked(server) == 2


def test_a_changed_way_of_reading_asks_nothing(server, tmp_path):
    zsd = Project("pocket_nli", TEACHER, work_dir=tmp_path)
    question = zsd.templates["one-sentence"].user_message
    zsd.templates["mine"] = PromptTemplate(
        id="mine", user_message=question, reply_pattern=r"the premise says (?P<label>nothing)(?P<rationale>.*)"
    )
    changed = zsd.templates["mine"].model_copy(update={"id": "changed", "reply_pattern": r"(?P<label>neutral)(?P<rationale>.*)"})
    assert [read.reply is None for read in zsd.ask("mine", changed, n=2)] == [True, False, True, False]
    assert n_asked(server) == 2
    zsd.close()


def test_a_budget_is_a_hard_cap_over_calls(server, tmp_path):
    zsd = Project("pocket_nli", TEACHER, work_dir=tmp_path)
    made = zsd.annotate("one-sentence", rows=30, splits="train", budget_usd=0.003)
    assert 0 < made.report.usage.cost_usd <= 0.003
    assert made.report.n_rows_left > 0
    assert "annotate again" in repr(made)
    before = n_asked(server)
    zsd.annotate("one-sentence", rows=30, splits="train", budget_usd=0.003)
    assert n_asked(server) == before
    assert zsd.annotate("one-sentence", rows=30, splits="train", budget_usd=1).report.n_rows_left == 0
    zsd.close()


def test_everything_shows_itself(tmp_path):
    zsd = recorded_project(tmp_path)
    made = zsd.annotate("fact-and-guess", rows=10)
    found = zsd.headroom(n=16)
    for shown in (zsd.templates, zsd.ask("one-sentence", n=2), zsd.score(n=16), found, zsd.forecast("fact-and-guess", rows=60), made):
        assert "zsd" in shown._repr_html_()
        assert "object at 0x" not in repr(shown)
        assert isinstance(shown.frame, pd.DataFrame)
        assert len(shown.frame)
    zsd.close()


def test_recorded_replies_of_the_search_are_whole(tmp_path):
    zsd = recorded_project(tmp_path, "search")
    assert set(zsd.score(n=24).frame["n"]) == {24}
    assert zsd.select(n=8, n_confirmation=14).n_open == 0
    zsd.close()


def test_recorded_replies_are_whole(tmp_path):
    zsd = recorded_project(tmp_path)
    assert set(zsd.score(n=16).frame["n"]) == {16}
    assert zsd.annotate("fact-and-guess", rows=60, splits="train").report.n_rows_left == 0
    assert zsd.annotate("fact-and-guess", rows=20, splits="valid").report.n_rows_left == 0
    zsd.close()


@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        (lambda zsd: zsd.ask("one-sentense"), "no template 'one-sentense'"),
        (lambda zsd: zsd.annotate("one-sentense"), "no template 'one-sentense'"),
        (lambda zsd: zsd.annotate("one-sentence", splits="trian"), "trian"),
        (lambda zsd: zsd.headroom("one-sentense"), "no template 'one-sentense'"),
        (lambda zsd: zsd.select(incumbent="mine"), "no template 'mine' to compare with"),
        (lambda zsd: zsd.select("one-sentence"), "one template"),
        (lambda zsd: zsd.ask(PromptTemplate(id="odd", user_message="{text}", reply_pattern="(?P<label>a)")), "unknown placeholder {text}"),
    ],
)
def test_mistakes_are_one_line(tmp_path, mistake, line):
    zsd = Project("pocket_nli", TEACHER, work_dir=tmp_path, offline=True)
    with pytest.raises(ZsdError, match=line) as raised:
        mistake(zsd)
    assert "\n" not in str(raised.value)
    zsd.close()


def test_who_is_asked(tmp_path):
    file = tmp_path / "teacher.yaml"
    file.write_text("model: some-model\nsampling: {max_tokens: 7}\n")
    assert named_teacher(file).sampling == {"max_tokens": 7}
    assert named_teacher(str(file), "another").model == "another"
    assert named_teacher("smollm2-135m-instruct").weights == ("smollm2-135m-instruct",)
    assert named_teacher("mine.gguf").weights[0].endswith("/mine.gguf")
    with pytest.raises(ZsdError, match="no task 'pocket'"):
        Project("pocket")


def test_a_student_is_trained_asked_and_measured(tmp_path):
    zsd = recorded_project(tmp_path)
    made = zsd.annotate("fact-and-guess", rows=20)
    texts = [text for row in made.rows["train"] for text in (row.input, row.rationale, row.label)]
    weights = make_tiny_t5(tmp_path / "tiny", [*texts, "predict: explain:"])
    student = made.train("step-by-step", seed=0, weights=str(weights), steps=4, eval_every=2, batch_size=4)
    assert student.path.parent == tmp_path / "students"
    assert (student.n_train, student.n_valid) == (20, 20)
    score = student.evaluate()
    assert score.n == len(zsd.rows(split="test"))
    (answer,) = student.predict(["premise: a cat hypothesis: an animal"], explain=True)
    assert answer.rationale is not None
    again = made.train("step-by-step", seed=0, weights=str(weights), steps=4, eval_every=2, batch_size=4)
    assert (again.path, again.created_at) == (student.path, student.created_at)
    other = made.train("standard", seed=1, weights=str(weights), steps=4, eval_every=2, batch_size=4)
    assert other.path != student.path
    opened = zsd.student(student.path.name)
    assert (opened, opened.annotation) == (again, made.id)
    assert opened.evaluate() == score
    assert repr(zsd.student(other.path)) == repr(other)
    with pytest.raises(ZsdError, match="a student of task 'pocket_nli', and this project is about 'esnli'"):
        Project("esnli", work_dir=tmp_path).student(student.path.name)
    zsd.close()


def test_annotating_by_batch(server, tmp_path):
    "The same questions, answered within a day: none is asked one by one."
    zsd = Project("pocket_nli", teacher=TEACHER, work_dir=tmp_path)
    zsd.via = "batch"
    made = zsd.annotate("one-sentence", rows=3, splits="train")
    assert made.report.n_rows_left == 0
    assert server.summary()["batched"] == 3
    zsd.via = "post"
    with pytest.raises(ZsdError, match="via 'post': use chat or batch"):
        zsd.annotate("one-sentence", rows=3, splits="train")
    zsd.close()


@pytest.mark.slow  # the tutorials ask the same teacher in several cells; test_progress.py has the bar
def test_in_a_notebook_the_embedded_teacher_stays_open_and_shows_a_bar(tmp_path):
    "It is loaded once for all cells; a bar says so and then how far it is, and nothing of it is left in the saved notebook."
    cells = [
        f"from zero_shot_distill import Project\nzsd = Project('pocket_nli', teacher='smollm2-135m-instruct', work_dir={str(tmp_path)!r})",
        "zsd.ask('one-sentence', n=2)",
        "before = zsd.opened.teacher.client.base_url\nzsd.ask('one-sentence', n=3)",
        "print(before == zsd.opened.teacher.client.base_url)\nzsd.opened",
        "zsd.close()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    shown = []

    class Watched(NotebookClient):
        def process_message(self, message, cell, place):
            if message["msg_type"] in ("display_data", "update_display_data"):
                shown.append(message["content"]["data"]["text/html"])
            return super().process_message(message, cell, place)

    Watched(notebook, timeout=600, kernel_name="python3").execute()
    assert "asking 1 template on 2 rows 0 of 2 loading the model" in shown[0]
    assert [html for html in shown if "loading" in html] == shown[:1]  # not in the second cell
    _, first, second, same, _ = (cell.outputs for cell in notebook.cells)
    assert same[0]["text"] == "True\n"
    assert "embedded teacher" in same[1]["data"]["text/html"] or "EmbeddedTeacher" in same[1]["data"]["text/html"]
    for outputs in (first, second):
        assert "mark" in outputs[-1]["data"]["text/html"]
        assert [output["data"]["text/html"] for output in outputs[:-1] if output["output_type"] == "display_data"] in ([], [""])
        assert not [output for output in outputs if output["output_type"] == "stream"]
