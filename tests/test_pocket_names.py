"The built-in data set of named entities keeps what its README promises."

import json
import re
from collections import Counter
from itertools import combinations

import pytest
from zsd_command import zsd

from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.entities.entity import read_entities
from zero_shot_distill.project import recorded_project
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task

TASK = load_task("pocket_names")
FOLDER = definitions_dir() / "pocket_names"
FILES = {
    split: [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()] for split in TASK.splits
}
ENTITIES = {split: [read_entities(row.label) for row in load_examples(TASK, split)] for split in TASK.splits}
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_entities_stand_where_the_rows_say():
    for row in (row for rows in FILES.values() for row in rows):
        words, done = TASK.words_of(row["text"]), 0
        for span in row["spans"]:
            assert row["text"][span["start"] : span["end"]] == span["text"], row
            assert done <= span["start"] < span["end"], row
            assert span["start"] in {start for start, _ in words}, row
            assert span["end"] in {end for _, end in words}, row
            done = span["end"]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_readme_states_the_counts(split):
    rows = ENTITIES[split]
    types = Counter(entity.type for row in rows for entity in row)
    counts = (len(rows), rows.count(()), types.total(), *(types[type] for type in TASK.types))
    assert f"| {split} | " + " | ".join(map(str, counts)) + " |" in README


def test_the_readme_states_the_cases():
    cases = Counter(row["case"] for rows in FILES.values() for row in rows)
    assert {case: int(n) for case, n in re.findall(r"^\| ([a-z ]+) \| (\d+) \| [^|]+ \|$", README, re.MULTILINE)} == cases
    assert [row["id"] for rows in FILES.values() for row in rows if (row["case"] == "none") != (not row["spans"])] == []
    twice = {row["id"] for rows in FILES.values() for row in rows if len({span["text"] for span in row["spans"]}) < len(row["spans"])}
    assert twice == {row["id"] for rows in FILES.values() for row in rows if row["case"] == "twice"} | {"test-29"}


def test_no_name_and_no_sentence_is_in_two_splits():
    names = {split: {entity.text.lower() for row in rows for entity in row} for split, rows in ENTITIES.items()}
    for one, other in combinations(names, 2):
        assert names[one] & names[other] == set()
    words = {row["id"]: set(re.findall(r"\w+", row["text"].lower())) for rows in FILES.values() for row in rows}
    assert len(words) == 96
    alike = [(one, other) for one, other in combinations(words, 2) if len(words[one] & words[other]) > len(words[one] | words[other]) / 3]
    assert alike == []


def test_the_files_are_taken_as_they_are(tmp_path):
    "`zsd tasks add` finds of itself what the built-in definition says."
    files = [str(FOLDER / "train.jsonl"), "--valid", str(FOLDER / "valid.jsonl"), "--test", str(FOLDER / "test.jsonl")]
    done = zsd(tmp_path, "tasks", "add", "names", *files)
    assert done.status == 0, done.err
    guessed = load_task(tmp_path / "names.yaml")
    assert set(guessed.types) == set(TASK.types)
    for split in TASK.splits:
        assert load_examples(guessed, split) == load_examples(TASK, split)


# The recorded replies


def test_the_recorded_replies_answer_their_templates(tmp_path):
    "Each is found under the words that the template asks today; the two with examples need the encoder to write theirs."
    folder = definitions_dir() / "recorded_runs" / "entities"
    lines = [json.loads(line) for line in (folder / "replies.jsonl").read_text(encoding="utf-8").splitlines()]
    project = recorded_project(tmp_path, "entities")
    replies = project.ask("candidates", "list", "inline", n=16, seed=0)
    assert [read for read in replies if read.response is None] == []
    shown = [line for line in lines if "\nExamples:\n" in line["request"]["messages"][0][1]]
    assert (len(lines), len(replies), len(shown)) == (64, 48, 16)
    texts = [read.example.fields["text"] for read in replies[::3]]
    assert [line["request"]["messages"][0][1].rpartition("\nText: ")[2].partition("\n")[0] for line in shown] == texts
    project.close()
