"`zsd lint`: each kind of fault is found where it was planted, and nothing where it was not."

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT
from typer.testing import CliRunner

from zero_shot_distill.cli.main import app
from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.stats.interval import share_of
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.study.findings import Fault
from zero_shot_distill.study.lint import LintReport, lint
from zero_shot_distill.study.records import recorded_run_dir
from zero_shot_distill.study.tagger_study import read_taggers, tagger_sentence, tagger_studies
from zero_shot_distill.task.task import load_task

SHARED = Path(os.environ.get("ZSD_SHARED_DATA") or ROOT.parent / "shared" / "data")
RECORDS = definitions_dir() / "recorded_runs" / "students"
Records = dict[str, dict[str, Any]]  # run id -> content


def kinds(report: LintReport) -> set[Fault]:
    return {one.fault for one in report.findings}


def records() -> Records:
    "Two methods on e-SNLI, four seeds each, none at chance."
    found = [json.loads(path.read_text()) for path in sorted(RECORDS.glob("*-gold-seed[0-3]-*.json"))]
    return {
        of["run_id"]: of
        for of in found
        if of["annotation"] == "shared-esnli" and of["method"] in ("standard", "step-by-step") and of["rationale_control"] == "off"
    }


def of_method(found: Records, method: str) -> list[dict[str, Any]]:
    return [of for of in found.values() if of["method"] == method]


def write(found: Records, folder: Path) -> Path:
    runs = folder / "runs"
    runs.mkdir(parents=True)
    for name, of in found.items():
        (runs / f"{name}.json").write_text(json.dumps(of))
    return folder


def all_take_a_minute(found: Records) -> None:
    for of in of_method(found, "step-by-step"):
        of["train_s"] = 60.0


def all_whole_seconds(found: Records) -> None:
    for n, of in enumerate(found.values()):
        of["train_s"] = 431.0 + 17 * n


def another_accuracy(found: Records) -> None:
    next(iter(found.values()))["test"]["accuracy"] = 0.91


def one_seed_again(found: Records) -> None:
    of = of_method(found, "standard")[0]
    copy = json.loads(json.dumps(of)) | {"seed": 4, "run_id": "standard-gold-seed4-000000000000", "train_s": of["train_s"] + 3.21}
    found[copy["run_id"]] = copy


def no_history(found: Records) -> None:
    next(iter(found.values()))["history"] = []


def no_steps(found: Records) -> None:
    del next(iter(found.values()))["step_s"]


def no_second_seed(found: Records) -> None:
    found.pop(of_method(found, "step-by-step")[1]["run_id"])


def twice_the_steps(found: Records) -> None:
    for of in of_method(found, "step-by-step"):
        of["steps"] *= 2


def larger_batches_later(found: Records) -> None:
    for of in of_method(found, "standard")[2:]:
        of["batch_size"] = 16


