"Training, saving and asking a student, with a T5 of two narrow layers."

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration
from zsd_command import zsd

from zero_shot_distill.annotate.rows import AnnotatedRow
from zero_shot_distill.student import base, job, place
from zero_shot_distill.student import model as seq2seq
from zero_shot_distill.student import train as training
from zero_shot_distill.student.config import StudentError, TrainingConfig, UnusableInput
from zero_shot_distill.student.data import EncodedRow
from zero_shot_distill.student.job import TrainingJob
from zero_shot_distill.student.loss import share_out, training_loss
from zero_shot_distill.student.method import Part
from zero_shot_distill.student.model import load_student_model, make_tiny_t5, rounded_weights, save_weights
from zero_shot_distill.student.record import RunRecord
from zero_shot_distill.student.seq2seq import Seq2SeqStudent
from zero_shot_distill.student.student import Student, evaluate_student, load_student, predict
from zero_shot_distill.task.task import Example, Split, Task

LABELS = ("entailment", "neutral", "contradiction")
TASK = Task(name="colours", fields={"text": "text"}, label_column="label", labels=LABELS, student_input="{text}", splits={})
KINDS = {"animal": ("entailment", "it is an animal"), "pet": ("neutral", "it may be a pet"), "plant": ("contradiction", "it is no plant")}
ROWS = [
    AnnotatedRow(f"{thing}-{guess}", f"premise: a {thing} hypothesis: {guess}", label, label, reason)
    for thing in ("cat", "dog", "horse", "bird")
    for guess, (label, reason) in KINDS.items()
]
VALID = [replace(row, id=f"valid-{row.id}") for row in ROWS[:6]]
SHORT = TrainingConfig("step-by-step", "teacher", steps=4, eval_every=2, batch_size=4, learning_rate=1e-2)


def train_student(weights_dir, title, rows, valid_rows, task, config, out_dir, on_progress=None) -> Student:
    return job.train_student(TrainingJob(weights_dir, title, task, rows, valid_rows), config, out_dir, on_progress)


pytestmark = pytest.mark.usefixtures("one_thread")  # the models here are too small to share out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    texts = [text for row in ROWS for text in (row.input, row.rationale, row.label)]
    return make_tiny_t5(tmp_path_factory.mktemp("tiny"), [*texts, "predict: explain:"])


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Student:
    "A student that knows the dozen by heart."
    config = replace(SHORT, steps=60, eval_every=20, batch_size=12)
    return train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path_factory.mktemp("students") / "learned")


def examples_of(rows: list[AnnotatedRow]) -> list[Example]:
    "The same rows as a test set: what they are asked, and their gold labels."
    return [Example(row.id, {"text": row.input}, row.gold, None) for row in rows]


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


# --- the loss


def random_t5(kind: str, dropout: float = 0.0) -> T5ForConditionalGeneration:
    size = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
        "vocab_size": 50,
        "decoder_start_token_id": 0,
        "dropout_rate": dropout,
    }
    torch.manual_seed(1)
    if kind == "T5":  # head and embedding are one, and the decoder's output is scaled
        model = T5ForConditionalGeneration(T5Config(**size))
    else:
        model = T5ForConditionalGeneration(T5Config(**size, feed_forward_proj="gated-gelu", tie_word_embeddings=False))
        model.lm_head.weight = torch.nn.Parameter(torch.randn(50, 16))
    assert (model.lm_head.weight is model.shared.weight) == model.config.scale_decoder_outputs == (kind == "T5")
    return model.eval()


def row(label_prompt: list[int], rationale_prompt: list[int], label: list[int], rationale: list[int] | None) -> EncodedRow:
    explained = [Part(rationale_prompt, rationale, "rationale")] if rationale else []
    return EncodedRow(label_prompt, (Part(label_prompt, label, "label"), *explained), bool(rationale))


BATCH = [
    row([5, 6, 7, 8, 1], [9, 6, 7, 8, 4, 1], [20, 1], [30, 31, 32, 33, 1]),
    row([5, 6, 1], [9, 6, 4, 1], [21, 22, 23, 1], None),
    row([5, 6, 7, 1], [9, 6, 7, 1], [20, 1], [34, 1]),
]


def loss_of(model, batch, alpha):
    return training_loss(Seq2SeqStudent(model, None).part_losses, share_out(batch, 0, 1), alpha)


