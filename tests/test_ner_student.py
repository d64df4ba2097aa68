"Students that tag words: windows, schedules, training that is stopped and goes on, scores, and what is refused, with a BERT of two narrow layers."

import hashlib
import json
import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_student import refused
from zsd_command import zsd

from zero_shot_distill.annotate.rows import AnnotatedRow
from zero_shot_distill.entities.entity import Entity, entities_text, read_entities
from zero_shot_distill.entities.words import split_words
from zero_shot_distill.ner.config import TaggerConfig
from zero_shot_distill.ner.export import export_tagger
from zero_shot_distill.ner.job import tag_and_record, tagged_rows, train_tagger
from zero_shot_distill.ner.learner import plan_steps
from zero_shot_distill.ner.model import load_tagger_model, make_tiny_bert
from zero_shot_distill.ner.record import TaggerRecord
from zero_shot_distill.ner.schedule import SCHEDULES, Phases
from zero_shot_distill.ner.sentences import entities_of_tags, tag_sentence
from zero_shot_distill.ner.tagger import evaluate_tagger, is_tagger, load_tagger, predict_entities
from zero_shot_distill.ner.tagging import score_words, text_windows
from zero_shot_distill.ner.windows import cut_windows
from zero_shot_distill.prompt.entity_score import EntityScore
from zero_shot_distill.student.config import UnusableInput
from zero_shot_distill.student.job import TrainingJob
from zero_shot_distill.student.model import make_tiny_causal, make_tiny_t5
from zero_shot_distill.student.run import run_id_of
from zero_shot_distill.student.student import load_student
from zero_shot_distill.task.task import Example, Task

pytestmark = pytest.mark.usefixtures("one_thread")  # the models here are too small to share out
PEOPLE, CITIES = ("anna", "omar", "lena", "ravi", "mia"), ("rome", "oslo", "lima", "cairo", "delhi", "paris", "quito")
TYPES = {"person": "a name of somebody", "city": "a name of a town"}
TASK = Task(
    name="travels", fields={"text": "text"}, label_column="label", metric="entities", types=TYPES, student_input="{text}", splits={}
)
MOIST = TaggerConfig("linear", dropout=0.1, steps=12, eval_every=3, batch_size=4, learning_rate=1e-2, precision="fp32", patience=9)


def text_of(n: int) -> str:
    return f"{PEOPLE[n % 5]} was in {CITIES[n % 7]}"


def label_of(n: int, by_teacher: bool = False) -> str:
    text, person, city = text_of(n), PEOPLE[n % 5], CITIES[n % 7]
    kind = "person" if by_teacher and n % 7 % 2 else "city"
    return entities_text([Entity.of(text, 0, len(person), "person"), Entity.of(text, len(text) - len(city), len(text), kind)])


ROWS = [AnnotatedRow(f"row-{n}", text_of(n), label_of(n) if n < 8 else None, label_of(n, by_teacher=True), None) for n in range(24)]
VALID = [AnnotatedRow(f"valid-{n}", text_of(n), label_of(n), None, None) for n in range(24, 36)]
TEST = [Example(f"test-{n}", {"text": text_of(n)}, label_of(n), None) for n in range(36, 71)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("tiny"), [row.input for row in ROWS])


@pytest.fixture(scope="module")
def job(tiny) -> TrainingJob:
    return TrainingJob(tiny, "a tiny BERT", TASK, ROWS, VALID, TEST)


@pytest.fixture(scope="module")
def unbroken(job, tmp_path_factory):
    return train_tagger(job, MOIST, tmp_path_factory.mktemp("unbroken") / "student")


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


# --- windows


@pytest.mark.parametrize("seed", range(30))
def test_windows_part_no_word_and_judge_each_once(seed):
    draw = random.Random(seed)
    room = draw.randint(3, 12)
    tokens = [[100 * word + part for part in range(draw.choice([1, 1, 1, 2, 3, 15]))] for word in range(draw.randint(0, 60))]
    windows = cut_windows(tokens, room + 2, ([-1], [-2]))
    judged = [word for window in windows for word in window.words]
    assert sorted(judged) == list(range(len(tokens)))
    for window in windows:
        assert (window.ids[0], window.ids[-1]) == (-1, -2)
        assert len(window.ids) <= room + 2
        whole = {word for word in range(len(tokens)) if tokens[word][0] in window.ids}
        assert [token for word in sorted(whole) for token in tokens[word][:room]] == list(window.ids[1:-1]), "whole words alone"
        assert [window.ids[place] for place in window.places] == [tokens[word][0] for word in window.words]


