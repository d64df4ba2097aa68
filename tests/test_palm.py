"Outputs of PaLM and GPT-NeoX in the form of Distilling Step-by-Step, made up here: which row each belongs to, what is read in it, what is refused."

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from repository import ROOT
from zsd_command import environment, zsd

from zero_shot_distill.annotate.rows import read_annotations, write_annotations
from zero_shot_distill.core.definition import DataError
from zero_shot_distill.task.load import load_examples, load_whole
from zero_shot_distill.task.task import Example, Split, Task, load_task
from zero_shot_distill.thesis.palm import PalmError, read_palm_outputs

SHARED = Path(os.environ.get("ZSD_SHARED_DATA") or ROOT.parent / "shared" / "data")

# How an output of each data set ends: with the answer, and with a row that the model invented.
ENDS = {
    "cqa": " So the answer is (x) {label}.\n\nQ: What else? So the answer is (a) nothing.",
    "svamp": " The answer is ({label}).\n\nQ: How many more? The answer is (1).",
    "asdiv": " The answer is ({label}).\n\nQ: How many more? The answer is (1).",
    "esnli": "\nAnswer: {label}\n\nPremise: Another one. Answer: neutral",
    "anli1": " So the answer is {label}.\n\nPremise: Another one. So the answer is neutral.",
}


def output(task: str, label: str | None, rationale: str) -> str:
    return f" {rationale}" + ENDS[task].format(label=label)