def plain_losses(model, batch) -> tuple[torch.Tensor, ...]:
    "Label and rationale loss by two whole calls of the model."
    both = []
    for kind in ("label", "rationale"):
        parts = [part for row in batch for part in row.parts if part.kind == kind]
        ids = [torch.tensor(part.prompt) for part in parts]
        both.append(
            model(
                input_ids=pad_sequence(ids, batch_first=True),
                attention_mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
                labels=pad_sequence([torch.tensor(part.target) for part in parts], batch_first=True, padding_value=-100),
            ).loss
        )
    return tuple(both)


@pytest.mark.parametrize("kind", ["T5", "T5 v1.1"])
def test_loss_and_gradients_are_those_of_the_plain_way(kind):
    model = random_t5(kind)
    loss = loss_of(model, BATCH, alpha=0.3)
    loss.total.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    label_loss, rationale_loss = plain_losses(model, BATCH)
    (0.3 * label_loss + 0.7 * rationale_loss).backward()
    torch.testing.assert_close(loss.total, 0.3 * label_loss + 0.7 * rationale_loss)
    assert (loss.label.item(), loss.rationale.item()) == pytest.approx((label_loss.item(), rationale_loss.item()), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["T5", "T5 v1.1"])
@pytest.mark.parametrize("multiple", [2, 64])
def test_rounding_rows_up_changes_no_loss_and_no_gradient(kind, multiple, monkeypatch):
    "Rows that belong to no text change nothing: what is left are rounding errors of float32."
    losses, gradients = {}, {}
    for each in (1, multiple):
        monkeypatch.setattr("zero_shot_distill.student.packed.ROWS_MULTIPLE", each)
        model = random_t5(kind)
        loss = loss_of(model, BATCH, alpha=0.3)
        loss.total.backward()
        losses[each] = loss
        gradients[each] = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close(losses[1].total, losses[multiple].total, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(losses[1].label, losses[multiple].label, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(losses[1].rationale, losses[multiple].rationale, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradient, gradients[multiple][name], rtol=1e-4, atol=1e-6)


def test_rounded_lengths_make_shapes_come_again():
    lengths = range(40, 81)
    assert {base.pad([[5] * n, [5]], 0).shape for n in lengths} == {(2, width) for width in (40, 48, 56, 64, 72, 80)}


@pytest.mark.parametrize(
    ("own", "kept"),
    [({}, "16"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "500"}, "500"), ({"DNNL_PRIMITIVE_CACHE_CAPACITY": "500"}, None)],
)
def test_a_users_own_cache_limit_wins(tiny, monkeypatch, own, kept):
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "DNNL_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    load_student_model(tiny)
    assert os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY") == kept
    os.environ.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)


def test_standard_training_has_the_label_loss_alone():
    model = random_t5("T5 v1.1")
    loss = loss_of(model, BATCH, alpha=None)
    assert loss.rationale is None
    torch.testing.assert_close(loss.total, plain_losses(model, BATCH)[0])


def test_a_batch_without_any_rationale_has_a_rationale_loss_of_zero():
    model = random_t5("T5 v1.1")
    loss = loss_of(model, BATCH[1:2], alpha=0.3)
    assert loss.rationale is None
    assert loss.total.item() == pytest.approx(0.3 * loss.label.item())


# --- what decides the result


def test_same_seed_same_student_bit_for_bit(tiny, tmp_path):
    "Another seed draws another order of the rows, and with dropout other units; the caller's random numbers are left alone."
    config = replace(SHORT, dropout=0.1)
    for name in ("one", "two"):
        before = torch.random.get_rng_state()
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / name)
        assert torch.equal(before, torch.random.get_rng_state())
        torch.rand(3)  # what the caller draws in between has no part in it
    others = [
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(SHORT, seed=seed), tmp_path / f"dry-{seed}").path for seed in (0, 1)
    ]
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "two")
    assert len({weights_of(path) for path in (tmp_path / "one", *others)}) == 3


def test_rows_without_a_label_are_left_out_and_counted(tiny, tmp_path):
    unread = [replace(ROWS[0], id="lost", label=None, label_error="no label found"), replace(ROWS[1], id="lost too", label=None)]
    whole = train_student(tiny, "tiny T5", ROWS, VALID, TASK, SHORT, tmp_path / "whole")
    holed = train_student(tiny, "tiny T5", [*ROWS, *unread], [*VALID, replace(unread[0], id="lost three")], TASK, SHORT, tmp_path / "holed")
    assert (holed.n_train, holed.n_dropped, holed.n_valid, holed.n_valid_dropped) == (12, 2, 6, 1)
    assert weights_of(whole.path) == weights_of(holed.path)


