"Files as programs and authors write them: each is read to the same rows, or refused in one line that says what was seen."

import csv
import gzip
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from zero_shot_distill.core.definition import DataError
from zero_shot_distill.task.add import AddedTask, add_task
from zero_shot_distill.task.columns import ColumnOptions
from zero_shot_distill.task.load import load_whole, read_examples
from zero_shot_distill.task.rows import read_rows
from zero_shot_distill.task.task import Task
from zero_shot_distill.task.text_file import how_written

ROWS = [
    {"text": f"The soup, number {n}, was a {word}.", "label": label}
    for n, (word, label) in enumerate([("delight", "good"), ("letdown", "bad")] * 20)
]
QUOTED = [row | {"text": f'"Well", said guest {n}, "{row["text"]}"'} for n, row in enumerate(ROWS)]
FRENCH = [row | {"text": f"{row['text']} Un café à l’hôtel, naïve señora."} for row in ROWS]
MANY_LINES = [row | {"text": row["text"].replace(", ", ",\n")} for row in ROWS]
LONG = [row | {"text": row["text"] * (7_000 if n == 3 else 1)} for n, row in enumerate(ROWS)]  # 200 KiB
LATE = [row | {"text": '"Oh", it said.' if n == 7_000 else row["text"]} for n, row in enumerate(ROWS * 200)]


def table(rows: list[dict], header: bool = True, **form) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), **({"lineterminator": "\n"} | form))
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def lines(rows: list[dict], **form) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, **form) + "\n" for row in rows)


def columns(rows: list[dict], make: Callable[[list], object] = list) -> str:
    return json.dumps({name: make([row[name] for row in rows]) for name in rows[0]})


