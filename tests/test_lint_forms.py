"`zsd lint` on prompts with examples, prompt searches, tables by other names and files in other forms: what is planted is found, and what is not looked at is said."

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_lint import ASKED, RECORDS, SHARED, TRAIN, annotated, clone, kinds, mood, records
from typer.testing import CliRunner

from zero_shot_distill.cli.main import app
from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.store.export import export_parquet
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.study.findings import Fault
from zero_shot_distill.study.lint import lint
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task

LABEL, CHOSEN = Fault.LABEL_IN_PROMPT, Fault.CHOSEN_AND_REPORTED

# Templates that show more than a question.

DAY = "A long {split} day in town number 3"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "shots",
    [
        {"messages": [{"role": "user", "content": DAY}, {"role": "assistant", "content": "bad"}, {"role": "user", "content": "{{text}}"}]},
        {"user_message": "{{text}}", "examples": [{"text": DAY, "mood": "bad"}]},
        {"user_message": "{{text}}", "demonstrations": "One: " + DAY.upper() + " is bad."},
    ],
)
def test_an_example_of_a_template_that_is_a_row_of_the_test(shots, split, tmp_path):
    "A row for training may be an example; one of the test may not, wherever in the template it stands."
    mood(tmp_path)
    path = tmp_path / "mood-prompts.yaml"
    item = json.loads(
        json.dumps({"id": "shots", **shots}).replace("{split}", split).replace("{SPLIT}", split.upper()).replace("{{text}}", "{text}")
    )
    path.write_text(yaml.safe_dump({"task": "mood", "templates": [item]}))
    found = lint([tmp_path]).findings
    assert [(one.fault, one.file) for one in found] == ([(LABEL, path)] if split == "test" else [])


def test_an_example_that_the_template_is_scored_on(tmp_path):
    "A row for training may be an example, unless the run chose its prompt on it."
    shutil.copytree(definitions_dir() / "recorded_runs" / "demo", tmp_path, dirs_exist_ok=True)
    info, prompts = (json.loads((tmp_path / name).read_text()) for name in ("run.json", "prompts.json"))
    rows = list(load_examples(load_task("pocket_nli"), "train"))
    prompts["templates"][prompts["winner"]]["system_message"] = f"Such as: {rows[0].fields['premise']} {rows[0].fields['hypothesis']}"
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    for chosen_on, wanted in ((rows[0].id, {LABEL}), (rows[99].id, set())):
        (tmp_path / "run.json").write_text(json.dumps(info | {"selection_rows": [chosen_on]}))
        assert kinds(lint([tmp_path])) == wanted


def ask(store: ResponseStore, question: str, *examples: str) -> None:
    before = [turn for text in examples for turn in ({"role": "user", "content": text}, {"role": "assistant", "content": "bad"})]
    request = Request.build("m", [*before, {"role": "user", "content": question}])
    store.put(request, Response(request.key, "good", "stop", 5, 1, 0.1, 1, "2026-11-27T00:00:00+00:00", "m"))


@pytest.mark.parametrize("form", ["sqlite", "parquet"])
@pytest.mark.parametrize(
    ("example", "wanted"),
    [
        ("A long train day in town number 3", set()),
        ("A long test day in town number 3", {LABEL}),
        ("A long train day in town number 5", {LABEL}),
    ],
)
def test_turns_of_a_request(example, wanted, form, tmp_path):
    "The second is a row of the test, the third one that is then asked about."
    mood(tmp_path)
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        for n in (4, 5):
            ask(store, f"A long train day in town number {n}", example)
        if form == "parquet":
            export_parquet(store, tmp_path / "exported.parquet")
    if form == "parquet":
        (tmp_path / "responses.sqlite").unlink()
    found = lint([tmp_path])
    assert kinds(found) == wanted
    assert all(one.file.suffix == f".{form}" for one in found.findings)


def test_examples_in_the_questions_of_the_thesis(tmp_path):
    "Rows 3 and 40: one that is asked about in the same file, and one that is not."
    example = "Premise: A dog runs over field {n}. Hypothesis: An animal is near {n}. Answer: neutral. "
    assert lint([clone(tmp_path / "a", example.format(n=40) + ASKED)]).findings == ()
    (finding,) = lint([clone(tmp_path / "b", example.format(n=3) + ASKED)]).findings
    assert (finding.fault, finding.rows, finding.file.name) == (LABEL, ("train row 3",), "responses.json")