def test_labels_are_the_source_asked_for(tiny, tmp_path):
    turned = [replace(row, gold=LABELS[(LABELS.index(row.gold) + 1) % 3]) for row in ROWS]
    config = TrainingConfig("standard", "gold", steps=60, eval_every=60, batch_size=12, learning_rate=1e-2)
    learned = train_student(tiny, "tiny T5", turned, [replace(row, id=f"v{row.id}") for row in turned], TASK, config, tmp_path / "turned")
    assert learned.valid_accuracy == 1.0
    assert [answer.label for answer in predict(learned.path, [row.input for row in turned])] == [row.gold for row in turned]


def test_the_checkpoint_kept_is_the_best_on_validation_rows(tiny, tmp_path):
    config = TrainingConfig("standard", "teacher", steps=12, eval_every=1, batch_size=4, learning_rate=3e-2)
    long = train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / "long")
    points = sorted(long.history, key=lambda point: (-point.valid_accuracy, point.valid_loss))
    assert (long.best_step, long.valid_accuracy) == (points[0].step, points[0].valid_accuracy)
    # Its weights are those of that step: asked again, in the precision of training or not, they answer as well.
    again = evaluate_student(long.path, examples_of(VALID))
    assert again.accuracy == pytest.approx(long.valid_accuracy, abs=1 / len(VALID))


def test_long_texts_are_cut_and_counted(tiny, tmp_path):
    long = [replace(ROWS[0], input=ROWS[0].input + " cat" * 30, rationale="it is an animal " * 9), *ROWS[1:]]
    cut = train_student(tiny, "tiny T5", long, VALID, TASK, replace(SHORT, max_input_tokens=16, max_rationale_tokens=8), tmp_path / "cut")
    assert (cut.n_truncated_inputs, cut.n_truncated_rationales) == (1, 1)


# --- what is saved


def test_a_dozen_rows_are_learned_by_heart(trained):
    assert trained.valid_accuracy == 1.0
    answers = predict(trained.path, [row.input for row in ROWS], explain=True)
    assert [answer.label for answer in answers] == [row.label for row in ROWS]
    assert [answer.rationale for answer in answers] == [row.rationale for row in ROWS]


def test_saved_student_is_an_ordinary_transformers_folder(trained, tiny):
    tokenizer = AutoTokenizer.from_pretrained(trained.path)
    model = AutoModelForSeq2SeqLM.from_pretrained(trained.path, dtype=torch.float32)
    asked = tokenizer([f"predict: {row.input}" for row in ROWS], return_tensors="pt", padding=True)
    asked.pop("token_type_ids", None)
    written = tokenizer.batch_decode(model.generate(**asked, max_new_tokens=5), skip_special_tokens=True)
    assert [text.strip() for text in written] == [row.label for row in ROWS]
    assert (trained.path / "model.safetensors").stat().st_size < 0.6 * (tiny / "model.safetensors").stat().st_size
    assert not list(trained.path.parent.glob(".*")), "nothing is left lying beside it"


@pytest.mark.parametrize("kind", ["T5", "T5 v1.1"])
def test_saved_weights_keep_the_kind_of_head(tiny, tmp_path, kind):
    model, source = random_t5(kind), tmp_path / "source"
    model.save_pretrained(source)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(source)
    (source / "provenance.json").write_text('{"licence": "Apache-2.0"}')
    (tmp_path / "copy").mkdir()
    save_weights(tmp_path / "copy", rounded_weights(model), source)
    copy = load_student_model(tmp_path / "copy").model
    assert (copy.lm_head.weight is copy.shared.weight) == copy.config.scale_decoder_outputs == (kind == "T5")
    for name, value in model.state_dict().items():
        assert torch.equal(copy.state_dict()[name].cpu(), value.bfloat16().float()), name
    assert (tmp_path / "copy" / "provenance.json").is_file(), "the notices of the weights go with what was made from them"


def test_an_answer_does_not_depend_on_the_rows_beside_it(trained):
    inputs = [row.input + " cat" * n for n, row in enumerate(ROWS)]
    together = predict(trained.path, inputs, explain=True)
    assert together == [predict(trained.path, [text], explain=True)[0] for text in inputs]
    assert predict(trained.path, []) == []


