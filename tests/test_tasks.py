"The built-in tasks on real data, and on their own terms where there is none."

import json
import os
from collections import Counter
from pathlib import Path

import pandas
import pytest
from repository import ROOT
from zsd_command import environment, zsd

from zero_shot_distill.core.definition import DataError
from zero_shot_distill.entities.entity import read_entities
from zero_shot_distill.task.load import count_rows, load_examples, load_whole, own_copy, tag_faults
from zero_shot_distill.task.task import Split, Task, list_tasks, load_task

SHARED = Path(os.environ.get("ZSD_SHARED_DATA") or ROOT.parent / "shared" / "data")
PUBLISHED = {
    "esnli": {"train": 549_367, "valid": 9_842, "test": 9_824},
    "anli1": {"train": 16_946, "valid": 1_000, "test": 1_000},
    "cqa": {"train": 8_766, "valid": 975, "test": 1_221},
    "svamp": {"train": 720, "valid": 80, "test": 200},
    "asdiv": {"train": 2_305},
    "conll2003": {"train": 14_041, "valid": 3_250, "test": 3_453},
    "wnut17": {"train": 3_394, "valid": 1_009, "test": 1_287},
}


def shared(name: str) -> Path:
    "A file of the shared data."
    if not (SHARED / name).is_file():
        pytest.skip(f"no {name} in {SHARED}; ZSD_SHARED_DATA names another folder")
    return SHARED / name


@pytest.fixture
def svamp(monkeypatch):
    shared("svamp/SVAMP.json")
    monkeypatch.setenv("ZSD_DATA", str(SHARED))
    return load_task("svamp")


def lay(folder: Path, name: str, rows: list[dict]) -> None:
    "One JSON object a line, as the code of Distilling Step-by-Step writes it into its folder `datasets`."
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# As published


@pytest.mark.parametrize("name", PUBLISHED)
def test_definitions(name):
    task = load_task(name)
    assert {split: count_rows(task, split) for split in task.splits} == PUBLISHED[name]
    assert task.licence != "unknown"
    assert task.hub.revision


def test_built_in_tasks():
    assert list_tasks() == sorted([*PUBLISHED, "pocket_names", "pocket_nli"])


def test_anli_as_its_authors_publish_it(tmp_path, monkeypatch):
    "The premise is called context there, labels are letters."
    rows = [
        {"uid": f"u{n}", "context": "A dog runs.", "hypothesis": f"Note {n}.", "label": "enc"[n], "reason": "It says so."} for n in range(3)
    ]
    lay(tmp_path / "anli1", "train.jsonl", rows)
    monkeypatch.setenv("ZSD_DATA", str(tmp_path))
    read = load_examples(load_task("anli1"), "train")
    assert [row.label for row in read] == ["entailment", "neutral", "contradiction"]
    assert read[0].fields == {"premise": "A dog runs.", "hypothesis": "Note 0."}
    assert read[0].rationale == "It says so."


def test_svamp_is_split_as_published(svamp):
    train, test = load_whole(svamp, "train"), load_examples(svamp, "test")
    assert (len(train), len(test)) == (800, 200)
    asked = [(row.id, row.fields["question"].partition("\n")[2], row.label) for row in (train[0], train[-1], test[0], test[-1])]
    assert asked == [
        ("train-0", "How many points did he score per round?", "( 84.0 / 2.0 )"),
        ("train-799", "How many green peaches are in the basket?", "( 16.0 - 13.0 )"),
        ("test-0", "How many seeds did they plant?", "( 10.0 * 45.0 )"),
        ("test-199", "How many pastries would baker still have?", "( 56.0 - 29.0 )"),
    ]
    source = json.loads(shared("svamp/SVAMP.json").read_text())
    published = {(f"{row['Body']}\n{row['Question']}", row["Equation"]) for row in source}
    assert {(svamp.input_text(row), row.label) for row in train + test} == published
    # A fault of the published file: ( ( 4.0 - 2.0 ) + 3.0 ) is said to be 1.
    assert [row["ID"] for row in source if not svamp.is_right(str(row["Answer"]), row["Equation"])] == ["chal-680"]