BACKSLASHES = {"doublequote": False, "escapechar": "\\"}
TABLES = {  # name of the file -> content, rows, what is said of it
    "plain.csv": (table(ROWS), ROWS, ""),
    "UPPER.CSV": (table(ROWS), ROWS, ""),
    "semicolons.csv": (table(ROWS, delimiter=";"), ROWS, "with semicolons between the columns"),
    "bars.csv": (table(ROWS, delimiter="|"), ROWS, "with vertical bars between the columns"),
    "tabs.csv": (table(ROWS, delimiter="\t"), ROWS, "with tabs between the columns"),
    "tabs.tsv": (table(ROWS, delimiter="\t"), ROWS, ""),
    "tabs.tab": (table(ROWS, delimiter="\t"), ROWS, ""),
    "tabs.txt": (table(ROWS, delimiter="\t"), ROWS, ""),
    "commas.tsv": (table(ROWS), ROWS, "with commas between the columns"),
    "told.csv": ("sep=;\n" + table(ROWS, delimiter=";"), ROWS, "with semicolons between the columns"),
    "mark.csv": (table(FRENCH).encode("utf-8-sig"), FRENCH, ""),
    "excel.csv": (table(FRENCH, delimiter=";", lineterminator="\r\n").encode("cp1252"), FRENCH, "as Windows-1252 (“café” in line 2)"),
    "unicode.txt": (table(FRENCH, delimiter="\t", lineterminator="\r\n").encode("utf-16"), FRENCH, "as UTF-16"),
    "unmarked.csv": (table(FRENCH).encode("utf-16-le"), FRENCH, "as UTF-16-LE"),
    "doubled.csv": (table(QUOTED), QUOTED, ""),
    "all.csv": (table(QUOTED, quoting=csv.QUOTE_ALL), QUOTED, ""),
    "backslashes.csv": (table(QUOTED, **BACKSLASHES), QUOTED, "with backslashes before quotation marks"),
    "late.csv": (table(LATE, **BACKSLASHES), LATE, "with backslashes before quotation marks"),
    "single.csv": (table(ROWS, quotechar="'"), ROWS, "with single quotation marks around texts"),
    "raw.tsv": (table(QUOTED, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None), QUOTED, "with quotation marks taken as they stand"),
    "lines.csv": (table(MANY_LINES), MANY_LINES, ""),
    "returns.csv": (table(ROWS, lineterminator="\r"), ROWS, ""),
    "blank.csv": (table(ROWS).replace("\n", "\n\n"), ROWS, ""),
    "long.csv": (table(LONG), LONG, ""),
    "spaced.csv": (table(ROWS, quoting=csv.QUOTE_ALL).replace('","', '", "'), ROWS, "with the spaces behind them left out"),
    "packed.csv.gz": (gzip.compress(table(ROWS).encode()), ROWS, ""),
    "PACKED.TSV.GZ": (gzip.compress(table(ROWS, delimiter="\t").encode()), ROWS, ""),
    "excel.csv.gz": (gzip.compress(table(FRENCH, delimiter=";").encode("cp1252")), FRENCH, "as Windows-1252 (“café” in line 2)"),
    "bare.csv": (
        table(ROWS, header=False, quoting=csv.QUOTE_ALL),
        [{"column_1": row["text"], "column_2": row["label"]} for row in ROWS],
        "with no header (its columns are called column_1 to column_2)",
    ),
}
MESSAGES = [{"label": row["label"], "text": f'{row["text"]} "Oh, yes'} for row in ROWS]
MESSAGES[7] = MESSAGES[0]
TABLES["messages.txt"] = (  # as the SMS Spam Collection is
    "".join(f"{row['label']}\t{row['text']}\n" for row in MESSAGES),
    [{"column_1": row["label"], "column_2": row["text"]} for row in MESSAGES],
    "with no header (its columns are called column_1 to column_2)",
)
JSON = {
    "array.json": (json.dumps(ROWS), ROWS),
    "array.jsonl": (json.dumps(ROWS), ROWS),
    "pretty.json": (json.dumps(ROWS, indent=2), ROWS),
    "data.json": (json.dumps({"version": 1, "data": ROWS}), ROWS),
    "pretty_data.json": (json.dumps({"version": 1, "data": ROWS}, indent=2), ROWS),
    "another_name.json": (json.dumps({"about": {"by": "us"}, "reviews": ROWS}), ROWS),
    "schema.json": (json.dumps({"schema": {"fields": [{"name": "text"}]}, "data": ROWS}), ROWS),
    "columns.json": (columns(ROWS), ROWS),
    "columns_by_index.json": (columns(ROWS, lambda cells: {str(n): cell for n, cell in enumerate(cells)}), ROWS),
    "rows_by_index.json": (json.dumps({str(n): row for n, row in enumerate(ROWS)}), ROWS),
    "rows_by_name.json": (json.dumps({f"r{n}": row for n, row in enumerate(ROWS)}), ROWS),
    "cells.json": (json.dumps({"columns": ["text", "label"], "data": [[*row.values()] for row in ROWS]}), ROWS),
    "lines.json": (lines(ROWS), ROWS),
    "lines.ndjson": (lines(ROWS), ROWS),
    "UPPER.JSONL": (lines(ROWS), ROWS),
    "mark.jsonl": (lines(FRENCH).encode("utf-8-sig"), FRENCH),
    "unicode.jsonl": (lines(FRENCH).encode("utf-16"), FRENCH),
    "blank.jsonl": (lines(ROWS).replace("\n", "\n\n"), ROWS),
    "objects.jsonl": (lines(ROWS, indent=2), ROWS),
    "packed.jsonl.gz": (gzip.compress(lines(ROWS).encode()), ROWS),
    "packed.json.gz": (gzip.compress(json.dumps(ROWS).encode()), ROWS),
    "one.jsonl": (lines(ROWS[:1]), ROWS[:1]),
}
REFUSED = {
    "ragged.csv": (
        table(ROWS) + "No comma here\n",
        "ragged.csv:42: ragged row: this row has 1 parts divided by ',', the header has 2 columns (text, label)",
    ),
    "ragged_semicolons.csv": (
        table(ROWS, delimiter=";") + "One;more;too\n",
        "ragged_semicolons.csv:42: ragged row: this row has 3 parts divided by ';'",
    ),
    "gbk.csv": ("text,label\n房间很干净,好\n".encode("gbk"), "gbk.csv:2: not UTF-8, and as Windows-1252 it would read"),
    "cut.csv.gz": (gzip.compress(table(ROWS).encode())[:-20], "cut.csv.gz: cannot be unpacked"),
    "not.jsonl.gz": (lines(ROWS), "not.jsonl.gz: cannot be unpacked (Not a gzipped file"),
    "stray.csv": (
        table(ROWS) + '"Oh, it was,good\n' + table(ROWS, header=False),
        "stray.csv:42: not valid CSV until line 43 (',' expected after '\"'): a quotation mark that nothing closes",
    ),
    "open.csv": (
        table(ROWS) + '"Oh, it was,good\n' + "No,bad\n" * 30,
        "open.csv:42: not valid CSV until line 72 (unexpected end of data): a quotation mark that nothing closes",
    ),
    "workbook.csv": (
        b"PK\x03\x04\x14\x00" + bytes(range(256)),
        "workbook.csv: not what its name says, but a ZIP archive, as .xlsx workbooks are",
    ),
    "packed.csv": (gzip.compress(table(ROWS).encode()), "packed.csv: not what its name says, but packed by gzip: end its name in .gz"),
    "pointer.jsonl": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
        "pointer.jsonl: not what its name says, but a pointer of Git LFS",
    ),
    "page.json": ("<!DOCTYPE html>\n<html></html>\n", "page.json: not what its name says, but a web page"),
    "rows.zip": (lines(ROWS), "rows.zip: unknown kind of file"),
    "several.json": (json.dumps({"train": ROWS, "test": ROWS}), "several.json: holds several tables (train, test); write each into a file"),
    "broken.jsonl": (lines(ROWS) + '{"text": oh}\n', "broken.jsonl:41: not valid JSON (Expecting value before 'oh}')"),
    "numbers.json": ("[1, 2]", "numbers.json:row 1: expected a JSON object for each row, found 1"),
    "deep.jsonl": (
        '{"text": ' + "[" * 5_000 + "]" * 5_000 + "}\n" + lines(ROWS),
        "deep.jsonl:1: its lists or objects are nested too deeply",
    ),
}