def test_what_is_no_label_counts_as_unreadable_and_wrong(tiny, tmp_path):
    untrained = train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(SHORT, steps=1, learning_rate=1e-6), tmp_path / "untrained")
    test = evaluate_student(untrained.path, examples_of(ROWS))
    assert (test.n, test.n_correct, test.n_unreadable, test.accuracy) == (12, 0, 12, 0.0)
    assert test.correct == (0,) * 12
    assert 0 == test.low < test.high < 0.5


def test_run_record_says_all_of_it(trained, tmp_path):
    test = evaluate_student(trained.path, examples_of(ROWS))
    path = trained.record(trained.config.name, test).write(tmp_path / "runs")
    record = json.loads(path.read_text())
    expected = {
        "run_id": "step-by-step-teacher-seed0",
        "task": "colours",
        "student": "tiny T5",
        "method": "step-by-step",
        "labels": "teacher",
        "alpha": 0.5,
        "seed": 0,
        "n_train": 12,
        "n_rationales": 12,
        "n_valid": 6,
        "n_dropped": 0,
        "steps": 60,
        "valid_accuracy": 1.0,
        # What was said row by row is in a file of its own.
        "test": {name: value for name, value in json.loads(json.dumps(asdict(test))).items() if name != "predicted"},
    }
    assert {name: record[name] for name in expected} == expected
    assert record["precision"] in {"bf16", "fp32"}
    assert {"step", "loss", "label_loss", "rationale_loss", "valid_accuracy"} <= set(record["history"][0])
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.stem}.predictions.jsonl"]


# --- answers without a list of labels

SUMS = Task(name="sums", fields={"text": "text"}, label_column="label", metric="numeric", student_input="{text}", splits={})
PETS = Task(
    name="pets",
    fields={"question": "question", "one": "one", "two": "two"},
    label_column="label",
    choices=("one", "two"),
    student_input="{question} {one} or {two} ?",
    splits={},
)
BY_HEART = replace(SHORT, steps=60, eval_every=60, batch_size=12)


def sums() -> list[AnnotatedRow]:
    "Nine pens and as many lost as the row's number says; the teacher says what is left, the data how that is found."
    return [AnnotatedRow(f"{n}", f"9 pens , {n} lost", f"( 9 - {n} )", str(9 - n), f"take {n} from 9 pens") for n in range(1, 7)]


def pets() -> list[Example]:
    "Every animal beside both others, in both orders."
    sounds = {"dog": "barks", "cat": "meows", "cow": "moos"}
    return [
        Example(f"{right}-{wrong}-{order}", {"question": f"what {sounds[right]} :", "one": pair[0], "two": pair[1]}, right, None)
        for right in sounds
        for wrong in sounds.keys() - {right}
        for order, pair in enumerate(((right, wrong), (wrong, right)))
    ]


def train(tmp_path: Path, task: Task, rows: list[AnnotatedRow], config: TrainingConfig = BY_HEART) -> Student:
    "With a tokenizer that knows the words of the rows."
    texts = [text for row in rows for text in (row.input, row.rationale, row.label, row.gold) if text]
    tiny = make_tiny_t5(tmp_path / "tiny", [*texts, "predict: explain:"])
    valid = [replace(row, id=f"valid-{row.id}") for row in rows]
    return train_student(tiny, "tiny T5", rows, valid, task, config, tmp_path / "student")


@pytest.fixture(scope="module")
def counting(tmp_path_factory) -> dict[str, Student]:
    "Students that know the sums by heart, by whose labels they learned."
    return {
        labels: train(tmp_path_factory.mktemp(labels), SUMS, sums(), replace(BY_HEART, labels=labels)) for labels in ("gold", "teacher")
    }


@pytest.mark.parametrize("labels", ["gold", "teacher"])
def test_numbers_are_right_by_their_value(counting, labels):
    learned = counting[labels]
    assert learned.valid_accuracy == 1.0
    examples = examples_of(sums())
    test = evaluate_student(learned.path, examples)
    assert (test.n_correct, test.n_unreadable, test.n_truncated) == (6, 0, 0)
    written = [answer.text for answer in predict(learned.path, [row.fields["text"] for row in examples])]
    assert written == [getattr(row, {"gold": "gold", "teacher": "label"}[labels]) for row in sums()]
    # Another value is wrong, however alike the words are.
    shifted = [replace(row, label=f"( 9 - {n} )") for n, row in enumerate(examples)]
    assert evaluate_student(learned.path, shifted).n_correct == 0
    # Agreement with the teacher is counted apart, by value, too, on the rows that it labelled.
    teacher = [replace(row, label=label) for row, label in zip(sums(), (examples[0].label, "( 9 - 9 ) + 100", None), strict=False)]
    test = evaluate_student(learned.path, examples, teacher)
    assert (test.n_correct, test.agreement.n, test.agreement.value) == (6, 2, 0.5)
    assert (test.against_teacher.difference.n, test.against_teacher.n_only_student) == (2, 1)