def test_svamp_holds_a_tenth_of_train_out(svamp):
    whole, train, valid = load_whole(svamp, "train"), load_examples(svamp, "train"), load_examples(svamp, "valid")
    assert (len(train), len(valid)) == (720, 80)
    datasets = pytest.importorskip("datasets")
    published = datasets.Dataset.from_dict({"id": [row.id for row in whole]}).train_test_split(test_size=0.1, seed=0)
    assert [row.id for row in train] == list(published["train"]["id"])
    assert [row.id for row in valid] == list(published["test"]["id"])


def test_a_second_share_leaves_the_published_one_as_it_is(svamp):
    "It is drawn from what the first one left, as a share of all rows."
    more = svamp.model_copy(update={"splits": svamp.splits | {"more": Split(of="train", share=0.25, seed=3)}})
    valid, extra, train = (load_examples(more, split) for split in ("valid", "more", "train"))
    assert valid == load_examples(svamp, "valid")
    assert (len(valid), len(extra), len(train)) == (80, 200, 520)
    assert {row.id for row in extra} < {row.id for row in load_examples(svamp, "train")}
    assert {row.id for row in valid + extra + train} == {row.id for row in load_whole(svamp, "train")}


def test_shares_keep_groups_together(tmp_path):
    "Three of four rows are one author's: they stay where they are."
    rows = [{"text": f"Text {n}.", "by": f"a{n // 3}" if n < 300 else "many", "label": "ab"[n % 2]} for n in range(1200)]
    lay(tmp_path, "train.jsonl", rows)
    content = {"name": "mine", "fields": {"text": "text"}, "label_column": "label", "labels": ["a", "b"], "student_input": "{text}"}
    shares = {split: {"of": "train", "share": 0.1} for split in ("valid", "test")}
    task = Task.model_validate(content | {"group_field": "by", "splits": {"train": tmp_path / "train.jsonl"} | shares})
    groups = {split: [task.group_of(row) for row in load_examples(task, split)] for split in task.splits}
    assert {split: len(found) for split, found in groups.items()} == {"train": 960, "valid": 120, "test": 120}
    assert sum(len(set(found)) for found in groups.values()) == 101
    assert groups["train"].count("many") == 900


@pytest.mark.parametrize("split", ["train", "test"])
def test_svamp_rows_have_the_numbers_of_the_thesis(svamp, split):
    rows = {row.id: row for row in load_whole(svamp, split)}
    lines = shared(f"thesis/query-results/svamp/{split}/2/responses.json").read_text().splitlines()
    asked = {f"{split}-{reply['idx']}": reply["prompt_values"] for reply in map(json.loads, lines)}
    assert len(asked) == len(rows)
    assert asked == {name: row.fields for name, row in rows.items()}


def test_svamp_in_another_order_is_the_same(svamp, tmp_path, monkeypatch):
    published = load_examples(svamp, "train")
    lay(tmp_path, "svamp/SVAMP.jsonl", json.loads(shared("svamp/SVAMP.json").read_text())[::-1])
    monkeypatch.setenv("ZSD_DATA", str(tmp_path))
    assert load_examples(svamp, "train") == published


def test_esnli_from_its_authors_file(monkeypatch):
    shared("esnli/esnli_dev.jsonl")
    monkeypatch.setenv("ZSD_DATA", str(SHARED))
    task = load_task("esnli")
    rows = load_examples(task, "valid")
    assert len(rows) == PUBLISHED["esnli"]["valid"]
    assert Counter(row.label for row in rows) == {"entailment": 3329, "contradiction": 3278, "neutral": 3235}
    assert all(row.rationale for row in rows)
    assert task.input_text(rows[1]) == "Two women are embracing while holding to go packages . </s>Two woman are holding packages . "


# From the folder of Distilling Step-by-Step


