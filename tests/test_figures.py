"The report: made from the files of a run, with nothing that a teacher or a user wrote taken for HTML, or refused in one line."

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import matplotlib
import nbformat
import papermill
import pytest
from PIL import Image
from repository import ROOT

import zero_shot_distill
from zero_shot_distill.annotate.rows import read_annotations
from zero_shot_distill.core.definition import DataError
from zero_shot_distill.core.files import write_json
from zero_shot_distill.prompt.replies import mark_reply
from zero_shot_distill.stats.confusion import Confusion
from zero_shot_distill.stats.interval import wilson
from zero_shot_distill.student.config import TrainingConfig
from zero_shot_distill.student.record import RecordsError, RunRecord
from zero_shot_distill.study.drawing import FIGURE_SETTINGS, NotebookFigure, save_figure, titled
from zero_shot_distill.study.figures import accuracy_figure, prompt_figure, training_figure
from zero_shot_distill.study.records import read_run, read_run_info, recorded_run_dir
from zero_shot_distill.study.tables import prompt_rows, student_rows

GOLD = next(f"runs/{run_id}.json" for run_id in read_run_info(recorded_run_dir() / "run.json").runs if run_id.startswith("standard-gold"))
HOSTILE = '<script>alert("&amp;")</script> <img src=x onerror=alert(1)> $x$'


@pytest.fixture(scope="module")
def example() -> Path:
    return recorded_run_dir()


@pytest.fixture
def run_dir(example, tmp_path) -> Path:
    "A copy that a test may spoil."
    return Path(shutil.copytree(example, tmp_path / "run"))


def change(path: Path, **values) -> None:
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | values)


def test_report_shows_foreign_text_as_text(run_dir):
    prompts = json.loads((run_dir / "prompts.json").read_text(encoding="utf-8"))
    for sample in prompts["samples"]:
        sample["example"]["fields"]["premise"] = HOSTILE
        sample["response"]["text"] += HOSTILE
    prompts["samples"][0] |= {"reply": None, "error": f"no response: {HOSTILE}"}
    for template in prompts["templates"].values():
        template["user_message"] += HOSTILE
    change(run_dir / "prompts.json", **prompts)
    teacher = {"model": HOSTILE, "title": HOSTILE, "note": f"at chance {HOSTILE}"}
    usage = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))["usage"] | {"cost_usd": None, "n_uncounted": 3}
    change(run_dir / "run.json", description=HOSTILE, teacher=teacher, usage=usage, price=None, reference=None)

    executed = run_dir / "report.ipynb"
    source = ROOT / "nbs" / "experiments" / "first_look.ipynb"
    papermill.execute_notebook(
        str(source), str(executed), {"run_dir": str(run_dir)}, kernel_name="python3", cwd=str(ROOT), progress_bar=False
    )

    outputs = [output for cell in nbformat.read(executed, 4).cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    page = "\n".join(shown)
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert not any("text/markdown" in output.get("data", {}) for output in outputs)
    assert "About the teacher: at chance" in shown[0]
    assert ">unknown<br>" in page
    assert "(3 replies without counts)" in page
    assert "132 test rows" in shown[-1]
    assert "2 seeds each" in shown[-1]
    assert "At this size" in shown[-1]
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) == 3
    assert all(output["metadata"]["image/png"]["alt"] for output in images)
    for name in ("first_look_accuracy.png", "first_look_prompts.png"):
        with Image.open(run_dir / "figures" / name) as image:
            assert image.width == 1400
            assert round(image.info["dpi"][0]) == 200
        assert (run_dir / "figures" / name).with_suffix(".svg").is_file()