def test_a_word_is_judged_where_it_has_most_around_it():
    windows = cut_windows([[word] for word in range(30)], 14, ([-1], [-2]))
    assert [window.ids[1:-1] for window in windows] == [tuple(range(0, 12)), tuple(range(9, 21)), tuple(range(18, 30))]
    assert [window.words for window in windows] == [tuple(range(0, 11)), tuple(range(11, 20)), tuple(range(20, 30))]


def test_a_text_longer_than_the_model_is_read_to_its_end(tiny):
    model = load_tagger_model(tiny, tuple(TYPES))
    text = " ".join(text_of(n) for n in range(40))
    (windows,) = text_windows(model, [text], [split_words(text)], 10_000)
    assert len(windows) > 1
    assert max(len(window.ids) for window in windows) <= model.max_tokens == 64
    (scores,) = score_words(model, [windows])
    assert scores.shape == (160, 5)
    assert scores.abs().sum(dim=1).min() > 0


# --- schedules


def test_the_schedules_give_these_shares():
    shares = {name: [round(Phases(name, 8).share(step), 2) for step in range(8)] for name in SCHEDULES}
    assert shares == {
        "gold": [0] * 8,
        "distilled": [1] * 8,
        "mix": [0.5] * 8,
        "gold-gold": [0] * 8,
        "distilled-gold": [1] * 4 + [0] * 4,
        "simple-mix": [1] * 4 + [0.5] * 4,
        "linear": [1] * 4 + [1, 0.67, 0.33, 0],
        "sigmoid": [1] * 4 + [0.99, 0.84, 0.16, 0.01],
        "power": [1] * 4 + [1, 0.44, 0.11, 0],
    }


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_every_step_is_full_and_has_its_share(name, steps):
    phases = Phases(name, steps)
    plan = plan_steps(([3] * 5, [4] * 30), phases, 6, seed=1)
    assert [len(gold) + len(distilled) for gold, distilled in plan] == [6] * steps
    given, exact = 0, 0.0
    for step, (_, distilled) in enumerate(plan):
        given, exact = given + len(distilled), exact + 6 * phases.share(step)
        assert abs(given - exact) <= 0.5 + 1e-9
    assert all(0 < phases.rate(step, 0.1) <= 1 for step in range(steps))


# --- stopped, and going on


def same(one, other) -> bool:
    return weights_of(one.path) == weights_of(other.path) and one.history == other.history and one.best_step == other.best_step


@pytest.mark.parametrize("step", [1, 6, 8])
def test_a_training_that_a_signal_stopped_goes_on(job, unbroken, tmp_path, step):
    "At the end of phase 1, and in either phase."
    with pytest.raises(SystemExit):
        train_tagger(job, MOIST, tmp_path / "student", lambda done, _: signal.raise_signal(signal.SIGTERM) if done == step else None)
    steps = []
    again = train_tagger(job, MOIST, tmp_path / "student", lambda done, _: steps.append(done))
    assert steps[0] == step + 2
    assert same(again, unbroken)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv.pop(1).split(os.pathsep)