def test_a_students_own_rule_is_kept_with_it(tmp_path):
    "What it answers is known from its folder alone, and says nothing of where the rows were."
    task = SUMS.model_copy(update={"splits": {"train": Split(file=tmp_path / "secret.jsonl")}, "aliases": {"none": "0"}})
    learned = train(tmp_path, task, sums(), replace(SHORT, steps=1))
    assert load_student(learned.path) == learned
    assert learned.task == task.model_copy(update={"splits": {}})
    assert str(tmp_path) not in (learned.path / "student.json").read_text()


def test_choices_are_those_of_the_row(tmp_path):
    rows = [AnnotatedRow(row.id, PETS.input_text(row), row.label, None, None) for row in pets()]
    learned = train(tmp_path, PETS, rows, replace(BY_HEART, method="standard", labels="gold", steps=120, eval_every=120))
    assert learned.valid_accuracy == 1.0
    assert evaluate_student(learned.path, pets()).n_correct == 12
    # The words are no label any more once the row has no such choice; a text alone cannot know.
    without = [
        replace(row, fields=row.fields | {name: "fish" for name in ("one", "two") if row.fields[name] == row.label}) for row in pets()
    ]
    texts = predict(learned.path, [PETS.input_text(row) for row in without])
    asked = predict(learned.path, without)
    assert [answer.text for answer in asked] == [answer.text for answer in texts]
    for row, one, text in zip(without, asked, texts, strict=True):
        assert text.label == text.text
        assert one.label == (text.text if text.text in (row.fields["one"], row.fields["two"]) else None)
    test = evaluate_student(learned.path, without)
    assert (test.n_correct, test.n_unreadable) == (0, sum(one.label is None for one in asked))
    assert test.n_unreadable > 0


def test_a_row_of_another_task_is_refused(tmp_path, trained):
    with refused(UnusableInput, "row dog-cat-0: no field 'text'; learned was trained for task 'colours'"):
        evaluate_student(trained.path, sorted(pets(), key=lambda row: row.id != "dog-cat-0"))


def test_an_answer_that_does_not_end_is_cut_and_counted(tmp_path, counting):
    learned = replace(counting["gold"], path=shutil.copytree(counting["gold"].path, tmp_path / "student"))
    # ( 9 - n ) and the end token are 6; half as many more is the room that a free answer has.
    assert learned.max_answer_tokens == 9
    path = learned.path / "student.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_answer_tokens": 3}))
    test = evaluate_student(learned.path, examples_of(sums()))
    assert (test.n_truncated, test.n_unreadable, test.n_correct) == (6, 6, 0)
    assert predict(learned.path, ["9 pens , 1 lost"])[0].text == "( 9 -"


def test_signs_that_the_tokenizer_lacks(tmp_path):
    "T5 has no token for the minus of typesetting; where nothing can stand in, the row is left out and counted."
    rows = [replace(row, label=row.gold.replace("-", "−"), rationale=f"9 − {row.id}") for row in sums()]
    rows[5] = replace(rows[5], label="77")  # no word of the tokenizer
    texts = [text for row in sums() for text in (row.input, row.gold)]
    tiny = make_tiny_t5(tmp_path / "tiny", [*texts, "predict: explain:"])
    valid = [replace(row, id=f"valid-{row.id}") for row in rows]
    learned = train_student(tiny, "tiny T5", rows, valid, SUMS, BY_HEART, tmp_path / "student")
    assert (learned.n_train, learned.n_unencodable, learned.n_dropped, learned.n_valid_dropped) == (5, 1, 0, 1)
    assert learned.valid_accuracy == 1.0
    answer = predict(learned.path, ["9 pens , 1 lost"], explain=True)[0]
    assert (answer.text, answer.rationale) == ("( 9 - 1 )", "9 - 1")
    with refused(UnusableInput, r"no training row has a teacher label \(0 left out, 1 more have one that its tokenizer cannot write\)"):
        train_student(tiny, "tiny T5", rows[5:], valid, SUMS, BY_HEART, tmp_path / "other")
    with refused(UnusableInput, "label 'grey' cannot be written by this student's tokenizer; give it another name"):
        train_student(tiny, "tiny T5", [], [], TASK.model_copy(update={"labels": ("9", "grey")}), BY_HEART, tmp_path / "other")