@pytest.mark.parametrize("name", ["run.json", "prompts.json", GOLD, "annotations"])
def test_missing_file_is_named(run_dir, name):
    path = run_dir / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(RecordsError) as caught:
        read_run(run_dir)
    assert str(path) in str(caught.value)
    assert "zsd run" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("run.json", {"teacher": {"model": "m"}}, "teacher.title: is missing"),
        ("run.json", {"usage": None}, "usage: "),
        ("prompts.json", {"winner": "nobody"}, "winner 'nobody'"),
        ("prompts.json", {"selection": "none"}, "selection: "),
        (GOLD, {"method": "magic"}, "method 'magic'"),
        (
            GOLD,
            {"test": {"n": 2, "n_correct": 2, "n_unreadable": 0, "accuracy": 1, "low": 0, "high": 1, "correct": [1, 0]}},
            "do not fit",
        ),
        (
            GOLD,
            {"test": {"n": 1, "n_correct": 1, "n_unreadable": 0, "accuracy": 1, "low": 0, "high": 1, "correct": [1]}},
            "different rows",
        ),
    ],
)
def test_malformed_record_is_named(run_dir, name, values, reason):
    change(run_dir / name, **values)
    with pytest.raises(RecordsError, match=reason) as caught:
        read_run(run_dir)
    assert "\n" not in str(caught.value)


def test_half_a_line_of_annotations_is_named(run_dir):
    path = run_dir / "annotations" / "train.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"id": ', encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.jsonl:131"):
        read_run(run_dir)
    assert len(read_annotations(run_dir / "annotations" / "valid.jsonl")) == 36


def test_record_may_say_more_than_is_read(run_dir):
    change(run_dir / GOLD, versions={"torch": "9"}, fingerprint="abc")
    assert len(read_run(run_dir).students) == 6


def test_agreement_with_the_teacher_is_no_accuracy(run_dir):
    "Two figures with two names; a record of before has the one that its own labels gave."
    old = read_run(run_dir).students
    assert [(one.valid_share("teacher") is None, one.valid_share("gold") is None) for one in old] == [(False, True)] * 4 + [
        (True, False)
    ] * 2
    history = tuple(replace(point, valid_teacher=0.8, valid_gold=0.3) for point in old[0].history)
    shown = student_rows([replace(old[0], history=history)])[0]
    assert shown["teacher agreement (valid)"].startswith("80 %")
    assert shown["gold accuracy (valid)"].startswith("30 %")
    panels = training_figure([replace(old[0], history=history)]).axes
    assert [ax.get_title() for ax in panels[1:]] == ["agreement with teacher,\nvalidation rows, %", "gold accuracy,\nvalidation rows, %"]
    assert [set(ax.lines[0].get_ydata()) for ax in panels[1:]] == [{80.0}, {30.0}]


def test_a_tie_and_the_trivial_answers_are_shown(run_dir):
    "Selection rows that nine in ten times have one label: no template is called the winner, and the table ends with what needs no model."
    prompts = read_run(run_dir).prompts
    uneven = Confusion.of(["bad", "good"], ["bad"] * 14 + ["good"] * 2, ["bad"] * 16)
    tied = replace(
        prompts, tied=("can-we-tell", "fact-and-guess"), selection=tuple(replace(one, confusion=uneven) for one in prompts.selection)
    )
    rows = prompt_rows(tied)
    assert [row["template"] for row in rows[-2:]] == ["always “bad”", "chance"]
    assert (rows[-2]["accuracy"], rows[0]["balanced accuracy"].partition("\n")[0]) == ("88 %\nn 16", "50 %")
    assert any("tied" in row["template"] for row in rows)
    assert prompt_figure(tied).get_suptitle().startswith("A tie")


def test_records_of_other_settings_are_not_mixed_in(run_dir):
    shutil.copy(run_dir / GOLD, run_dir / "runs" / "standard-gold-seed0-of-other-settings.json")
    assert len(read_run(run_dir).students) == 6


def test_a_record_is_written_as_it_is_read(run_dir):
    "Every setting and every figure: what one version wrote, the next reads."
    for student in read_run(run_dir).students:
        written = json.loads(student.write(run_dir / "again").read_text(encoding="utf-8"))
        assert RunRecord.read(run_dir / "again" / f"{student.run_id}.json") == student
        parts = {field.name for field in (*fields(RunRecord), *fields(TrainingConfig)) if field.name != "config"}
        assert parts <= written.keys()


