"`zsd tasks add` as a user has it: files of many kinds, what is guessed of them, what is found in them, and what is refused in one line."

import json
import os
import re
from collections import Counter
from pathlib import Path

import pandas
import pytest
import yaml
from repository import ROOT
from scripted_server import Scripted, ScriptedServer
from zsd_command import Done, environment, is_one_line, rows_of, zsd

from zero_shot_distill.task import no_label
from zero_shot_distill.task.inspect import CHARACTERS_READ
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.numbers import numeric_value
from zero_shot_distill.task.task import load_task

SHARED = Path(os.environ.get("ZSD_SHARED_DATA") or ROOT.parent / "shared" / "data")


def lines_of(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def reviews(n: int, **columns) -> list[dict]:
    "Rows with a text of their own and one of two labels."
    return [
        {"text": f"Guest {i} says that it was {'fine' if i % 2 else 'bad'}.", "label": "good" if i % 2 else "bad"} | columns
        for i in range(n)
    ]


def add(folder: Path, name: str, *arguments: str) -> dict:
    "The report of a task that was added; each of its splits loads as the report says."
    done = zsd(folder, "tasks", "add", name, *arguments, "--json")
    assert (done.status, done.err) == (0, ""), done.err
    report = json.loads(done.out)
    task = load_task(folder / report["written"])
    assert list(task.splits) == ["train", "valid", "test"]
    rows = {split: load_examples(task, split) for split in task.splits}
    assert {split: len(found) for split, found in rows.items()} == report["n_rows"]
    if task.labels:
        counted = {split: Counter(row.label for row in found if row.label) for split, found in rows.items()}
        assert counted == {split: Counter(counts) for split, counts in report["labels"].items()}
    return report


def found(report: dict) -> list[tuple[str, str, int]]:
    return [(finding["kind"], finding["split"], finding["n_rows"]) for finding in report["findings"]]


# The usual case


def test_one_file_without_an_option(tmp_path):
    data = lines_of(reviews(400))
    (tmp_path / "train.jsonl").write_text(data)
    report = add(tmp_path, "reviews", "train.jsonl")
    assert report["n_rows"] == {"train": 320, "valid": 40, "test": 40}
    assert report["written"] == "reviews.yaml"
    assert report["definition"]["fields"] == {"text": "text"}
    assert report["definition"]["labels"] == ["bad", "good"]
    assert report["findings"] == []
    assert (tmp_path / "train.jsonl").read_text() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reviews.yaml", "streams", "train.jsonl"]
    written = (tmp_path / "reviews.yaml").read_text()
    assert yaml.safe_load(written)["splits"]["train"] == "train.jsonl"
    assert len(re.findall(r"^# ", written, re.MULTILINE)) >= 6  # what each key means


def test_an_experiment_on_an_added_task(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "rows.jsonl").write_text(lines_of(reviews(60)))
    assert add(tmp_path, "reviews", "mine/rows.jsonl")["n_rows"]["train"] == 48
    template = {"id": "ask", "user_message": "{text} Good or bad?", "reply_pattern": "(?P<label>good|bad)(?P<rationale>.*)"}
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump({"task": "reviews", "templates": [template]}))
    said = re.compile(r"it was (fine|bad)")

    def knows(body: dict, n: int) -> Scripted:
        return Scripted(text=f"{'good' if said.search(str(body))[1] == 'fine' else 'bad'}, since the guest says so clearly.")

    with ScriptedServer(knows) as server:
        settings = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        asked = ("--task", "reviews.yaml", "--prompts", "prompts.yaml", "--samples", "20", "--model", "m")
        done = zsd(tmp_path, "experiment", *asked, env=settings)
        assert len(server.bodies) == 20
    assert done.status == 0, done.err
    assert re.search(r"ask +100 % .*\n20 rows +84 to 100", done.out), done.out


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_each_kind_of_file(tmp_path, suffix):
    "With a spreadsheet's mark at the beginning, quotes and line breaks in a CSV cell."
    rows = [row | {"text": f'"Well",\nsaid guest {n}, "it is {row["label"]}".'} for n, row in enumerate(reviews(400))]
    table, path = pandas.DataFrame(rows), tmp_path / f"train{suffix}"
    write = {
        ".jsonl": lambda: table.to_json(path, orient="records", lines=True),
        ".json": lambda: table.to_json(path, orient="records", indent=1),
        ".csv": lambda: table.to_csv(path, index=False, encoding="utf-8-sig"),
        ".tsv": lambda: table.to_csv(path, index=False, sep="\t"),
        ".parquet": lambda: table.to_parquet(path),
    }
    write[suffix]()
    report = add(tmp_path, "reviews", path.name)
    assert report["findings"] == []
    assert {column["name"]: column["used_as"] for column in report["columns"]} == {"text": "field {text}", "label": "label (by its name)"}
    task = load_task(tmp_path / "reviews.yaml")
    texts = {row.fields["text"] for split in task.splits for row in load_examples(task, split)}
    assert texts == {row["text"] for row in rows}


