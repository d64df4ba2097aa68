"Rows whose entities look wrong: each check on texts of several scripts, what a filter keeps, and what a student learns of it."

import json
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from zsd_command import zsd

from zero_shot_distill.annotate.entity_quality import EntityQuality, QualityCheck, check_entities, keep_rows, quality_rows
from zero_shot_distill.annotate.filter import annotation_quality
from zero_shot_distill.annotate.job import Annotation, JobError, find_annotation
from zero_shot_distill.annotate.report import AnnotationReport
from zero_shot_distill.annotate.rows import AnnotatedRow, summarise_annotations, write_annotations
from zero_shot_distill.cli.quality import quality
from zero_shot_distill.core.files import write_json
from zero_shot_distill.entities.capitals import capital_runs, forced_capitals, without_handles
from zero_shot_distill.entities.entity import Entity, entities_text, read_entities
from zero_shot_distill.ner.config import TaggerConfig
from zero_shot_distill.ner.cross_fit import cross_fit, deal_folds
from zero_shot_distill.ner.job import tagged_rows, tagger_config
from zero_shot_distill.ner.model import make_tiny_bert
from zero_shot_distill.student.job import TrainingJob
from zero_shot_distill.student.training_rows import rows_of_annotation
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import Task, load_task
from zero_shot_distill.teacher.price import total_usage

NAMES = load_task("pocket_names")
TOKENS = Task(
    name="tokens",
    fields={"text": "tokens"},
    tokens_column="tokens",
    label_column="tags",
    metric="entities",
    types={"person": "somebody", "place": "somewhere"},
    student_input="{text}",
    splits={},
)
SHARED = Path(os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data").resolve()


def row(id: str, text: str, named: dict[str, str] | None, **more) -> AnnotatedRow:
    "A row in which the teacher named these words, at their first place."
    label = None
    if named is not None:
        label = entities_text([Entity.of(text, text.index(words), text.index(words) + len(words), type) for words, type in named.items()])
    return AnnotatedRow(id, text, more.pop("gold", None), label, None, **more)


def found_by(check: str, rows: list[AnnotatedRow], task: Task = NAMES, **options) -> dict[str, str]:
    made = check_entities(rows, task, **options)
    return {rows[place].id: found[check] for place, found in made.findings([QualityCheck(check)]).items()}


# --- capitals


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("We like the Rolling Stones a lot", ["Rolling Stones"]),
        ("Paris is a town", []),
        ("Paris Hilton is no town", ["Paris Hilton"]),
        ("it ended. Then we went home", []),
        ("it ended! Then Omar went home", ["Then Omar"]),
        ("so do I, I'm sure, and I'll stay", []),
        ("GO HOME NOW", []),
        ("go to NASA now", ["NASA"]),
        ("see #NewYork with @Bob at https://Example.com/New or bit.ly/Abc", []),
        ("mail Bob.Smith@Example.com", []),
        ("🎉🎉 happy for Zoë 🎉", ["Zoë"]),
        ("👩‍👩‍👧 and Mia👍🏽", ["Mia"]),
        ("a trip to E\u0301vian", ["E\u0301vian"]),
        ("gel İzmir'e", ["İzmir'e"]),
        ("мы едем в Москву", ["Москву"]),
        ("η Αθήνα είναι", ["Αθήνα"]),
        ("ես Երևանում եմ", ["Երևանում"]),
        ("he met d'Artagnan, O'Brien and Jean-Luc", ["d'Artagnan", "O'Brien", "Jean-Luc"]),
        ("they say: Nothing (Or little)", []),
    ],
)
def test_capitals_that_say_something(text, runs):
    assert [text[start:end] for start, end in capital_runs(text)] == runs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12:30",
        "🎉",
        "李明住在北京",
        "東京タワーに行った",
        "محمد في القاهرة",
        "דוד גר בחיפה",
        "ის თბილისშია",
        "दिल्ली में",
        "อยู่ที่กรุงเทพ",
        "昨天他买了一个 iPhone 手机",
    ],
)
def test_scripts_without_capitals_are_told_apart(text):
    assert capital_runs(text) is None


