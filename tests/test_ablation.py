"Series over one setting: the data behind each figure against values worked out by hand, and sweeps that give each experiment its students."

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from zero_shot_distill.core.definition import DefinitionError
from zero_shot_distill.stats.compare import paired_difference
from zero_shot_distill.stats.family import holm
from zero_shot_distill.stats.gain import gain_share
from zero_shot_distill.student.config import TrainingConfig
from zero_shot_distill.student.record import RecordsError, RunRecord
from zero_shot_distill.student.score import StudentScore
from zero_shot_distill.study.ablation import WAY, Ablation, ablation_sentence, ablations, content_sentence
from zero_shot_distill.study.ablation_figure import ablation_figure
from zero_shot_distill.study.rationale_gain import rationale_gains
from zero_shot_distill.study.sweep import Sweep, load_sweep, plan_sweep, sweeps_dir
from zero_shot_distill.task.task import load_task

N = 40
STANDARD, EXPLAINED = {"method": "standard"}, {"method": "step-by-step"}


def student(seed: int, n_right: int, at_chance: bool = False, **settings) -> RunRecord:
    "A student whose first `n_right` of 40 test rows are right."
    config = TrainingConfig(**{"labels": "gold", "steps": 8} | settings, seed=seed)
    return record(config, n_right, at_chance)


def record(config: TrainingConfig, n_right: int, at_chance: bool = False, student: str = "tiny") -> RunRecord:
    score = StudentScore.of([row < n_right for row in range(N)], [])
    learned = round(100 * config.train_share * config.rationale_share) if config.method != "standard" else 0
    left_out = round(100 * config.train_share) - learned if config.missing_rationale == "drop" and learned else 0
    return RunRecord(
        run_id=f"{student}-{hash(config)}",
        task="t",
        student=student,
        config=config,
        n_train=round(100 * config.train_share) - left_out,
        n_without_rationale=left_out,
        n_rationales=learned,
        train_s=1,
        step_s=1,
        at_chance=at_chance,
        test=score,
    )


RIGHT = {0.0: (10, 11, 12), 0.33: (12, 14, 16), 1.0: (20, 21, 22)}  # share of the rationales -> rows that were right, by seed


@pytest.fixture
def rates() -> list[RunRecord]:
    return [
        student(seed, n_right, at_chance=share == 0 and seed == 0, **(EXPLAINED | {"rationale_share": share} if share else STANDARD))
        for share, counts in RIGHT.items()
        for seed, n_right in enumerate(counts)
    ]


def drawn(figure: Figure, panel: int) -> set[tuple[float, float]]:
    "What stands in a panel: places and heights of its single marks, rounded."
    lines = [line for line in figure.axes[panel].lines if len(line.get_xdata()) == 1]
    return {(round(float(line.get_xdata()[0]), 2), round(float(line.get_ydata()[0]), 2)) for line in lines}


def test_points_are_means_of_all_students_and_differences_are_paired(rates):
    (study,) = ablations(rates, "rationale_share", ["standard"])
    assert [(point.value, point.rationale_rate, len(point.group.runs)) for point in study.points] == [
        (None, 0.0, 3),
        (0.33, 0.33, 3),
        (1.0, 1.0, 3),
    ]
    assert [point.group.accuracy.value for point in study.points] == pytest.approx([11 / 40, 14 / 40, 21 / 40])
    assert [one.difference.value for one in study.contrasts] == pytest.approx([3 / 40, 10 / 40])
    rows = {share: [[row < n_right for row in range(N)] for n_right in counts] for share, counts in RIGHT.items()}
    by_hand = [paired_difference(rows[share], rows[0.0]) for share in (0.33, 1.0)]
    assert [one.difference for one in study.contrasts] == by_hand
    assert [one.p_adjusted for one in study.contrasts] == holm([one.p_value for one in by_hand])


def test_the_figure_shows_these_numbers_and_every_student(rates):
    (study,) = ablations(rates, "rationale_share", ["standard"])
    figure = ablation_figure([study], "of three")
    above, below = drawn(figure, 0), drawn(figure, 1)
    assert {height for _, height in above} == {27.5, 35.0, 52.5, *(100 * n / 40 for counts in RIGHT.values() for n in counts)}
    assert below == {(round(place, 2), height) for place, height in ((0.33, 7.5), (1.0, 25.0))}
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [float(line.get_ydata()[0]) for line in crosses] == [25.0]
    said = figure._supxlabel.get_text().replace("\n", " ")
    assert "crosses: not shown to be above chance, 1 of 9" in said
    assert "of three" in said
    assert "3 seeds each, n 40" in figure.axes[0].get_title(loc="left")


def test_a_student_at_chance_is_counted_apart_and_stays_in_the_mean(rates):
    (study,) = ablations(rates, "rationale_share", ["standard"])
    assert [point.n_at_chance for point in study.points] == [1, 0, 0]
    row = study.as_rows()[0]
    assert row["at chance"].startswith("1 of 3\nwithout: 28.")  # of 28.75
    assert row["test accuracy, %"].startswith("27.5 %")
    assert "1 of 9 students are not shown to be above chance" in ablation_sentence([study])