def test_rows_of_the_thesis_in_two_splits(tmp_path):
    "The test asks about other rows, and then about row 7 of the training, too."
    folder = clone(tmp_path, ASKED)
    train = folder / "query-results" / "esnli" / "train" / "179" / "responses.json"
    test = folder / "query-results" / "esnli" / "test" / "179" / "responses.json"
    test.parent.mkdir(parents=True)
    lines = [json.loads(line) | {"split": "test"} for line in train.read_text().replace("over field", "round field").splitlines()]
    test.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert lint([folder]).findings == ()
    lines[2]["prompt_values"]["premise"] = "A dog runs over field 7."
    lines[2]["prompt_values"]["hypothesis"] = "An animal is near 7."
    test.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [(one.fault, one.rows) for one in lint([folder]).findings] == [(Fault.SHARED_ROWS, ("row 2",))]


# Prompt searches: one recorded search, changed.

Lines = list[dict[str, Any]]
SEARCHES = definitions_dir() / "recorded_runs" / "search" / "searches"


def recorded(proposer: str = "opro") -> Lines:
    (path,) = SEARCHES.glob(f"*-{proposer}-*/trajectory.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_search(lines: Lines, folder: Path, name: str = "pocket_nli-opro-0") -> Path:
    path = folder / "searches" / name / "trajectory.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@cache
def rows_of(split: str) -> list:
    return list(load_examples(load_task("pocket_nli"), split))


def confirmation(lines: Lines) -> dict[str, Any]:
    return lines[-1]["ended"]["confirmation"]


def tried(lines: Lines) -> list[dict[str, Any]]:
    return [one for line in lines if line.get("number") for one in line["candidates"] if one["score"]]


def a_row_of_the_test(lines: Lines) -> None:
    row = rows_of("test")[0]
    tried(lines)[0]["template"]["user_message"] += f" {row.fields['premise']} {row.fields['hypothesis']}"


def a_selection_row(lines: Lines) -> None:
    row = next(row for row in rows_of("train") if row.id == lines[0]["rows"][0])
    tried(lines)[0]["template"]["user_message"] += f" {row.fields['premise']} {row.fields['hypothesis']}"


def the_gold_label(lines: Lines) -> None:
    tried(lines)[0]["template"]["user_message"] += " It is {label}."


def on_the_test(lines: Lines) -> None:
    lines[0]["rows"] = [row.id for row in rows_of("test")[:16]]


def a_shared_group(lines: Lines) -> None:
    premise = next(row for row in rows_of("train") if row.id == lines[0]["rows"][0]).fields["premise"]
    confirmation(lines)["groups"][0] = premise


def confirmed_on_the_selection(lines: Lines) -> None:
    "The outcomes of the selection rows, under groups of other rows."
    by_id = {one["id"]: one["score"] for line in lines if "number" in line for one in line["candidates"] if one["score"]}
    made = confirmation(lines)
    for id in made["outcomes"]:
        made["outcomes"][id] = [int(a) + int(a) * int(b) for a, b in zip(by_id[id]["right"], by_id[id]["explained"], strict=True)]
    made["groups"] = [f"group {n}" for n in range(16)]


def few_confirmation_rows(lines: Lines) -> None:
    made = confirmation(lines)
    made["outcomes"] = {id: outcomes[:12] for id, outcomes in made["outcomes"].items()}
    made["groups"] = made["groups"][:12]


def scored_on_other_rows(lines: Lines) -> None:
    score = tried(lines)[0]["score"]
    score["right"], score["explained"] = score["right"][:10], score["explained"][:10]


def never_tried(lines: Lines) -> None:
    made = confirmation(lines)
    for name in ("scores", "outcomes"):
        made[name] = {id if id == made["incumbent"] else f"{id}-x": of for id, of in made[name].items()}


def malformed(lines: Lines) -> None:
    del lines[1]["candidates"]


def interrupted(lines: Lines) -> None:
    del lines[-1]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda lines: None, set()),
        (interrupted, set()),
        (a_row_of_the_test, {LABEL}),
        (a_selection_row, {LABEL}),
        (the_gold_label, {LABEL}),
        (on_the_test, {Fault.TEST_USED_TO_CHOOSE}),
        (a_shared_group, {CHOSEN}),
        (confirmed_on_the_selection, {CHOSEN}),
        (few_confirmation_rows, {Fault.TINY_VALIDATION}),
        (scored_on_other_rows, {Fault.PLACEHOLDER}),
        (never_tried, {Fault.PLACEHOLDER}),
        (malformed, {Fault.PLACEHOLDER}),
    ],
)
def test_a_prompt_search(change: Callable[[Lines], None], wanted, tmp_path):
    lines = recorded()
    change(lines)
    path = write_search(lines, tmp_path)
    found = lint([tmp_path])
    assert kinds(found) == wanted
    assert all(one.file == path for one in found.findings)