def blank_rationales(found: Records) -> None:
    for of in of_method(found, "step-by-step"):
        of |= {"missing_rationale": "blank", "n_rationales": of["n_rationales"] // 2}


def twelve_validation_rows(found: Records) -> None:
    for of in found.values():
        of["n_valid"] = 12


def validated_on_test(found: Records) -> None:
    for of in found.values():
        of |= {"n_valid": of["test"]["n"], "valid_confusion": of["test"]["confusion"], "valid_accuracy": of["test"]["accuracy"]}
        for point in of["history"]:
            point |= {"valid_accuracy": of["test"]["accuracy"], "valid_gold": of["test"]["accuracy"]}


def one_at_chance(found: Records) -> None:
    next(iter(found.values()))["at_chance"] = True


PLANTED: dict[Fault, tuple[Callable[[Records], None], ...]] = {
    Fault.PLACEHOLDER: (all_take_a_minute, all_whole_seconds, another_accuracy, one_seed_again, no_history, no_steps),
    Fault.BEST_OF_K: (no_second_seed,),
    Fault.UNEQUAL_TRAINING: (twice_the_steps, larger_batches_later),
    Fault.BLANK_RATIONALES: (blank_rationales,),
    Fault.TINY_VALIDATION: (twelve_validation_rows,),
    Fault.TEST_USED_TO_CHOOSE: (validated_on_test,),
    Fault.AT_CHANCE: (one_at_chance,),
}


@pytest.mark.parametrize(("plant", "fault"), [(plant, fault) for fault, plants in PLANTED.items() for plant in plants])
def test_a_fault_in_records_is_found(plant, fault, tmp_path):
    found = records()
    assert len(found) == 8
    plant(found)
    assert kinds(lint([write(found, tmp_path)])) == {fault}


def half_the_rationales_masked(found: Records) -> None:
    for of in of_method(found, "step-by-step"):
        of["n_rationales"] //= 2


def a_grid_of_steps(found: Records) -> None:
    for n, of in enumerate(list(found.values())):
        history = [point | {"step": 2 * point["step"], "label_loss": point["label_loss"] + 1e-6 * n} for point in of["history"]]
        longer = of | {"steps": 2 * of["steps"], "history": history, "best_step": 2 * of["best_step"], "train_s": 2 * of["train_s"] + 0.13}
        longer["run_id"] = of["run_id"][:-4] + "long"
        found[longer["run_id"]] = longer


def a_fifth_seed_of_one(found: Records) -> None:
    of = of_method(found, "standard")[0]
    history = [point | {"label_loss": point["label_loss"] * 1.01} for point in of["history"]]
    later = json.loads(json.dumps(of)) | {"seed": 4, "run_id": "standard-gold-seed4-000000000000", "train_s": 433.17, "history": history}
    found[later["run_id"]] = later


@pytest.mark.parametrize("change", [lambda found: None, half_the_rationales_masked, a_grid_of_steps, a_fifth_seed_of_one])
def test_sound_records_give_no_alarm(change, tmp_path):
    found = records()
    change(found)
    assert lint([write(found, tmp_path)]).findings == ()


def taggers() -> Records:
    "Three schedules on `pocket_names`, two seeds each, none at chance. Their ten validation rows would be a finding; a hundred are none."
    paths = sorted((definitions_dir() / "recorded_runs" / "entities_run" / "runs").glob("*.json"))
    return {of["run_id"]: of | {"n_valid": 100} for of in (json.loads(path.read_text()) for path in paths)}


def of_schedule(found: Records, schedule: str) -> list[dict[str, Any]]:
    return [of for of in found.values() if of["schedule"] == schedule]


def more_entities_right(found: Records) -> None:
    next(iter(found.values()))["test"]["errors"]["right"] += 3


def another_valid_f1(found: Records) -> None:
    next(iter(found.values()))["valid_f1"] = 0.91


def a_step_beyond_the_last(found: Records) -> None:
    next(iter(found.values()))["history"][0]["step"] = 4000


def one_tagger_again(found: Records) -> None:
    of = of_schedule(found, "gold")[0]
    copy = json.loads(json.dumps(of)) | {"seed": 2, "run_id": "gold-seed2-000000000000", "train_s": of["train_s"] + 3.21}
    found[copy["run_id"]] = copy


def no_first_seed(found: Records) -> None:
    found.pop(of_schedule(found, "linear")[0]["run_id"])


def twice_the_tagging_steps(found: Records) -> None:
    for of in of_schedule(found, "linear"):
        of["steps"] *= 2


def fewer_gold_sentences(found: Records) -> None:
    for of in of_schedule(found, "linear"):
        of |= {"gold_sentences": 6, "n_gold": 6}


def fewer_distilled_sentences(found: Records) -> None:
    for of in of_schedule(found, "distilled"):
        of["n_distilled"] = 20


def more_looks_of_one_seed(found: Records) -> None:
    of_schedule(found, "gold")[1]["eval_every"] = 10


def other_validation_rows(found: Records) -> None:
    for of in of_schedule(found, "distilled"):
        of["n_valid"] = 90


def ten_validation_rows(found: Records) -> None:
    for of in found.values():
        of["n_valid"] = 10


def no_gold_validation_rows(found: Records) -> None:
    for of in of_schedule(found, "distilled"):
        of["valid_source"] = "teacher"


def f1_of(of: dict[str, Any]) -> float:
    errors = of["test"]["errors"]
    said = sum(n for name, n in errors.items() if name != "missed")
    gold = sum(n for name, n in errors.items() if name != "surplus")
    return 2 * errors["right"] / (gold + said)


def peeked_at_the_test(found: Records, n_students: int = 6) -> None:
    for of in list(found.values())[:n_students]:
        of |= {"valid_f1": f1_of(of)}
        for point in of["history"]:
            point |= {"valid_f1": f1_of(of), "valid_gold": f1_of(of)}
    for of in found.values():
        of["n_valid"] = of["test"]["n"]


def one_peeked_at_the_test(found: Records) -> None:
    peeked_at_the_test(found, 1)


def found_nothing_on_validation_rows(found: Records) -> None:
    of = next(iter(found.values()))
    of["valid_f1"] = 0.0
    for point in of["history"]:
        point |= {"valid_f1": 0.0, "valid_gold": 0.0}


def found_one_entity_of_the_test(found: Records) -> None:
    test, kept = next(iter(found.values()))["test"], True
    for counts in test["counts"].values():
        right, *_ = counts["right"].split() or [""]
        counts["right"] = right.partition(":")[0] if kept else ""
        kept = kept and not right
    lost = test["errors"]["right"] - 1
    test["errors"] |= {"right": 1, "missed": test["errors"]["missed"] + lost, "surplus": test["errors"]["surplus"] + lost}


def another_annotation(found: Records) -> None:
    for of in of_schedule(found, "linear"):
        of["annotation"] = "pocket_names-000000000000"


def another_annotation_of_one_seed(found: Records) -> None:
    for of in found.values():
        if of["seed"] == 1:
            of["annotation"] = "pocket_names-000000000000"


PLANTED_IN_TAGGERS: dict[Fault, tuple[Callable[[Records], None], ...]] = {
    Fault.PLACEHOLDER: (
        all_whole_seconds,
        no_history,
        more_entities_right,
        another_valid_f1,
        a_step_beyond_the_last,
        one_tagger_again,
    ),
    Fault.BEST_OF_K: (no_first_seed,),
    Fault.UNEQUAL_TRAINING: (
        twice_the_tagging_steps,
        fewer_gold_sentences,
        fewer_distilled_sentences,
        more_looks_of_one_seed,
        other_validation_rows,
        another_annotation,
        another_annotation_of_one_seed,
    ),
    Fault.TINY_VALIDATION: (ten_validation_rows,),
    Fault.CHOSEN_BY_TEACHER: (no_gold_validation_rows,),
    Fault.TEST_USED_TO_CHOOSE: (peeked_at_the_test, one_peeked_at_the_test),
    Fault.AT_CHANCE: (found_nothing_on_validation_rows, found_one_entity_of_the_test),
}


@pytest.mark.parametrize(("plant", "fault"), [(plant, fault) for fault, plants in PLANTED_IN_TAGGERS.items() for plant in plants])
def test_a_fault_in_records_of_taggers_is_found(plant, fault, tmp_path):
    found = taggers()
    assert len(found) == 6
    plant(found)
    report = lint([write(found, tmp_path)])
    assert kinds(report) == {fault}
    # Each names the file of the student, or the folder and the students in it.
    for one in report.findings:
        assert one.file.is_relative_to(tmp_path / "runs")
        assert one.rows
        assert set(one.rows) <= {of["run_id"] for of in found.values()}


@pytest.mark.parametrize("plant", [another_annotation, another_annotation_of_one_seed])
@pytest.mark.parametrize(("models", "fault"), [(("a", "a"), Fault.UNEQUAL_TRAINING), (("a", "b"), Fault.MIXED_TEACHERS)])
def test_annotations_are_of_several_teachers_where_their_jobs_say_so(models, fault, plant, tmp_path):
    found = taggers()
    plant(found)
    write(found, tmp_path)
    for id, model in zip(sorted({of["annotation"] for of in found.values()}), models, strict=True):
        (tmp_path / "annotations" / id).mkdir(parents=True)
        job = {"task": "pocket_names", "templates": [], "mix": {}, "rate": {}, "model": model}
        (tmp_path / "annotations" / id / "job.json").write_text(json.dumps(job))
    assert kinds(lint([tmp_path])) == {fault}


def another_tagger(of: dict[str, Any], n: int, **settings: Any) -> dict[str, Any]:
    "The record of a student that was trained on its own."
    history = [point | {"loss": point["loss"] * (1 + 0.01 * n)} for point in of["history"]]
    name = f"{of['schedule']}-seed{settings.get('seed', of['seed'])}-{n:012d}"
    return json.loads(json.dumps(of)) | {"run_id": name, "train_s": 311.17 + 7.3 * n, "history": history} | settings


def fewer_gold_sentences_as_well(found: Records) -> None:
    for n, of in enumerate([*of_schedule(found, "gold"), *of_schedule(found, "linear")], 1):
        other = another_tagger(of, n, gold_sentences=6, n_gold=6)
        found[other["run_id"]] = other


def a_third_seed_of_one(found: Records) -> None:
    other = another_tagger(of_schedule(found, "gold")[0], 1, seed=2)
    found[other["run_id"]] = other


def two_annotations_for_each(found: Records) -> None:
    for n, of in enumerate([*of_schedule(found, "distilled"), *of_schedule(found, "linear")], 1):
        other = another_tagger(of, n, annotation="pocket_names-000000000000")
        found[other["run_id"]] = other


def gold_of_another_annotation(found: Records) -> None:
    for of in of_schedule(found, "gold"):
        of["annotation"] = "pocket_names-000000000000"


def one_step_was_tried(found: Records) -> None:
    "Nothing is chosen, by whatever labels and on however few rows."
    for of in found.values():
        of |= {"history": of["history"][-1:], "best_step": of["history"][-1]["step"], "valid_f1": of["history"][-1]["valid_f1"]}
        of |= {"n_valid": 10, "valid_source": "teacher"}


def students_of_another_kind(found: Records) -> None:
    found |= records()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: None,
        fewer_gold_sentences_as_well,
        a_third_seed_of_one,
        two_annotations_for_each,
        gold_of_another_annotation,
        one_step_was_tried,
        students_of_another_kind,
    ],
)
def test_sound_records_of_taggers_give_no_alarm(change, tmp_path):
    found = taggers()
    change(found)
    report = lint([write(found, tmp_path)])
    assert (report.findings, report.n_files, report.not_looked_at) == ((), len(found), [])


