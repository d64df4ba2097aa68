"Studies and claims of students that tag words: what is compared with what, what it says, and what is refused. Their records are made up."

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zero_shot_distill.entities.entity import Entity
from zero_shot_distill.ner.config import TaggerConfig
from zero_shot_distill.ner.record import TaggerRecord
from zero_shot_distill.prompt.entity_score import EntityScore
from zero_shot_distill.stats.compare import paired_difference
from zero_shot_distill.student.record import NoRecords, RecordsError
from zero_shot_distill.study.claim import Claim, Claims, shipped_claims
from zero_shot_distill.study.claims import judge_claims
from zero_shot_distill.study.comparable import read_records, recorded_students_dir
from zero_shot_distill.study.tagger_study import gold_worth, group_taggers, read_all_students, read_taggers, tagger_sentence, tagger_studies

SENTENCES = 200
GOLD = [(Entity(0, 4, "city", "Rome"),) if n % 5 else () for n in range(SENTENCES)]
ONE = {"id": "one", "claim": "It helps.", "source": "here", "written": "2026-11-27"}
MIXED = {"students": {"schedule": "simple-mix"}, "than": {"schedule": "gold"}}


def student(schedule: str, n_gold: int, seed: int, share: float, **settings) -> TaggerRecord:
    "A student that finds a share of the entities, the same ones whatever the seed but for a few."
    draw = np.random.default_rng([seed, n_gold]).random(SENTENCES) * 0.1
    found = [gold if place / SENTENCES + noise < share else () for place, (gold, noise) in enumerate(zip(GOLD, draw, strict=True))]
    return TaggerRecord(
        run_id=f"{schedule}-{n_gold}-{seed}",
        task="places",
        student="a tiny BERT",
        config=TaggerConfig(schedule, seed=seed, gold_sentences=n_gold, steps=20, **settings),
        n_gold=0 if schedule == "distilled" else n_gold,
        n_distilled=0 if schedule in ("gold", "gold-gold") else 40,
        n_valid=12,
        valid_source="gold",
        best_step=20,
        valid_f1=0.5,
        train_s=1.0,
        step_s=0.05,
        precision="fp32",
        n_parameters=20_000,
        created_at="2026-11-28T12:00:00+00:00",
        fingerprint="0123",
        test=EntityScore.of(GOLD, found, ("city", "person")),
    )


def students(shares: dict[tuple[str, int], float], n_seeds: int = 4) -> list[TaggerRecord]:
    return [student(*way, seed, share) for way, share in shares.items() for seed in range(n_seeds)]


FEW = {("gold", 25): 0.3, ("gold", 100): 0.5, ("simple-mix", 25): 0.5, ("simple-mix", 100): 0.5, ("distilled", 0): 0.4}


def test_each_is_compared_with_gold_alone_on_as_many_sentences():
    (study,) = tagger_studies(students(FEW))
    assert [(group.schedule, group.n_gold) for group, _ in study.contrasts] == [("simple-mix", 25), ("simple-mix", 100)]
    helped, same = (contrast for _, contrast in study.contrasts)
    assert (helped.shown, same.shown) == ("shown to be better", "undetermined")
    a, b = ([run.test.per_row for run in students({way: FEW[way]})] for way in (("simple-mix", 25), ("gold", 25)))
    assert helped.difference.value == pytest.approx(paired_difference(a, b).value)
    f1 = np.mean([run.test.micro.f1.value for run in students({("gold", 25): 0.3})])
    assert study.groups[0].f1.value == pytest.approx(f1)
    assert "1 of 2 comparisons with gold alone are undetermined" in tagger_sentence([study])


@pytest.mark.parametrize(
    "change", [{"annotation": "another"}, {"student": "BERT"}, {"precision": "bf16"}, {"n_valid": 13}, {"task": "other"}]
)
def test_what_differs_in_anything_else_is_kept_apart(change):
    runs = students(FEW)
    others = [replace(run, **change) for run in runs]
    assert len(tagger_studies([*runs, *others])) == 2
    assert len(tagger_studies([*runs[:4], *(replace(run, **change) for run in runs[4:])])) == 1  # gold alone with 25 has no other beside it


def test_what_a_schedule_does_not_read_makes_no_other_group():
    alone = [student("gold", 25, 0, 0.3), student("gold", 25, 1, 0.3, mix=0.25, distilled_weight=2.0)]
    assert len(group_taggers(alone)) == 1
    mixed = [student("simple-mix", 25, 0, 0.3), student("simple-mix", 25, 1, 0.3, mix=0.25)]
    assert [group.how for group in group_taggers(mixed)] == ["distilled, then a simple mix", "distilled, then a simple mix, mix 0.25"]


