"Claims: what is decided by trained students, what is not, and what texts may therefore say."

import json
from dataclasses import replace

import pytest
from repository import ROOT, tracked_files
from typer.testing import CliRunner

from zero_shot_distill.cli.main import app
from zero_shot_distill.core.definition import DefinitionError
from zero_shot_distill.stats.compare import paired_difference
from zero_shot_distill.student.record import RunRecord
from zero_shot_distill.student.score import StudentScore
from zero_shot_distill.study.claim import Claim, Claims, load_claims
from zero_shot_distill.study.claims import JudgedClaims, judge_claims
from zero_shot_distill.study.comparable import read_records, recorded_students_dir
from zero_shot_distill.study.statements import unsupported

ONE = {"id": "one", "claim": "It helps.", "source": "here", "written": "2026-01-01"}
RATIONALES = {"students": {"method": "step-by-step"}, "than": {"method": "standard"}}


@pytest.fixture(scope="module")
def recorded() -> list[RunRecord]:
    return read_records(recorded_students_dir())


@pytest.fixture(scope="module")
def papers(recorded) -> JudgedClaims:
    return judge_claims(load_claims(), recorded)


def pretended(recorded: list[RunRecord], gain: int, n_seeds: int = 5) -> list[RunRecord]:
    "Students of both methods on e-SNLI with right answers of our choice: `gain` rows of a thousand apart, whatever the seed."
    made = []
    for run in recorded:
        is_ours = run.task == "esnli" and run.config.method in ("standard", "step-by-step") and run.config.rationale_control == "off"
        if is_ours and run.config.seed < n_seeds:
            n_right = 600 + run.config.seed + gain * (run.config.method == "step-by-step")
            made.append(replace(run, test=StudentScore.of([place < n_right for place in range(1000)], [])))
    return made


def judged(runs: list[RunRecord], *claims: dict) -> JudgedClaims:
    return judge_claims(Claims("mine", tuple(Claim(**ONE | RATIONALES | claim) for claim in claims)), runs)


@pytest.mark.parametrize(
    ("gain", "claim", "wanted"),
    [
        (80, {}, "holds"),
        (-80, {}, "fails"),
        (1, {}, "undetermined"),
        (80, {"margin_points": 5}, "holds"),
        (80, {"margin_points": 12}, "fails"),
        (-2, {"direction": "not-worse", "margin_points": 2}, "holds"),
        (-80, {"direction": "not-worse", "margin_points": 2}, "fails"),
        (-20, {"direction": "not-worse", "margin_points": 2}, "undetermined"),
        (80, {"min_seeds": 6}, "undetermined"),
        (80, {"tasks": ["esnli", "svamp"]}, "undetermined"),  # nothing is known of svamp here
        (80, {"tasks": ["svamp"]}, "undetermined"),
        (80, {"than": {"method": "standard", "train_share": 0.5}}, "undetermined"),
        (80, {"not_measured": "it is about money"}, "not measured here"),
    ],
)
def test_verdicts(recorded, gain, claim, wanted):
    assert judged(pretended(recorded, gain), claim).verdicts == {"one": wanted}


def test_two_seeds_decide_nothing(recorded):
    found = judged(pretended(recorded, 80, n_seeds=2), {})
    (comparison,) = found.judged[0].comparisons
    assert found.verdicts == {"one": "undetermined"}
    assert comparison.deciding_seeds == "3"
    assert "at least 3 seeds" in comparison.notes