def written(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name):
    content, rows, said = TABLES[name]
    path = written(tmp_path, name, content)
    assert [row for _, row in read_rows(path)] == rows
    assert said in how_written(path)
    assert said or not how_written(path)


@pytest.mark.parametrize("name", JSON)
def test_json(tmp_path, name):
    content, rows = JSON[name]
    assert [row for _, row in read_rows(written(tmp_path, name, content))] == rows


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read(tmp_path, name):
    content, said = REFUSED[name]
    with pytest.raises(DataError) as fault:
        list(read_rows(written(tmp_path, name, content)))
    assert str(fault.value).startswith(f"{tmp_path}/{said}")
    assert "\n" not in str(fault.value)


def test_rows_of_any_depth_and_width_are_bounded(tmp_path):
    "Objects within objects are columns down to a depth; keys without end are refused."
    inner = '{"a":' * 900 + "1" + "}" * 900
    path = written(
        tmp_path, "deep.jsonl", "".join(f'{{"text": "Row {n} of many.", "label": "{"ab"[n % 2]}", "x": {inner}}}\n' for n in range(40))
    )
    assert added(tmp_path, path.name, path.read_bytes()).task.labels == ("a", "b")
    assert len(next(read_rows(path))[1]) < 15
    keys = lines([row | {f"key {n}": "x"} for n, row in enumerate(ROWS * 50)])
    with pytest.raises(DataError, match=r"keys\.jsonl: more than 1,000 columns up to row 999; leave those out"):
        added(tmp_path, "keys.jsonl", keys)
    with pytest.raises(DataError, match=r"nothing\.json: its rows have no columns"):
        added(tmp_path, "nothing.json", "{}")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv: a folder; name a file in it"):
        list(read_rows(tmp_path / "folder.csv"))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows.jsonl"])
