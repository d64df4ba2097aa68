"""What others make of an annotation: `datasets` without our package, the hub's reader of cards, a reader of Markdown; and what a full disk leaves."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from at_once import at_once
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt
from scripted_server import Scripted, ScriptedServer

import zero_shot_distill.annotate.job
import zero_shot_distill.annotate.release
from zero_shot_distill.annotate.card import COLUMNS
from zero_shot_distill.annotate.job import AnnotationJob, AnnotationReport, run_annotation
from zero_shot_distill.annotate.plan import ExplanationRate
from zero_shot_distill.annotate.release import ReleaseError, write_release
from zero_shot_distill.annotate.rows import AnnotatedRow, RationaleFault, read_annotations, summarise_annotations, write_annotations
from zero_shot_distill.core.definition import DataError
from zero_shot_distill.core.files import write_json
from zero_shot_distill.core.progress import Progress
from zero_shot_distill.prompt.display import percent_text
from zero_shot_distill.prompt.mix import PromptMix
from zero_shot_distill.prompt.template import PromptTemplate, load_templates
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import Example, Task, load_task
from zero_shot_distill.teacher.client import AskOptions, TeacherClient
from zero_shot_distill.teacher.price import Price, Usage
from zero_shot_distill.teacher.teacher import HostedTeacher, RequestLimits, StoredTeacher

NOW = datetime(2026, 11, 20, tzinfo=UTC)
MODEL = "scripted-model"
PRICE = Price(2.0, 8.0, "scripted prices, of 2026-11-01")


def annotated(examples: list[Example], task: Task, fault: str = "") -> list[AnnotatedRow]:
    "Rows that are right and explained, or lack both for a reason."
    good = dict(rationale="The premise says so in as many words.", read_by="pattern")
    bad = dict(rationale=None, label_error=fault, rationale_error=fault)
    return [
        AnnotatedRow(example.id, task.input_text(example), example.label, None if fault else example.label, **(bad if fault else good))
        for example in examples
    ]


def made_up(folder: Path, rows: dict[str, list[AnnotatedRow]], **of_job: object) -> tuple[AnnotationJob, AnnotationReport]:
    "An annotation whose rows and report are written by hand."
    task = of_job.pop("task", None) or load_task("pocket_nli")
    examples = {split: [Example(row.id, {}, row.gold, None) for row in of_split] for split, of_split in rows.items()}
    templates = of_job.pop("templates", None) or load_templates(task)
    job = AnnotationJob(
        task, examples, templates, of_job.pop("mix", PromptMix.single(next(iter(templates)))), MODEL, {"temperature": 0}, **of_job
    )
    for split, of_split in rows.items():
        write_annotations(of_split, folder / f"{split}.jsonl")
    n = sum(map(len, rows.values()))
    report = AnnotationReport(
        id=job.id,
        folder=str(folder),
        splits={split: summarise_annotations(of_split, task) for split, of_split in rows.items()},
        outcomes={"complete": n},
        n_imported=0,
        n_attempts=n,
        n_open_attempts=0,
        usage=Usage(n, 90 * n, 30 * n, 0, 1.0, None),
        price=None,
        n_rows_left=0,
        left_usd=None,
        notes=(),
    )
    return job, report


@pytest.fixture
def pocket(tmp_path) -> tuple[AnnotationJob, AnnotationReport]:
    "Two splits of pocket_nli, by hand."
    task = load_task("pocket_nli")
    train, test = load_examples(task, "train")[:30], load_examples(task, "test")[:10]
    rows = {"train": annotated(train, task), "test": annotated(test[:8], task) + annotated(test[8:], task, "no label found")}
    return made_up(tmp_path / "annotation", rows)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fresh_python(code: str, folder: Path, home: Path, *arguments: str, with_us: bool = False, **options: object) -> str:
    "Standard output of a Python that has its own, empty home, no network, and not our package unless told so."
    barred = "" if with_us else "import sys; sys.modules['zero_shot_distill'] = None\n"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    env = kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    home.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", barred + code, *arguments], cwd=folder, env=env, capture_output=True, text=True, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# The rows


def test_datasets_loads_it_without_us(pocket, tmp_path):
    job, report = pocket
    release = write_release(job, report, NOW)
    code = """