def test_blanked_texts_keep_every_place():
    draw, signs = (
        random.Random(3),
        ["#Ab", "@Ü", "http://x.y/Z", " ", "\n", "é", "E\u0301", "👍🏽", "北", "א", "Big", ".", "a@B.co", "_", "'"],
    )
    for _ in range(500):
        text = "".join(draw.choice(signs) for _ in range(draw.randint(0, 12)))
        plain = without_handles(text)
        assert len(plain) == len(text)
        assert all(one == other or one in " \n" for one, other in zip(plain, text, strict=True))
        assert all(place < len(text) for place in forced_capitals(text))
        for start, end in capital_runs(text) or ():
            assert plain[start:end] == text[start:end].strip() != ""


def test_where_no_script_has_capitals_the_check_does_not_apply():
    rows = [row("1", "李明住在北京", {}), row("2", "محمد في القاهرة", {})]
    made = check_entities(rows, NAMES)
    assert made.does_not_apply[QualityCheck.CAPITALS] == "no text is written in letters that have capitals"
    assert "capitals: does not apply, no text is written in letters that have capitals" in made.notes
    assert not any(line["check"].startswith("capitals") for line in quality_rows(made))
    some = check_entities([*rows, row("3", "we met Omar", {}), row("4", "we met Ada", {"Ada": "person"})], NAMES)
    assert (some.result([QualityCheck.CAPITALS]).n_looked_at, some.result([QualityCheck.CAPITALS]).n_found) == (2, 1)


# --- the same phrase


def test_the_rarer_type_is_found_and_both_where_none_is_rarer():
    rows = [row(str(n), f"{n} in Paris", {"Paris": type}) for n, type in enumerate(["place", "place", "person"])]
    assert found_by("two-ways", rows) == {"2": "Paris: person, elsewhere 2 × place"}
    assert set(found_by("two-ways", rows[1:])) == {"1", "2"}
    assert found_by("two-ways", rows[:2]) == {}


@pytest.mark.parametrize(
    ("named", "left_out", "is_found"),
    [
        ("we met Will there", "I saw Will again", True),
        ("we met Will there", "I saw will again", False),
        ("we met Will there", "Will you come?", False),
        ("we met Will there", "No. Will you come?", False),
        ("we met Will there", "see #Will and @Will", False),
        ("we met Will there", "I WILL Willow", False),
        ("they say Ali B is in", "so is Ali B, too", True),
        ("we met Will there", "🎉 so did Will🎉", True),
        ("فاز محمد اليوم", "قال محمد لي", True),
        ("فاز محمد اليوم", "قال محمدي لي", False),
    ],
)
def test_a_phrase_that_is_left_out(named, left_out, is_found):
    words = next(one for one in ("Ali B", "Will", "محمد") if one in named)
    rows = [row("a", named, {words: "person"}), row("b", named, {words: "person"}), row("c", left_out, {})]
    assert (set(found_by("left-out", rows)) == {"c"}) == is_found
    assert is_found or found_by("left-out", rows) == {}


def test_a_part_of_another_entity_is_not_left_out():
    rows = [row("a", "in York", {"York": "place"}), row("b", "in New York", {"New York": "place"})]
    assert found_by("left-out", rows) == {}


def test_a_word_that_is_hardly_ever_an_entity_is_found_where_it_is_one():
    rows = [row("a", "on the run", {"the": "work"}), *(row(str(n), f"{n} on the way", {}) for n in range(3))]
    assert found_by("left-out", rows) == {"a": "the: an entity, elsewhere 3 × none"}


def test_chinese_is_compared_by_tokens_where_there_are_some():
    "Without them no space says where a word ends: 中国 in 中国人 is not taken for it."
    assert set(found_by("left-out", [row("a", "我 在 中国", {"中国": "place"}), row("b", "他 在 中国 住", {})], TOKENS)) == {"a", "b"}
    assert found_by("left-out", [row("a", "我在 中国", {"中国": "place"}), row("b", "他是中国人", {})]) == {}


# --- the others


def test_rows_without_a_label_refused_mentions_and_low_confidence():
    refused = json.dumps([{"text": "Élan", "type": "unknown", "fault": "not in the text"}])
    rows = [
        row("1", "a", None, label_error="no response (budget)"),
        row("2", "a", {}, refused=refused),
        row("3", "a", {}, confidence=0.4, confidence_kind="agreement"),
        row("4", "a", {}, confidence=0.8, confidence_kind="agreement"),
    ]
    rows.append(replace(rows[1], id="5", refused="", label=entities_text([replace(Entity.of("a", 0, 1, "work"), confidence=0.6)])))
    assert found_by("unanswered", rows) == {"1": "no response (budget)"}
    assert found_by("refused", rows) == {"2": "Élan: not in the text"}
    assert found_by("unsure", rows) == {"3": "confidence 0.4"}
    assert found_by("unsure", rows, unsure_below=0.7) == {"3": "confidence 0.4", "5": "confidence 0.6"}
    assert check_entities(rows, NAMES).result([QualityCheck.UNSURE]).n_looked_at == 3