def test_a_list_of_taggers_and_a_damaged_record(tmp_path):
    found = taggers()
    twice_the_tagging_steps(found)
    (tmp_path / "sweep.json").write_text(json.dumps(list(found.values())))
    assert {(one.fault, one.file) for one in lint([tmp_path]).findings} == {(Fault.UNEQUAL_TRAINING, tmp_path / "sweep.json")}
    (tmp_path / "sweep.json").unlink()
    broken = next(iter(found.values()))
    del broken["test"]["errors"]
    (tmp_path / "one.json").write_text(json.dumps(broken))
    (finding,) = lint([tmp_path]).findings
    assert (finding.fault, finding.file) == (Fault.PLACEHOLDER, tmp_path / "one.json")


def test_a_run_that_hides_its_worse_tagger(tmp_path):
    shutil.copytree(definitions_dir() / "recorded_runs" / "entities_run", tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    info = json.loads(path.read_text())
    found = taggers()
    worse = min(of_schedule(found, "linear"), key=f1_of)["run_id"]
    assert Fault.BEST_OF_K not in kinds(lint([tmp_path]))
    path.write_text(json.dumps(info | {"runs": [id for id in info["runs"] if id != worse]}))
    hidden = [one for one in lint([tmp_path]).findings if one.fault == Fault.BEST_OF_K]
    assert [(one.file, one.rows) for one in hidden] == [(path, (worse,))]
    assert "F1" in hidden[0].what


def test_the_recorded_taggers_have_no_fault_but_students_that_learned_little(monkeypatch):
    monkeypatch.chdir(definitions_dir() / "recorded_runs")
    strict = CliRunner().invoke(app, ["lint", "taggers", "--strict", "--json"])
    found = json.loads(strict.stdout)
    assert (strict.exit_code, {one["fault"] for one in found}, len(found)) == (1, {"at-chance"}, 4), strict.stdout
    assert "4 of 123 students are not shown to find more than needs no learning" in tagger_sentence(
        tagger_studies(read_taggers(Path("taggers")))
    )
    assert len(list(Path("taggers").glob("*.json"))) == 123


def as_it_was(prompts: dict[str, Any]) -> None:
    pass


def confirmed_on_the_same_rows(prompts: dict[str, Any]) -> None:
    prompts["confirmation"] = next(of for of in prompts["selection"] if of["template_id"] == prompts["winner"])


def not_confirmed(prompts: dict[str, Any]) -> None:
    none = asdict(share_of([]))
    prompts["confirmation"] |= {"accuracy": none, "explanation_rate": none, "explained_accuracy": none}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (as_it_was, []),
        (confirmed_on_the_same_rows, ["fact-and-guess: the confirmation has every figure of the selection; it is of the same 16 rows."]),
        (not_confirmed, ["fact-and-guess, the best of 4, was not confirmed on other rows."]),
    ],
)
def test_the_score_of_a_chosen_prompt(change, wanted, tmp_path):
    "The recorded demonstration chose among four templates on 16 rows and confirmed the winner on 40 others."
    shutil.copytree(recorded_run_dir(), tmp_path / "demo")
    path = tmp_path / "demo" / "prompts.json"
    prompts = json.loads(path.read_text())
    change(prompts)
    path.write_text(json.dumps(prompts))
    found = lint([tmp_path]).findings
    assert [one.what for one in found] == wanted
    assert all((one.fault, one.file, one.rows) == (Fault.CHOSEN_AND_REPORTED, path, ("fact-and-guess",)) for one in found)