import datasets, json
loaded = datasets.load_from_disk("dataset")
print(json.dumps({name: split.to_list() for name, split in loaded.items()}))
print(json.dumps({name: [str(split.split), {column: kind.dtype for column, kind in split.features.items()}] for name, split in loaded.items()}))
"""
    rows, kinds = map(json.loads, fresh_python(code, release.folder, tmp_path / "home").splitlines())
    assert rows == {split: [row.to_dict() for row in read_annotations(release.folder / f"{split}.jsonl")] for split in ("train", "test")}
    assert kinds == {split: [split, dict.fromkeys(COLUMNS, "string")] for split in ("train", "test")}
    assert list((tmp_path / "home").rglob("*")) == []


def test_writing_leaves_nothing_elsewhere(pocket, tmp_path):
    "No cache, no bars, no log lines, and the switches of `datasets` are as they were."
    _, report = pocket
    code = """
import json, pickle, sys
from pathlib import Path
job, report = pickle.loads(Path(sys.argv[1]).read_bytes())
import datasets
level = datasets.logging.get_verbosity()
from zero_shot_distill.annotate.release import write_release
write_release(job, report)
assert not datasets.are_progress_bars_disabled() and datasets.logging.get_verbosity() == level
"""
    (tmp_path / "annotation.pickle").write_bytes(pickle.dumps(pocket))
    (tmp_path / "elsewhere").mkdir()
    said = fresh_python(code, tmp_path / "elsewhere", tmp_path / "home", str(tmp_path / "annotation.pickle"), with_us=True)
    assert said == ""
    assert [path for folder in ("home", "elsewhere") for path in (tmp_path / folder).rglob("*")] == []
    assert sorted(path.name for path in Path(report.folder).iterdir()) == sorted(
        ["README.md", "dataset", "test.jsonl", "test_CoT.json", "train.jsonl", "train_CoT.json"]
    )


def test_the_form_of_the_thesis(pocket):
    release = write_release(*pocket)
    for split in ("train", "test"):
        lines = (release.folder / f"{split}_CoT.json").read_text(encoding="utf-8").splitlines()
        rows = read_annotations(release.folder / f"{split}.jsonl")
        assert [json.loads(line) for line in lines] == [{"label": row.label, "explanation": row.rationale} for row in rows]
    assert json.loads(lines[-1]) == {"label": None, "explanation": None}


def test_odd_characters_survive(tmp_path):
    "Line separators of Unicode are no ends of lines, and nothing is escaped that need not be."
    odd = 'a\u2028b\x85c "d" \\ \U0001f600 \r\n e'
    task = load_task("pocket_nli")
    rows = [replace(row, input=odd, rationale=odd) for row in annotated(load_examples(task, "train")[:2], task)]
    release = write_release(*made_up(tmp_path, {"train": rows}))
    import datasets

    assert [AnnotatedRow(**row) for row in datasets.load_from_disk(str(tmp_path / "dataset"))["train"]] == rows
    with (tmp_path / "train_CoT.json").open(encoding="utf-8", newline="\n") as file:
        assert [json.loads(line)["explanation"] for line in file] == [odd, odd]
    assert release.counts["train"].missing == {}


def test_splits_with_other_names(tmp_path):
    task = load_task("pocket_nli")
    rows = {"dev-matched": annotated(load_examples(task, "valid")[:3], task)}
    release = write_release(*made_up(tmp_path, rows))
    assert [path.name for path in release.paths] == ["dataset", "dev-matched_CoT.json", "README.md"]
    assert sorted(path.name for path in (tmp_path / "dataset").iterdir()) == ["dataset_dict.json", "dev_matched"]
    (files,) = DatasetCard.load(tmp_path / "README.md").data["configs"]
    assert files["data_files"] == [{"split": "dev_matched", "path": "dev-matched.jsonl"}]


# The card


def code_blocks(text: str, kind: str) -> list[str]:
    return [token.content for token in MarkdownIt().parse(text) if token.type == "fence" and token.info == kind]


def headings(text: str) -> list[str]:
    tokens = MarkdownIt().parse(text)
    return [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]


def table_cells(text: str) -> list[list[str]]:
    "All rows of all tables, as a reader of Markdown sees them."
    cells: list[list[str]] = []
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "tr_open":
            cells.append([])
        elif token.type == "inline" and token.level == 4:  # within a table
            cells[-1].append("".join(child.content for child in token.children))
    return cells


def test_front_matter(pocket):
    write_release(*pocket, NOW)
    card = DatasetCard.load(Path(pocket[1].folder) / "README.md")
    assert card.data.to_dict() == {
        "pretty_name": f"pocket_nli, labelled and explained by {MODEL}",
        "license": "cc0-1.0",
        "task_categories": ["text-classification"],
        "annotations_creators": ["machine-generated"],
        "tags": ["synthetic"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "train.jsonl"}, {"split": "test", "path": "test.jsonl"}],
            }
        ],
        "dataset_info": {"config_name": "default", "features": [{"name": name, "dtype": "string"} for name in COLUMNS]},
    }
    assert card.text.lstrip().startswith(f"# `pocket_nli`, labelled and explained by `{MODEL}`")


@pytest.mark.parametrize(
    ("name", "kind", "licence"),
    [
        ("svamp", "question-answering", "mit"),
        ("cqa", "multiple-choice", "bsd-3-clause"),
        ("anli1", "text-classification", "cc-by-nc-4.0"),
        ("esnli", "text-classification", "mit"),
    ],
)
def test_built_in_tasks(tmp_path, name, kind, licence):
    task = load_task(name)
    rows = {
        "train": [AnnotatedRow("train-0", "What?", None, "1 + 1", None, rationale_error=str(RationaleFault.NOT_WANTED), read_by="pattern")]
    }
    templates = {"ask": PromptTemplate(id="ask", user_message="Say it.", reply_pattern="(?P<label>.+)")}
    write_release(*made_up(tmp_path, rows, task=task, templates=templates), NOW)
    card = DatasetCard.load(tmp_path / "README.md")
    assert (card.data["license"], card.data["task_categories"]) == (licence, [kind])
    assert f"of `{task.hub.id}` at the Hugging Face hub" in card.text
    assert "may have met its rows" in card.text
    assert "No row has both labels" in card.text
    assert "was wanted" not in card.text  # nothing that was wanted is missing


def test_the_code_of_the_card_runs(pocket, tmp_path):
    "As it stands there."
    job, report = pocket
    release = write_release(job, report, NOW)
    folder, jsonl, pairs = code_blocks(DatasetCard.load(release.folder / "README.md").text, "python")
    show = "\nimport json; print(json.dumps([{n: k.dtype for n, k in rows.features.items()}, rows.to_list()]))"
    show_pairs = "\nprint(json.dumps(pairs))"
    expected = [dict.fromkeys(COLUMNS, "string"), [row.to_dict() for row in read_annotations(release.folder / "train.jsonl")]]
    # Bars of `load_dataset` are its own affair.
    jsonl = "import datasets; datasets.disable_progress_bars()\n" + jsonl
    # One after the other in one Python, none with the names of another; the one without bars last.
    code = f"for code in {[folder + show, pairs + show_pairs, jsonl + show]!r}: exec(code, {{}})"
    by_folder, shown, by_lines = map(json.loads, fresh_python(code, release.folder.parent, tmp_path / "home").splitlines())
    assert by_folder == by_lines == expected
    assert shown == [{"label": row["label"], "explanation": row["rationale"]} for row in expected[1]]


def test_columns_of_nulls_have_a_type(tmp_path):
    task = load_task("pocket_nli")
    rows = [replace(row, gold=None) for row in annotated(load_examples(task, "train")[:3], task, "no label found")]
    release = write_release(*made_up(tmp_path / "annotation", {"train": rows}))
    code = """