def test_labels_that_are_no_answers(tmp_path):
    with refused(UnusableInput, "row 1: label 'many' is no label as task 'sums' reads it"):
        train(tmp_path, SUMS, [replace(row, label="many") for row in sums()])
    with refused(UnusableInput, "row 2: label 'A cat.' is no label as task 'pets' reads it"):
        train(tmp_path, PETS, [replace(row, label="A cat." if row.id == "2" else "cat") for row in sums()])


@pytest.mark.parametrize(("change", "again"), [({"aliases": {"none": "0"}}, True), ({"description": "pens"}, False)])
def test_another_way_of_reading_answers_trains_again(tmp_path, change, again):
    config = replace(SHORT, steps=1)
    learned = train(tmp_path, SUMS, sums(), config)
    steps: list[int] = []
    valid = [replace(row, id=f"valid-{row.id}") for row in sums()]
    task = SUMS.model_copy(update=change)
    train_student(tmp_path / "tiny", "tiny T5", sums(), valid, task, config, learned.path, lambda done, _: steps.append(done))
    assert bool(steps) == again
    assert load_student(learned.path).task == (task if again else SUMS)


# --- going on


def no_training(done: int, total: int) -> None:
    raise AssertionError("was trained again")


def test_a_finished_student_is_not_trained_again(tiny, trained):
    again = train_student(tiny, "tiny T5", ROWS, VALID, TASK, trained.config, trained.path, no_training)
    assert again == trained == load_student(trained.path)


@dataclass(frozen=True)
class WithWarmup(TrainingConfig):
    "A version that has one setting more."

    warmup_steps: int = 0


def test_a_new_setting_needs_no_further_code(tiny, tmp_path):
    "It stands in student.json, in the record and in the fingerprint; students that were there before it are still the same."
    old = train_student(tiny, "tiny T5", ROWS, VALID, TASK, SHORT, tmp_path / "student")
    settings = asdict(SHORT)
    assert train_student(tiny, "tiny T5", ROWS, VALID, TASK, WithWarmup(**settings), tmp_path / "student", no_training) == old
    new = train_student(tiny, "tiny T5", ROWS, VALID, TASK, WithWarmup(**settings, warmup_steps=3), tmp_path / "student")
    assert new.fingerprint != old.fingerprint
    assert json.loads((new.path / "student.json").read_text())["config"]["warmup_steps"] == 3
    written = new.record("new", evaluate_student(new.path, examples_of(ROWS))).write(tmp_path / "runs")
    assert json.loads(written.read_text())["warmup_steps"] == 3
    # A version without it reads both.
    assert load_student(new.path).config == SHORT
    assert RunRecord.read(written).config == replace(SHORT, precision=new.precision)


def test_students_of_the_first_version_are_recognised(tiny, trained, tmp_path):
    "Their fingerprint, and the names that their student.json had."
    (tmp_path / "config.json").write_text('{"model_type": "t5"}\n')
    job = TrainingJob(tmp_path, "tiny T5", TASK, ROWS, VALID)
    # As the first version computed it.
    assert job.fingerprint(SHORT) == "e945b0c2ef73578435fff6187381a671016e65a11188a1a1e3ce9d53b5cbde2a"
    old = shutil.copytree(trained.path, tmp_path / "old")
    content = json.loads((old / "student.json").read_text())
    for new_name, old_name in {
        "n_unencodable": "n_unwritable",
        "n_truncated_inputs": "n_cut_inputs",
        "n_truncated_rationales": "n_cut_rationales",
    }.items():
        content[old_name] = content.pop(new_name)
    (old / "student.json").write_text(json.dumps(content))
    assert train_student(tiny, "tiny T5", ROWS, VALID, TASK, trained.config, old, no_training) == replace(trained, path=old)