def test_figures_of_old_records_are_the_same(example):
    "Records of the first version, whose counts had other names: nothing is lost, nothing is renamed away."
    renamed = {"n_cut_inputs": "n_truncated_inputs", "n_cut_rationales": "n_truncated_rationales"}
    for student in read_run(example).students:
        old = json.loads((example / "runs" / f"{student.run_id}.json").read_text(encoding="utf-8"))
        new = json.loads(json.dumps(student.as_dict()))
        assert {name: value for name, value in old.pop("test").items() if new["test"][name] != value} == {}
        history = old.pop("history")
        assert [{name: point[name] for name in history[0]} for point in new["history"]] == history
        assert {renamed.get(name, name): value for name, value in old.items()}.items() <= new.items()


def test_overlapping_marks_nest(example):
    sample = next(read for read in read_run(example).prompts.samples if read.reply)
    text = "It is neutral here & now"
    read = replace(
        sample, response=replace(sample.response, text=text), reply=replace(sample.reply, label_span=(6, 13), rationale_span=(0, 24))
    )
    inner = '<mark class="label"><mark class="rationale">neutral</mark></mark>'
    assert mark_reply(read) == f'<mark class="rationale">It is </mark>{inner}<mark class="rationale"> here &amp; now</mark>'


@pytest.mark.parametrize("share", [0, 1])
def test_figures_at_the_ends_of_the_axis(example, share, tmp_path):
    run = read_run(example)
    all_or_none = wilson(share * 132, 132)
    test = replace(
        run.students[0].test,
        n_correct=share * 132,
        correct=(share,) * 132,
        accuracy=float(share),
        low=all_or_none.low,
        high=all_or_none.high,
    )
    figure = accuracy_figure(
        [replace(student, test=test) for student in run.students],
        all_or_none,
        "132 rows",
        {"always “neutral”": 1.0, "chance": 0.02},
        "A long note. " * 30,
    )
    figure.savefig(tmp_path / "accuracy.png")
    assert "not established" in figure.get_suptitle()
    unanswered = replace(run.prompts.confirmation, accuracy=wilson(0, 0), explanation_rate=wilson(0, 0), explained_accuracy=wilson(0, 0))
    prompt_figure(replace(run.prompts, confirmation=unanswered)).savefig(tmp_path / "prompts.png")


@pytest.mark.parametrize("name", [r"$\frac{1}$", "costs $1, not $2", r"$x", r"$\nothing{", "a$b$c"])
def test_a_dollar_sign_in_a_name_is_one(name, tmp_path):
    "Names of templates, models and tasks are anybody's: matplotlib would take them for formulas, and fail where they are none."
    with matplotlib.rc_context(FIGURE_SETTINGS):
        figure = NotebookFigure(figsize=(4, 3))
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], label=name)
        ax.set_yticks([0, 1], [name, name])
        ax.set_xticks([0, 1], [name, name])
        ax.set_title(name)
        ax.set_xlabel(name)
        ax.text(0.5, 0.5, name)
        ax.annotate(name, (0, 0))
        ax.legend(title=name)
        figure.legend()
        titled(figure, name, name)
    save_figure(figure, tmp_path, "one")
    shown = (tmp_path / "one.svg").read_text()
    assert shown.count(f"<!-- {name} -->") == 13


def test_every_figure_shows_names_as_they_are():
    "Each module that makes a figure does so within the common settings, or says of its texts that they are no formulas."
    package = Path(zero_shot_distill.__file__).parent
    makers = [path for path in package.rglob("*.py") if re.search(r"Figure\(figsize|plt\.subplots\(|plt\.figure\(", path.read_text())]
    assert len(makers) > 8
    assert [path.name for path in makers if not re.search(r"rc_context\(FIGURE_SETTINGS\)|parse_math=False", path.read_text())] == []
    assert FIGURE_SETTINGS["text.parse_math"] is False