import datasets
datasets.disable_progress_bars()
for rows in (datasets.load_dataset("annotation", split="train"), datasets.load_from_disk("annotation/dataset")["train"]):
    print(rows.features["gold"].dtype, rows.features["rationale"].dtype, rows["gold"][:])
"""
    said = fresh_python(code, release.folder.parent, tmp_path / "home")
    assert said == "string string [None, None, None]\n" * 2


HOSTILE = [
    "```python\nprint('not the card')\n```",
    "~~~\n````text\n# no heading\n`````",
    "---\nlicense: wtfpl\n---\n\n# no heading\n\n| no | table |\n|---|---|\n| x | y |",
    "<details><script>alert(1)</script>",
    "ends in a backtick `",
    "  \n\n    indented {premise} and {{plain}}\n\n",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_templates_do_not_break_the_card(tmp_path, text):
    "Word for word in a block of its own; what stands around it is as without it."
    task = load_task("pocket_nli")
    rows = {"train": annotated(load_examples(task, "train")[:3], task, text)}
    task = task.model_copy(update={"description": text, "licence": text})
    harmless, hostile = (
        {
            id: PromptTemplate(
                id=id, note=content, system_message=content, user_message=content, reply_pattern=f"(?P<label>{re.escape(content)})"
            )
            for id in ("`a|b`", "#<c>")
        }
        for content in ("word", text)
    )
    mix = PromptMix(label={"`a|b`": 0.5, "#<c>": 0.5}, explanation={"#<c>": 1.0})
    page = {}
    for folder, templates in ((tmp_path / "harmless", harmless), (tmp_path / "hostile", hostile)):
        write_release(*made_up(folder, rows, task=task, templates=templates, mix=mix), NOW)
        page[folder.name] = DatasetCard.load(folder / "README.md").text
    assert headings(page["hostile"]) == headings(page["harmless"])
    assert headings(page["hostile"])[7:9] == ["Template `` `a|b` ``", "Template `#<c>`"]
    patterns = [template.reply_pattern for template in hostile.values()]
    assert code_blocks(page["hostile"], "text") == [block + "\n" for pattern in patterns for block in (text, text, pattern)]
    assert table_cells(page["hostile"]) == table_cells(page["harmless"])
    assert ["`a|b`", "0.5", "0"] in table_cells(page["hostile"])
    html = MarkdownIt("commonmark", {"html": True}).render(page["hostile"])
    assert "<script>" not in html
    assert DatasetCard.load(tmp_path / "hostile" / "README.md").data["license"] == "other"


def test_what_a_run_leaves_is_told(tmp_path):
    "From asking to the card: a budget that ends it, replies of all kinds, a parameter that the model does not take."
    task = load_task("pocket_nli")
    replies = [
        Scripted(text="Neutral: nobody said so in the premise at all.", prompt_tokens=90, completion_tokens=40),
        Scripted(text="Entailment, of course.", prompt_tokens=90, completion_tokens=40),
        Scripted(text="Contradiction: it says that the very", finish_reason="length", prompt_tokens=90, completion_tokens=40),
        Scripted(text=None, refusal="I would rather not.", prompt_tokens=90, completion_tokens=40),
        Scripted(text="Hard to say.", prompt_tokens=90, completion_tokens=40),
    ]
    rows = {"train": load_examples(task, "train")[:20], "test": load_examples(task, "test")[:5]}
    job = AnnotationJob(task, rows, load_templates(task), PromptMix.single("one-sentence"), MODEL, {"temperature": 0, "max_tokens": 60})
    with (
        ScriptedServer(lambda body, n: replies[n % 5], refuses=("temperature",)) as server,
        HostedTeacher(MODEL, server.base_url, "no-key-is-needed", RequestLimits(n_parallel=1)) as teacher,
        ResponseStore(tmp_path / "responses.sqlite") as store,
    ):
        only_train = replace(job, rows={"train": rows["train"]})
        run_annotation(only_train, TeacherClient(teacher, store, only_train.sampling, AskOptions(PRICE)), tmp_path, Progress(quiet=True))
        address = server.base_url
        first = run_annotation(
            only_train, TeacherClient(teacher, store, only_train.sampling, AskOptions(PRICE)), tmp_path, Progress(quiet=True)
        )
        report = run_annotation(
            job, TeacherClient(StoredTeacher(MODEL), store, job.sampling, AskOptions(PRICE)), tmp_path, Progress(quiet=True)
        )
    assert (first.n_rows_left, report.n_rows_left) == (0, 5)
    release = write_release(job, report, NOW)
    page = DatasetCard.load(release.folder / "README.md").text
    counts = report.splits["train"]
    assert (counts.n_rows, counts.n_labels, counts.n_rationales) == (20, 12, 8)
    right, explained = counts.agreement, counts.explanation_rate  # hypotheses about one premise are no independent rows
    assert (right.n, explained.value) == (12, 8 / 20)
    assert [
        "train",
        "20",
        "12",
        f"8 of 20: {percent_text(explained, 1)}",
        f"{counts.n_agree} of 12: {percent_text(right, 1)}",
    ] in table_cells(page)
    assert ["test", "5", "0", f"0 of 5: {percent_text(report.splits['test'].explanation_rate, 1)}", "-"] in table_cells(page)
    for label, of_label in zip(task.labels, report.confusion.counts, strict=False):
        assert next(cells for cells in table_cells(page) if cells[0] == label)[1:5] == [str(n) for n in of_label]
    missing = {tuple(cells[:3]): int(cells[3]) for cells in table_cells(page) if cells[1] in ("label", "rationale")}
    assert missing == {
        ("test", "label", "no response: not stored (offline)"): 5,
        ("test", "rationale", "no response: not stored (offline)"): 5,
        **{("train", part, reason): 4 for part in ("label", "rationale") for reason in ("refused by the teacher", "no label found")},
        ("train", "rationale", "no rationale given"): 4,
    }
    for said in (
        "Replies by outcome: 12 complete, 4 length, 4 refused.",
        f"Labels that differ from the gold label: {12 - counts.n_agree} of 12.",
        "Rows whose label was wanted and is missing: 13.",
        "Rows whose rationale was wanted and is missing: 17.",
        "Rows without a reply: 5; `unanswered.jsonl`",
        "Replies cut off at the length limit: 4.",
        "Replies that were refusals: 4.",
        "- Prices: scripted prices, of 2026-11-01\n",
        "- Cost of the 20 replies that were asked here, by these prices: $0.0100\n",
        "- Tokens: 1,800 of prompts (0 cached), 800 of replies (0 hidden reasoning)\n",
        "Reckoned on 2026-11-20.",
        "the same `premise` are not: the intervals are too narrow",
        "- Labels read: 12 by label-first\n",
        "- `train`: 20 rows; the file `train.jsonl` of the task definition\n",
    ):
        assert said in page, said
    assert "Held back" not in page
    for private in (address, str(tmp_path), str(Path(task.splits["train"].file).parent)):
        assert private not in (release.folder / "README.md").read_text(encoding="utf-8")


def test_notes_are_told_without_the_address(pocket):
    job, report = pocket
    note = "some-model at https://user@intranet.example:8443/v1: the model takes no temperature: left out"
    write_release(job, replace(report, notes=(note,)), NOW)
    page = DatasetCard.load(Path(report.folder) / "README.md").text
    assert "- Said by the last run: some-model: the model takes no temperature: left out\n" in page
    assert "intranet" not in page


def test_prices_that_are_not_known(pocket):
    job, report = pocket
    write_release(job, report, NOW)
    page = (Path(report.folder) / "README.md").read_text(encoding="utf-8")
    assert "- Prices: unknown\n- Cost of the 40 replies that were asked here, by these prices: unknown (no price is known)\n" in page
    uncounted = replace(report, price="given by the user", usage=replace(report.usage, n_uncounted=3))
    write_release(job, uncounted, NOW)
    page = (Path(report.folder) / "README.md").read_text(encoding="utf-8")
    assert "unknown (of some replies the price or the number of tokens is not known)" in page
    assert "; 3 replies came without counts" in page


def test_thousands_of_reasons(tmp_path):
    "A failing provider says something else each time; the card stays short and its sums right."
    task = load_task("pocket_nli")
    examples = load_examples(task, "train")[:60]
    rows = [row for number, example in enumerate(examples) for row in annotated([example], task, f"no response: request {number}")]
    write_release(*made_up(tmp_path, {"train": rows}), NOW)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    shown = [cells for cells in table_cells(page) if cells[1] in ("label", "rationale")]
    assert len(shown) == 12
    assert "Reasons not shown: 108, on 108 rows;" in page


def test_a_template_with_a_schema(tmp_path):
    template = PromptTemplate(
        id="json", user_message="?", reply_pattern="(?P<rationale>.*) So (?P<label>.*)", reply_schema=["rationale", "label"]
    )
    task = load_task("pocket_nli")
    rows = {"train": annotated(load_examples(task, "train")[:2], task)}
    write_release(*made_up(tmp_path, rows, templates={"json": template}, rate=ExplanationRate(1 / 3)), NOW)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "an object with `explanation`, `label`, in this order, as text, the label one of those above." in page
    assert "Rationales were wanted for 33.33% of the rows; what came beyond that is left out." in page


def test_a_template_that_shows_the_gold_label(tmp_path):
    task = load_task("pocket_nli")
    templates = {
        "why": PromptTemplate(
            id="why", user_message="{premise} {hypothesis} Why is it {label}?", reply_pattern="(?P<label>)(?P<rationale>.+)"
        ),
        "what": PromptTemplate(id="what", user_message="{premise} {hypothesis} {{label}}?", reply_pattern="(?P<label>.+)"),
    }
    mix = PromptMix(label={"what": 1.0}, explanation={"why": 1.0})
    rows = {"train": annotated(load_examples(task, "train")[:2], task)}
    job, report = made_up(tmp_path, rows, templates=templates, mix=mix, rate=ExplanationRate(0.5, of_existing=True))
    write_release(job, replace(report, n_imported=2), NOW)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "Template `why` shows the gold label to the teacher" in page
    assert "Template `what` shows" not in page
    assert "Rationales were wanted for 50% of the rows that had one; what came beyond that is left out." in page
    assert "Replies by outcome: 2 complete. 2 of them were taken over from elsewhere." in page
    assert "- Replies taken over from elsewhere, not asked here: 2. Their sampling parameters and their cost are not known.\n" in page


# Again, and when it fails


def test_again(pocket):
    "What was there is replaced, and what a killed run left is cleared away."
    job, report = pocket
    write_release(job, report, NOW)
    folder = Path(report.folder)
    before = everything(folder)
    (folder / "release.partial" / "former").mkdir(parents=True)
    (folder / "release.partial" / "train.arrow").write_text("half")
    (folder / "dataset" / "train" / "stray.arrow").write_text("of an older release")
    write_release(job, report, NOW)
    after = everything(folder)
    assert set(after) == set(before)
    changed = {name for name in after if after[name] != before[name]}
    assert {Path(name).name for name in changed} <= {"state.json"}  # `datasets` gives it another fingerprint


@pytest.mark.parametrize("limit", [2_000, pytest.param(6_000, marks=pytest.mark.slow)])
def test_a_full_disk(pocket, tmp_path, limit):
    "A limit on the size of files stands for it. One line; what was there before stays, whole, and nothing else."
    job, report = pocket
    write_release(job, report, NOW)
    before = everything(Path(report.folder))
    (tmp_path / "annotation.pickle").write_bytes(pickle.dumps((job, report)))
    code = """