@pytest.mark.parametrize("limit", ["MOST_ROWS", "MOST_CHARACTERS"])
def test_more_rows_than_can_be_held(tmp_path, monkeypatch, name, limit):
    "Whether a task is added or loaded; nothing is written. Of Parquet no row is read where the number says it."
    made = added(tmp_path, "few.csv", table(ROWS[:30]))
    frame = pandas.DataFrame(ROWS)
    write = {".parquet": frame.to_parquet, ".csv": lambda path: frame.to_csv(path, index=False)}
    write.get(Path(name).suffix, lambda path: frame.to_json(path, orient="records", lines=True))(tmp_path / name)
    monkeypatch.setattr(f"zero_shot_distill.task.rows.{limit}", 30)
    if (name, limit) == ("rows.parquet", "MOST_ROWS"):
        monkeypatch.setattr("zero_shot_distill.task.rows._parquet_rows", lambda path: pytest.fail("read"))
    for read in (
        lambda: add_task("more", {"train": tmp_path / name}, tmp_path / "more.yaml", ColumnOptions()),
        lambda: read_examples(made.task, tmp_path / name, made.task.splits["train"]),
    ):
        with pytest.raises(DataError, match="a task holds its rows in memory: write the part that you want into a file of its own"):
            read()
    assert not (tmp_path / "more.yaml").exists()
    assert len([*read_rows(tmp_path / name)]) == 40 if limit == "MOST_CHARACTERS" else True


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", ["line.csv", "line.jsonl", "line.txt", "line.conll", "array.json", "rows.json", "columns.json"])
def test_what_is_read_at_once_is_bounded(tmp_path, monkeypatch, name, packed):
    "A line without end, and JSON whose rows are not one a line, before they take the memory."
    monkeypatch.setattr("zero_shot_distill.task.text_file.MOST_AT_ONCE", 10_000)
    long = [row | {"text": row["text"] * (400 if n == 3 else 1)} for n, row in enumerate(ROWS)]
    content = {
        "line.csv": table(long),
        "line.jsonl": lines(long),
        "line.txt": table(long, delimiter="\t"),
        "line.conll": "".join(f"{row['text'].replace(' ', '')} {'BO'[n % 2]}{'-PER' * (n % 2 == 0)}\n" for n, row in enumerate(long)),
        "array.json": json.dumps(long),
        "rows.json": json.dumps({"data": ROWS * 5}, indent=1),
        "columns.json": columns(long),
    }[name].encode()
    what = "JSON that is not one row a line" if name in ("rows.json",) else "a line"
    with pytest.raises(DataError, match=rf"{name}{packed}: {what} with 10,000 characters or more; write one row a line"):
        added(tmp_path, name + packed, gzip.compress(content) if packed else content)


HEADERS = {  # what looks like a row but is a header
    "numbers, as pandas writes them": table([{"0": row["text"], "1": row["label"]} for row in ROWS]),
    "a header that comes again": table(ROWS) + table(ROWS),
    "a question": table([{"How was it, all in all?": row["text"], "label": row["label"]} for row in ROWS]),
    "years": table([{"what was said there": row["text"], "2024": "x", "label": row["label"]} for row in ROWS]),
}


@pytest.mark.parametrize("header", HEADERS)
def test_headers(tmp_path, header):
    path = written(tmp_path, "rows.csv", HEADERS[header])
    assert list(next(read_rows(path))[1]) == next(csv.reader(io.StringIO(HEADERS[header])))


@pytest.mark.parametrize("opening", [0, 3])
def test_quotation_marks_that_open_and_close_in_different_rows_of_tabs(tmp_path, opening):
    "No row is lost; a cell of several lines is still one."
    texts = [f"what lamp {n} was like" for n in range(24)]
    texts[opening], texts[opening + 3] = '"To be or not', 'to be or not"'
    content = "".join(f"{row}\n" for row in ["text\tlabel", *(f"{text}\t{['neg', 'pos'][n % 2]}" for n, text in enumerate(texts))])
    path = written(tmp_path, "rows.tsv", content)
    assert [row["text"] for _, row in read_rows(path)] == texts
    assert "quotation marks taken as they stand" in how_written(path)
    path = written(tmp_path, "whole.tsv", 'text\tlabel\n"two\nlines"\tpos\none\tneg\n')
    assert [row["text"] for _, row in read_rows(path)] == ["two\nlines", "one"]


@pytest.mark.parametrize("n_amounts", [108, 150, 186])
def test_questions_do_not_give_amounts_away(tmp_path, n_amounts):
    rows = [{"question": f"How many lamps are there in street {n} by now?", "answer": n % n_amounts} for n in range(200)]
    made = added(tmp_path, "rows.jsonl", lines(rows))
    assert (made.task.metric, list(made.task.fields)) == ("numeric", ["question"])
    solved = [row | {"answer": f"Count those of street {max(n, 1)}. #### {max(n, 1)}"} for n, row in enumerate(rows)]
    assert added(tmp_path, "solved.jsonl", lines(solved)).task.metric == "numeric"


# What the labels are


def added(folder: Path, name: str, content: str | bytes, **options) -> AddedTask:
    return add_task("mine", {"train": written(folder, name, content)}, folder / "mine.yaml", ColumnOptions(**options), force=True)