@pytest.mark.parametrize("change", ["config", "rows", "weights", "unreadable"])
def test_a_student_made_otherwise_is_replaced(tiny, tmp_path, change):
    out_dir = tmp_path / "student"
    first = train_student(tiny, "tiny T5", ROWS, VALID, TASK, SHORT, out_dir)
    rows, config, weights = ROWS, SHORT, tiny
    if change == "config":
        config = replace(SHORT, seed=1)
    elif change == "rows":
        rows = [replace(ROWS[0], rationale="it is a pet"), *ROWS[1:]]
    elif change == "weights":
        weights = first.path
        out_dir = train_student(tiny, "tiny T5", ROWS, VALID, TASK, SHORT, tmp_path / "other").path
    else:
        (out_dir / "student.json").write_text('{"title": "cut sh')
    steps = []
    second = train_student(weights, "tiny T5", rows, VALID, TASK, config, out_dir, lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert load_student(out_dir) == second
    assert (second.fingerprint == first.fingerprint) == (change == "unreadable")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("moment", ["training", "saving"])
def test_ctrl_c_leaves_no_student_and_keeps_the_old_one(tiny, tmp_path, monkeypatch, moment):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    def train(config, out_dir, on_progress=None):
        return train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, out_dir, on_progress)

    old = train(SHORT, tmp_path / "old")
    if moment == "saving":
        monkeypatch.setattr(seq2seq, "save_file", interrupt)
    for out_dir in (tmp_path / "new", tmp_path / "old"):
        with pytest.raises(KeyboardInterrupt):
            train(replace(SHORT, seed=1), out_dir, interrupt if moment == "training" else None)
    assert [folder.name for folder in tmp_path.iterdir()] == ["old"]
    assert load_student(tmp_path / "old") == old
    monkeypatch.undo()
    assert train(replace(SHORT, seed=1), tmp_path / "new").path.is_dir()


def test_a_killed_run_leaves_nothing_that_is_taken_for_a_student(tiny, tmp_path):
    "SIGKILL while the weights are being written: the next run starts clean."
    script = (
        "import os, sys, time\n"
        "sys.path[:0] = sys.argv.pop(1).split(os.pathsep)\n"
        "from pathlib import Path\n"
        "from zero_shot_distill.student import model as seq2seq\n"
        "from test_student import ROWS, SHORT, TASK, VALID, train_student\n"
        "def stall(weights, path, **_):\n"
        "    path.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
        "seq2seq.save_file = stall\n"
        "train_student(Path(sys.argv[1]), 'tiny T5', ROWS, VALID, TASK, SHORT, Path(sys.argv[2]))\n"
    )
    out_dir = tmp_path / "students" / "student"
    killed = zsd(tmp_path, "-c", script, os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]), str(tiny), str(out_dir))
    assert killed.status == -signal.SIGKILL, killed.err
    assert out_dir.parent.exists()
    assert not out_dir.exists()
    with pytest.raises(UnusableInput, match=r"no trained student \(student.json is missing\)"):
        predict(out_dir, ["x"])
    train_student(tiny, "tiny T5", ROWS, VALID, TASK, SHORT, out_dir)
    assert [folder.name for folder in out_dir.parent.iterdir()] == ["student"]


# --- what goes wrong is one line


def refused(error: type[StudentError], *parts: str):
    "One line that holds the parts."
    pattern = r"\A" + "".join(rf"(?=.*{part})" for part in parts) + r"[^\n]*\Z"
    return pytest.raises(error, match=pattern)