FORMS = {  # how a program writes a table -> what is said of it
    "semicolons": ({"sep": ";"}, "with semicolons between the columns"),
    "a spreadsheet in Western Europe": (
        {"sep": ";", "encoding": "cp1252"},
        "as Windows-1252 (“Café” in line 2), with semicolons between the columns",
    ),
    "a spreadsheet's Unicode text": ({"sep": "\t", "encoding": "utf-16"}, "as UTF-16, with tabs between the columns"),
    "without quotation marks": ({"sep": "\t", "quoting": 3}, "with tabs between the columns and quotation marks taken as they stand"),
    "backslashes": ({"doublequote": False, "escapechar": "\\"}, "with backslashes before quotation marks"),
}


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_other_programs(tmp_path, form):
    "One line says what was assumed, and every stage reads the same rows."
    options, said = FORMS[form]
    rows = [row | {"text": f'"Café {n}", I said; it is {row["label"]}, no doubt.'} for n, row in enumerate(reviews(60))]
    pandas.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False, **options)
    report = add(tmp_path, "reviews", "train.csv")
    assert [finding["what"] for finding in report["findings"] if finding["kind"] == "file-form"] == [f"train.csv was read {said}."]
    task = load_task(tmp_path / "reviews.yaml")
    assert {row.fields["text"] for split in task.splits for row in load_examples(task, split)} == {row["text"] for row in rows}


def test_files_elsewhere(tmp_path):
    "Paths stand in the definition as seen from it, so that the whole folder can move."
    (tmp_path / "a" / "data").mkdir(parents=True)
    for split, n in (("train", 60), ("valid", 30), ("test", 30)):
        (tmp_path / "a" / "data" / f"{split}.jsonl").write_text(lines_of([row | {"text": f"{split}: {row['text']}"} for row in reviews(n)]))
    files = ("a/data/train.jsonl", "--valid", "a/data/valid.jsonl", "--test", str(tmp_path / "a" / "data" / "test.jsonl"))
    report = add(tmp_path, "reviews", *files, "--out", "a/tasks/r.yaml")
    assert report["n_rows"] == {"train": 60, "valid": 30, "test": 30}
    assert yaml.safe_load((tmp_path / "a/tasks/r.yaml").read_text())["splits"] == {
        "train": "../data/train.jsonl",
        "valid": "../data/valid.jsonl",
        "test": "../data/test.jsonl",
    }
    (tmp_path / "a").rename(tmp_path / "b")
    assert len(load_examples(load_task(tmp_path / "b/tasks/r.yaml"), "test")) == 30


def test_a_test_file_alone(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines_of(reviews(100)))
    (tmp_path / "test.jsonl").write_text(lines_of([row | {"text": "Also: " + row["text"]} for row in reviews(40)]))
    assert add(tmp_path, "reviews", "train.jsonl", "--test", "test.jsonl")["n_rows"] == {"train": 90, "valid": 10, "test": 40}


# What is guessed


def test_numbers_are_named_by_the_user(tmp_path):
    "The block that is left for it works once it is filled in as it says."
    rows = [{"text": f"Guest {n} was here.", "label": n % 3} for n in range(900)]
    (tmp_path / "train.jsonl").write_text(lines_of(rows))
    report = add(tmp_path, "stars", "train.jsonl")
    assert report["definition"]["labels"] == ["0", "1", "2"]
    assert found(report) == [("number-labels", "", 900)]
    definition = (tmp_path / "stars.yaml").read_text()
    block = re.search(r"# label_names:\n(#   \"\d\": NAME\n)+", definition)[0]
    names = iter(["bad", "fair", "good"])
    filled = re.sub("NAME", lambda match: next(names), re.sub(r"^# ?", "", block, flags=re.MULTILINE))
    text = definition.replace(block, filled)
    text = re.sub(r"^labels: .*$", "labels: [bad, fair, good]", text, flags=re.MULTILINE)
    (tmp_path / "stars.yaml").write_text(text)
    assert {row.label for row in load_examples(load_task(tmp_path / "stars.yaml"), "train")} == {"bad", "fair", "good"}
    amounts = add(tmp_path, "amounts", "train.jsonl", "--metric", "numeric")
    assert amounts["definition"]["metric"] == "numeric"
    assert amounts["labels"] == {}