import pickle, resource, sys
from pathlib import Path
from zero_shot_distill.annotate.release import ReleaseError, write_release
import datasets, pyarrow, statsmodels.stats.proportion
job, report = pickle.loads(Path(sys.argv[1]).read_bytes())
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_release(job, report)
except ReleaseError as error:
    print(error)
"""
    said = fresh_python(code, tmp_path, tmp_path / "home", str(tmp_path / "annotation.pickle"), str(limit), with_us=True)
    assert re.fullmatch(
        r".*/annotation: the release cannot be written \(.*File too large.*\); make room .* nothing is asked twice\n", said
    ), said
    assert everything(Path(report.folder)) == before


def test_nothing_is_half_written(pocket, monkeypatch):
    "Whatever part fails, none is put in place."
    job, report = pocket
    write_release(job, report, NOW)
    before = everything(Path(report.folder))

    def fails(*_, **__):
        raise OSError(28, os.strerror(28))

    for name in ("_write_split", "_save_dataset", "annotation_card"):
        with monkeypatch.context() as patch:
            patch.setattr(f"zero_shot_distill.annotate.release.{name}", fails)
            with pytest.raises(ReleaseError, match=r"cannot be written \(No space left on device\); make room"):
                write_release(job, report, NOW)
        assert everything(Path(report.folder)) == before


# Several processes at once


def release_thrice(number: int, job: AnnotationJob, report: AnnotationReport, killed_in: str = "") -> None:
    "Write the release again and again; the first process dies in a step."
    if killed_in and number == 0:
        setattr(zero_shot_distill.annotate.release, killed_in, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    for _ in range(3):
        write_release(job, report, NOW)


@pytest.mark.parametrize("killed_in", ["", "_write_split", "_save_dataset", "_put"])
def test_four_processes_release_at_once(pocket, killed_in):
    "All end well and the release is whole, also where one of them is killed while it writes."
    job, report = pocket
    import datasets  # noqa: F401  not in each child anew

    codes = at_once(4, release_thrice, job, report, killed_in)
    assert codes == [-signal.SIGKILL if killed_in else 0, 0, 0, 0]
    folder = Path(report.folder)
    together = everything(folder)
    if killed_in:  # after all others had ended: what it left goes with the next release
        together = {name: content for name, content in together.items() if "release.partial" not in str(name)}
    shutil.rmtree(folder / "dataset")
    write_release(job, report, NOW)
    alone = everything(folder)
    assert set(together) == set(alone)
    assert not [name for name in alone if "release.partial" in name]
    assert {Path(name).name for name in alone if alone[name] != together[name]} <= {"state.json"}


def test_rows_of_another_run_are_released_with_their_report(pocket):
    "Another process has ended the annotation since: its rows lie there, beside its report."
    job, report = pocket
    folder = Path(report.folder)
    task = load_task("pocket_nli")
    theirs = annotated(load_examples(task, "train")[:30], task, "no label found")
    write_annotations(theirs, folder / "train.jsonl")
    with pytest.raises(ReleaseError, match="where the report says 30, 30, 30"):
        write_release(job, report, NOW)
    other = replace(report, splits=report.splits | {"train": summarise_annotations(theirs, task)})
    write_json(folder / "report.json", other.to_dict())
    assert write_release(job, report, NOW).counts["train"].summary.n_labels == 0


def test_rows_and_report_are_of_one_run(tmp_path, monkeypatch):
    "Another process writes its rows of the same annotation between ours and our report."
    task = load_task("pocket_nli")
    rows = {"train": load_examples(task, "train")[:4]}
    job = AnnotationJob(task, rows, load_templates(task), PromptMix.single("one-sentence"), MODEL, {"temperature": 0})
    path, report_ours = tmp_path / "annotations" / job.id / "train.jsonl", zero_shot_distill.annotate.job.report_annotation

    def report_late(*arguments):
        write_annotations(annotated(rows["train"], task), path)
        return report_ours(*arguments)

    monkeypatch.setattr("zero_shot_distill.annotate.job.report_annotation", report_late)
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        client = TeacherClient(StoredTeacher(MODEL), store, job.sampling, AskOptions(PRICE))
        report = run_annotation(job, client, tmp_path, Progress(quiet=True))
    assert [row.label for row in read_annotations(path)] == [None] * 4
    assert report.splits["train"].n_labels == 0


def test_what_was_reported_can_be_released_while_another_run_is_under_way(tmp_path, monkeypatch):
    "Its rows take the place of ours with its report, not before: here it knows replies that we did not have."
    task = load_task("pocket_nli")
    rows = {"train": load_examples(task, "train")[:6], "test": load_examples(task, "test")[:4]}
    job = AnnotationJob(task, rows, load_templates(task), PromptMix.single("one-sentence"), MODEL, {"temperature": 0})
    report_theirs, released = zero_shot_distill.annotate.job.report_annotation, []

    def release_ours(*arguments):
        released.append(write_release(job, ours, NOW).counts["train"].summary.n_labels)
        return report_theirs(*arguments)

    with ResponseStore(tmp_path / "responses.sqlite") as store:

        def run(teacher):
            return run_annotation(job, TeacherClient(teacher, store, job.sampling, AskOptions(PRICE)), tmp_path, Progress(quiet=True))

        ours = run(StoredTeacher(MODEL))
        text = "Neutral: nobody said so in the premise at all."
        with ScriptedServer(lambda body, n: Scripted(text=text)) as server, HostedTeacher(MODEL, server.base_url, "none") as teacher:
            monkeypatch.setattr("zero_shot_distill.annotate.job.report_annotation", release_ours)
            theirs = run(teacher)
    assert (ours.splits["train"].n_labels, released) == (0, [0])
    assert write_release(job, ours, NOW).counts["train"].summary.n_labels == theirs.splits["train"].n_labels == 6


def test_mistakes(pocket):
    job, report = pocket
    folder = Path(report.folder)
    (folder / "test.jsonl").write_text('{"id": "test-1", "input": 3}\n')
    with pytest.raises(DataError, match=r"test.jsonl:1: not a row as `zsd annotate` writes it; annotate again"):
        write_release(job, report)
    (folder / "test.jsonl").write_text('{"id"\n')
    with pytest.raises(DataError, match=r"test.jsonl:1: not valid JSON"):
        write_release(job, report)
    (folder / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"test.jsonl: no such file"):
        write_release(job, report)
    assert sorted(path.name for path in folder.iterdir()) == ["train.jsonl"]