def annotated(n: int, split: str, **more: Any) -> list[dict[str, Any]]:
    row = {"gold": "neutral", "label": "neutral", "label_error": "", "rationale_error": ""}
    return [
        row | {"id": f"{split}-{i}", "input": f"{split} sentence {i}", "rationale": f"The {split} text says {i}."} | more for i in range(n)
    ]


def write_annotation(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    folder = folder / "annotations" / "nli-0123456789ab"
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder.parents[1]


MOODS = [row | {"gold": ("good", "bad")[n % 2], "input": f"A day {n}"} for n, row in enumerate(annotated(20, "train"))]
TRAIN, TEST = annotated(20, "train"), annotated(10, "test")


@pytest.mark.parametrize(
    ("splits", "wanted"),
    [
        ({"train": TRAIN, "test": TEST}, set()),
        ({"train": [row | {"rationale": None} if n % 2 else row for n, row in enumerate(TRAIN)], "test": TEST}, set()),
        ({"train": TRAIN, "test": [*TEST, TRAIN[3] | {"id": "test-99", "input": "Train  sentence 3"}]}, {Fault.SHARED_ROWS}),
        ({"train": [row | {"rationale": ""} if n < 5 else row for n, row in enumerate(TRAIN)]}, {Fault.BLANK_RATIONALES}),
        ({"train": [row | {"rationale": "TODO"} if n < 5 else row for n, row in enumerate(TRAIN)]}, {Fault.PLACEHOLDER}),
        ({"train": [row | {"rationale": "It follows."} if n < 9 else row for n, row in enumerate(TRAIN)]}, {Fault.PLACEHOLDER}),
        ({"train": [row | {"teacher": "a" if n < 9 else "b"} for n, row in enumerate(TRAIN)]}, {Fault.MIXED_TEACHERS}),
        ({"train": [row | {"teacher": "a"} for row in TRAIN]}, set()),
        (
            {"train": [row | {"label": None, "label_error": "no response"} if n < 5 else row for n, row in enumerate(TRAIN)]},
            {Fault.UNANSWERED},
        ),
        ({"train": MOODS}, set()),
        ({"train": [row | {"input": f"{row['input']} It is {row['gold']}."} for row in MOODS]}, {Fault.LABEL_IN_PROMPT}),
    ],
)
def test_faults_in_annotations(splits, wanted, tmp_path):
    assert kinds(lint([write_annotation(tmp_path, **splits)])) == wanted


@pytest.mark.parametrize(("models", "wanted"), [(("m-0718",), set()), (("m-0718", "m-0901"), {Fault.MIXED_TEACHERS})])
def test_several_models_that_answered_under_one_name(models, wanted, tmp_path):
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for n in range(4):
            request = Request.build("m", [{"role": "user", "content": f"Question {n}?"}])
            said = Response(request.key, "neutral", "stop", 5, 1, 0.1, 1, "2026-11-27T00:00:00+00:00", models[n % len(models)])
            store.put(request, said)
    assert kinds(lint([tmp_path])) == wanted


TASK = """
name: mood
fields: {{text: text{extra}}}
label_column: mood
labels: [good, bad]
student_input: "{{text}}"
splits: {{train: train.jsonl, test: test.jsonl}}
"""
PROMPTS = """
task: mood
templates:
  - {{id: plain, user_message: "{message}", read: label-first}}
"""


def mood(folder: Path, message: str = "Good or bad? {text}", extra: str = "", n_shared: int = 0) -> Path:
    (folder / "mood.yaml").write_text(TASK.format(extra=extra))
    (folder / "mood-prompts.yaml").write_text(PROMPTS.format(message=message))
    rows = {
        split: [{"text": f"A long {split} day in town number {n}", "mood": ("good", "bad")[n % 2]} for n in range(30)]
        for split in ("train", "test")
    }
    rows["test"][:n_shared] = rows["train"][:n_shared]
    for split, of in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of))
    return folder


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, set()),
        ({"message": "Such as: A long train day in town number 3 is bad. Good or bad? {text}"}, set()),
        ({"n_shared": 2}, {Fault.SHARED_ROWS}),
        ({"message": "Why is this {label}? {text}"}, {Fault.LABEL_IN_PROMPT}),
        ({"message": "{text} {hint}", "extra": ", hint: mood"}, {Fault.LABEL_IN_PROMPT}),
        ({"message": "Such as: A long test day in town number 3 is bad. Good or bad? {text}"}, {Fault.LABEL_IN_PROMPT}),
    ],
)
def test_faults_in_a_task_and_its_prompts(changes, wanted, tmp_path):
    assert kinds(lint([mood(tmp_path, **changes)])) == wanted
    if wanted == {Fault.SHARED_ROWS}:  # the same by the task alone
        assert kinds(lint([], load_task(tmp_path / "mood.yaml"))) == wanted