def test_amounts(tmp_path):
    (tmp_path / "sums.csv").write_text(
        "problem,answer\n" + "".join(f'"What is {n} and {n}?","{n * 700:,} + {n * 700:,}"\n' for n in range(50))
    )
    definition = add(tmp_path, "sums", "sums.csv")["definition"]
    assert (definition["metric"], definition["fields"]) == ("numeric", {"problem": "problem"})


@pytest.mark.parametrize(("answers", "names"), [("01", {"0": "a", "1": "b", "2": "c"}), ("ab", None), (["mill", "Old bridge"], None)])
def test_choices(tmp_path, answers, names):
    rows = [
        {"id": n, "question": f"Where does {n} sleep?", "choices": ["mill", "old bridge", f"barn {n}"], "answer": answers[n % 2]}
        for n in range(60)
    ]
    (tmp_path / "quiz.jsonl").write_text(lines_of(rows))
    definition = add(tmp_path, "quiz", "quiz.jsonl")["definition"]
    assert definition["choices"] == ["choice_a", "choice_b", "choice_c"]
    assert definition.get("label_names") == names
    task = load_task(tmp_path / "quiz.yaml")
    assert all(row.label == ("old bridge" if int(row.id) % 2 else "mill") for row in load_examples(task, "train"))
    row = load_examples(task, "train")[0]
    assert task.input_text(row) == f"{row.fields['question']}\nAnswer Choices:\n(a) mill\n(b) old bridge\n(c) barn {row.id}"


def test_choices_in_columns(tmp_path):
    (tmp_path / "quiz.csv").write_text(
        "Question,A,B,C,Key\n" + "".join(f"Where is {n}?,mill {n},bridge {n},barn {n},{'ABC'[n % 3]}\n" for n in range(60))
    )
    report = add(tmp_path, "quiz", "quiz.csv", "--label", "Key")
    assert report["definition"]["choices"] == ["choice_a", "choice_b", "choice_c"]
    assert report["labels"]["train"].keys() == {"choice_a", "choice_b", "choice_c"}


def test_labels_written_in_several_ways(tmp_path):
    rows = [row | {"label": ("Yes", "no", "yes ", "no")[n % 4]} for n, row in enumerate(reviews(900))]
    (tmp_path / "train.jsonl").write_text(lines_of(rows))
    report = add(tmp_path, "reviews", "train.jsonl")
    assert report["definition"]["labels"] == ["no", "yes"]
    assert found(report) == [("label-variants", "", 450)]
    assert "'Yes', 'yes ' are read as one label, yes" in report["findings"][0]["what"]


def test_groups(tmp_path):
    "A column that no prompt shows keeps rows together in shares, and leaks where files were divided without it."
    rows = [row | {"author": f"a{n // 10}"} for n, row in enumerate(reviews(400))]
    (tmp_path / "all.jsonl").write_text(lines_of(rows))
    report = add(tmp_path, "whole", "all.jsonl", "--group", "author")
    assert report["n_rows"] == {"train": 320, "valid": 40, "test": 40}
    assert report["findings"] == []
    assert report["definition"]["fields"] == {"text": "text"}
    (tmp_path / "train.jsonl").write_text(lines_of(rows[:295]))
    (tmp_path / "test.jsonl").write_text(lines_of(rows[295:]))
    report = add(tmp_path, "files", "train.jsonl", "--test", "test.jsonl", "--group", "author")
    assert found(report) == [("group-leak", "test", 5)]


def test_repeats_stay_in_one_split(tmp_path):
    (tmp_path / "train.csv").write_text(
        "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in [*reviews(100), *reviews(20)])
    )
    report = add(tmp_path, "reviews", "train.csv")
    assert report["definition"]["group_field"] == "text"
    assert {kind for kind, *_ in found(report)} == {"duplicates", "few-rows"}


# What is found