def test_seeds_of_a_search_that_are_not_there(tmp_path):
    "Two ways of searching with seeds 0 to 2, of which one lacks its second; a later seed of one alone is nothing."
    for name, seeds in (("opro", (0, 1, 2)), ("paraphrase", (0, 1, 2, 3))):
        for seed in seeds:
            lines = recorded(name)
            lines[0]["seed"] = seed
            write_search(lines, tmp_path, f"pocket_nli-{name}-{seed}")
    assert lint([tmp_path]).findings == ()
    shutil.rmtree(tmp_path / "searches" / "pocket_nli-opro-1")
    (finding,) = lint([tmp_path]).findings
    assert (finding.fault, finding.rows) == (Fault.BEST_OF_K, ("pocket_nli-opro-0", "pocket_nli-opro-2"))


def test_a_search_whose_trajectory_is_gone(tmp_path):
    path = write_search(recorded(), tmp_path)
    template = tried(recorded())[0]["template"]
    path.with_name("prompts.yaml").write_text(yaml.safe_dump({"task": "pocket_nli", "templates": [template]}))
    assert lint([tmp_path]).findings == ()
    path.unlink()
    (finding,) = lint([tmp_path]).findings
    assert (finding.fault, finding.file) == (Fault.BEST_OF_K, path.with_name("prompts.yaml"))


def in_use(lines: Lines, candidate: dict[str, Any], folder: Path) -> Path:
    "A mix that asks a template of the search."
    folder.mkdir(parents=True, exist_ok=True)
    template = candidate["template"] | {"id": "found"}
    (folder / "prompts.yaml").write_text(yaml.safe_dump({"task": "pocket_nli", "templates": [template]}))
    (folder / "mix.yaml").write_text("label: {found: 1.0}\nexplanation: {found: 1.0}\n")
    return folder / "mix.yaml"


def test_a_mix_that_asks_what_no_other_rows_confirmed(tmp_path):
    lines = recorded()
    write_search(lines, tmp_path)
    confirmed, others = [], []
    for one in tried(lines):
        (confirmed if one["id"] in confirmation(lines)["scores"] else others).append(one)
    mix = in_use(lines, confirmed[0], tmp_path / "mine")
    assert lint([tmp_path]).findings == ()
    in_use(lines, others[0], tmp_path / "mine")
    (finding,) = lint([tmp_path]).findings
    assert (finding.fault, finding.file) == (CHOSEN, mix)
    # By the file that the search wrote, under the id that it gave.
    (tmp_path / "mine" / "prompts.yaml").rename(tmp_path / "searches" / "pocket_nli-opro-0" / "prompts.yaml")
    assert [(one.fault, one.file) for one in lint([tmp_path]).findings] == [(CHOSEN, mix)]


def test_a_mix_that_asks_the_best_of_several_searches(tmp_path):
    "Three seeds confirmed on the same rows; the first is best there, and a mix asks what it found."
    for seed in range(3):
        lines = recorded("starters")
        lines[0]["seed"] = seed
        if seed:
            made = confirmation(lines)
            made["outcomes"] = {id: [0] * len(of) for id, of in made["outcomes"].items()}
        write_search(lines, tmp_path, f"pocket_nli-starters-{seed}")
    first = recorded("starters")
    best = next(one for one in tried(first) if one["id"] in confirmation(first)["scores"])
    mix = in_use(first, best, tmp_path / "mine")
    (finding,) = lint([tmp_path]).findings
    assert (finding.fault, finding.file) == (Fault.BEST_OF_K, mix)
    for seed in (1, 2):
        shutil.rmtree(tmp_path / "searches" / f"pocket_nli-starters-{seed}")
    assert lint([tmp_path]).findings == ()


# Tables of students, by their columns.

TABLE = SHARED / "thesis" / "experiment-tracking" / "experiment_tracking.csv"