def cut_short(tiny: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in tiny.iterdir():
        content = file.read_bytes()
        (folder / file.name).write_bytes(content[: len(content) // 2] if file.name == "model.safetensors" else content)
    return folder


def test_weights_that_cannot_be_read(tiny, tmp_path):
    with refused(UnusableInput, "nowhere: no such folder"):
        train_student(tmp_path / "nowhere", "x", ROWS, VALID, TASK, SHORT, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with refused(UnusableInput, "empty: cannot be read as a student"):
        train_student(tmp_path / "empty", "x", ROWS, VALID, TASK, SHORT, tmp_path / "out")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with refused(UnusableInput, "bert: a bert model; a student is an encoder-decoder, such as T5, or a decoder, such as SmolLM2 or Qwen"):
        train_student(tmp_path / "bert", "x", ROWS, VALID, TASK, SHORT, tmp_path / "out")
    with refused(UnusableInput, "half: cannot be read as a student"):
        train_student(cut_short(tiny, tmp_path / "half"), "x", ROWS, VALID, TASK, SHORT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_that_cannot_be_used(tiny, tmp_path):
    def train(rows=ROWS, valid=VALID, config=SHORT):
        train_student(tiny, "x", rows, valid, TASK, config, tmp_path / "out")

    with refused(UnusableInput, "row cat-animal: label 'maybe' is not among the task's labels"):
        train([replace(ROWS[0], label="maybe"), *ROWS[1:]])
    unlabelled = [replace(row, label=None) for row in ROWS]
    with refused(UnusableInput, r"no training row has a teacher label \(12 left out\)"):
        train(unlabelled)
    with refused(UnusableInput, r"no validation row has a teacher label \(0 left out\)"):
        train(valid=[])
    with refused(UnusableInput, "row valid-cat-animal is among the training rows and the validation rows"):
        train([*ROWS, VALID[0]])
    with refused(UnusableInput, "no training row has a rationale"):
        train([replace(row, rationale=" ") for row in ROWS])


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"method": "stepwise"}, "method 'stepwise': must be one of standard, step-by-step"),
        ({"labels": "silver"}, "labels 'silver': must be one of gold, teacher"),
        ({"precision": "fp8"}, "precision 'fp8'"),
        ({"steps": 0}, "steps 0: must be at least 1"),
        ({"batch_size": -1}, "batch_size -1: must be at least 1"),
        ({"alpha": -0.1}, "alpha -0.1: must be between 0 and 1"),
        ({"learning_rate": 0.0}, "learning_rate 0.0: must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate nan: must be above 0"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"max_input_tokens": 2}, "max_input_tokens 2: must be at least 8"),
    ],
)
def test_settings_that_make_no_sense(setting, line):
    with refused(UnusableInput, line):
        replace(SHORT, **setting)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
    ],
)
def test_out_of_memory(tiny, tmp_path, monkeypatch, error):
    def exhausted(*_):
        raise error

    monkeypatch.setattr(training, "training_loss", exhausted)
    with refused(StudentError, "out of memory; use a batch_size below 4"):
        train_student(tiny, "x", ROWS, VALID, TASK, SHORT, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_full_disk(tiny, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(seq2seq, "save_file", full)
    with refused(StudentError, "cannot be written", "No space left on device"):
        train_student(tiny, "x", ROWS, VALID, TASK, SHORT, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_too_little_room_is_said_before_training(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(place.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000_000}))
    with refused(StudentError, "1 MB free, a student takes 10 MB"):
        train_student(tiny, "x", ROWS, VALID, TASK, SHORT, tmp_path / "out", no_training)
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with refused(StudentError, "file: cannot be written"):
        train_student(tiny, "x", ROWS, VALID, TASK, SHORT, tmp_path / "file" / "out", no_training)


def test_a_loss_that_is_not_finite(tiny, tmp_path):
    with refused(StudentError, "the loss is not finite at step", "learning_rate below 1e\\+30"):
        train_student(tiny, "x", ROWS, VALID, TASK, replace(SHORT, learning_rate=1e30), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_student_is_not_replaced(tiny, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with refused(UnusableInput, "exists and is no trained student"):
        train_student(tiny, "x", ROWS, VALID, TASK, SHORT, tmp_path)
    assert (tmp_path / "thesis.txt").is_file()


def test_test_rows_without_gold(trained):
    "They do not count; where no row has a label there is nothing to measure by."
    unlabelled = Example("y", {"text": "y"}, None, None)
    assert evaluate_student(trained.path, [*examples_of(ROWS[:1]), unlabelled]).n == 1
    with refused(UnusableInput, "1 test rows, none with a gold label"):
        evaluate_student(trained.path, [unlabelled])


# --- the real thing


@pytest.mark.slow
def test_the_restored_flan_t5_small_learns(tmp_path):
    "With the weights of the demo: readable answers and a falling loss after 40 steps on gold labels."
    from zero_shot_distill.task.load import load_examples
    from zero_shot_distill.task.task import load_task
    from zero_shot_distill.weights.pull import pull

    torch.set_num_threads(os.cpu_count() or 1)
    task, pulled = load_task("pocket_nli"), pull("flan-t5-small")
    rows, valid = (
        [AnnotatedRow(row.id, task.input_text(row), row.label, None, row.rationale) for row in load_examples(task, split)]
        for split in ("train", "valid")
    )
    config = TrainingConfig("step-by-step", "gold", steps=40, eval_every=20)
    began = time.perf_counter()
    learned = train_student(pulled.path, pulled.title, rows, valid, task, config, tmp_path / "student")
    assert learned.history[-1].label_loss < learned.history[0].label_loss
    assert learned.history[-1].rationale_loss < learned.history[0].rationale_loss
    test = evaluate_student(learned.path, load_examples(task, "valid"))
    assert test.n_unreadable == 0
    assert learned.train_s <= time.perf_counter() - began