def lay(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def numbered(task: Task, split: str) -> list[str]:
    "An output for each row of a published split, right and with the row's number."
    return [output(task.name, row.label, f"This is said of row {number}.") for number, row in enumerate(load_whole(task, split))]


def lay_outputs(folder: Path, task: Task, split: str, outputs: list[str], n_a_file: int) -> None:
    for number in range(0, len(outputs), n_a_file):
        lay(folder / task.name / "llm" / f"{split}_CoT_{number // n_a_file}.json", outputs[number : number + n_a_file])


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    "The folder of a user's own copies."
    monkeypatch.setenv("ZSD_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ZSD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def lay_svamp(data: Path) -> Task:
    problem = {"Body": "He had {} cups.", "Question": "How many more than {}?", "Equation": "( {}.0 - 3.0 )", "ID": "chal-{}"}
    lay(data / "svamp" / "SVAMP.json", [{name: text.replace("{}", str(n)) for name, text in problem.items()} for n in range(1, 1001)])
    return load_task("svamp")


def lay_cqa(data: Path, split: str, n_rows: int) -> Task:
    choices = ["sink", "New York", "Table", "floor", "roof"]
    row = {"id": "x", "choices": choices, "abstractive_explanation": "", "extractive_explanation": ""}
    rows = [row | {"question": f"Where is cup {n}?", "answer": choices[n % 5]} for n in range(n_rows)]
    lay(data / "cqa" / f"{split}.json", rows)
    return load_task("cqa")


def lay_nli(data: Path, name: str, split: str, n_rows: int) -> Task:
    rows = [{"premise": f"It rains on day {n}.", "hypothesis": "It is wet.", "label": n % 3} for n in range(n_rows)]
    explained = {"reason": "", "uid": "x"} if name == "anli1" else {"explanation_1": ""}
    lay(data / name / f"{split}.json", [row | explained for row in rows])
    return load_task(name)


def read_one(task: Task, data: Path, text: str, model: str = "palm"):
    "One output, in a split of one row."
    lay(data / "outputs" / task.name / "llm" / "test_CoT_0.json", [text])
    lay(data / "outputs" / "gpt-neox" / task.name / "test.json", [text])
    (row,) = read_palm_outputs(task, data / "outputs", "test", model)
    return row


# Which row is whose


def check_alignment(task: Task, folder: Path, split: str) -> list[Example]:
    "Each row of ours has the output of its published number, and nothing is lost on the way to the file."
    rows = read_palm_outputs(task, folder, split)
    examples = load_examples(task, split)
    assert [(row.id, row.input, row.gold) for row in rows] == [(row.id, task.input_text(row), row.label) for row in examples]
    assert [row.rationale for row in rows] == [f"This is said of row {row.id.partition('-')[2]}." for row in examples]
    assert all(task.is_right(row.label, row.gold) for row in rows)
    assert {(row.label_error, row.rationale_error, row.read_by) for row in rows} == {("", "", "pattern")}
    write_annotations(rows, folder / "rows.jsonl")
    assert read_annotations(folder / "rows.jsonl") == rows
    return examples


@pytest.mark.parametrize("made_up", [True, False], ids=["made-up", "real"])
def test_svamp(data, tmp_path, made_up):
    "800 rows in two files; a tenth of them is our validation split."
    if made_up:
        task = lay_svamp(data)
    elif (SHARED / "svamp" / "SVAMP.json").is_file():
        data.mkdir()
        (data / "svamp").symlink_to(SHARED / "svamp")
        task = load_task("svamp")
    else:
        pytest.skip(f"no svamp/SVAMP.json in {SHARED}; ZSD_SHARED_DATA names another folder")
    lay_outputs(tmp_path, task, "train", numbered(task, "train"), 500)
    lay_outputs(tmp_path, task, "test", numbered(task, "test"), 500)
    assert [path.name for path in sorted(tmp_path.glob("svamp/llm/*"))] == ["test_CoT_0.json", "train_CoT_0.json", "train_CoT_1.json"]
    parts = {split: check_alignment(task, tmp_path, split) for split in ("train", "valid", "test")}
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 720, "valid": 80, "test": 200}


def test_cqa(data, tmp_path):
    "The last file is shorter. A clone is as good as its folder `datasets`."
    task = lay_cqa(data, "train", 2310)
    lay_outputs(tmp_path / "datasets", task, "train", numbered(task, "train"), 1000)
    assert len(list(tmp_path.glob("datasets/cqa/llm/*"))) == 3
    assert len(check_alignment(task, tmp_path / "datasets", "train")) == 2079
    assert len(check_alignment(task, tmp_path, "valid")) == 231


def test_asdiv(data, tmp_path):
    rows = [{"Body": "He had cups.", "Question": f"How many on day {n}?", "Answer": f"{n} (cups)"} for n in range(2305)]
    lay(data / "asdiv" / "asdiv_train.json", rows)
    task = load_task("asdiv")
    lay_outputs(tmp_path, task, "train", numbered(task, "train"), 1000)
    assert len(check_alignment(task, tmp_path, "train")) == 2305


@pytest.mark.parametrize(("name", "n_a_file"), [("esnli", 5500), ("anli1", 5000)])
def test_nli(data, tmp_path, name, n_a_file):
    task = lay_nli(data, name, "valid", n_a_file + 3)
    lay_outputs(tmp_path, task, "valid", numbered(task, "valid"), n_a_file)
    assert len(check_alignment(task, tmp_path, "valid")) == n_a_file + 3


@pytest.mark.parametrize("split", ["train", "valid"])
def test_gpt_neox(data, tmp_path, split):
    task = lay_svamp(data)
    lay(tmp_path / "gpt-neox" / "svamp" / "train.json", numbered(task, "train"))
    rows = read_palm_outputs(task, tmp_path, split, "gpt-neox")
    assert [row.rationale for row in rows] == [f"This is said of row {row.id.partition('-')[2]}." for row in load_examples(task, split)]


def test_files_that_are_missing_at_the_end(data, tmp_path):
    task = lay_svamp(data)
    lay_outputs(tmp_path, task, "train", numbered(task, "train")[:500], 500)
    rows = read_palm_outputs(task, tmp_path, "train")
    late = {row.id for row in load_whole(task, "train")[500:]}
    why = "no output: train_CoT_1.json is missing"
    assert {row.id for row in rows if row.label is None} == late & {row.id for row in rows}
    assert {(row.label, row.rationale, row.label_error, row.rationale_error) for row in rows if row.id in late} == {(None, None, why, why)}
    assert Counter(row.label_error for row in rows)[""] == len(rows) - len(late & {row.id for row in rows}) > 0


# What is read

READINGS = [
    # cqa: what follows the choice's letter
    ("cqa", "It is in a big city there. So the answer is (b) New York.", "new york", ""),
    ("cqa", "It is in a big city there.  So the answer is (b)  new york  \n\n", "new york", ""),
    ("cqa", "It is in a big city there. So the answer is (b) Chicago.", None, "label not allowed"),
    ("cqa", "It is in a big city there. So the answer is New York.", None, "no label found"),
    ("cqa", "It is in a big city there. So the answer is (b).", None, "no label found"),
    # svamp: from the first parenthesis to the last, on one line
    ("svamp", "He had some cups, eight of them. The answer is ((8 - 3) * (2)) cups.", "((8 - 3) * (2))", ""),
    ("svamp", "He had some cups, eight of them. The answer is (8 - 3) + (2).", "(8 - 3) + (2)", ""),
    ("svamp", "He had some cups, eight of them. The answer is (8 - 3).\n(cups)", "(8 - 3)", ""),
    ("svamp", "He had some cups, eight of them. The answer is 5.", None, "no label found"),
    ("svamp", "He had some cups, eight of them. The answer is (five).", None, "label not allowed"),
    ("svamp", "He had some cups, eight of them. The answer is (8 / 0).", None, "label not allowed"),
    # esnli: up to the next premise, with or without its colon
    ("esnli", "Rain makes all things wet outside.\nAnswer: Entailment", "entailment", ""),
    ("esnli", "Rain makes all things wet outside.\nAnswer:true.", "entailment", ""),
    ("esnli", "Rain makes all things wet outside.\nAnswer: entailment Premise of another kind", "entailment", ""),
    ("esnli", "Rain makes all things wet outside.\nAnswer: maybe", None, "label not allowed"),
    ("esnli", "Rain makes all things wet outside.\nAnswer:\n\nPremise: x", None, "no label found"),
    # anli1
    ("anli1", "Rain makes all things wet outside. So the answer is entailment.", "entailment", ""),
    ("anli1", "Rain makes all things wet outside. So the answer is entailment", "entailment", ""),
    ("anli1", "Rain makes all things wet outside. So the answer is it depends.", None, "label not allowed"),
]
UNREADABLE = [
    ("cqa", "It is in a big city there.", "no answer stated"),
    ("cqa", "", "empty reply"),
    ("cqa", " \n Q: What else? So the answer is (b) New York.", "empty reply"),
    ("cqa", "It is. So the answer is (b) New York. So the answer is (a) sink.", "more than one answer stated"),
    ("esnli", "Rain makes all things wet.\n\nPremise: Another. Answer: neutral", "no answer stated"),
    ("anli1", "Rain makes all things wet outside. The answer is neutral.", "no answer stated"),
]


def one_row(data: Path, name: str) -> Task:
    if name == "cqa":
        return lay_cqa(data, "test", 1)
    if name == "svamp":  # the published split has more rows
        lay(data / "one.jsonl", {"Body": "He had 8 cups.", "Question": "How many are left of them?", "Equation": "( 8.0 - 3.0 )"})
        return load_task("svamp").model_copy(update={"splits": {"test": Split(file=data / "one.jsonl")}})
    return lay_nli(data, name, "test", 1)


@pytest.mark.parametrize(("name", "text", "label", "fault"), READINGS)
def test_reading(data, name, text, label, fault):
    "The rationale stands for itself: it is there whether or not the label can be read."
    row = read_one(one_row(data, name), data, text)
    assert (row.label, row.label_error, row.read_by) == (label, fault, "pattern" if label else "")
    assert len(row.rationale.split()) >= 5
    assert text.startswith(row.rationale)
    assert row.rationale_error == ""


@pytest.mark.parametrize(("name", "text", "fault"), UNREADABLE)
def test_unreadable(data, name, text, fault):
    row = read_one(one_row(data, name), data, text)
    assert (row.label, row.rationale, row.label_error, row.rationale_error) == (None, None, fault, fault)


@pytest.mark.parametrize(
    ("rationale", "kept"), [("Four words are few.", None), ("Five  words\nare\tenough here.", "Five words are enough here.")]
)
def test_short_rationales(data, rationale, kept):
    row = read_one(one_row(data, "anli1"), data, output("anli1", "neutral", rationale))
    assert (row.label, row.rationale, row.rationale_error) == ("neutral", kept, "" if kept else "no rationale given")


def test_neox_states_the_answer_in_two_ways(data):
    task = one_row(data, "anli1")
    text = "Rain makes all things wet outside. The answer is entailment."
    assert read_one(task, data, text).label_error == "no answer stated"
    assert read_one(task, data, text, "gpt-neox").label == "entailment"
    both = "Rain makes all things wet outside. The answer is not easy. So the answer is entailment."
    row = read_one(task, data, both, "gpt-neox")
    assert (row.label, row.rationale) == ("entailment", "Rain makes all things wet outside. The answer is not easy.")


def test_half_a_character(data, tmp_path):
    "JSON can say it, no file can hold it."
    row = read_one(one_row(data, "anli1"), data, output("anli1", "neutral", "Half a \ud83d face is no face."))
    assert row.rationale == "Half a \ufffd face is no face."
    write_annotations([row], tmp_path / "rows.jsonl")


# The command


def test_outputs_in_a_clone_become_annotations(data, tmp_path):
    "Of the splits that have outputs; what does not fit is named, and the rest is imported."
    task = lay_svamp(data)
    lay_outputs(tmp_path / "clone" / "datasets", task, "train", numbered(task, "train"), 500)
    lay(tmp_path / "clone" / "datasets" / "gpt-neox" / "svamp" / "train.json", numbered(task, "train")[:7])
    settings = environment(ZSD_DATA=str(data), ZSD_CACHE=str(tmp_path / "cache"))
    done = zsd(tmp_path, "import-thesis", "clone", "--json", env=settings)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["outputs"] == {
        "zsd-work/annotations/palm-svamp": {"train": 720, "valid": 80},
        "zsd-work/annotations/gpt-neox-svamp": {},
    }
    rows = read_annotations(tmp_path / "zsd-work" / "annotations" / "palm-svamp" / "train.jsonl")
    assert all(task.is_right(row.label, row.gold) and row.rationale for row in rows)
    told = " ".join(zsd(tmp_path, "import-thesis", "clone", env=settings).out.split())
    assert "outputs of palm for svamp: 720 train, 80 valid rows in zsd-work/annotations/palm-svamp" in told
    assert "outputs of gpt-neox for svamp: not used: train (" in told
    assert "7 outputs for 800 rows of split 'train'" in told


# What is refused


def test_too_many_outputs(data, tmp_path):
    task = lay_svamp(data)
    outputs = numbered(task, "train")
    lay_outputs(tmp_path, task, "train", [*outputs, outputs[0]], 500)
    with pytest.raises(PalmError, match=r"train_CoT_1.json: 301 outputs for 300 rows of split 'train'; rows and outputs must be"):
        read_palm_outputs(task, tmp_path, "train")
    lay(tmp_path / "gpt-neox" / "svamp" / "train.json", outputs + outputs)
    with pytest.raises(PalmError, match=r"gpt-neox/svamp/train.json: 1,600 outputs for 800 rows of split 'train'"):
        read_palm_outputs(task, tmp_path, "valid", "gpt-neox")


def test_a_part_of_the_rows(data, tmp_path):
    "Outputs of the whole split do not go with a copy of its beginning, however the files fall."
    task = lay_cqa(data, "test", 1000)
    lay_outputs(tmp_path, task, "test", numbered(task, "test") + ["More."] * 221, 1000)
    with pytest.raises(PalmError, match=r"test_CoT_1.json: 1 files hold the outputs for all 1,000 rows of split 'test'"):
        read_palm_outputs(task, tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (["x"] * 499, r"train_CoT_0.json: 499 outputs for 500 rows of split 'train'"),
        ([], r"train_CoT_0.json: 0 outputs for 500 rows"),
        ("", r"train_CoT_0.json: not valid JSON \(Expecting value"),
        ('["x", "y', r"train_CoT_0.json: not valid JSON \(Unterminated string"),
        ("[" * 100_000, r"train_CoT_0.json: not valid JSON \(maximum recursion depth"),
        ({"x": "y"}, r"train_CoT_0.json: a list of texts is expected, not dict"),
        (["x"] * 3 + [None] + ["x"] * 496, r"train_CoT_0.json: item 3 of the list is no text"),
    ],
)
def test_files_that_are_faulty(data, tmp_path, content, said):
    task = lay_svamp(data)
    lay_outputs(tmp_path, task, "train", numbered(task, "train"), 500)
    lay(tmp_path / "svamp" / "llm" / "train_CoT_0.json", content)
    with pytest.raises(PalmError, match=said) as refused:
        read_palm_outputs(task, tmp_path, "train")
    assert len(str(refused.value).splitlines()) == 1


