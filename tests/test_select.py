"Choosing a prompt: what decides, from right and wrong answers alone; then `zsd select` against a scripted server that says so."

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scripted_server import Scripted, ScriptedServer
from zsd_command import Project, environment, interrupt, is_one_line, stored, zsd

from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.pipeline import _choose_prompt, _prepare, load_pipeline
from zero_shot_distill.prompt.contest_rows import draw_contest
from zero_shot_distill.prompt.outcome import Outcome, merits
from zero_shot_distill.prompt.select import Selection, SelectionPlan, Stop, select
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.study.records import read_prompts
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task
from zero_shot_distill.teacher.client import TeacherClient
from zero_shot_distill.teacher.teacher import HostedTeacher

BENCHMARK = Path(__file__).parent / "benchmarks" / "select.py"


# What decides


def raced(outcomes: np.ndarray, plan: SelectionPlan) -> tuple[Selection, Counter[tuple[int, int]]]:
    "A contest on known outcomes, and how often each template was asked about each row."
    asked: Counter[tuple[int, int]] = Counter()

    def ask(ids: Sequence[int], rows: Sequence[int]) -> np.ndarray:
        asked.update((id, row) for id in ids for row in rows)
        return outcomes[np.ix_(list(ids), list(rows))]

    return select(range(len(outcomes)), outcomes.shape[1], ask, plan), asked


def drawn(seed: int, missing: float = 0.0) -> np.ndarray:
    "Outcomes of some templates of some quality on some rows."
    generator = np.random.default_rng(seed)
    n_templates, n_rows = generator.integers(2, 30), generator.integers(8, 60)
    right = generator.random((n_templates, n_rows)) < generator.beta(6, 4, size=(n_templates, 1))
    outcomes = np.where(right, generator.integers(1, 3, size=right.shape), Outcome.WRONG)
    return np.where(generator.random(right.shape) < missing, Outcome.NO_REPLY, outcomes)