def test_one_student_has_its_own_f1():
    "Its parts in F1 are no shares of right rows."
    (study,) = tagger_studies(students(FEW, n_seeds=1))
    for group in study.groups:
        assert group.f1 == group.runs[0].test.micro.f1
    assert {contrast.shown for _, contrast in study.contrasts} == {"undetermined"}
    more = {group.title: group.f1.value for group in tagger_studies(students(FEW))[0].groups}
    assert all(abs(more[group.title] - group.f1.value) < 0.05 for group in study.groups)


def test_two_results_of_one_seed_are_refused():
    with pytest.raises(RecordsError, match="the same method, settings and seed"):
        group_taggers([student("gold", 25, 0, 0.3), replace(student("gold", 25, 0, 0.6), run_id="again")])


def test_what_a_gold_sentence_is_worth():
    "25 with the teacher's do as well as 100 alone, so 40 distilled ones stand for 75."
    (study,) = tagger_studies(students(FEW))
    few, many = gold_worth(study)
    assert few.group.n_gold == 25
    assert few.n_equal == pytest.approx(100, rel=0.15)
    assert few.low <= few.n_equal <= few.high
    assert few.usd(1.5) == pytest.approx(1.5 / few.n_saved)
    assert many.usd(1.5) is None or many.usd(1.5) > few.usd(1.5)


def judged(runs, *claims: dict):
    return judge_claims(Claims("mine", tuple(Claim(**ONE | MIXED | claim) for claim in claims)), runs)


@pytest.mark.parametrize(
    ("shares", "claim", "wanted"),
    [
        ({("gold", 25): 0.3, ("simple-mix", 25): 0.6}, {}, "holds"),
        ({("gold", 25): 0.6, ("simple-mix", 25): 0.3}, {}, "fails"),
        ({("gold", 25): 0.3, ("simple-mix", 25): 0.6}, {"margin_points": 60}, "fails"),
        (
            {("gold", 25): 0.3, ("simple-mix", 25): 0.6, ("gold", 100): 0.6, ("simple-mix", 100): 0.6},
            {},
            "undetermined",
        ),  # not at each number
        ({("gold", 25): 0.3, ("simple-mix", 100): 0.6}, {}, "undetermined"),  # never on as many
        (
            {("gold", 25): 0.3, ("simple-mix", 100): 0.6},
            {"students": {"schedule": "simple-mix", "gold_sentences": 100}, "than": {"schedule": "gold", "gold_sentences": 25}},
            "holds",
        ),
        (
            {("gold", 25): 0.3, ("distilled", 0): 0.6},
            {"students": {"schedule": "distilled"}, "than": {"schedule": "gold", "gold_sentences": 25}},
            "holds",
        ),
        ({("gold", 25): 0.3, ("simple-mix", 25): 0.6}, {"students": {"schedule": "linear"}}, "undetermined"),
    ],
)
def test_claims_of_taggers(shares, claim, wanted):
    found = judged(students(shares), claim)
    assert found.verdicts == {"one": wanted}
    for one in found.judged[0].comparisons:
        assert "gold and" in one.training
        assert one.as_dict()["n_seeds"] == [4, 4]
    assert "<table>" in found._repr_html_()


def test_claims_see_students_of_their_own_kind():
    both = [*students(FEW), *read_records(recorded_students_dir())]
    assert judged(both, {}).judged[0].comparisons[0].study.task == "places"
    (of_text,) = judged(both, {"students": {"method": "step-by-step"}, "than": {"method": "standard"}}).judged
    assert {one.study.task for one in of_text.comparisons} >= {"svamp", "esnli"}
    assert "places" not in {one.study.task for one in of_text.comparisons}


def test_a_folder_of_both_kinds(tmp_path):
    for run in [*students({("gold", 25): 0.3}), *read_records(recorded_students_dir())[:2]]:
        run.write(tmp_path)
    assert len(read_taggers(tmp_path)) == 4
    assert len(read_records(tmp_path)) == 2
    assert len(read_all_students(tmp_path)) == 6
    with pytest.raises(NoRecords, match="no record of a student"):
        read_all_students(Path(tmp_path / "none"))


def test_every_shipped_family_has_ids_and_experiments_of_its_own():
    families = shipped_claims()
    ids = [claim.id for family in families for claim in family.claims]
    assert len(families) > 1
    assert len(ids) == len(set(ids))