def test_cqa(tmp_path, monkeypatch):
    question = {"id": "x", "question": "Where do cups go?", "choices": ["sink", "New York", "Table", "floor", "roof"], "answer": "New York"}
    question |= {"abstractive_explanation": "They go there.", "extractive_explanation": "cups"}
    lay(tmp_path, "cqa/cqa_train.json", [question | {"question": f"Where do {n} cups go?"} for n in range(9741)])
    lay(tmp_path, "cqa/cqa_test.json", [question])
    monkeypatch.setenv("ZSD_DATA", str(tmp_path))
    task = load_task("cqa")
    assert {split: len(load_examples(task, split)) for split in ("train", "valid")} == {"train": 8766, "valid": 975}
    (row,) = load_examples(task, "test")
    assert task.input_text(row) == "Where do cups go?\nAnswer Choices:\n(a) sink\n(b) New York\n(c) Table\n(d) floor\n(e) roof"
    assert (row.id, row.label, row.rationale) == ("test-0", "new york", "They go there.")
    assert task.read_label("(c)", row) == "table"
    lay(tmp_path, "cqa/cqa_test.json", [question | {"answer": "moon"}])
    with pytest.raises(DataError, match=r"cqa_test.json:1: label 'moon' is none of sink, New York"):
        load_examples(task, "test")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_copy_of_any_kind(tmp_path, monkeypatch, suffix):
    "A table without lists has the choices in columns of their own."
    row = {"question": "Where do cups go?", "answer": "kitchen", "abstractive_explanation": "They go there."}
    row |= {f"choice_{letter}": place for letter, place in zip("abcde", ["sink", "kitchen", "roof", "table", "floor"], strict=True)}
    path = tmp_path / "cqa" / f"test{suffix}"
    path.parent.mkdir()
    table = pandas.DataFrame([row])
    write = {
        ".jsonl": lambda: table.to_json(path, orient="records", lines=True),
        ".json": lambda: table.to_json(path, orient="records"),
        ".csv": lambda: table.to_csv(path, index=False),
        ".parquet": lambda: table.to_parquet(path),
    }
    write[suffix]()
    monkeypatch.setenv("ZSD_DATA", str(tmp_path))
    (example,) = load_examples(load_task("cqa"), "test")
    assert example.fields == {name: row[name] for name in load_task("cqa").fields}
    assert (example.id, example.label) == ("test-0", "kitchen")


def test_anli1(tmp_path, monkeypatch):
    row = {"uid": "1", "premise": "It rains.", "hypothesis": "It is dry.", "reason": "Rain is wet."}
    lay(tmp_path, "anli1/anli1_test.json", [row | {"label": label} for label in (0, 1, 2, "c")])
    monkeypatch.setenv("ZSD_DATA", str(tmp_path))
    rows = load_examples(load_task("anli1"), "test")
    assert [row.label for row in rows] == ["entailment", "neutral", "contradiction", "contradiction"]
    assert [row.id for row in rows] == ["test-0", "test-1", "test-2", "test-3"]


def test_asdiv(tmp_path, monkeypatch):
    "An answer that is no number is no label: it is neither refused nor guessed."
    answers = ["9 (apples)", "1,200 (g)", "3/4", "5 (red); 3 (blue)", "-2", "2:3", "Friday", ""]
    lay(tmp_path, "asdiv/asdiv_train.json", [{"Body": "Body.", "Question": "How many?", "Answer": answer} for answer in answers])
    monkeypatch.setenv("ZSD_DATA", str(tmp_path))
    task = load_task("asdiv")
    rows = load_examples(task, "train")
    assert [row.label for row in rows] == ["9", "1,200", "3/4", "5", "-2", None, None, None]
    assert task.input_text(rows[0]) == "Body.\nHow many?"