PLANS = {
    "race": SelectionPlan(),
    "race for labels": SelectionPlan(objective="accuracy"),
    "halving": SelectionPlan(halving=True),
    "budget": SelectionPlan(max_questions=250),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("seed", range(40))
def test_a_contest_keeps_its_promises(plan, seed):
    outcomes = drawn(seed, missing=0.1 * (seed % 3))
    found, asked = raced(outcomes, plan)
    assert sorted(found.ranking) == list(range(len(outcomes)))
    assert max(asked.values()) == 1  # no question is asked twice
    assert found.n_questions == len(asked) <= plan.most_questions(*outcomes.shape) <= found.n_all == outcomes.size
    assert [look.n_rows for look in found.looks] == plan.looks(outcomes.shape[1])[: len(found.looks)]
    gone: set[int] = set()
    for look in found.looks:
        assert not gone & {*look.left, *look.dropped}  # whoever is out stays out
        assert look.left
        gone |= set(look.dropped)
    last = found.looks[-1]
    left = np.array(last.left)
    common = (outcomes[left, : last.n_rows] > Outcome.NO_REPLY).all(axis=0)
    best = merits(outcomes[left, : last.n_rows][:, common], plan.objective)
    assert found.ranking[: len(left)] == tuple(left[np.argsort(-best, kind="stable")])
    assert raced(outcomes, plan)[0] == found


def test_equal_templates_are_not_told_apart():
    same = np.tile(drawn(3)[:1], (6, 1))
    found, _ = raced(same, SelectionPlan())
    assert (found.stop, found.looks[-1].left, found.ranking) == (Stop.ROWS, tuple(range(6)), tuple(range(6)))


def test_the_best_of_clearly_unequal_templates_is_kept():
    "90 % against 29 templates of 60 %, each row for itself: dropped in at most 5 % of 300 races, for a third of the questions."
    n_dropped, spent = 0, []
    for seed in range(300):
        right = np.random.default_rng(seed).random((30, 50)) < np.array([0.9] + [0.6] * 29)[:, None]
        found, _ = raced(np.where(right, Outcome.EXPLAINED, Outcome.WRONG), SelectionPlan())
        n_dropped += 0 not in found.looks[-1].left
        spent.append(found.n_questions / found.n_all)
    assert n_dropped <= 15
    assert np.mean(spent) < 0.34


def test_the_worse_template_goes_first():
    outcomes = np.where(np.random.default_rng(0).random((3, 60)) < np.array([[0.1], [0.9], [0.5]]), Outcome.EXPLAINED, Outcome.WRONG)
    found, _ = raced(outcomes, SelectionPlan())
    assert found.ranking == (1, 2, 0)
    assert found.stop == Stop.ONE_LEFT


# The replay benchmark, on a small folder laid out as the thesis's


@pytest.mark.slow  # of a program that is run by hand
def test_the_benchmark_copes_with_few_templates_ties_and_gaps(tmp_path):
    generator = np.random.default_rng(0)
    templates = {
        id: {"id": id, "user_message": f"{id}: {{question}}", "label_parse": "(yes|no)", "explanation_parse": "(.*)"} for id in (1, 2, 3)
    }
    (tmp_path / "prompt-templates").mkdir()
    (tmp_path / "prompt-templates" / "toy.yaml").write_text(yaml.safe_dump({"dataset": "toy", "templates": templates}))
    (tmp_path / "toy_train_gold.jsonl").write_text("".join(json.dumps({"idx": row, "label": "Yes"}) + "\n" for row in range(14)))
    for id in templates:
        path = tmp_path / "query-results" / "toy" / "train" / str(id) / "responses.json"
        path.parent.mkdir(parents=True)
        with path.open("w") as file:
            for row in range(14 if id < 3 else 9):
                said = ("yes", "no", "who knows")[generator.choice(3, p=[0.6, 0.3, 0.1]) if id != 2 else 0]
                reply = f"{said} because of this and that and more"
                prompt = {"prompt_values": {"question": "?"}, "complete_prompt": "?", "response": reply}
                file.write(json.dumps({"split": "train", "idx": row, "prompt_template_id": id, **prompt}) + "\n")
    arguments = [sys.executable, str(BENCHMARK), "--data", str(tmp_path), "--task", "toy", "--replays", "5"]
    done = subprocess.run(arguments, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "toy: 3 of 3 templates, 14 rows with gold labels" in done.stdout
    assert done.stdout.count("| **race: 4 rows") == 4
    assert "nan" not in done.stdout
    missing = subprocess.run([*arguments[:-4], "--task", "other"], text=True, capture_output=True)
    assert (missing.returncode, "other_train_gold.jsonl: no such file" in missing.stderr) == (1, True)


# The command

MODEL, PRICES = ("--model", "some-model"), ("--price-in", "2", "--price-out", "8")
GOLD = {row.fields["hypothesis"]: row.label for row in load_examples(load_task("pocket_nli"), "train")}
SELECT = ("select", "--task", "pocket_nli", "--prompts", "prompts.yaml", *MODEL)
ROWS = ("--samples", "20", "--confirm-rows", "30")
QUESTIONS = {"first": "Say what follows.", "always": "Say it at once.", "half": "Say something.", "never": "Say nothing."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    message = "{premise}\nHypothesis: {hypothesis}\n"
    templates = [{"id": id, "user_message": message + question, "read": "label-first"} for id, question in QUESTIONS.items()]
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump({"task": "pocket_nli", "templates": templates}))
    return tmp_path


def teacher(is_right: Callable[[str, str], bool]) -> Callable[[dict, int], Scripted]:
    "A teacher that is right, with a reason, where `is_right(template, hypothesis)`."

    def reply(body: dict, n: int) -> Scripted:
        text = body["messages"][-1]["content"]
        hypothesis = text.partition("Hypothesis: ")[2].splitlines()[0]
        id = next(id for id, question in QUESTIONS.items() if question in text)
        label = GOLD[hypothesis]
        if not is_right(id, hypothesis):
            label = next(other for other in ("neutral", "entailment") if other != label)
        return Scripted(text=f"{label.capitalize()}: that is what the premise says about it.", prompt_tokens=90, completion_tokens=40)

    return reply


def by_quality(id: str, hypothesis: str) -> bool:
    "Right always, never, or on a fixed half of the rows."
    return {"always": True, "never": False}.get(id, len(hypothesis) % 2 == 0)


@pytest.fixture
def asked(folder: Path):
    "A function that runs `zsd` in the folder; and what the server was asked."
    with ScriptedServer(teacher(by_quality)) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")

        def run(*arguments: str, **settings: str):
            return zsd(folder, *arguments, env=env | settings)

        run.bodies, run.env = server.bodies, env
        yield run


def test_the_better_template_is_found_with_few_questions_and_confirmed(folder, asked):
    begun = asked("experiment", *SELECT[1:], "--samples", "4", "--json")
    assert (begun.status, len(asked.bodies)) == (0, 16), begun.err
    done = asked(*SELECT, *ROWS, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert (found["chosen"], found["incumbent"], found["shown_better"]) == ("always", "first", True)
    assert found["selection"]["ranking"][0] == "always"
    assert found["selection"]["n_questions"] < 60
    assert found["n_confirmation_rows"] == 30
    winner = found["confirmed"][0]
    assert (winner["template"], winner["explained_accuracy"], winner["accuracy"]) == ("always", 1.0, 1.0)
    assert winner["explained_accuracy_difference_low"] > 0
    # The first look is the beginning of the experiment, which is stored.
    assert len(asked.bodies) == found["selection"]["n_questions"] + len(found["confirmed"]) * 30 == len(stored(folder))
    assert "race: 4 templates on 20 rows, at most 80 questions" in done.err
    assert "80 questions to some-model, 16 of them stored" in done.err

    before = len(asked.bodies)
    again = asked(*SELECT, *ROWS, COLUMNS="80")
    assert (again.status, len(asked.bodies)) == (0, before), again.err
    assert "always is better than first: +" in again.out
    assert "flattered" in again.out
    assert max(map(len, again.out.partition("30 confirmation rows")[0].splitlines())) <= 80
    labels = asked(*SELECT, *ROWS, "--objective", "accuracy", "--json")
    assert json.loads(labels.out)["chosen"] == "always"


def test_it_is_stopped_and_goes_on(folder, asked):
    whole = folder / "whole"
    whole.mkdir()
    (whole / "prompts.yaml").write_text((folder / "prompts.yaml").read_text())
    right = teacher(by_quality)
    # It answers 20 questions and then keeps one waiting, so that the stop cannot come too late.
    with ScriptedServer(lambda body, n: replace(right(body, n), delay_s=60 if n >= 20 else 0)) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        stopped = interrupt(folder, lambda _: len(stored(folder)) >= 20, *SELECT, *ROWS, env=env)
    assert (stopped.status, stopped.out) == (1, ""), stopped.err
    assert stopped.last_line == "zsd: stopped; what arrived is stored, the same command goes on from there"
    done, unbroken = asked(*SELECT, *ROWS, "--json"), zsd(whole, *SELECT, *ROWS, "--json", env=asked.env)
    assert (done.status, done.out) == (0, unbroken.out)
    assert len(stored(folder)) == len(stored(whole))


def test_what_was_lucky_is_not_handed_out(folder):
    "A template that is right on every selection row and on no other does not replace the one in use."
    rows = draw_contest(load_task("pocket_nli"), 20, 30)
    seen = {row.fields["hypothesis"] for row in rows.selection}

    def by_luck(id: str, hypothesis: str) -> bool:
        return hypothesis in seen if id == "always" else by_quality(id, hypothesis)

    with ScriptedServer(teacher(by_luck)) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        found = json.loads(zsd(folder, *SELECT, *ROWS, "--json", env=env).out)
    assert (found["selection"]["ranking"][0], found["chosen"], found["shown_better"]) == ("always", found["chosen"], False)
    assert found["chosen"] != "always"
    assert found["verdict"].startswith("No template is shown to be better than first")
    assert found["flattered"]["always"]["explained_accuracy"]["value"] == 1.0


def test_budgets(asked):
    few = asked(*SELECT, *ROWS, "--budget-queries", "110", "--json")
    assert few.status == 0, few.err
    assert json.loads(few.out)["selection"]["n_questions"] <= 20
    assert len(asked.bodies) <= 110
    halved = asked(*SELECT, *ROWS, "--halving", "--json")
    assert json.loads(halved.out)["selection"]["n_questions"] == 4 * 8 + 2 * 8
    n_before = len(asked.bodies)
    planned = asked(*SELECT, *ROWS, *PRICES, "--plan")
    assert (planned.status, len(asked.bodies)) == (0, n_before), planned.err
    assert "In all at most 170 questions: $0.0850" in planned.out  # 90 and 40 tokens each
    assert "as in the stored replies" in planned.out
    assert "10 points" in planned.out


def test_a_budget_in_dollars_keeps_enough_for_the_confirmation(asked):
    "The race spends at most half of it, and both together no more than all of it."
    done = asked(*SELECT, *ROWS, *PRICES, "--budget-usd", "0.02", "--json")
    assert done.status == 1, done.err
    assert "questions have no reply; the same command goes on" in done.err
    n_confirmed = json.loads(done.out)["n_confirmation_rows"]
    in_race = len(asked.bodies) - 2 * n_confirmed
    assert n_confirmed >= 5
    assert 0.005 < in_race * 0.0005 <= 0.0105
    assert len(asked.bodies) * 0.0005 <= 0.02


def test_a_budget_in_dollars_that_ends_early(folder, asked):
    done = asked(*SELECT, *ROWS, *PRICES, "--budget-usd", "0.002")
    assert done.status == 2, done.err
    assert "no confirmation row was answered by all" in done.last_line
    assert "the budget is used up" in done.last_line
    assert len(asked.bodies) * 0.0005 <= 0.002


def test_a_pipeline_confirms_the_template_in_use_beside_the_winner(tmp_path):
    "A winner that is worse on the confirmation rows is not gone on with; without `incumbent` the winner is confirmed alone."
    project = Project(tmp_path)
    project.task["aliases"] = {}
    project.prompts["templates"] = [
        template | {"reply_pattern": r"(?P<label>\w+): (?P<rationale>.*)"} for template in project.prompts["templates"]
    ]
    project.pipeline["prompts"] |= {"selection_rows": 4, "confirmation_rows": 8}
    gold = {row["hypothesis"]: row["label"] for row in project.rows["train"]}
    project.write().make_student()
    selection = {
        row.fields["hypothesis"] for row in draw_contest(load_task(tmp_path / "my_task.yaml"), 4, 8, project.pipeline["seed"]).selection
    }

    def reply(body: dict, n: int) -> Scripted:
        text = body["messages"][-1]["content"]
        hypothesis = text.splitlines()[1]
        is_right = "Explain both" in text if hypothesis not in selection else "Tell a story" in text
        return Scripted(text=f"{gold[hypothesis] if is_right else 'unknown'}: that is what both sentences say.")

    for incumbent, chosen, n_asked in ((None, "tell", 16), ("explain", "explain", 24)):
        project.pipeline["prompts"]["incumbent"] = incumbent
        project.write()
        progress = Progress(quiet=True)
        run = _prepare(load_pipeline(tmp_path / "mine.yaml"), tmp_path / str(incumbent), progress)
        with ScriptedServer(reply) as server, ResponseStore(":memory:") as store:
            client = TeacherClient(HostedTeacher("some-model", server.base_url, "sk-scripted"), store, {"max_tokens": 24})
            assert _choose_prompt(run, client) == chosen
            assert len(server.bodies) == n_asked
        record = json.loads((run.folder / "prompts.json").read_text())
        assert (record["winner"], record["contenders"]) == (chosen, ["tell"] if incumbent is None else ["tell", "explain"])
        assert read_prompts(run.folder / "prompts.json").confirmation.template_id == chosen


def unlabelled(folder: Path) -> Sequence[str]:
    built_in = definitions_dir() / "tasks" / "pocket_nli.yaml"
    task = yaml.safe_load(built_in.read_text())
    rows = [json.loads(line) | {"label": None} for line in (definitions_dir() / "pocket_nli" / "train.jsonl").read_text().splitlines()]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "bare.yaml").write_text(yaml.safe_dump(task | {"name": "pocket_nli", "splits": {"train": "rows.jsonl"}}))
    return "select", "--task", "bare.yaml", "--prompts", "prompts.yaml", *MODEL


def one_template(folder: Path) -> Sequence[str]:
    content = yaml.safe_load((folder / "prompts.yaml").read_text())
    (folder / "one.yaml").write_text(yaml.safe_dump(content | {"templates": content["templates"][:1]}))
    return "select", "--task", "pocket_nli", "--prompts", "one.yaml", *MODEL


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (unlabelled, ["no row has a gold label"]),
        (one_template, ["one template (first): there is nothing to choose from"]),
        ((*SELECT, "--samples", "3"), ["3 selection rows: the first look takes 4"]),
        ((*SELECT, "--samples", "7", "--halving"), ["7 selection rows: the first look takes 8"]),
        ((*SELECT, "--samples", "999"), ["999 selection rows asked for, only 240 have a gold label"]),
        (
            (*SELECT, "--samples", "150", "--confirm-rows", "90"),
            ["150 selection rows leave", "share no premise", "90 are needed to confirm"],
        ),
        ((*SELECT, *ROWS, "--budget-queries", "50"), ["50 questions are too few", "takes 16", "the confirmation 90; allow 106"]),
        ((*SELECT, *ROWS, "--incumbent", "old"), ["no template 'old' to compare with; there are first, always, half, never"]),
        ((*SELECT, *ROWS, "--objective", "beauty"), ["no objective 'beauty' for task 'pocket_nli': use explained_accuracy or accuracy"]),
        ((*SELECT, *ROWS, "--templates", "first,nope"), ["no template 'nope'"]),
    ],
)
def test_mistakes(folder, arguments, parts):
    "Each is told before anybody is asked, so without a key."
    done = zsd(folder, *(arguments(folder) if callable(arguments) else arguments))
    is_one_line(done, 2, *parts)
    assert stored(folder) == []