def labels(made: AddedTask) -> list[str | None]:
    return [row.label for row in load_whole(made.task, "train")]


MISSING = {  # what the file has in place of a label: the other labels, and what a definition says of it
    "-": (["good", "bad"], ["-"]),
    " - ": (["good", "bad"], ["-"]),
    "-1": (["good", "bad"], ["-1"]),
    -1: ([0, 1, 2], ["-1"]),
    "null": (["good", "bad"], ["null"]),
    "N/A": (["good", "bad"], ["N/A"]),
    "NaN": (["good", "bad"], ["NaN"]),
    "": (["good", "bad"], None),
    None: (["good", "bad"], None),
}


@pytest.mark.parametrize("mark", MISSING)
def test_no_label(tmp_path, mark):
    "Such rows are kept without a label, and what says so is told."
    values, no_label = MISSING[mark]
    rows = [row | {"label": values[n % len(values)] if n % 10 else mark} for n, row in enumerate(ROWS)]
    made = added(tmp_path, "rows.jsonl", lines(rows))
    assert made.draft.definition.get("no_label") == no_label
    assert labels(made) == [None if row["label"] == mark else str(row["label"]) for row in rows]
    assert bool(no_label) == ("no-label" in {finding.kind for finding in made.findings})
    assert set(made.task.labels) == {str(value) for value in values}


def test_classes_beside_empty_cells_as_pandas_writes_them(tmp_path):
    "0.0 and 1.0 are the classes 0 and 1, whether they are read now or by a definition of before."
    frame = pandas.DataFrame([row | {"label": n % 3 if n % 10 else None} for n, row in enumerate(ROWS)])
    made = added(tmp_path, "rows.csv", frame.to_csv(index=False))
    meant = [None if n % 10 == 0 else str(n % 3) for n in range(len(ROWS))]
    assert (made.task.labels, labels(made)) == (("0", "1", "2"), meant)
    minus = frame.assign(label=frame["label"].fillna(-1.0))
    made = added(tmp_path, "minus.jsonl", minus.to_json(orient="records", lines=True))
    assert (made.task.no_label, labels(made)) == (("-1",), meant)
    before = made.task.model_copy(update={"labels": ("0.0", "1.0", "2.0"), "no_label": ()})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    read = read_examples(before, tmp_path / "rows.csv", before.splits["train"])
    assert [row.label for row in read] == [None if label is None else f"{label}.0" for label in meant]
    named = made.task.model_copy(update={"labels": ("no", "yes", "open"), "label_names": {"0": "no", "1": "yes", "2": "open"}})
    read = read_examples(named, tmp_path / "rows.csv", named.splits["train"])
    assert [row.label for row in read] == [None if label is None else ("no", "yes", "open")[int(label)] for label in meant]


def test_a_label_in_a_list_of_its_own(tmp_path):
    "As annotation tools write it, with an empty list where there is none; several labels are refused."
    rows = [row | {"label": [row["label"]] if n % 5 else []} for n, row in enumerate(ROWS)]
    made = added(tmp_path, "rows.jsonl", lines(rows))
    assert labels(made) == [row["label"] if n % 5 else None for n, row in enumerate(ROWS)]
    assert made.task.labels == ("bad", "good")
    with pytest.raises(DataError, match="column 'label' holds lists; a row needs one label"):
        added(tmp_path, "several.jsonl", lines([*rows, ROWS[0] | {"label": ["good", "bad"]}]))


@pytest.mark.parametrize(
    "values", [[-1, 0, 1], [-1, 1], [-1, 0, 1, 2, 3], [-1, 0, 1, "mixed"], ["NA", "EU", "AS"], ["none", "good", "bad"]]
)
def test_what_may_be_a_label_stays_one(tmp_path, values):
    "And what only the user knows is told."
    made = added(tmp_path, "rows.jsonl", lines([row | {"label": values[n % len(values)]} for n, row in enumerate(ROWS)]))
    assert set(made.task.labels) == {str(value).lower() for value in values}
    assert made.task.no_label == ()
    assert ("maybe-no-label" in {finding.kind for finding in made.findings}) == (values[0] != "none")