def test_the_thesis_s_table_by_another_name(tmp_path):
    "Every finding of the table is found in a copy with another name, and in one without three columns, as far as these tell."
    if not TABLE.is_file():
        pytest.skip("the thesis's data are not there; set ZSD_SHARED_DATA or keep them at ../shared/data")
    (tmp_path / "a").mkdir()
    shutil.copy(TABLE, tmp_path / "a" / "runs of mine.csv")
    original, copy = lint([TABLE]), lint([tmp_path / "a"])
    assert [(one.fault, one.what, one.rows) for one in copy.findings] == [(one.fault, one.what, one.rows) for one in original.findings]
    rows = list(csv.DictReader(TABLE.open()))
    left = [name for name in rows[0] if name not in ("category", "optimizer", "max_input_length")]
    (tmp_path / "b").mkdir()
    with (tmp_path / "b" / "less.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, left, delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    less = lint([tmp_path / "b"])
    assert [(one.fault, one.what) for one in less.findings] == [(one.fault, one.what) for one in original.findings]


Table = list[dict[str, Any]]


def own_table() -> Table:
    "Two methods with other names for their columns, five seeds each."
    ways = [("standard", 0.60), ("step-by-step", 0.66)]
    return [
        {
            "task": "esnli",
            "student": "t5",
            "method": way,
            "seed": seed,
            "max_steps": 400,
            "train_s": 431.17 + 3.31 * seed + n,
            "accuracy": at + seed / 97,
        }
        for n, (way, at) in enumerate(ways)
        for seed in range(5)
    ]


def without_the_third_seed(table: Table) -> None:
    del table[2]


def twice_the_steps(table: Table) -> None:
    for row in table[5:]:
        row["max_steps"] = 800


def at_chance(table: Table) -> None:
    table[1]["accuracy"] = 0.335


def typed_in(table: Table) -> None:
    for row in table:
        row["train_s"] = 60.0


def the_same_run_twice(table: Table) -> None:
    table.append(dict(table[0]))


def no_accuracy(table: Table) -> None:
    table[0]["accuracy"] = None


def percent(table: Table) -> None:
    for row in table:
        row["accuracy"] = f"{100 * row['accuracy']:.1f} % (± 2)"


def write_table(table: Table, path: Path) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(table))
    elif path.suffix == ".parquet":
        import pandas as pd

        pd.DataFrame(table).to_parquet(path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), delimiter=";")
            writer.writeheader()
            writer.writerows(table)


@pytest.mark.parametrize("name", ["results.csv", "all.json", "runs.parquet"])
@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda table: None, set()),
        (percent, set()),
        (without_the_third_seed, {Fault.BEST_OF_K}),
        (twice_the_steps, {Fault.UNEQUAL_TRAINING}),
        (at_chance, {Fault.AT_CHANCE}),
        (typed_in, {Fault.PLACEHOLDER}),
        (the_same_run_twice, {Fault.PLACEHOLDER}),
        (no_accuracy, {Fault.PLACEHOLDER}),
    ],
)
def test_a_table_of_one_s_own(change, wanted, name, tmp_path):
    table = own_table()
    change(table)
    write_table(table, tmp_path / name)
    assert kinds(lint([tmp_path])) == wanted


def test_chance_of_a_data_set_that_nobody_knows(tmp_path):
    "It is told by a definition, or by gold labels; where neither is there, it is said that it is not known."
    table = own_table()
    for row in table:
        row["task"] = "mood"
    table[3]["accuracy"] = 0.5
    write_table(table, tmp_path / "mine.csv")
    unknown = lint([tmp_path])
    assert unknown.findings == ()
    assert "chance is not known of mood" in " ".join(unknown.text.split())
    (tmp_path / "mood_train_gold.jsonl").write_text(
        "".join(json.dumps({"idx": n, "label": ("good", "bad")[n % 2]}) + "\n" for n in range(40))
    )
    by_gold = lint([tmp_path])
    assert (kinds(by_gold), by_gold.passed_over) == ({Fault.AT_CHANCE}, ())
    (tmp_path / "mood_train_gold.jsonl").unlink()
    (tmp_path / "defined").mkdir()
    mood(tmp_path / "defined")
    by_task = lint([tmp_path])
    assert (kinds(by_task), by_task.passed_over) == ({Fault.AT_CHANCE}, ())