def test_files_that_cannot_be_read(data, tmp_path):
    task = lay_svamp(data)
    path = tmp_path / "svamp" / "llm" / "test_CoT_0.json"
    path.mkdir(parents=True)
    with pytest.raises(PalmError, match=r"test_CoT_0.json: cannot be read \(Is a directory\)"):
        read_palm_outputs(task, tmp_path, "test")
    path.rmdir()
    path.write_bytes(b'["\xff"]')
    with pytest.raises(PalmError, match=r"test_CoT_0.json: not valid JSON \('utf-8' codec can't decode"):
        read_palm_outputs(task, tmp_path, "test")


def test_files_that_are_missing(data, tmp_path):
    task = lay_svamp(data)
    for model, path in (("palm", "svamp/llm/test_CoT_0.json"), ("gpt-neox", "gpt-neox/svamp/test.json")):
        with pytest.raises(PalmError, match=rf"{path}: no such file; give the folder `datasets` of the repository"):
            read_palm_outputs(task, tmp_path, "test", model)
    lay_outputs(tmp_path, task, "train", numbered(task, "train"), 500)
    (tmp_path / "svamp" / "llm" / "train_CoT_0.json").unlink()
    with pytest.raises(PalmError, match=r"train_CoT_0.json: no such file, but train_CoT_1.json is there"):
        read_palm_outputs(task, tmp_path, "valid")


def test_other_tasks_and_splits(data, tmp_path):
    with pytest.raises(PalmError, match=r"no outputs for task 'pocket_nli'; there are for cqa, svamp, asdiv, esnli, anli1"):
        read_palm_outputs(load_task("pocket_nli"), tmp_path, "train")
    with pytest.raises(DataError, match=r"task 'svamp' has no split 'dev'; it has train, valid, test"):
        read_palm_outputs(lay_svamp(data), tmp_path, "dev")