@pytest.mark.parametrize("values", [["+", "-", "neutral", "mixed"], ["😀", "😡", "neutral", "other"], ["yes", "no", "?"]])
def test_signs_that_may_be_labels_are_not_dropped(tmp_path, values):
    with pytest.raises(DataError, match="without a letter or digit to read in a reply; write a word instead, or, if it says"):
        added(tmp_path, "rows.jsonl", lines([row | {"label": values[n % len(values)]} for n, row in enumerate(ROWS)]))


def test_minus_one_is_an_amount(tmp_path):
    rows = [row | {"label": [-1, 0, 1, 2][n % 4] if n % 10 else -1} for n, row in enumerate(ROWS)]
    made = added(tmp_path, "rows.jsonl", lines(rows), metric="numeric")
    assert made.task.no_label == ()
    assert None not in labels(made)


def test_a_test_set_of_minus_one_has_no_labels(tmp_path):
    train, test = (
        written(tmp_path, f"{name}.jsonl", lines([row | {"label": n % 2 if name == "train" else -1} for n, row in enumerate(ROWS)]))
        for name in ("train", "test")
    )
    made = add_task("mine", {"train": train, "test": test}, tmp_path / "mine.yaml", ColumnOptions())
    assert (made.task.labels, made.task.no_label) == (("0", "1"), ("-1",))


def test_what_is_named_is_a_label_and_the_rest_is_none(tmp_path):
    rows = [row | {"label": [-1, 0, 1][n % 3]} for n, row in enumerate(ROWS)]
    made = added(tmp_path, "rows.jsonl", lines(rows), labels=("0", "1"))
    assert made.task.no_label == ("-1",)
    assert labels(made).count(None) == 14


@pytest.mark.parametrize("content", [table([{"text": row["text"]} for row in ROWS]), table([row | {"label": "-"} for row in ROWS])])
def test_files_without_any_label(tmp_path, content):
    "They are welcome, and what then cannot be measured is said."
    made = added(tmp_path, "rows.csv", content, labels=("good", "bad"))
    assert set(labels(made)) == {None}
    assert "nothing can be said about how right" in next(finding.what for finding in made.findings if finding.kind == "no-labels")


PLACES = ["desk", "river", "cave"]


