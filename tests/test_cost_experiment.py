"What an annotated set costs, what zero-shot prompts save, what students are worth for their dollars, and which rate a budget buys."

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from zsd_command import zsd

from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.project import recorded_project
from zero_shot_distill.prompt.collect import stored_replies
from zero_shot_distill.prompt.template import load_templates
from zero_shot_distill.student.config import TrainingConfig
from zero_shot_distill.student.method import OF_SOME_METHODS
from zero_shot_distill.student.record import RunRecord
from zero_shot_distill.student.score import StudentScore
from zero_shot_distill.study.ablation import ablations
from zero_shot_distill.study.cost_comparison import CostComparison, CostQuestion, CountedReplies, Saving, cost_sentence, count_replies
from zero_shot_distill.study.pareto import cost_studies
from zero_shot_distill.study.rate_plan import rate_plans
from zero_shot_distill.study.sweep import load_sweep
from zero_shot_distill.study.teacher_cost import RowCost, read_all_records, read_row_costs, recorded_work_dir, student_usd
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task
from zero_shot_distill.teacher.price import Price, format_usd

PRICE = Price(0.15, 0.6, "a list of the test", cached_input_usd_per_million=0.075, batch=Price(0.075, 0.3, "a list of the test"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    "The recorded replies to one template, and the forecast of the same rows."
    project = recorded_project(tmp_path_factory.mktemp("work"), "search")
    project.templates = {"fact-and-guess": project.templates["fact-and-guess"]}
    replies = stored_replies(project.task, project.templates, load_examples(project.task, "train"), project.client())["fact-and-guess"]
    counted = count_replies(project.templates["fact-and-guess"], replies, 100)
    project.close()
    return counted


def made_up(n: int, seed: int) -> CountedReplies:
    "Rows in threes whose prompts and replies are alike."
    drawn = np.random.default_rng(seed)
    shared = np.repeat(drawn.normal(0, 8, n // 3), 3)
    prompts, replies = 100 + shared + drawn.normal(0, 4, n), drawn.gamma(4, 10, n) + shared
    ids = tuple(map(str, range(n)))
    groups = tuple(str(place // 3) for place in range(n))
    return CountedReplies("made up", ids, groups, prompts, replies, prompts + replies, np.full(n, 0.2))


def test_the_saving_covers():
    large = made_up(300_000, 0)
    added = 5 * large.demonstration_tokens.mean() * 0.15
    true = added / (added + 0.15 * large.prompt_tokens.mean() + 0.6 * large.reply_tokens.mean())
    found = [Saving.of(made_up(60, seed), PRICE, 5).share for seed in range(1, 201)]
    covered = sum(one.low <= true <= one.high for one in found)
    assert 180 <= covered <= 200  # 95 % of 200, give or take three standard errors


def test_what_it_would_take_is_enough_and_one_less_is_not(recorded):
    needed = Saving.of(recorded, PRICE, 5).shots_needed(0.85)
    assert Saving.of(recorded, PRICE, needed).share.value >= 0.85 > Saving.of(recorded, PRICE, needed - 1).share.value
    tokens = Saving.of(recorded, PRICE, 5).tokens_needed(0.85) / 5
    assert Saving.of(recorded, PRICE, 5, tokens).share.value == pytest.approx(0.85)


def test_the_ways_add_up(recorded):
    made = CostComparison(recorded, recorded.labels_alone, PRICE, CostQuestion(1000, (4,), (0.5,)))
    plan, half, batch, few = (one.cost_usd.value for one in made.scenarios)
    assert plan == pytest.approx(1000 * recorded.usd(PRICE).mean())
    assert half == pytest.approx(500 * (recorded.usd(PRICE) + recorded.labels_alone.usd(PRICE)).mean())
    assert batch == pytest.approx(plan / 2)
    assert 1 - plan / few == pytest.approx(made.savings[0].share.value)


def test_a_claim_is_undetermined_where_the_interval_holds_it(recorded):
    saving = Saving.of(recorded, PRICE, 10)
    assert saving.verdict(saving.share.value) == "undetermined"
    assert (saving.verdict(saving.share.low - 0.01), saving.verdict(saving.share.high + 0.01)) == ("reached", "not reached")
    assert "undetermined" in cost_sentence(
        CostComparison(recorded, recorded.labels_alone, PRICE, CostQuestion(shots=(10,), claim=saving.share.value))
    )


def test_equal_replies_have_no_interval(recorded):
    flat = replace(recorded, prompt_tokens=np.full(60, 90.0), reply_tokens=np.full(60, 30.0), demonstration_tokens=np.full(60, 124.0))
    assert Saving.of(flat, PRICE, 5).verdict(0.5) == "undetermined"


def test_the_front_is_what_no_cheaper_way_equals():
    costs = read_row_costs(recorded_work_dir(), PRICE)
    studies = cost_studies(read_all_records(recorded_work_dir()), costs)
    for study in studies:
        means = [(way.usd, way.group.accuracy.value) for way in study.ways]
        front = [(way.usd, way.group.accuracy.value) for way in study.front]
        beaten = [one for one in means if any(a <= one[0] and b >= one[1] and (a, b) != one for a, b in means)]
        assert set(front) == set(means) - set(beaten)
    assert not any(way.group.control != "off" for study in studies for way in study.ways)


def test_what_a_student_s_rows_cost_is_known_or_unknown_and_never_zero_by_mistake():
    runs = read_all_records(recorded_work_dir())
    costs = read_row_costs(recorded_work_dir())
    explained = [run for run in runs if run.annotation == "shared-esnli" and run.n_rationales]
    assert explained
    assert all(student_usd(run, costs) is None for run in explained)
    half = next(run for run in runs if run.annotation == "shared-svamp" and run.config.method == "step-by-step")
    paid = student_usd(half, costs)
    assert student_usd(replace(half, n_rationales=half.n_rationales // 2), costs) == pytest.approx(paid / 2, rel=0.01)
    demo = next(run for run in runs if run.task == "pocket_nli" and run.config.labels == "teacher")
    assert student_usd(demo, costs) == 0.0  # embedded: nobody charged
    assert student_usd(demo, read_row_costs(recorded_work_dir(), PRICE)) > 0


def test_the_sweeps_of_lengths_differ_in_the_rationale_alone():
    sweeps = [load_sweep(Path(name), "a-0123") for name in ("rationale_length", "rationale_length_cut")]
    configs = [config for sweep in sweeps for config in sweep.configs("teacher")]
    assert {config.labels for config in configs} == {"gold"}
    shared = [{**asdict(config), "method": 0, "rationale_control": 0, "first_words": 0, "seed": 0} for config in configs]
    label_only = [one for one, config in zip(shared, configs, strict=True) if config.method == "standard"]
    explained = [one for one, config in zip(shared, configs, strict=True) if config.method != "standard"]
    assert all(one == explained[0] for one in explained)
    # What label-only students do not read is at its default.
    assert {name for name in label_only[0] if label_only[0][name] != explained[0][name]} <= OF_SOME_METHODS


def test_the_templates_of_lengths_differ_in_the_asked_length_alone():
    templates = load_templates(load_task("pocket_nli"), definitions_dir() / "prompts" / "pocket_nli_length.yaml")
    begun = {template.user_message.partition("Explain in ")[0] for template in templates.values()}
    asked = [template.user_message.partition("Explain in ")[2] for template in templates.values()]
    assert (len(begun), len(set(asked)), {template.reading for template in templates.values()}) == (
        1,
        3,
        {templates["length-short"].reading},
    )


def test_a_plan_buys_the_cheapest_rate_that_none_is_shown_to_beat():
    def students(share: float, counts: tuple[int, ...]) -> list[RunRecord]:
        how = {"method": "step-by-step", "rationale_share": share} if share else {"method": "standard"}
        return [
            RunRecord(
                run_id=f"{share}-{seed}",
                task="t",
                student="tiny",
                annotation="a",
                config=TrainingConfig(labels="gold", seed=seed, **how),
                n_train=1000,
                n_rationales=round(1000 * share),
                train_s=1,
                step_s=1,
                test=StudentScore.of([row < n_right for row in range(400)], []),
            )
            for seed, n_right in enumerate(counts)
        ]

    none, third, whole = students(0, (200, 201, 199)), students(0.33, (300, 301, 299)), students(1.0, (302, 303, 301))
    costs = {"a": RowCost(100, 1, 1, 0.1, "made up")}

    def plan(runs, budget=None):
        (found,) = rate_plans(ablations(runs, "rationale_share", ["standard"]), costs, budget)
        return found

    both = plan([*none, *third, *whole])
    assert (both.choice.rate, both.choice.usd) == (0.33, pytest.approx(0.33))
    assert f"buy 33 % explained, for {format_usd(both.choice.usd)}" in both.sentence
    low, high = (0.33 / (100 * end) for end in (both.choice.gain.high, both.choice.gain.low))
    assert both.choice.usd_per_point == f"{format_usd(0.33 / 25)} [{format_usd(low)}, {format_usd(high)}]"
    much = plan([*none, *third, *students(1.0, (380, 381, 379))])
    assert (much.choice.rate, replace(much, budget_usd=0.5).choice.rate) == (1.0, 0.33)
    assert "no rationale rate is affordable" in plan([*none, *third, *whole], 0.1).sentence
    same = plan([*none, *students(1.0, (190, 210, 203))])
    assert same.choice is None
    assert "undetermined which rate to buy" in same.sentence
    assert plan([*none, *students(1.0, (100, 101, 99))]).choice.rate == 0.0


def test_zsd_plan_answers_from_the_recorded_students(tmp_path):
    found = zsd(tmp_path, "plan", "--task", "svamp", "--budget-usd", "0.3", "--json", preload="all")
    assert found.status == 0, found.err
    plans = json.loads(found.out)
    assert {one["n_test"] for one in plans} == {200}
    assert all(one["rates"][0]["rate"] == 0 for one in plans)