def test_what_is_found(tmp_path):
    train = [
        *reviews(60),
        {"text": "GUEST 1  says that it was fine.", "label": "good"},
        {"text": "guest 2 says that it was bad.", "label": "good"},
    ]
    train += [{"text": " ", "label": "bad"}, {"text": "Guest 77 says nothing."}, {"text": "very long " * 200, "label": "odd"}]
    test = [{"text": "Guest 3 says that it was fine.", "label": "good"}, *[{"text": f"Test {n} here", "label": "good"} for n in range(19)]]
    (tmp_path / "train.jsonl").write_text(lines_of(train))
    (tmp_path / "test.jsonl").write_text(lines_of(test))
    (tmp_path / "valid.jsonl").write_text(lines_of([{"text": f"Valid {n} here", "label": ("good", "bad")[n % 2]} for n in range(40)]))
    report = add(tmp_path, "reviews", "train.jsonl", "--valid", "valid.jsonl", "--test", "test.jsonl")
    assert report["n_rows"] == {"train": 64, "valid": 40, "test": 20}
    assert report["n_skipped"] == {"train": 1, "valid": 0, "test": 0}
    assert report["labels"]["train"] == {"bad": 30, "good": 32, "odd": 1}
    assert found(report) == [
        ("leak", "test", 1),
        ("duplicates", "train", 2),
        ("conflicts", "train", 2),
        ("missing-label", "valid", 0),
        ("missing-label", "test", 0),
        ("few-rows", "train", 1),
        ("imbalance", "train", 32),
        ("imbalance", "test", 20),
        ("skipped", "train", 1),
        ("unlabelled", "train", 1),
        ("long", "train", 1),
    ]
    places = {finding["kind"]: finding["lines"] for finding in report["findings"] if finding["lines"]}
    assert places == {"leak": [1], "duplicates": [61, 62], "conflicts": [3, 62], "unlabelled": [64], "long": [65]}
    assert all(finding["fix"] for finding in report["findings"])
    splits = yaml.safe_load((tmp_path / "reviews.yaml").read_text())["splits"]
    assert splits["train"] == {"file": "train.jsonl", "skip_empty": True}
    assert splits["test"] == "test.jsonl"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_report_fits_a_terminal(tmp_path, columns):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.jsonl").write_text(lines_of(rows_of(split, 54)))
    files = ("train.jsonl", "--valid", "valid.jsonl", "--test", "test.jsonl")
    done = zsd(
        tmp_path,
        "tasks",
        "add",
        "towns",
        *files,
        "--label",
        "topic",
        "--fields",
        "premise,hypothesis",
        env=environment(COLUMNS=str(columns)),
    )
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= columns
    assert "…" not in done.out  # nothing is cut off
    for part in ("field {premise}, group", "rationale (by its name)", "few", "zsd experiment --task towns.yaml"):
        assert part in " ".join(done.out.split()), done.out


def test_long_is_what_a_student_cuts():
    from zero_shot_distill.student.config import TrainingConfig

    assert abs(4 * TrainingConfig.max_input_tokens - CHARACTERS_READ) <= 100


# Rows without a label


def test_rows_without_a_label(tmp_path):
    "No column of labels is needed where the labels are named; a split takes it up once its file has one."
    rows = [{"text": row["text"]} for row in reviews(60)]
    (tmp_path / "train.jsonl").write_text(lines_of(rows))
    report = add(tmp_path, "reviews", "train.jsonl", "--labels", "good, bad,Fair")
    assert report["definition"]["labels"] == ["good", "bad", "fair"]
    assert report["n_rows"] == {"train": 48, "valid": 6, "test": 6}
    splits = yaml.safe_load((tmp_path / "reviews.yaml").read_text())["splits"]
    assert splits["train"] == {"file": "train.jsonl", "labelled": False}
    assert "labelled" not in splits["test"]
    (tmp_path / "train.jsonl").write_text(lines_of([row | {"label": "Fair"} for row in rows]))
    assert {row.label for row in load_examples(load_task(tmp_path / "reviews.yaml"), "train")} == {"fair"}


def test_one_column_is_enough_where_the_labels_are_named(tmp_path):
    (tmp_path / "train.csv").write_text("text\n" + "".join(f"Guest {n} was here.\n" for n in range(30)))
    assert add(tmp_path, "reviews", "train.csv", "--labels", "good,bad")["definition"]["fields"] == {"text": "text"}


def test_a_labelled_test_file(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines_of([{"text": row["text"]} for row in reviews(300)]))
    (tmp_path / "test.jsonl").write_text(lines_of([row | {"text": f"Also: {row['text']}"} for row in reviews(40)]))
    report = add(tmp_path, "reviews", "train.jsonl", "--test", "test.jsonl", "--labels", "bad,good")
    assert {split: sum(counts.values()) for split, counts in report["labels"].items()} == {"train": 0, "valid": 0, "test": 40}


def test_few_labelled_rows_among_many(tmp_path):
    "The test has labelled rows alone, and enough of them; the others are left for choosing a prompt."
    rows = reviews(1000)
    for n, row in enumerate(rows):
        row["label"] = row["label"] if n % 20 < 1 or n % 20 > 18 else None
    (tmp_path / "train.jsonl").write_text(lines_of(rows))
    report = add(tmp_path, "reviews", "train.jsonl")
    assert report["n_rows"] == {"train": 860, "valid": 100, "test": 40}
    assert report["labels"] == {"train": {"bad": 25, "good": 25}, "valid": {"bad": 5, "good": 5}, "test": {"bad": 20, "good": 20}}
    assert [(kind, split) for kind, split, _ in found(report)][-2:] == [("unlabelled", "train"), ("unlabelled", "valid")]