def clone(folder: Path, question: str, **more: str) -> Path:
    "A part of a clone of the thesis repository, of another task: a template, its mix, and questions with the gold labels of their rows."
    labels = ["entailment", "neutral", "contradiction"] * 5
    for part in ("prompt-templates", "prompt-mixes", "query-results/esnli/train/179"):
        (folder / part).mkdir(parents=True)
    template = {"id": 179, "user_message": question, "label_parse": "(a|b)", "explanation_parse": "(.*)"}
    (folder / "prompt-templates" / "esnli.yaml").write_text(json.dumps({"dataset": "esnli", "templates": {"179": template}}))
    (folder / "prompt-mixes" / "8.yaml").write_text("seed: 42\nlabel: {179: 1.0}\nexplanation: {179: 1.0}\n")
    lines, gold = [], []
    for n, label in enumerate(labels):
        values = {"premise": f"A dog runs over field {n}.", "hypothesis": f"An animal is near {n}."}
        values |= {name: text.replace("GOLD", label) for name, text in more.items()}
        asked = question.format(**{"label": label} | values)
        lines.append(
            {
                "split": "train",
                "idx": n,
                "prompt_template_id": 179,
                "prompt_values": values,
                "complete_prompt": f"\n{asked}",
                "response": "So.",
            }
        )
        gold.append({"idx": n, "label": label})
    (folder / "query-results/esnli/train/179/responses.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "esnli_train_gold.jsonl").write_text("".join(json.dumps(line) + "\n" for line in gold))
    return folder


ASKED = "Premise: {premise} Hypothesis: {hypothesis} "


def test_the_answer_in_the_questions_of_the_thesis(tmp_path):
    sound = clone(tmp_path / "a", ASKED + "Is it entailment, neutral or contradiction?")
    assert lint([sound]).findings == ()
    by_name = lint([clone(tmp_path / "b", ASKED + "The answer is {label}. Why?")])
    assert kinds(by_name) == {Fault.LABEL_IN_PROMPT}
    (template,) = (one for one in by_name.findings if one.file.name == "esnli.yaml")
    assert template.rows == ("179",)
    assert "mix 8" in template.what
    by_value = lint([clone(tmp_path / "c", ASKED + "They say {relation}. Why?", relation="GOLD")])
    assert kinds(by_value) == {Fault.LABEL_IN_PROMPT}


def test_the_thesis_as_it_is():
    if not (SHARED / "thesis").is_dir():
        pytest.skip("the thesis's data are not there; set ZSD_SHARED_DATA or keep them at ../shared/data")
    found = lint([SHARED / "thesis"]).findings
    said = [one.what for one in found]
    assert any(what.startswith("24 of 367 rows have a training time") for what in said)
    assert any("t5-v1_1-base, standard, labels gt: 27 of 44 rows" in what for what in said)
    assert next(len(one.rows) for one in found if one.what.startswith("Prompt mix 9 has subsample 1 ")) == 9
    assert {one.fault for one in found if one.fault == Fault.LABEL_IN_PROMPT} == set()  # template 179 is of a task that is not here


def test_the_command_says_what_it_found(tmp_path, monkeypatch):
    found = records()
    monkeypatch.chdir(write(found, tmp_path))
    runner = CliRunner()
    clean = runner.invoke(app, ["lint", ".", "--strict"])
    assert (clean.exit_code, clean.output) == (0, "Nothing was found in 8 files.\n")
    path = next((tmp_path / "runs").iterdir())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"at_chance": True}))
    assert runner.invoke(app, ["lint", "."]).exit_code == 0
    strict = runner.invoke(app, ["lint", ".", "--strict", "--json"])
    (finding,) = json.loads(strict.output)
    assert (strict.exit_code, finding["fault"], Path(finding["file"]).name) == (1, "at-chance", path.name)