@pytest.mark.parametrize("changes", [{"n_train": 99}, {"annotation": "other"}, {"steps": 9}])
def test_students_of_other_rows_or_settings_are_kept_apart(rates, changes):
    own = {name: value for name, value in changes.items() if name == "steps"}
    others = {name: value for name, value in changes.items() if name not in own}
    stale = replace(rates[-1], run_id="stale", config=replace(rates[-1].config, seed=7, **own), **others)
    base = replace(rates[0], run_id="stale-0", config=replace(rates[0].config, seed=7, **own), **others)
    (alone,) = ablations([*rates, stale], "rationale_share", ["standard"])
    assert alone.contrasts == ablations(rates, "rationale_share", ["standard"])[0].contrasts
    both = ablations([*rates, stale, base], "rationale_share", ["standard"])
    assert [len(study.runs) for study in both] == [9, 2]
    assert both[0].title != both[1].title


def test_only_the_same_seeds_are_compared(rates):
    more = student(3, 0, **EXPLAINED)
    (study,) = ablations([*rates, more], "rationale_share", ["standard"])
    assert study.contrasts[-1].difference.value == pytest.approx(10 / 40)
    assert study.points[-1].group.accuracy.value == pytest.approx(63 / 160)
    with pytest.raises(RecordsError, match="no two students that differ in rationale share alone"):
        ablations([*rates[:3], more], "rationale_share", ["standard"])


def test_two_records_of_one_student_must_agree(rates):
    ablations([*rates, replace(rates[0], run_id="again")], "rationale_share", ["standard"])
    with pytest.raises(RecordsError, match="the same method, settings and seed, and other answers"):
        ablations([*rates, replace(rates[0], run_id="again", test=rates[-1].test)], "rationale_share", ["standard"])


def test_the_share_of_the_gain_is_judged_only_where_there_is_a_gain():
    counts = {0.0: 80, 0.15: 90, 0.33: 118, 1.0: 120}
    rows = {share: [[row < n + seed for row in range(200)] for seed in range(4)] for share, n in counts.items()}
    share = gain_share(rows[0.33], rows[0.0], rows[1.0])
    assert share.value == pytest.approx(38 / 40)
    assert share.low < 0.95 < share.high < 1.2
    nothing = gain_share(rows[0.33], rows[0.0], rows[0.0])
    assert (nothing.has_ends, nothing.against(0.0)) == (False, "undetermined")


def test_the_claim_of_a_third(rates):
    (gain,) = rationale_gains(ablations(rates, "rationale_share", ["standard"]))
    assert gain.gain.value == pytest.approx(10 / 40)
    ((point, share),) = gain.shares
    assert (point.value, share.value) == (0.33, pytest.approx(0.3))
    assert gain.sentence().endswith(f"the claim that 30 % of the rationales give 90 % of the gain: {share.against(0.9)}.")


EXPERIMENTS = {  # sweep -> setting, baselines, other settings, and how many points and comparisons it makes
    "explanation_rate": ("rationale_share", ["standard"], [], 7, 6),
    "rationale_content": (WAY, ["step by step", "label-only"], [], 7, 11),
    "training_size": ("train_share", ["standard"], ["labels"], 16, 8),
    "alpha": ("alpha", [0.5, "standard"], [], 6, 9),
    "missing_rationale": ("missing_rationale", ["mask", "standard"], [], 4, 3),
    "student_size": ("student", ["standard"], [], 4, 2),
}


def planned(sweep: Sweep) -> list[RunRecord]:
    "Plan a sweep, and make up what came of it: students with more rationales and more rows do better."
    from zero_shot_distill.student.training_rows import TrainingRows  # brings torch, which the other tests need not

    rows = TrainingRows("a-0123", "", load_task("pocket_nli"), (), (), (), "teacher")
    runs = plan_sweep(sweep, rows, str)
    assert len({run.run_id for run in runs}) == len(runs)
    return [record(run.config, 10 + run.config.seed + 10 * (run.config.method != "standard"), student=run.student) for run in runs]


def test_each_experiment_has_a_sweep():
    assert {path.stem for path in sweeps_dir().glob("*.yaml")} == {
        *EXPERIMENTS,
        "rationale_length",
        "rationale_length_cut",
        "ner_two_phase",
    }


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_shipped_sweep_makes_the_students_of_its_experiment(name):
    setting, against, also, n_points, n_compared = EXPERIMENTS[name]
    with pytest.raises(DefinitionError, match=f"{name}.yaml: no rows to train on; name an annotation or a file, with --annotations"):
        load_sweep(Path(name))
    sweep = load_sweep(Path(name), "a-0123")
    assert (sweep.name, len(sweep.seeds)) == (name, 5)
    assert set(sweep.students) <= {"flan-t5-small", "google/flan-t5-base"}  # no paths of this machine
    studies: Sequence[Ablation] = ablations(planned(sweep), setting, against, also)
    assert [(len(study.points), len(study.compared)) for study in studies] == [(n_points, n_compared)]
    assert all(len(point.group.runs) == 5 for study in studies for point in study.points)
    assert np.isfinite([one.p_adjusted for one in studies[0].contrasts]).all()
    ablation_figure(studies)
    assert (content_sentence(studies) if setting == WAY else ablation_sentence(studies)).startswith("t: ")


def test_rows_of_a_file_are_found_from_where_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_sweep(Path("alpha"), "rows.csv").annotations == str(tmp_path / "rows.csv")