def test_each_label_is_in_each_drawn_split(tmp_path):
    "Six labels, two of them rare, and two texts of each author: in the same shares everywhere, and no author in two splits."
    shares = {"praise": 200, "complaint": 100, "question": 60, "order": 40, "thanks": 10, "spam": 8}
    rows = [{"text": f"Mail {n} of {label}.", "label": label} for label, n_rows in shares.items() for n in range(n_rows)]
    (tmp_path / "mail.jsonl").write_text(lines_of(rows))
    counts = add(tmp_path, "mail", "mail.jsonl")["labels"]
    for split in ("valid", "test"):
        assert counts[split] == {"complaint": 10, "order": 4, "praise": 20, "question": 6, "spam": 1, "thanks": 1}, split
    (tmp_path / "mail.jsonl").write_text(lines_of([row | {"author": f"{row['label']}-{n // 2}"} for n, row in enumerate(rows)]))
    add(tmp_path, "grouped", "mail.jsonl", "--group", "author")
    task = load_task(tmp_path / "grouped.yaml")
    parts = {split: load_examples(task, split) for split in task.splits}
    assert all({row.label for row in part} == {*shares} for part in parts.values())
    authors = [{task.group_of(row) for row in part} for part in parts.values()]
    assert sum(map(len, authors)) == len(set.union(*authors))


def test_a_definition_is_written_over_when_told(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines_of(reviews(60)))
    add(tmp_path, "reviews", "train.jsonl")
    assert add(tmp_path, "reviews", "train.jsonl", "--labels", "good,bad", "--force")["definition"]["labels"] == ["good", "bad"]


# What gives the label away

TELLING = {  # column -> its value in a row of each of three labels
    "a copy": {"category_copy": ("Joy", "Anger", "Fear")},
    "a number": {"code": (0, 1, 2)},
    "another name": {"title": ("happy", "furious", "afraid")},
    "votes": {"answer1": ("joy", "anger", "fear"), "answer2": ("joy", "joy", "fear"), "answer3": ("joy", "anger", "anger")},
    "one column for each label": {"joy": (1, 0, 0), "anger": (0, 1, 0), "fear": (0, 0, 1)},
    "a reason for one label alone": {"complaint": (None, "rude staff", None)},
    "an object": {"answer": ({"id": 0, "name": "joy"}, {"id": 1, "name": "anger"}, {"id": 2, "name": "fear"})},
}


@pytest.mark.parametrize("kind", TELLING)
def test_what_gives_the_label_away_is_never_input(tmp_path, kind):
    labels = ("joy", "anger", "fear")
    rows = [
        {"message": f"Message {n} of many.", "label": labels[n % 3]} | {name: values[n % 3] for name, values in TELLING[kind].items()}
        for n in range(90)
    ]
    (tmp_path / "train.jsonl").write_text(lines_of(rows))
    report = add(tmp_path, "mails", "train.jsonl")
    assert report["definition"]["fields"] == {"message": "message"}
    assert "choices" not in report["definition"]
    assert not [kind for kind, *_ in found(report) if kind == "tells-label"]
    name = next(iter(TELLING[kind]))
    if kind != "an object":
        used = {column["name"]: column["used_as"] for column in report["columns"]}
        assert used[name] == "not used: it tells the label"
        # One who wants it all the same is told.
        report = add(
            tmp_path, "mails", "train.jsonl", "--fields", f"message,{name}", "--force", *(["--metric", "exact"] if kind == "votes" else [])
        )
        assert ("tells-label", "", 0) in found(report)