@pytest.mark.parametrize(("in_file", "in_definition"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_in_one_character_or_two(tmp_path, in_file, in_definition):
    "Names of columns, labels and their names are the same in either form."
    spelled = {form: [unicodedata.normalize(form, word) for word in ("étiquette", "café", "thé")] for form in ("NFC", "NFD")}
    column, *values = spelled[in_file]
    path = written(tmp_path, "rows.csv", table([{"text": row["text"], column: values[n % 2]} for n, row in enumerate(ROWS)]))
    column, *values = spelled[in_definition]
    made = added(tmp_path, "rows.csv", path.read_bytes(), label=column, labels=tuple(values))
    assert labels(made) == ["café", "thé"] * 20
    content = made.task.model_dump() | {"label_column": column, "label_names": {spelled["NFC"][1]: "thé", spelled["NFC"][2]: "café"}}
    swapped = Task.model_validate(content)
    assert [row.label for row in load_whole(swapped, "train")] == ["thé", "café"] * 20


QUIZ = [{"question": f"Where is lamp {n}?", "options": [f"{place} {n}" for place in PLACES]} for n in range(40)]
CHOICES = {  # layout -> rows; the right answer of row n is its place n % 3
    "letters, as CommonsenseQA": [
        {"question": row["question"], "choices": {"label": ["A", "B", "C"], "text": row["options"]}, "answerKey": "ABC"[n % 3]}
        for n, row in enumerate(QUIZ)
    ],
    "letters or numbers, as ARC": [
        {"question": row["question"], "choices": {"text": row["options"], "label": [*marks]}, "answerKey": marks[n % 3]}
        for n, row in enumerate(QUIZ)
        for marks in [("ABC", "123")[n % 7 == 0]]
    ],
    "a list of marked texts": [
        {
            "question": {
                "stem": row["question"],
                "choices": [{"label": mark, "text": text} for mark, text in zip("ABC", row["options"], strict=True)],
            }
        }
        | {"answerKey": "ABC"[n % 3]}
        for n, row in enumerate(QUIZ)
    ],
    "numbers from 0": [row | {"answer": n % 3} for n, row in enumerate(QUIZ)],
    "numbers from 1": [row | {"answer": n % 3 + 1} for n, row in enumerate(QUIZ)],
    "numbers as pandas writes them beside empty cells, from 0": [row | {"answer": float(n % 3)} for n, row in enumerate(QUIZ)],
    "numbers as pandas writes them beside empty cells, from 1": [row | {"answer": f"{n % 3 + 1}.0"} for n, row in enumerate(QUIZ)],
    "words": [row | {"answer": row["options"][n % 3]} for n, row in enumerate(QUIZ)],
    "lists as text": [row | {"options": str(row["options"]), "answer": "ABC"[n % 3]} for n, row in enumerate(QUIZ)],
    "columns of letters": [
        {"q": row["question"], **dict(zip("ABC", row["options"], strict=True)), "answer": "ABC"[n % 3]} for n, row in enumerate(QUIZ)
    ],
    "columns with a number": [
        {"question": row["question"], **{f"ending{k}": text for k, text in enumerate(row["options"])}, "label": n % 3}
        for n, row in enumerate(QUIZ)
    ],
}


@pytest.mark.parametrize("layout", CHOICES)
def test_choices(tmp_path, layout):
    made = added(tmp_path, "quiz.jsonl", lines(CHOICES[layout]))
    read = load_whole(made.task, "train")
    assert [row.label for row in read] == [row["options"][n % 3] for n, row in enumerate(QUIZ)]
    assert [row.fields[name] for row in read for name in made.task.choices] == [text for row in QUIZ for text in row["options"]]
    told = [finding.what for finding in made.findings if finding.kind == "numbered-choices"]
    assert [f"count the choices from {layout[-1]}" in what for what in told] == [True] * layout.startswith("numbers") or "column" in layout
    # Rows of a test set without answers have choices all the same.
    name = next(name for name in ("answerKey", "answer", "label") if name in CHOICES[layout][0])
    made = added(tmp_path, "test.jsonl", lines([row | {name: ""} for row in CHOICES[layout]]))
    assert (labels(made), len(made.task.choices)) == ([None] * 40, 3)


VOTES = {  # columns that look like choices, and say what people chose
    "votes with numbers": {"label1": 0, "label2": 1, "label3": 2},
    "raters": {"rater_1": 0, "rater_2": 1},
    "raters that never agree": {"answer_a": 0, "answer_b": 1},
    "a list of votes": {"annotator_labels": [0, 1, 2]},
    "options in any order": {"options": [1, 0]},
    "gold choices": {"gold_choices": [0, 1]},
}


@pytest.mark.parametrize("votes", VOTES)
@pytest.mark.parametrize("named", [(), ("text",)])
def test_votes_are_never_shown(tmp_path, votes, named):
    "Whether --fields is given or not: neither as choices nor as input."
    rows = []
    for n, row in enumerate(ROWS):
        words = [row["label"], "bad" if row["label"] == "good" else "good", row["label"]]
        words = words if n % 3 else words[::-1] if len(VOTES[votes]) != 2 else [words[1], words[0], words[2]]
        cells = {name: [words[k] for k in which] if isinstance(which, list) else words[which] for name, which in VOTES[votes].items()}
        rows.append(row | cells)
    made = added(tmp_path, "rows.jsonl", lines(rows), fields=named, label="label")
    assert made.task.fields == {"text": "text"}
    assert (made.task.labels, made.task.choices) == (("bad", "good"), ())


def test_choices_that_fields_leave_out_are_asked_for(tmp_path):
    rows = lines(CHOICES["numbers from 0"])
    with pytest.raises(DataError, match="choices in 'options', which --fields leaves out; add --choices options"):
        added(tmp_path, "quiz.jsonl", rows, fields=("question",))
    assert len(added(tmp_path, "quiz.jsonl", rows, fields=("question",), choices=("options",)).task.choices) == 3


def test_the_amount_at_the_end_of_a_solution(tmp_path):
    "As GSM8K has it, with thousands and without."
    rows = [
        {"question": f"Tom has {n} and {n}. How many?", "answer": f"{n}+{n}=<<{n}+{n}={2 * n}>>{2 * n}.\n#### {2 * n:,}"}
        for n in range(480, 540)
    ]
    made = added(tmp_path, "sums.jsonl", lines(rows))
    assert made.task.metric == "numeric"
    assert [made.task.is_right(label, str(2 * n)) for n, label in zip(range(480, 540), labels(made), strict=True)] == [True] * 60
    assert "label-at-end" in {finding.kind for finding in made.findings}