def test_result_files_without_their_table(tmp_path):
    for seed, accuracy in enumerate((0.45, 0.334, 0.46)):
        folder = tmp_path / f"results/anli1/t5-v1_1-base/standard/None/1.0/0/gt/0.5/1024/32/AdamW/5e-05/{seed}"
        folder.mkdir(parents=True)
        (folder / "eval_results.txt").write_text(f"{{'eval_accuracy': {accuracy}, 'eval_runtime': 1.0, 'eval_samples_per_second': 900.0}}")
    (finding,) = lint([tmp_path]).findings
    assert (finding.fault, finding.rows) == (Fault.AT_CHANCE, ("anli1 t5-v1_1-base standard mix 0, run 1",))


# Records and rows in other forms.


def test_a_list_of_records(tmp_path):
    "As `zsd sweep --json` prints it; what lies beside it in files of its own is not told twice."
    found = records()
    next(iter(found.values()))["at_chance"] = True
    (tmp_path / "sweep.json").write_text(json.dumps(list(found.values())))
    (finding,) = lint([tmp_path]).findings
    assert (finding.fault, finding.file.name) == (Fault.AT_CHANCE, "sweep.json")
    (tmp_path / "runs").mkdir()
    for name, of in found.items():
        (tmp_path / "runs" / f"{name}.json").write_text(json.dumps(of))
    (finding,) = lint([tmp_path]).findings
    assert finding.file.parent.name == "runs"


def test_a_record_that_contradicts_what_the_student_said(tmp_path):
    path = next(RECORDS.glob("*-gold-seed0-*.json"))
    shutil.copy(path, tmp_path)
    test = json.loads(path.read_text())["test"]
    said = [{"id": f"t{n}", "fields": {}, "gold": "a", "label": "a", "is_right": n < test["n_correct"]} for n in range(test["n"])]
    predictions = tmp_path / f"{path.stem}.predictions.jsonl"
    predictions.write_text("".join(json.dumps(row) + "\n" for row in said))
    before = kinds(lint([tmp_path]))
    assert Fault.PLACEHOLDER not in before
    said[0]["is_right"] = False
    predictions.write_text("".join(json.dumps(row) + "\n" for row in said))
    assert kinds(lint([tmp_path])) == before | {Fault.PLACEHOLDER}