def test_annotators_labels_are_never_input(tmp_path):
    "Whatever the columns are called, and however seldom they agree with the label; here two of them sound like input."
    labels = ("joy", "anger", "fear")
    rows = [
        {"message": f"Message {n} of many.", "label": labels[n % 3]}
        | {"comment": labels[n % 2], "title": f"{labels[n // 2 % 3]}|{labels[n // 5 % 3]}", "w2": labels[n // 7 % 3]}
        for n in range(90)
    ]
    (tmp_path / "train.jsonl").write_text(lines_of(rows))
    report = add(tmp_path, "mails", "train.jsonl")
    assert report["definition"]["fields"] == {"message": "message"}
    used = {column["name"]: column["used_as"] for column in report["columns"]}
    assert used["comment"] == used["title"] == used["w2"] == "not used: it holds labels"
    for row in rows:
        del row["label"]
    (tmp_path / "train.jsonl").write_text(lines_of(rows))
    assert add(tmp_path, "bare", "train.jsonl", "--labels", "joy,anger,fear")["definition"]["fields"] == {"message": "message"}


def test_the_words_of_the_right_choice_are_never_input(tmp_path):
    rows = [
        {"question": f"Where is {n}?", "A": f"mill {n}", "B": f"bridge {n}", "C": f"barn {n}", "key": "ABC"[n % 3]}
        | {"statement": (f"mill {n}", f"bridge {n}", f"barn {n}")[n % 3]}
        for n in range(60)
    ]
    (tmp_path / "quiz.jsonl").write_text(lines_of(rows))
    report = add(tmp_path, "quiz", "quiz.jsonl", "--label", "key")
    assert [*report["definition"]["fields"]] == ["question", "choice_a", "choice_b", "choice_c"]
    assert {column["name"]: column["used_as"] for column in report["columns"]}["statement"] == "not used: it tells the label"
    # The letters are in the same shares in each split.
    assert all(max(counts.values()) - min(counts.values()) <= 1 for counts in report["labels"].values())


def test_choices_that_are_named(tmp_path):
    rows = [{"question": f"Who is {n}?", "left": f"Ann {n}", "right": f"Bob {n}", "label": n % 2} for n in range(60)]
    (tmp_path / "quiz.jsonl").write_text(lines_of(rows))
    definition = add(tmp_path, "quiz", "quiz.jsonl", "--choices", "left,right")["definition"]
    assert definition["fields"] == {"question": "question", "choice_a": "left", "choice_b": "right"}
    assert definition["label_names"] == {"0": "a", "1": "b"}


# Real data


def shared(name: str) -> str:
    if not (SHARED / name).is_file():
        pytest.skip(f"no {name} in {SHARED}; ZSD_SHARED_DATA names another folder")
    return str(SHARED / name)


def test_esnli(tmp_path):
    "About three hypotheses stand with each premise: no premise is in two splits."
    report = add(tmp_path, "pairs", shared("esnli/esnli_dev.jsonl"))
    definition = report["definition"]
    assert definition["fields"] == {"premise": "premise", "hypothesis": "hypothesis"}
    assert definition["labels"] == ["contradiction", "entailment", "neutral"]
    assert (definition["rationale_column"], definition["group_field"]) == ("explanation", "premise")
    assert sum(report["n_rows"].values()) == 9842
    assert {split: round(n / 9842, 2) for split, n in report["n_rows"].items()} == {"train": 0.8, "valid": 0.1, "test": 0.1}
    task = load_task(tmp_path / "pairs.yaml")
    premises = [{row.fields["premise"] for row in load_examples(task, split)} for split in task.splits]
    assert sum(map(len, premises)) == len(set.union(*premises)) == 3319
    assert [(finding["kind"], finding["lines"]) for finding in report["findings"]] == [("duplicates", [2506, 3943])]
    rows = [json.loads(line) for line in Path(shared("esnli/esnli_dev.jsonl")).read_text().splitlines()]
    for place in (2505, 3942):
        again = [
            row for row in rows if all(row[name].lower().split() == rows[place][name].lower().split() for name in ("premise", "hypothesis"))
        ]
        assert len(again) == 2


def test_svamp(tmp_path):
    report = add(tmp_path, "sums", shared("svamp/SVAMP.json"))
    definition = report["definition"]
    assert (definition["label_column"], definition["metric"], definition["id_column"]) == ("Answer", "numeric", "ID")
    assert definition["fields"] == {"Body": "Body", "Question": "Question"}
    assert report["n_rows"] == {"train": 800, "valid": 100, "test": 100}
    assert add(tmp_path, "equations", shared("svamp/SVAMP.json"), "--label", "Equation")["definition"]["label_column"] == "Equation"


def test_answers_that_are_numbers_are_each_read_a_few_times(monkeypatch):
    "And not once for each other one: a thousand took twenty seconds."
    read = []
    monkeypatch.setattr(no_label, "numeric_value", lambda text: read.append(text) or numeric_value(text))
    assert no_label.no_label_values({"NA": 1, "n/a": 1} | {str(n): 1 for n in range(500)}, ()) == ["NA", "n/a"]
    assert len(read) < 10 * 502


def test_pocket_nli(tmp_path):
    "What was guessed of its files is what its definition says."
    folder = ROOT / "data" / "pocket_nli"
    files = [str(folder / "train.jsonl"), "--valid", str(folder / "valid.jsonl"), "--test", str(folder / "test.jsonl")]
    report = add(tmp_path, "towns", *files)
    assert report["findings"] == []
    known, guessed = load_task("pocket_nli"), load_task(tmp_path / "towns.yaml")
    for key in ("fields", "label_column", "rationale_column", "id_column", "group_field", "student_input", "splits"):
        assert getattr(known, key) == getattr(guessed, key), key
    assert sorted(known.labels) == sorted(guessed.labels)


# What is refused

TEXT = "".join(f"Guest {n} was here on day {n}.,{'good' if n % 2 else 'bad'}\n" for n in range(30))
REFUSED = {
    "missing file": ({}, "train.csv: no such file"),
    "empty file": ({"train.csv": ""}, "train.csv: no rows; give at least one"),
    "header alone": ({"train.csv": "text,label\n"}, "train.csv: no rows; give at least one"),
    "one column": ({"train.csv": "text\nIt rains.\n"}, "train.csv: only one column, 'text'; a task needs a text and a label"),
    "semicolons, not in all rows": (
        {"train.csv": "text;label\nx;y\nIt rains; badly.;y\n"},
        "train.csv:3: ragged row: this row has 3 parts divided by ';', the header has 2 columns (text, label)",
        "a text that holds this character needs quotation marks around it",
    ),
    "two delimiters": (
        {"train.csv": "text;score,label\ngood;1,x\nbad;2,y\n"},
        "train.csv:1: commas or semicolons could divide its columns",
    ),
    "no label column": (
        {"train.csv": "text,more\n" + "".join(f"Row {n} of many.,More of row {n} here.\n" for n in range(30))},
        "no column is called label or answer; say with --label which of 'text', 'more' it is",
    ),
    "all labels the same": ({"train.csv": "text,label\n" + "It rains.,good\n" * 9}, "'label' has 'good' in each of its 9 rows"),
    "a label for each row": (
        {"train.csv": "text,label\n" + "".join(f"Row {n} of many.,label {n}\n" for n in range(30))},
        "column 'label' has 30 values in 30 rows: that is no set of labels",
    ),
    "no label at all, nor a word of it": (
        {"train.csv": "text,label\nIt rains.,\nIt snows.,\n"},
        "column 'label' is empty in every row; a row needs one label: name another with --label, or say with --labels what the labels are",
    ),
    "two labels": (
        {"train.csv": "text,tone,place\n" + "".join(f"Row {n} of many.,{'xy'[n % 2]},{'pqr'[n % 3]}\n" for n in range(30))},
        "no column is called label or answer; say with --label which of 'tone', 'place' it is",
    ),
    "ragged": (
        {"train.csv": f"text,label\n{TEXT}one,two,three\n"},
        "train.csv:32: ragged row: this row has 3 parts divided by ',', the header has 2 columns",
    ),
    "two columns of one name": ({"train.csv": f"text,text\n{TEXT}"}, "train.csv:1: two columns have the same name"),
    "not UTF-8": (
        {"train.csv": f"text,label\n{TEXT}".encode() + "jest żółte,good\n".encode("cp1250")},
        "train.csv:32: not UTF-8, and as Windows-1252 it would read '¿ó³te'",
        "save the file as UTF-8",
    ),
    "another label in the test file": (
        {"train.csv": f"text,label\n{TEXT}", "test.csv": "text,mark\nIt rains.,good\n"},
        "test.csv: no row has a column 'label'; the last one has text, mark",
    ),
    "no definition twice": ({"train.csv": f"text,label\n{TEXT}", "mine.yaml": "kept"}, "mine.yaml: exists already", "--out"),
    "a label that is no choice of its row": (
        {"train.csv": "question,A,B,C,answer\n" + "".join(f"Where?,a{n},b{n},c{n},b{n}\n" for n in range(40)) + "Where?,a1,b1,c1,moon\n"},
        "train.csv:42: label 'moon' is none of a1, b1, c1; correct it, or empty the cell",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused(tmp_path, fault):
    files, *parts = REFUSED[fault]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    test = ("--test", "test.csv") if "test.csv" in files else ()
    is_one_line(zsd(tmp_path, "tasks", "add", "mine", "train.csv", *test), 2, *parts)
    assert {path.name for path in tmp_path.iterdir()} == {*files, "streams"}
    for name, content in files.items():
        assert (tmp_path / name).read_bytes() == (content if isinstance(content, bytes) else content.encode())


ARGUMENTS = {
    "unknown column": (("--label", "lable"), "train.csv: no column 'lable'; there are 'id', 'text', 'label'"),
    "a column for two things": (("--fields", "text,label", "--label", "label"), "column 'label' is named for two things"),
    "ids that repeat": (
        ("--id", "id"),
        "train.csv:12: id '0' occurs twice; make the ids unique, or leave `id_column` (--id) away",
    ),
    "words as amounts": (("--metric", "numeric"), "column 'label' holds 'bad', which is no arithmetic"),
    "a label that was not named": (("--labels", "good,fair"), "has 'bad', which is none of good, fair; add it to --labels"),
    "one label": (("--labels", "good"), "--labels are at least two different words or phrases with commas between"),
    "no choices": (("--choices", "id,text"), "'id', 'text' are no choices; --choices are columns that differ within a row"),
    "unknown metric": (("--metric", "f1"), "--metric is exact or numeric, not 'f1'"),
    "the same file twice": (("--test", "./train.csv"), "train.csv: train and test are the same file"),
    "no definition's name": (("--out", "mine.txt"), "mine.txt: a definition is a .yaml file; name one with --out"),
    "misspelt option": (("--lable", "x"), "No such option: --lable"),
}


@pytest.mark.parametrize("fault", ARGUMENTS)
def test_arguments(tmp_path, fault):
    arguments, *parts = ARGUMENTS[fault]
    rows = "".join(f"{n % 10},{line}\n" for n, line in enumerate(TEXT.splitlines()))
    (tmp_path / "train.csv").write_text(f"id,text,label\n{rows}")
    is_one_line(zsd(tmp_path, "tasks", "add", "mine", "train.csv", *arguments), 2, *parts)
    assert not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize(
    ("name", "part"), [("my task", "is no name for a task"), ("../up", "is no name for a task"), ("svamp", "is a built-in task")]
)
def test_names(tmp_path, name, part):
    (tmp_path / "train.csv").write_text(f"text,label\n{TEXT}")
    is_one_line(zsd(tmp_path, "tasks", "add", name, "train.csv"), 2, part)


def test_ids_that_repeat_are_not_taken_for_ids(tmp_path):
    "Unless they are named with --id: numbering the rows does as well."
    (tmp_path / "train.jsonl").write_text(lines_of([row | {"id": n % 10} for n, row in enumerate(reviews(600))]))
    report = add(tmp_path, "reviews", "train.jsonl")
    assert "id_column" not in report["definition"]
    assert found(report) == [("no-id", "", 0)]


def test_tasks_has_no_other_subcommand(tmp_path):
    done: Done = zsd(tmp_path, "tasks", "remove")
    is_one_line(done, 2, "No such command 'remove'")


# Published layouts

LAYOUTS = {  # file -> what its definition holds, or what is asked
    "snli_min.jsonl": {
        "labels": ["contradiction", "entailment", "neutral"],
        "fields": {"sentence1": "sentence1", "sentence2": "sentence2"},
        "no_label": ["-"],
    },
    "votes.csv": {"label_column": "label", "labels": ["contradiction", "entailment", "neutral"], "fields": {"text": "text"}},
    "anli_r1_train.jsonl": {"label_column": "label", "rationale_column": "reason", "id_column": "uid"},
    "UPPER.CSV": {"labels": ["negative", "positive"]},
    "minus1.jsonl": {"labels": ["0", "1", "2"], "no_label": ["-1"]},
    "nfd_only.jsonl": {"label_column": "label", "fields": {"text": "text"}},
    "zh.jsonl": {"labels": ["正面", "负面"]},
    "columns.json": {"fields": {"text": "text"}, "labels": ["negative", "positive"]},
    "wrapped.json": {"fields": {"text": "text"}, "labels": ["negative", "positive"]},
    "nulls.jsonl": "column 'label' is empty in every row; a row needs one label: name another with --label",
    "semi.csv": {"fields": {"text": "text"}, "labels": ["negative", "positive"]},
    "sep.csv": {"fields": {"text": "text"}, "labels": ["negative", "positive"]},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts(tmp_path, name):
    path, expected = shared(f"files/{name}"), LAYOUTS[name]
    if isinstance(expected, str):
        is_one_line(zsd(tmp_path, "tasks", "add", "mine", path), 2, expected)
    else:
        definition = add(tmp_path, "mine", path)["definition"]
        assert {key: definition[key] for key in expected} == expected


def test_choices_as_the_hub_has_them(tmp_path):
    "CommonsenseQA: letters and texts of the choices are lists within one column."
    report = add(tmp_path, "quiz", shared("files/cqa_hub.jsonl"))
    assert report["definition"]["fields"]["choice_e"] == "{choices.text[4]}"
    row = load_examples(load_task(tmp_path / "quiz.yaml"), "train")[0]
    assert row.label in {text.lower() for name, text in row.fields.items() if name.startswith("choice_")}