# What is wrong is one line


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_hub_that_cannot_be_reached(tmp_path, split):
    "With the address of nothing as the hub's, so that it holds with and without a network."
    settings = environment(HF_ENDPOINT="http://127.0.0.1:9", ZSD_DATA=str(tmp_path / "mine"), ZSD_CACHE=str(tmp_path / "cache"))
    shown = " ".join(f"{{{field}}}" for field in load_task("cqa").fields)
    template = f"{{id: ask, user_message: '{shown}', reply_pattern: '(?P<label>.+)'}}"
    (tmp_path / "prompts.yaml").write_text(f"task: cqa\ntemplates: [{template}]")
    arguments = (
        "--task",
        "cqa",
        "--splits",
        split,
        "--mix",
        "ask",
        "--rows",
        "5",
        "--model",
        "m",
        "--prompts",
        "prompts.yaml",
        "--offline",
    )
    done = zsd(tmp_path, "annotate", *arguments, env=settings, preload="light")
    assert "datasets" not in done.modules  # which would try again for half a minute
    assert done.status == 2
    assert len(done.err.splitlines()) == 1, done.err
    assert "Salesforce/cos_e at revision main on the Hugging Face hub could not be fetched" in done.err
    assert f"put its rows into {tmp_path}/mine/cqa/{'test' if split == 'test' else 'train'}.jsonl" in done.err


def test_two_copies(tmp_path, monkeypatch):
    for name in ("esnli/train.jsonl", "esnli/esnli_train.json"):
        lay(tmp_path, name, [])
    monkeypatch.setenv("ZSD_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"train.jsonl and esnli_train.json could both be meant; leave one"):
        load_examples(load_task("esnli"), "train")


def test_tasks_are_listed_without_their_rows(tmp_path):
    lay(tmp_path, "esnli/train.jsonl", [])
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "ZSD_DATA": str(tmp_path), "ZSD_CACHE": str(tmp_path / "cache")}
    listed = zsd(tmp_path, "tasks", "--json", env=environment(**settings), preload="none")
    assert (listed.status, listed.err) == (0, "")
    tasks = {task["task"]: task for task in json.loads(listed.out)}
    assert tasks["esnli"]["splits"] == ["train 549367", "valid 9842", "test 9824"]
    assert {name: task["rows"] for name, task in tasks.items()} == {
        "anli1": "hub: facebook/anli",
        "asdiv": "hub: EleutherAI/asdiv",
        "conll2003": "hub: eriktks/conll2003",
        "cqa": "hub: Salesforce/cos_e",
        "esnli": "hub: esnli/esnli",
        "pocket_names": "here",
        "pocket_nli": "here",
        "svamp": "hub: tongyx361/svamp",
        "wnut17": "hub: leondz/wnut_17",
    }
    assert tasks["wnut17"]["labels"] == list(load_task("wnut17").types)
    assert (tasks["svamp"]["labels"], tasks["cqa"]["labels"]) == ("a number", "a choice of the row")
    assert not {"datasets", "numpy", "pyarrow", "huggingface_hub"} & listed.modules


# Entities


def test_wnut17_from_its_authors_files(monkeypatch):
    "Counts as in Derczynski et al. 2017, table 1 and 3; one tag of dev continues an entity that is not there, which begins one."
    shared("wnut17/emerging.dev.conll")
    monkeypatch.setenv("ZSD_DATA", str(SHARED))
    task = load_task("wnut17")
    counts = {
        split: Counter(one.type for row in load_examples(task, split) for one in read_entities(row.label)) for split in ("train", "valid")
    }
    assert counts["train"].total() == 1_975
    assert counts["valid"].total() == 836
    assert counts["train"] == {"person": 660, "location": 548, "group": 264, "corporation": 221, "product": 142, "creative-work": 140}
    rows = load_examples(task, "valid")
    assert len(rows) == PUBLISHED["wnut17"]["valid"]
    assert all(row.fields["text"][one.start : one.end] == one.text for row in rows for one in read_entities(row.label))
    ((_, fault),) = tag_faults(task, own_copy(task, "valid"))
    assert fault.endswith("emerging.dev.conll:1674: tag I-creative-work, but I-creative-work continues nothing (IOB2)")