ROWS = [row | {"rationale": None if n == 4 else row["rationale"]} for n, row in enumerate(TRAIN)]
MADE_UP = [row | {"rationale": "TODO"} if n < 5 else row for n, row in enumerate(ROWS)]


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def jsonl_gz(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    with gzip.open(folder / f"{split}.jsonl.gz", "wt") as file:
        file.write(as_lines(rows))


def table_csv(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    with (folder / f"{split}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def parquet(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    import pandas as pd

    pd.DataFrame(rows).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def saved_dataset(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(folder / split))


def json_list(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{split}.json").write_text(json.dumps(rows))


def cot(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{split}_CoT.json").write_text(as_lines([{"label": row["label"], "explanation": row["rationale"]} for row in rows]))


@pytest.mark.parametrize("write", [jsonl_gz, table_csv, parquet, saved_dataset, json_list, cot])
def test_annotated_rows_in_other_forms(write, tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", "train", ROWS)
    write(tmp_path / "a", "valid", annotated(10, "valid"))
    clean = lint([tmp_path])
    assert (clean.findings, clean.passed_over) == ((), ())
    (tmp_path / "b").mkdir()
    write(tmp_path / "b", "train", MADE_UP)
    write(tmp_path / "b", "valid", ROWS[:3])
    shared = set() if write is cot else {Fault.SHARED_ROWS}  # such a file has no inputs
    assert kinds(lint([tmp_path / "b"])) == {Fault.PLACEHOLDER} | shared


def test_a_release_repeats_what_is_told_of_its_rows(tmp_path):
    "JSONL, `_CoT.json` and a `datasets` folder of one annotation: a fault in it is told once."
    import datasets

    (tmp_path / "train.jsonl").write_text(as_lines(MADE_UP))
    cot(tmp_path, "train", MADE_UP)
    datasets.DatasetDict({"train": datasets.Dataset.from_list(MADE_UP)}).save_to_disk(str(tmp_path / "dataset"))
    report = lint([tmp_path])
    assert [(one.fault, one.file.name) for one in report.findings] == [(Fault.PLACEHOLDER, "train.jsonl")]
    assert report.passed_over == ()


def test_a_data_set_without_a_definition(tmp_path):
    rows = {split: [{"sentence": f"A long {split} day in town {n}", "mood": "good"} for n in range(20)] for split in ("train", "test")}
    for split, of in rows.items():
        (tmp_path / f"{split}.jsonl").write_text(as_lines(of))
    assert lint([tmp_path]).findings == ()
    (tmp_path / "test.jsonl").write_text(as_lines([*rows["test"], rows["train"][7]]))
    (finding,) = lint([tmp_path]).findings
    assert (finding.fault, finding.rows) == (Fault.SHARED_ROWS, ("line 21",))


# What was not looked at.


def test_what_was_not_looked_at_is_said(tmp_path):
    found = records()
    (tmp_path / "runs").mkdir()
    for name, of in found.items():
        (tmp_path / "runs" / f"{name}.json").write_text(json.dumps(of))
    (tmp_path / "scores.json").write_text('{"a": 1}')
    (tmp_path / "table.csv").write_text("x,y\n1,2\n")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a"')
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "kept.sqlite").write_bytes(b"no database at all" * 100)
    (tmp_path / "README.md").write_text("Mine.")
    with gzip.open(tmp_path / "cut.jsonl.gz", "wt") as file:
        file.write(as_lines(ROWS * 50))
    (tmp_path / "cut.jsonl.gz").write_bytes((tmp_path / "cut.jsonl.gz").read_bytes()[:60])
    report = lint([tmp_path])
    assert report.findings == ()
    said = {one.path.name: one.why for one in report.passed_over}
    assert {name for name, why in said.items() if not why} == {"scores.json", "table.csv", "rows.jsonl"}
    assert {name for name, why in said.items() if why} == {"broken.yaml", "kept.sqlite", "cut.jsonl.gz"}
    assert report.n_other == 1
    text = " ".join(report.text.split())
    for part in (
        "Nothing was found in 8 files.",
        "Not looked at:",
        "3 files of no known kind (",
        "broken.yaml: ",
        "1 file whose ending is of no data",
    ):
        assert part in text
    as_json = CliRunner().invoke(app, ["lint", str(tmp_path), "--json"])
    assert json.loads(as_json.stdout) == []
    assert "Not looked at:" in as_json.stderr
    assert "Not looked at" not in lint([tmp_path / "runs"]).text


def test_a_file_that_breaks_off_is_looked_at_as_far_as_it_goes(tmp_path):
    (tmp_path / "train.jsonl").write_text(as_lines(MADE_UP) + '{"id": "r')
    report = lint([tmp_path])
    assert kinds(report) == {Fault.PLACEHOLDER}
    assert [one.why for one in report.passed_over] == ["from line 21 on it is not valid JSON"]


def test_rows_that_are_not_here_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSD_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("ZSD_CACHE", str(tmp_path / "nowhere"))
    shutil.copy(definitions_dir() / "tasks" / "cqa.yaml", tmp_path / "cqa.yaml")
    (one,) = lint([tmp_path]).passed_over
    assert one.path.name == "cqa.yaml"
    assert "rows that are not on this machine" in one.why


def test_files_that_are_no_splits_and_parts_of_one_split(tmp_path):
    "A log of the training is no data set; the parts of a split are one; splits of two data sets are not compared."
    (tmp_path / "train.csv").write_text("step,loss\n1,0.53\n2,0.22\n")
    (tmp_path / "test_results.json").write_text('[{"name": "a long name of something"}]')
    rows = [{"sentence": f"A long day in a small town, number {n}"} for n in range(8)]
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data", "a", rows)
    (tmp_path / "data" / "a-00000-of-00001.parquet").rename(tmp_path / "data" / "train-00000-of-00002.parquet")
    parquet(tmp_path / "data", "b", rows[:2])
    (tmp_path / "data" / "b-00000-of-00001.parquet").rename(tmp_path / "data" / "train-00001-of-00002.parquet")
    (tmp_path / "data" / "moods_dev.jsonl").write_text(as_lines(rows[:3]))
    report = lint([tmp_path])
    assert report.findings == ()
    assert {one.path.name for one in report.passed_over} == {"train.csv", "test_results.json"}
    (tmp_path / "data" / "moods_train.jsonl").write_text(as_lines(rows[2:]))
    assert [(one.fault, one.rows) for one in lint([tmp_path]).findings] == [(Fault.SHARED_ROWS, ("line 3",))]