def test_more_claims_ask_for_more(recorded):
    "What one claim decides, ten together do not: the p-value is Holm's."
    runs = pretended(recorded, 0)
    rows = [run.test.correct for run in runs if run.config.method == "step-by-step"]
    others = [run.test.correct for run in runs if run.config.method == "standard"]
    high = paired_difference(rows, others).high
    margin = {"direction": "not-worse", "margin_points": 100 * high * 1.2}  # just above what the interval reaches
    alone = judged(runs, margin)
    many = judged(runs, *({"id": f"c{n}", "direction": "not-worse", "margin_points": 100 * high * 1.2} for n in range(10)))
    assert alone.verdicts == {"one": "holds"}
    assert set(many.verdicts.values()) == {"undetermined"}
    one, of_ten = alone.judged[0].comparisons[0], many.judged[0].comparisons[0]
    assert of_ten.p_adjusted == pytest.approx(10 * one.p_value)
    assert int(of_ten.deciding_seeds) >= 5


def test_what_a_comparison_rests_on(recorded, papers):
    (claim,) = (one for one in papers.judged if one.claim.id == "rationales-help")
    known = {run.run_id: run for run in recorded}
    for one in claim.comparisons:
        a, b = ([run.test.correct for run in group.runs] for group in (one.a, one.b))
        assert one.difference.value == pytest.approx(paired_difference(a, b).value)
        assert {known[id].config.method for id in one.records} == {"step-by-step", "standard"}
        assert {known[id].config.rationale_control for id in one.records} == {"off"}
        assert {known[id].config.rationale_share for id in one.records} == {1.0}
        shown = one.as_dict()
        assert shown["detectable_points"] > 0
        assert 0 <= shown["p_holm"] <= 1
        assert f"{one.a.runs[0].config.steps} steps" in shown["budget"][0]
    assert len(papers.frame) >= len(papers.judged)
    assert "rationales-help" in repr(papers)
    assert "<table>" in papers._repr_html_()


def test_claims_that_need_no_students_never_hold(papers):
    assert {papers.verdicts[id] for id in ("cheaper", "best-length")} == {"not measured here"}
    for one in papers.judged:
        assert one.claim.source
        assert not one.claim.experiment or one.claim.experiment.isidentifier()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("students: {method: step-by-stp}\n    than: {method: standard}", "method"),
        ("students: {method: standard, alfa: 1}\n    than: {method: standard}", "did you mean 'alpha'"),
        ("students: {method: standard}", "not_measured"),
        ("studnts: {method: standard}", "did you mean 'students'"),
        ("students: {method: standard}\n    than: {method: step-by-step}\n    direction: not-worse", "margin_points"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(text, said, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"title: mine\nclaims:\n  - id: one\n    claim: c\n    source: s\n    written: 2026-01-01\n    {text}\n")
    with pytest.raises(DefinitionError, match=said):
        load_claims(path)


def test_the_command(tmp_path, recorded):
    runs = tmp_path / "runs"
    for run in pretended(recorded, 80):
        run.write(runs)
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"title": "Mine", "claims": [ONE | RATIONALES]}))
    told = CliRunner().invoke(app, ["claims", str(path), "--runs", str(tmp_path)])
    assert told.exit_code == 0
    assert "Of 1 claims: 1 holds." in told.output
    (file,) = json.loads(CliRunner().invoke(app, ["claims", str(path), "--runs", str(tmp_path), "--json"]).output)
    (comparison,) = file["claims"][0]["comparisons"]
    assert (file["claims"][0]["verdict"], comparison["n_seeds"], len(comparison["records"])) == ("holds", [5, 5], 10)


def test_no_text_says_what_the_students_do_not(papers):
    "README, pages, prose of notebooks: a claim that is stated holds. How a text states one: `study.statements`."
    examples = "06_statements.ipynb"  # they state claims
    texts = [path for path in tracked_files() if path.suffix in (".md", ".ipynb") and path.relative_to(ROOT).parts[0] != "tests"]
    texts = [path for path in texts if path.name not in (examples, "CHANGELOG.md")]
    assert list(unsupported(texts, load_claims().claims, papers.verdicts)) == []


def test_a_text_that_does_is_caught(papers, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("All is well. Rationales of 20 to 40 words are best. Another sentence.\n")
    (line,) = unsupported([page], load_claims().claims, papers.verdicts)
    assert "'best-length' (not measured here)" in line
