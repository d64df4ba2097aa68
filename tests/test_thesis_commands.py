"""From a clone of the thesis repository to figures and training rows, by the commands. Needs the shared data."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_thesis import SIX_COUNTS, shared_data_dir
from zsd_command import begin, environment, finish, is_one_line, zsd

from zero_shot_distill.prompt.collect import draw_samples
from zero_shot_distill.task.task import Example

TEACHER = ("--model", "gpt-3.5-turbo", "--offline", "--json")


@pytest.fixture(scope="module")
def shared() -> Path:
    data = shared_data_dir()
    if not (data / "thesis").is_dir() or not (data / "svamp" / "SVAMP.json").is_file():
        pytest.skip("the thesis's data or SVAMP are not there; set ZSD_SHARED_DATA or keep them at ../shared/data")
    return data


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory) -> Path:
    "A work directory that the shared part of the thesis was imported into."
    folder = tmp_path_factory.mktemp("thesis")
    done = zsd(folder, "import-thesis", str(shared / "thesis"))
    assert done.status == 0, done.err
    assert "9,079 replies of gpt-3.5-turbo are new" in done.out
    return folder


def with_data(shared: Path) -> dict[str, str]:
    "The shared folder holds `svamp/SVAMP.json`, and no other task's rows under their names."
    return environment(ZSD_DATA=str(shared))


def evaluated(folder: Path, env: dict[str, str], *arguments: str) -> dict:
    done = zsd(folder, "evaluate", *arguments, "--json", env=env)
    assert done.status == 0, done.err
    return json.loads(done.out)


def annotated(folder: Path, env: dict[str, str], *arguments: str) -> tuple[dict, dict[str, list[dict]]]:
    "The report, and the rows of each split."
    done = zsd(folder, "annotate", "--task", "svamp", *arguments, *TEACHER, env=env)
    report = json.loads(done.out)
    assert done.status == (1 if report["n_rows_left"] else 0), done.err
    rows = {split: (folder / report["folder"] / f"{split}.jsonl").read_text().splitlines() for split in report["splits"]}
    return report, {split: [json.loads(line) for line in lines] for split, lines in rows.items()}


def own_mix(folder: Path, **content) -> str:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"seed": 42, "label": {2: 1.0}, "explanation": {2: 1.0}} | content))
    return str(path)


@pytest.fixture(scope="module")
def by_template_two(shared, folder) -> tuple[dict, dict[str, list[dict]]]:
    "Annotated by template 2: the report, and the rows of each split."
    return annotated(folder, with_data(shared), "--mix", own_mix(folder), "--published")


@pytest.fixture(scope="module")
def svamp_imported(shared, tmp_path_factory) -> Path:
    "A work directory with the replies and templates of svamp alone, to be copied."
    folder = tmp_path_factory.mktemp("svamp")
    zsd(folder, "import-thesis", str(shared / "thesis" / "query-results" / "svamp"))
    zsd(folder, "import-thesis", str(shared / "thesis" / "prompt-templates" / "svamp.yaml"))
    return folder / "zsd-work"


@pytest.mark.slow  # test_thesis.py compares the same figures in its own process, test_svamp_as_published those of this command
def test_cqa_as_published(shared, folder):
    "Six counts of 84 templates, right and wrong of 82, the costs of all: without the data set, from what was imported."
    figures = evaluated(folder, environment(), "--task", "cqa", "--profile", "thesis")
    published = yaml.safe_load((shared / "thesis" / "prompt-metadata" / "cqa.yaml").read_text())
    assert len(figures) == 84
    for id, one in figures.items():
        for name in SIX_COUNTS:
            assert one["characteristics"][name] == published[int(id)]["characteristics"][name], (id, name)
        assert one["costs"] == published[int(id)]["costs"]
        assert list(one["characteristics"]) == list(published[int(id)]["characteristics"])
    scored = [id for id in figures if sum(published[int(id)]["performance"][name] for name in ("n_correct", "n_wrong")) == 75]
    assert len(scored) == 82
    assert {id: figures[id]["performance"] for id in scored} == {id: published[int(id)]["performance"] for id in scored}
    accuracy = figures["2"]["intervals"]["accuracy"]
    assert accuracy["low"] < figures["2"]["performance"]["accuracy"] < accuracy["high"]
    written = yaml.safe_load((folder / "zsd-work" / "prompt-metadata" / "thesis" / "cqa-train.yaml").read_text())
    assert written[2]["performance"] == published[2]["performance"]


def test_svamp_as_published(shared, folder):
    train = evaluated(folder, with_data(shared), "--task", "svamp", "--profile", "thesis")
    right = {id: (one["performance"]["n_correct"], one["performance"]["n_wrong"]) for id, one in train.items()}
    assert right == {"1": (164, 58), "2": (621, 179), "3": (58, 22)}
    assert train["2"]["characteristics"]["total_length_of_explanations"] == 330_225
    test = evaluated(folder, with_data(shared), "--task", "svamp", "--split", "test", "--profile", "thesis", "--templates", "2")
    assert (test["2"]["performance"]["n_correct"], test["2"]["performance"]["n_wrong"]) == (144, 56)


def test_both_profiles_side_by_side(shared, folder):
    done = zsd(folder, "evaluate", "--task", "svamp", env=with_data(shared) | {"COLUMNS": "80"})
    rules = [line.split()[:2] for line in done.out.splitlines() if "ours" in line or "thesis  " in line]
    assert [words for words in rules if "ours" in words] == [["2", "ours"], ["1", "ours"], ["3", "ours"]]
    assert all(len(line) <= 80 for line in done.out.splitlines() if " ours " in line)


def test_without_gold_labels_nothing_is_said_of_right_and_wrong(svamp_imported, tmp_path):
    "The rows of svamp are not on this machine: its replies are counted, not judged."
    shutil.copytree(svamp_imported, tmp_path / "zsd-work")
    done = zsd(tmp_path, "evaluate", "--task", "svamp", "--json", env=environment(ZSD_DATA=str(tmp_path), ZSD_CACHE=str(tmp_path)))
    figures = json.loads(done.out)
    assert {id: one["performance"] for id, one in figures.items()} == {"1": None, "2": None, "3": None}
    assert figures["2"]["n_rows"] == 800
    assert "nothing is said of right and wrong" in done.err


def test_the_draw_of_an_experiment_is_the_thesis_s(folder):
    "Its cqa templates were asked on 75 of 9,741 rows, with seed 42."
    examples = [Example(str(row), {}, None, None) for row in range(9741)]
    drawn = [int(example.id) for example in draw_samples(examples, 75, seed=42)]
    lines = (folder / "zsd-work" / "thesis" / "replies" / "cqa" / "train" / "83.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == drawn


def test_annotating_from_imported_replies(shared, folder, by_template_two):
    "All 800 train rows have a reply to template 2: nobody is asked, no key is needed, nothing is paid."
    report, rows = by_template_two
    assert (report["n_imported"], report["n_attempts"], report["usage"]["n_responses"], report["n_rows_left"]) == (800, 0, 0, 0)
    assert report["splits"]["train"]["n_agree"] == 621
    assert [row["id"] for row in rows["train"]] == [f"train-{row}" for row in range(800)]
    split, _ = annotated(folder, with_data(shared), "--mix", own_mix(folder), "--splits", "train,valid,test")
    assert [(name, counts["n_labels"]) for name, counts in split["splits"].items()] == [("train", 720), ("valid", 80), ("test", 200)]


def test_an_imported_mix_by_its_number(shared, folder):
    "Mix 1: labels by templates 1, 2, 3 for half and two quarters of the rows, in the order of numpy's shuffle with seed 405."
    report, rows = annotated(folder, with_data(shared), "--mix", "1", "--published")
    order = list(range(800))
    np.random.seed(405)
    np.random.shuffle(order)
    by_template = dict(zip(order, ["1"] * 400 + ["2"] * 200 + ["3"] * 200, strict=True))
    answered = {
        id: {json.loads(line)["row"] for line in (folder / "zsd-work/thesis/replies/svamp/train" / f"{id}.jsonl").read_text().splitlines()}
        for id in "123"
    }
    wanted = {f"train-{row}" for row, id in by_template.items() if row in answered[id]}
    said = {row["id"] for row in rows["train"] if not row["label_error"].startswith("no response")}
    assert said == wanted
    assert 0 < len(wanted) < 800
    assert report["n_rows_left"] > 0


def test_explanation_rates(shared, folder):
    "Labels by template 2, rationales by template 1, which was asked on 222 of 800 rows; the rate is of the rows, or of the rationales there are."
    how = ("--mix", own_mix(folder, explanation={1: 1.0}), "--published")
    existing = [row["id"] for row in annotated(folder, with_data(shared), *how)[1]["train"] if row["rationale"]]
    assert 200 < len(existing) <= 222
    for option in ("--explanation-rate", "--explanation-rate-of-existing"):
        kept = {}
        for rate in (0.1, 0.2):
            _, rows = annotated(folder, with_data(shared), *how, option, str(rate))
            kept[rate] = {row["id"] for row in rows["train"] if row["rationale"]}
            assert all(row["label"] for row in rows["train"])
            if option == "--explanation-rate-of-existing":
                assert len(kept[rate]) == round(rate * len(existing))
        assert kept[0.1] < kept[0.2] < set(existing)
    assert annotated(folder, with_data(shared), *how, option, "0.2")[1]["train"] == rows["train"]


def test_the_true_explanation_rate(shared, folder):
    "Template 2 was asked on all rows and nearly always explains itself: 240 of 800 rows keep a rationale, and 400, the 240 among them."
    kept = {}
    for rate, n in ((0.3, 240), (0.5, 400)):
        report, rows = annotated(folder, with_data(shared), "--mix", own_mix(folder), "--published", "--explanation-rate", str(rate))
        kept[rate] = {row["id"] for row in rows["train"] if row["rationale"]}
        assert len(kept[rate]) == report["splits"]["train"]["n_rationales"] == n
    assert kept[0.3] < kept[0.5]


def test_templates_with_the_same_words_keep_their_own_replies(shared, folder):
    "Templates 64 and 72 of cqa asked in the same words: each is scored and annotated by its own replies."
    rows = [json.loads(line) for line in (folder / "zsd-work/thesis/replies/cqa/train/72.jsonl").read_text().splitlines()]
    data = folder / "rows"
    (data / "cqa").mkdir(parents=True)
    choices = "abcde"
    lines = [
        {
            "question": row["values"]["question"],
            "choices": [row["values"][f"choice_{c}"] for c in choices],
            "answer": row["values"]["choice_a"],
            "abstractive_explanation": "",
        }
        for row in rows
    ]
    (data / "cqa" / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = {}
    for id in ("64", "72"):
        mix = folder / f"only{id}.yaml"
        mix.write_text(yaml.safe_dump({"label": {id: 1.0}, "explanation": {id: 1.0}}))
        done = zsd(
            folder, "annotate", "--task", "cqa", "--splits", "test", "--mix", str(mix), *TEACHER, env=environment(ZSD_DATA=str(data))
        )
        report = json.loads(done.out)
        assert (report["n_imported"], report["n_rows_left"]) == (75, 0)
        said[id] = {
            row["id"]: row["rationale"] for row in map(json.loads, (folder / report["folder"] / "test.jsonl").read_text().splitlines())
        }
    figures = evaluated(folder, environment(), "--task", "cqa", "--profile", "ours", "--templates", "64,72")
    for id in said:
        assert sum(text is not None for text in said[id].values()) == figures[id]["characteristics"]["total_responses"]
    assert said["64"] != said["72"]


def test_files_without_prompt_values(shared, tmp_path):
    "The oldest have none: what cannot be known of a row is not known, and nothing breaks."
    source = shared / "thesis" / "query-results" / "cqa" / "train" / "2" / "responses.json"
    part = tmp_path / "clone" / "querie-results" / "cqa" / "train" / "2"
    part.mkdir(parents=True)
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    (part / "responses.json").write_text(
        "".join(json.dumps({k: v for k, v in line.items() if k != "prompt_values"}) + "\n" for line in lines)
    )
    shutil.copytree(shared / "thesis" / "prompt-templates", tmp_path / "clone" / "prompt-templates")
    shutil.copy(shared / "thesis" / "cqa_train_gold.jsonl", tmp_path / "clone")
    zsd(tmp_path, "import-thesis", str(tmp_path / "clone"))
    assert evaluated(tmp_path, environment(ZSD_DATA=str(tmp_path)), "--task", "cqa", "--profile", "thesis")["2"]["n_rows"] == 75


def test_a_split_that_the_task_does_not_know(shared, tmp_path):
    "Its replies are scored; what the task has under other names is no matter."
    part = tmp_path / "query-results" / "svamp" / "extra" / "3"
    part.mkdir(parents=True)
    shutil.copy(shared / "thesis" / "query-results" / "svamp" / "test" / "3" / "responses.json", part)
    zsd(tmp_path, "import-thesis", str(tmp_path / "query-results"))
    zsd(tmp_path, "import-thesis", str(shared / "thesis" / "prompt-templates" / "svamp.yaml"))
    figures = evaluated(tmp_path, with_data(shared), "--task", "svamp", "--split", "extra")
    assert {id: one["performance"] for id, one in figures.items()} == {"3": None}


@pytest.mark.slow  # test_at_once.py and test_store.py have processes that write at once
def test_two_imports_at_once(shared, tmp_path):
    "Neither loses what the other has brought."
    part = str(shared / "thesis" / "query-results" / "cqa")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    there = ("--work-dir", str(tmp_path / "work"))
    first = begin(tmp_path / "a", "import-thesis", part, "--model", "gpt-a", *there)
    second = zsd(tmp_path / "b", "import-thesis", part, "--model", "gpt-b", *there)
    assert (finish(tmp_path / "a", first).status, second.status) == (0, 0)
    lines = [line for path in (tmp_path / "work" / "thesis" / "replies").rglob("*.jsonl") for line in path.read_text().splitlines()]
    models = [json.loads(line)["model"] for line in lines]
    assert models.count("gpt-a") == models.count("gpt-b") == 7571


def test_replies_of_two_models(shared, folder, tmp_path):
    part = str(shared / "thesis" / "query-results" / "svamp" / "train" / "2")
    for model in ("gpt-a", "gpt-b"):
        zsd(tmp_path, "import-thesis", part, "--model", model)
    zsd(tmp_path, "import-thesis", str(shared / "thesis" / "prompt-templates" / "svamp.yaml"))
    for model in ("gpt-a", "gpt-b"):
        figures = evaluated(tmp_path, with_data(shared), "--task", "svamp", "--model", model, "--profile", "thesis", "--templates", "2")
        assert figures["2"]["performance"]["n_correct"] == 621


def test_annotating_as_the_thesis_read(shared, folder, by_template_two):
    "Both read every one of the 800 replies; ours leaves no calculator marks and no LaTeX."
    _, ours = by_template_two
    _, thesis = annotated(folder, with_data(shared), "--mix", own_mix(folder), "--published", "--profile", "thesis")
    assert all(row["rationale"] for row in thesis["train"])
    assert [row["label"] for row in thesis["train"]] == [row["label"] for row in ours["train"]]
    assert sum(len(row["rationale"]) for row in thesis["train"]) == 330_225  # as published
    assert not any("<<" in row["rationale"] or "boxed" in row["rationale"] for row in ours["train"])


def test_a_changed_template_has_no_old_replies(shared, svamp_imported, tmp_path):
    "What its author changed is another question; the replies to the old one are not credited to it."
    shutil.copytree(svamp_imported, tmp_path / "zsd-work")
    ours = tmp_path / "zsd-work" / "thesis" / "prompts" / "svamp.yaml"
    ours.write_text(ours.read_text().replace("Go step by step", "Think"))
    figures = evaluated(tmp_path, with_data(shared), "--task", "svamp")
    assert {id: one["n_rows"] for id, one in figures.items()} == {"1": 222, "3": 80}


def test_importing_where_the_work_directory_is(shared, tmp_path):
    "Inside the clone, twice, with an evaluation between: what was imported is not imported again."
    shutil.copytree(shared / "thesis" / "prompt-metadata", tmp_path / "prompt-metadata")
    (tmp_path / "prompt-templates").mkdir()
    shutil.copy(shared / "thesis" / "prompt-templates" / "svamp.yaml", tmp_path / "prompt-templates")
    shutil.copytree(shared / "thesis" / "query-results" / "svamp", tmp_path / "query-results" / "svamp")
    first = json.loads(zsd(tmp_path, "import-thesis", ".", "--json").out)
    evaluated(tmp_path, with_data(shared), "--task", "svamp", "--templates", "3")
    again = json.loads(zsd(tmp_path, "import-thesis", ".", "--json").out)
    assert (again["skipped"], again["templates"]) == (first["skipped"], first["templates"])
    assert evaluated(tmp_path, with_data(shared), "--task", "svamp", "--templates", "2")["2"]["costs"]["total_performed_queries"] == 1000


def test_an_edited_template_file_stays(shared, folder, tmp_path):
    part = str(shared / "thesis" / "prompt-templates" / "svamp.yaml")
    zsd(tmp_path, "import-thesis", part)
    ours = tmp_path / "zsd-work" / "thesis" / "prompts" / "svamp.yaml"
    ours.write_text(ours.read_text().replace("version: 1", "version: 2"))
    done = zsd(tmp_path, "import-thesis", part)
    assert "svamp.yaml has changes of yours and stays as it is" in done.out
    assert "version: 2" in ours.read_text()


def test_a_pattern_that_never_ends_is_told_with_its_template(shared, folder, tmp_path):
    templates = tmp_path / "prompts.yaml"
    pattern = r"(?P<label>(?:.|..)+)\Z(?!)"
    templates.write_text(
        yaml.safe_dump(
            {
                "task": "svamp",
                "templates": [{"id": "2", "imported": True, "user_message": imported_words(folder), "reply_pattern": pattern}],
            }
        )
    )
    report, _ = annotated(folder, with_data(shared), "--prompts", str(templates), "--mix", "2", "--published", "--rows", "60")
    told = [reason for reason in report["splits"]["train"]["errors"] if "pattern of template '2'" in reason]
    assert told[0].startswith("pattern of template '2' ran for more than 1 s")
    assert any(reason.startswith("not tried: pattern of template '2'") for reason in told)


def imported_words(folder: Path) -> str:
    content = yaml.safe_load((folder / "zsd-work" / "thesis" / "prompts" / "svamp.yaml").read_text())
    return next(template["user_message"] for template in content["templates"] if template["id"] == "2")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("evaluate", "--task", "cqa", "--profile", "mine"), ["--profile mine: use ours or thesis"]),
        (("evaluate", "--task", "cqa", "--templates", "1000"), ["no template '1000' for task 'cqa'"]),
        (("evaluate", "--task", "svamp", "--split", "nope"), ["task 'svamp' has no split 'nope'; it has train, valid, test"]),
        (("annotate", "--task", "svamp", "--mix", "1", "--explanation-rate", "0.3", "--explanation-rate-of-existing", "0.3"), ["not both"]),
        (
            ("annotate", "--task", "svamp", "--mix", "2", "--published", "--splits", "train,valid", *TEACHER),
            ["'valid' is a share of 'train'"],
        ),
        (("annotate", "--task", "svamp", "--mix", "2", "--published", "--splits", "nope", *TEACHER), ["has no split 'nope'"]),
        (("annotate", "--task", "svamp", "--mix", "5", *TEACHER), ["mixes/5.yaml: no template '100'; known: "]),
    ],
)
def test_mistakes(shared, folder, arguments, parts):
    is_one_line(zsd(folder, *arguments, env=with_data(shared)), 2, *parts)