from pathlib import Path
import torch
torch.set_num_threads(1)
from zero_shot_distill.student import checkpoint
from test_ner_student import MOIST, ROWS, TASK, TEST, VALID, TrainingJob, train_tagger
checkpoint.EVERY_S = 0.0  # after every step
job = TrainingJob(Path(sys.argv[1]), "a tiny BERT", TASK, ROWS, VALID, TEST)
train_tagger(job, MOIST, Path(sys.argv[2]), lambda done, _: os.kill(os.getpid(), signal.SIGKILL) if done == 7 else None)
"""


def test_a_killed_training_goes_on(tiny, job, unbroken, tmp_path):
    search = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    killed = zsd(tmp_path, "-c", KILLED, search, str(tiny), str(tmp_path / "students" / "student"))
    assert killed.status == -signal.SIGKILL, killed.err
    steps = []
    again = train_tagger(job, MOIST, tmp_path / "students" / "student", lambda done, _: steps.append(done))
    assert steps[0] == 7
    assert same(again, unbroken)
    assert [path.name for path in (tmp_path / "students").iterdir()] == ["student"]


def test_the_seed_decides_the_student_and_the_callers_random_numbers_do_not(job, unbroken, tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = train_tagger(job, MOIST, tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(again, unbroken)
    assert not same(train_tagger(job, replace(MOIST, seed=1), tmp_path / "other"), unbroken)


def test_training_ends_early_where_nothing_is_gained(job, tmp_path):
    ended = train_tagger(job, replace(MOIST, steps=60, eval_every=2, learning_rate=1e-7, patience=2), tmp_path / "ended")
    assert [point.step for point in ended.history][-1] < 20
    assert any("found no entity" in note for note in ended.notes) == (ended.valid_f1 == 0)


# --- a run


def test_a_run_leaves_a_student_that_is_found_again_and_its_record(job, tmp_path):
    config = replace(MOIST, steps=60, eval_every=20, batch_size=8, dropout=0.0)
    run_id = run_id_of(config, "an-annotation", "a tiny BERT")
    assert run_id.startswith("linear-seed0-")
    record = tag_and_record(job, config, tmp_path, run_id)
    assert record.test.errors.right == 70
    assert record.valid_f1 == 1.0
    assert TaggerRecord.read(tmp_path / "runs" / f"{run_id}.json") == record
    folder = tmp_path / "students" / run_id
    assert is_tagger(folder)
    assert load_tagger(folder).fingerprint == record.fingerprint
    assert tag_and_record(job, config, tmp_path, run_id, lambda done, _: pytest.fail("trained again") if done else None) == record
    (found,) = predict_entities(folder, ["omar was in quito"])
    assert [str(one) for one in read_entities(found.label)] == ["omar (person)", "quito (city)"]
    assert predict_entities(folder, [*TEST[:3]])[0].label == TEST[0].label
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card
    assert "35 test sentences had no part in training" in card
    with refused(UnusableInput, "a student that tags words, which writes no answers"):
        load_student(folder)
    with refused(UnusableInput, "1 test rows, none with a gold label"):
        evaluate_tagger(folder, [replace(TEST[0], label=None)])


def test_gold_sentences_are_nested_and_rows_without_labels_are_counted(job):
    rows = [*ROWS, AnnotatedRow("bare", "anna", None, None, None)]
    few, counts = tagged_rows(replace(job, rows=rows), replace(MOIST, gold_sentences=3))
    more, _ = tagged_rows(job, replace(MOIST, gold_sentences=6))
    assert len(few.gold) == 3
    assert {one.id for one in few.gold} < {one.id for one in more.gold}
    assert (counts["n_gold"], counts["n_distilled"], counts["n_unlabelled"], counts["valid_source"]) == (3, 24, 1, "gold")
    teacher = [replace(row, gold=None, label=row.gold) for row in VALID]
    assert tagged_rows(replace(job, valid_rows=teacher), replace(MOIST, schedule="distilled"))[1]["valid_source"] == "teacher"


def test_types_that_no_row_names_and_ends_within_words_are_told(job, tmp_path):
    text = "anna was in rome"
    label = entities_text([Entity.of(text, 0, 2, "person"), Entity.of(text, 2, 4, "person")])
    one_type = replace(job, rows=[AnnotatedRow("row", text, label, None, None)])
    notes = train_tagger(one_type, replace(MOIST, schedule="gold", steps=1), tmp_path / "student").notes
    assert any("no training sentence names an entity of type city" in note for note in notes)
    assert any("1 widened to whole words, 1 lost" in note for note in notes)


# --- what is refused


@pytest.mark.parametrize(
    ("change", "config", "fault"),
    [
        ({"rows": []}, MOIST, "no training row has a gold label, which schedule 'linear' needs"),
        ({"rows": ROWS[8:]}, MOIST, "no training row has a gold label, which schedule 'linear' needs"),
        ({"rows": [replace(row, label=None) for row in ROWS]}, MOIST, "no training row has a teacher label"),
        ({"rows": [replace(row, gold="[]", label="[]") for row in ROWS]}, MOIST, "none of the 48 training sentences names an entity"),
        ({"rows": [replace(ROWS[0], gold="Rome")]}, replace(MOIST, schedule="gold"), "row row-0: not a list of entities"),
        (
            {"rows": [replace(ROWS[0], gold=label_of(0).replace("city", "town"))]},
            replace(MOIST, schedule="gold"),
            "type 'town' of 'rome' is not among",
        ),
        ({"valid_rows": []}, MOIST, "no validation row has a label"),
        ({"valid_rows": ROWS[:2]}, MOIST, "row row-0 is among the training rows and the validation rows"),
        ({}, replace(MOIST, gold_sentences=9), "gold_sentences 9: only 8 training rows have a gold label"),
        ({}, replace(MOIST, report_to="nowhere"), "report_to 'nowhere'"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(job, tmp_path, change, config, fault):
    with refused(UnusableInput, fault):
        train_tagger(replace(job, **change), config, tmp_path / "student")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("make", "kind"), [(make_tiny_t5, "t5"), (make_tiny_causal, "llama")])
def test_a_model_that_is_no_encoder_is_refused(job, tmp_path, make, kind):
    folder = make(tmp_path / "model", ["a text"])
    with refused(UnusableInput, f"a {kind} model; words are tagged by an encoder, such as BERT, RoBERTa or DeBERTa"):
        train_tagger(replace(job, weights_dir=folder), MOIST, tmp_path / "student")


def test_a_folder_of_another_student_is_refused(tmp_path):
    (tmp_path / "student.json").write_text('{"method": "standard"}')
    with refused(UnusableInput, "a student that writes its answers, and tags no words"):
        predict_entities(tmp_path, ["a text"])
    with refused(UnusableInput, "no trained student"):
        load_tagger(tmp_path / "none")


# --- scores


def drawn_tags(draw: random.Random, n: int, types: tuple[str, ...], is_valid: bool) -> list[str]:
    "Tags drawn one by one, so that many continue nothing; or those of entities."
    tags = [draw.choice(["O", "O", *(f"{letter}-{type}" for type in types for letter in "BI")]) for _ in range(n)]
    if not is_valid:
        return tags
    text = " ".join("a" * n)
    words = split_words(text)
    return list(tag_sentence("", text, entities_text(entities_of_tags(text, words, tags)[0]), types, split_words).tags)


def our_score(gold: list[list[str]], predicted: list[list[str]], types: tuple[str, ...], drop_faulty: bool) -> EntityScore:
    texts = [" ".join("a" * len(tags)) for tags in gold]
    both = [
        [entities_of_tags(text, split_words(text), tags, drop)[0] for text, tags in zip(texts, side, strict=True)]
        for side, drop in ((gold, drop_faulty), (predicted, drop_faulty))
    ]
    return EntityScore.of(*both, types)


def figures(score: EntityScore, types: tuple[str, ...]) -> dict[str, tuple[float, float, float, int]]:
    "Precision, recall and F1 as scorers write them, 0 where there is nothing to divide by, and the gold entities."
    found = {"micro avg": score.measure(), **{type: score.measure([type]) for type in types}}
    return {
        name: (*(0.0 if part.n == 0 else part.value for part in (one.precision, one.recall, one.f1)), one.recall.n)
        for name, one in found.items()
    }


@pytest.mark.parametrize("seed", range(5))
def test_strict_scores_are_those_of_seqeval(seed):
    "Entities that begin with I- are none to it in strict mode, in gold as in predicted tags: our `drop_faulty`."
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed: pip install seqeval")
    from seqeval.scheme import IOB2

    draw, types = random.Random(seed), ("city", "misc", "person")
    lengths = [draw.randint(1, 12) for _ in range(80)]
    for is_valid in (True, False):
        gold, predicted = ([drawn_tags(draw, n, types, is_valid) for n in lengths] for _ in range(2))
        theirs = seqeval.classification_report(gold, predicted, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
        for name, ours in figures(our_score(gold, predicted, types, drop_faulty=True), types).items():
            assert ours == pytest.approx(tuple(float(theirs[name][part]) for part in ("precision", "recall", "f1-score", "support"))), name
        # Not strict, it lets an entity begin at a tag that should continue one: our way where nothing else is said.
        loose = seqeval.classification_report(gold, predicted, output_dict=True, zero_division=0)
        for name, ours in figures(our_score(gold, predicted, types, drop_faulty=False), types).items():
            assert ours == pytest.approx(tuple(float(loose[name][part]) for part in ("precision", "recall", "f1-score", "support"))), name


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("drop_faulty", "repair"), [(False, "conlleval"), (True, "discard")])
def test_scores_are_those_of_seqscore(seed, drop_faulty, repair):
    "It refuses tags that continue nothing unless told how to mend them, and names our two ways."
    seqscore = pytest.importorskip("seqscore.scoring", reason="seqscore is not installed: pip install seqscore")
    draw, types = random.Random(100 + seed), ("city", "misc", "person")
    lengths = [draw.randint(1, 12) for _ in range(80)]
    for is_valid in (True, False):
        gold, predicted = ([drawn_tags(draw, n, types, is_valid) for n in lengths] for _ in range(2))
        found, _ = seqscore.score_label_sequences(predicted, gold, "BIO", repair=None if is_valid else repair)
        ours = figures(our_score(gold, predicted, types, drop_faulty), types)
        for name, one in {"micro avg": found, **found.type_scores}.items():
            assert ours[name] == pytest.approx((one.precision, one.recall, one.f1, one.total_ref)), name


def test_the_two_ways_with_tags_that_continue_nothing_differ():
    "So a score says which it was."
    gold, predicted = [["B-city", "O", "B-city"]], [["I-city", "O", "B-city"]]
    begun, dropped = (our_score(gold, predicted, ("city",), drop) for drop in (False, True))
    assert (begun.errors.right, dropped.errors.right) == (2, 1)
    assert dropped.errors.missed == 1


def test_scores_of_sentences_that_belong_together_have_wider_intervals():
    text = "aa bb"
    gold = [(Entity.of(text, 0, 2, "city"),)] * 40
    found = [gold[0] if n % 8 < 4 else () for n in range(40)]
    alone = EntityScore.of(gold, found, ("city",), [str(n) for n in range(40)]).micro.recall
    together = EntityScore.of(gold, found, ("city",), [str(n // 4) for n in range(40)]).micro.recall
    assert alone.value == together.value == 0.5
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


# --- exported


# nbs/6_ner/08_export writes 8-bit weights, too, and finds the same entities with them.
@pytest.mark.parametrize("form", ["onnx", pytest.param("onnx-int8", marks=pytest.mark.slow)])
def test_an_exported_student_is_asked_like_any_other(job, unbroken, tmp_path, form):
    "As it is, logits are those of torch; with 8-bit weights nearly. A text of several windows is read to its end, by the command, too."
    exported = export_tagger(unbroken.path, form, tmp_path / form, TEST)
    texts = [" ".join(text_of(n) for n in range(40)), *(row.fields["text"] for row in TEST)]
    words = list(map(split_words, texts))
    models = [load_tagger_model(folder) for folder in (unbroken.path, exported.path)]
    windows = [text_windows(model, texts, words, 10_000) for model in models]
    assert windows[0] == windows[1]
    assert len(windows[0][0]) > 1
    pairs = list(zip(*(score_words(model, windows[0]) for model in models), strict=True))
    assert max(float((one - other).abs().max()) for one, other in pairs) < (1e-4 if form == "onnx" else 0.2)
    if form == "onnx":
        assert exported.score == exported.original_score == evaluate_tagger(unbroken.path, TEST)
    assert EntityScore.of_dict(json.loads((exported.path / "export.json").read_text())["score"]) == exported.score
    assert "## This export" in (exported.path / "README.md").read_text()
    assert {"F1", "precision", "MB"} <= exported.rows[0].keys()
    (tmp_path / "rows.txt").write_text("\n".join(texts))
    done = zsd(tmp_path, "predict", "--student", form, "--input", "rows.txt", "--output", "labelled.jsonl")
    assert done.status == 0, done.err
    said = [json.loads(line)["predicted_label"] for line in (tmp_path / "labelled.jsonl").read_text().splitlines()]
    assert said == [one.label for one in predict_entities(exported.path, texts)]
    with refused(UnusableInput, "an exported student cannot be trained; begin with the one that it was exported from"):
        train_tagger(replace(job, weights_dir=exported.path), MOIST, tmp_path / "again")
    with refused(UnusableInput, "is an export; export the student that it was made from"):
        export_tagger(exported.path, form, tmp_path / "twice")