def test_nothing_to_look_through():
    assert check_entities([], NAMES).notes[-1].startswith("No row has a gold label")
    none = check_entities([row("1", "we met Omar", None, label_error="no response")], NAMES)
    assert none.does_not_apply[QualityCheck.REFUSED] == "no row has a label"
    assert none.unused_types == dict.fromkeys(NAMES.types, 0)


# --- against gold, and what a filter keeps


def spoilt(rows: list[AnnotatedRow], seed: int) -> tuple[list[AnnotatedRow], set[int]]:
    "Let a teacher leave out all entities of every sixth row."
    places = set(random.Random(seed).sample(range(len(rows)), len(rows) // 6))
    return [replace(one, label=entities_text([])) if place in places else one for place, one in enumerate(rows)], places


def as_annotated(task: Task, split: str) -> list[AnnotatedRow]:
    return [AnnotatedRow(one.id, task.input_text(one), one.label, one.label, None) for one in load_examples(task, split)]


def worse_where_found(made: EntityQuality, check: QualityCheck) -> bool:
    result = made.result([check])
    return result.found.rows.high < result.others.rows.low


def test_on_tweets_the_checks_find_worse_rows(monkeypatch):
    if not (SHARED / "wnut17" / "emerging.dev.conll").is_file():
        pytest.skip(f"needs {SHARED}/wnut17")
    monkeypatch.setenv("ZSD_DATA", str(SHARED))
    task = load_task("wnut17")
    rows = as_annotated(task, "valid")
    untouched = check_entities(rows, task)
    assert untouched.result(list(untouched.looked_at)).found.rows.value == 1
    made = check_entities(spoilt(rows, 0)[0], task)
    assert worse_where_found(made, QualityCheck.CAPITALS)
    assert worse_where_found(made, QualityCheck.LEFT_OUT)
    kept = keep_rows(made, [QualityCheck.CAPITALS])
    assert made.result([QualityCheck.CAPITALS]).n_found == kept.n_labels_before - kept.n_labels > 50
    assert kept.n_entities == kept.n_entities_before


@pytest.fixture
def annotation(tmp_path) -> Annotation:
    return written(tmp_path, "pocket_names")


def written(tmp_path: Path, task: str) -> Annotation:
    "The gold labels of `pocket_names` as a teacher's, some left out; every fourth row without its gold label."
    folder = tmp_path / "zsd-work" / "annotations" / f"{task}-0123456789ab"
    splits = {"train": spoilt(as_annotated(NAMES, "train"), 1)[0], "valid": as_annotated(NAMES, "valid")}
    splits["train"] = [replace(one, gold=None) if place % 4 == 0 else one for place, one in enumerate(splits["train"])]
    summary = {split: summarise_annotations(rows, NAMES) for split, rows in splits.items()}
    report = AnnotationReport(folder.name, str(folder), summary, {}, 0, 0, 0, total_usage([], None), None, 0, None, ())
    for split, rows in splits.items():
        write_annotations(rows, folder / f"{split}.jsonl")
    write_json(folder / "report.json", report.to_dict())
    (folder / "README.md").write_text("# the card before\n")
    return find_annotation(folder.name, tmp_path / "zsd-work")


def test_a_filtered_annotation_is_trained_on_like_another(annotation, tmp_path, capsys):
    work_dir = tmp_path / "zsd-work"
    quality(annotations=annotation.id, drop="capitals,left-out", work_dir=work_dir, quiet=True, as_json=True)
    said = json.loads(capsys.readouterr().out)
    found = {one["id"] for one in said["rows"] if {"capitals", "left-out"} & one["found"].keys()}
    assert 0 < len(found) < 20
    before, after = (rows_of_annotation(id, work_dir) for id in (annotation.id, said["filtered"]["id"]))
    gold = {one.id for one in before.train if one.gold is not None}
    assert found & gold, "or this shows nothing"
    assert found - gold, "or this shows nothing"
    assert [one.id for one in after.train] == [one.id for one in before.train if one.id not in found - gold]
    assert {one.id for one in after.train if one.label is None} == found & gold
    assert [one.gold for one in after.train if one.id in gold] == [one.gold for one in before.train if one.id in gold]
    assert (after.valid, after.test) == (before.valid, before.test)
    counts = [tagged_rows(TrainingJob(tmp_path, "", NAMES, rows.train, rows.valid), tagger_config(rows))[1] for rows in (before, after)]
    assert [one["n_gold"] for one in counts] == [len(gold)] * 2
    assert [one["n_distilled"] for one in counts] == [40, 40 - len(found)] == [40, said["filtered"]["n_labels"]]
    new = find_annotation(said["filtered"]["id"], work_dir)
    assert new.report.filtered_from == annotation.id
    assert new.summary["train"].entities.f1.value >= annotation.summary["train"].entities.f1.value
    card = (new.folder / "README.md").read_text()
    assert annotation.id in card
    assert "capitals, left-out" in card
    assert (new.folder / "SOURCE.md").read_text() == "# the card before\n"


def test_the_task_of_ones_own_is_found_by_what_the_annotation_keeps(tmp_path, capsys):
    "Also of one that a filter made of it, and from another folder than that of the definition."
    definition = tmp_path / "tasks" / "people.yaml"
    write_json(definition, NAMES.model_dump(mode="json", exclude_defaults=True) | {"name": "people"})  # JSON is YAML, too
    people, work_dir = written(tmp_path, "people"), tmp_path / "zsd-work"
    with pytest.raises(JobError, match=r"people-0123456789ab: no task 'people'; known: .*; name the definition of its task with --task"):
        people.load_task()
    write_json(people.folder / "job.json", {"task": str(definition)})
    quality(annotations=people.id, drop="capitals", work_dir=work_dir, quiet=True, as_json=True)
    filtered = find_annotation(json.loads(capsys.readouterr().out)["filtered"]["id"], work_dir)
    for one in (people, filtered):
        assert one.load_task() == load_task(definition) == rows_of_annotation(one.id, work_dir).task
    definition.rename(tmp_path / "names.yaml")
    write_json(definition, NAMES.model_dump(mode="json", exclude_defaults=True) | {"name": "others"})
    with pytest.raises(
        JobError,
        match=r"^annotation people-0123456789ab: .*people\.yaml is of task 'others' now; name the definition of its task with --task$",
    ):
        people.load_task()
    definition.unlink()
    for one in (people, filtered):
        with pytest.raises(JobError, match=r"people\.yaml.*; name the definition of its task with --task"):
            one.load_task()
        assert one.load_task(str(tmp_path / "names.yaml")).name == "people"
    done = zsd(tmp_path, "explore", "--task", "pocket_names", "--annotations", people.id)
    assert "--task pocket_names: annotation people-0123456789ab is of task 'people'; name that one" in done.err
    done = zsd(tmp_path, "explore")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "--task is missing: name the task that was asked about, or an annotation of it with --annotations" in done.err


def test_the_table_says_what_was_found_and_kept(annotation, tmp_path, capsys):
    quality(annotations=str(annotation.folder), task="pocket_names", drop="capitals", work_dir=tmp_path / "other", quiet=True)
    said = capsys.readouterr().out
    assert "unsure: does not apply, no label has a confidence" in said
    assert "F1 (found)" in said
    assert f"Next: zsd train --task pocket_names --annotations {next((tmp_path / 'other' / 'annotations').iterdir()).name}" in said


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"drop": "unsure"}, "unsure does not apply, no label has a confidence"),
        ({"drop": "disagrees"}, "disagrees does not apply, no student was asked; --cross-fit"),
        ({"drop": "disagrees,unsure", "cross_fit": 2, "student": "not-looked-for"}, "unsure does not apply"),
        ({"drop": "refused"}, "refused found no label to leave out; train on it as it is"),
        ({"split": "test"}, "no rows of split 'test'; it has train, valid"),
        ({"task": "pocket_nli"}, "annotation pocket_names-0123456789ab is of task 'pocket_names'"),
        ({"annotations": "nothing-there"}, "there are pocket_names-0123456789ab"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(annotation, tmp_path, options, fault):
    with pytest.raises(JobError, match=fault) as error:
        quality(**{"annotations": annotation.id, "work_dir": tmp_path / "zsd-work", "quiet": True} | options)
    assert "\n" not in str(error.value)
    assert len(list((tmp_path / "zsd-work" / "annotations").iterdir())) == 1, "nothing is written"


def test_a_filter_that_keeps_nothing_is_refused(annotation, tmp_path):
    for split in ("train", "valid"):
        rows = [replace(one, confidence=0.2, confidence_kind="agreement") for one in annotation.rows[split]]
        write_annotations(rows, annotation.folder / f"{split}.jsonl")
    with pytest.raises(JobError, match="no label would be left without those that unsure found"):
        quality(annotations=annotation.id, drop="unsure", work_dir=tmp_path / "zsd-work", quiet=True)


def test_tasks_of_labels_are_told_where_to_look(annotation, tmp_path):
    with pytest.raises(JobError, match="'pocket_nli' has labels and no entities"):
        annotation_quality(annotation, load_task("pocket_nli"))
    done = zsd(tmp_path, "quality", "--annotations", annotation.id, "--drop", "refused,typo")
    assert done.status == 2
    assert "--drop typo: use unanswered, refused, capitals" in " ".join(done.err.replace("│", "").split())


# --- students of other rows


def test_folds_keep_groups_together_and_are_of_like_size():
    groups = [f"group-{n % 37}" for n in range(100)]
    folds = deal_folds(groups, 5, seed=2)
    assert len({(group, fold) for group, fold in zip(groups, folds, strict=True)}) == 37
    assert {folds.count(fold) for fold in range(5)} <= {19, 20, 21}
    assert deal_folds(groups, 5, seed=2) == folds != deal_folds(groups, 5, seed=3)


@pytest.mark.usefixtures("one_thread")
def test_a_row_is_judged_by_a_student_that_did_not_learn_it(annotation, tmp_path, monkeypatch):
    learned, judged = [], []

    def train(job, config, out_dir, on_progress):
        learned.append({one.id for one in job.rows})
        return learner(job, config, out_dir, on_progress)

    def ask(tagger, sentences):
        judged.append({one.id for one in sentences})
        return asked(tagger, sentences)

    from zero_shot_distill.ner import cross_fit as module

    learner, asked = module.train_tagger, module._asked
    monkeypatch.setattr(module, "train_tagger", train)
    monkeypatch.setattr(module, "_asked", ask)
    rows = [
        *annotation.rows["train"],
        replace(annotation.rows["train"][0], id="again"),
        row("silent", "no reply", None, label_error="none"),
    ]
    job = TrainingJob(make_tiny_bert(tmp_path / "tiny", [one.input for one in rows]), "tiny", NAMES, rows, annotation.rows["valid"])
    config, steps = TaggerConfig("distilled", steps=2, eval_every=2, batch_size=4, precision="fp32"), []
    said = cross_fit(job, config, 2, tmp_path / "folds", on_progress=lambda done, of: steps.append((done, of)))
    labelled = {one.id for one in rows if one.label is not None}
    assert said.keys() == labelled == judged[0] | judged[1]
    assert [one & other for one, other in zip(learned, judged, strict=True)] == [set(), set()]
    assert {rows[0].id, "again"} <= judged[0] or {rows[0].id, "again"} <= judged[1], "the same text is on one side"
    assert steps[-1] == (4, 4)
    assert steps == sorted(steps)
    assert not list(tmp_path.glob("folds/*/fold-?")), "the students are gone"
    assert cross_fit(job, config, 2, tmp_path / "folds") == said
    assert len(learned) == 2, "what was kept is not computed again"
    changed = replace(job, rows=[replace(rows[1], label=entities_text([])), *rows[2:]])
    assert cross_fit(changed, config, 2, tmp_path / "folds").keys() == said.keys() - {rows[0].id}
    assert len(learned) == 4, "other labels, other students"


@pytest.mark.usefixtures("one_thread")
def test_students_that_disagree_are_a_check_like_the_others(annotation, tmp_path, capsys):
    weights = make_tiny_bert(tmp_path / "tiny", [one.input for one in annotation.rows["train"]])
    quality(annotations=annotation.id, cross_fit=2, student=str(weights), steps=2, work_dir=tmp_path / "zsd-work", quiet=True, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["checks"]["disagrees"]["n_looked_at"] == 40
    told = [one["found"]["disagrees"] for one in said["rows"] if "disagrees" in one["found"]]
    assert len(told) == said["checks"]["disagrees"]["n_found"]
    assert all("a student says" in one for one in told)


def test_gold_labels_that_a_teacher_gave_are_all_right():
    rows = as_annotated(NAMES, "test")
    made = check_entities(rows, NAMES)
    assert made.rightness(range(len(rows))).rows.value == 1
    assert sum(len(read_entities(one.label)) for one in rows) == keep_rows(made, []).n_entities
