"Training that is stopped and goes on, the methods, the controls and the guard, with a T5 of two narrow layers."

import errno
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_student import ROWS, SHORT, TASK, VALID, examples_of, refused, train_student, weights_of
from zsd_command import zsd

from zero_shot_distill.student import checkpoint as checkpoints
from zero_shot_distill.student import train as training
from zero_shot_distill.student import trainer
from zero_shot_distill.student.config import PRESETS, StudentError, TrainingConfig, UnusableInput
from zero_shot_distill.student.method import METHODS, SEPARATORS
from zero_shot_distill.student.model import make_tiny_causal, make_tiny_t5
from zero_shot_distill.student.record import RunRecord
from zero_shot_distill.student.student import evaluate_student, load_student, predict

pytestmark = pytest.mark.usefixtures("one_thread")  # the models here are too small to share out
MOIST = replace(SHORT, dropout=0.1, steps=12, eval_every=3)
BRIEF = replace(SHORT, steps=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    texts = [text for row in ROWS for text in (row.input, row.rationale, row.label)]
    return make_tiny_t5(tmp_path_factory.mktemp("tiny"), [*texts, "predict: explain:", *SEPARATORS.values()])


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    return train_student(tiny, "tiny T5", ROWS, VALID, TASK, MOIST, tmp_path_factory.mktemp("unbroken") / "student")


@pytest.fixture(scope="module")
def brief(tiny, tmp_path_factory):
    return train_student(tiny, "tiny T5", ROWS, VALID, TASK, BRIEF, tmp_path_factory.mktemp("brief") / "student")


def same(one, other) -> bool:
    "The same weights bit for bit, and the same history."
    return weights_of(one.path) == weights_of(other.path) and one.history == other.history and one.best_step == other.best_step


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*"))


# --- stopped, and going on


@pytest.mark.parametrize(
    ("step", "number", "error"), [(1, signal.SIGTERM, SystemExit), (6, signal.SIGINT, KeyboardInterrupt), (8, signal.SIGTERM, SystemExit)]
)
def test_a_training_that_a_signal_stopped_goes_on(tiny, unbroken, tmp_path, number, error, step):
    "In the middle of an epoch of three steps, at an evaluation, and between two: the end is the same."

    def stop(done: int, total: int) -> None:
        if done == step:
            signal.raise_signal(number)

    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error):
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, MOIST, tmp_path / "student", stop)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert hidden(tmp_path) == [".student.checkpoint"]
    steps = []
    again = train_student(tiny, "tiny T5", ROWS, VALID, TASK, MOIST, tmp_path / "student", lambda done, total: steps.append(done))
    assert steps[0] == step + 2, "the step in which the signal came was finished, and so was the next"
    assert same(again, unbroken)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv.pop(1).split(os.pathsep)
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from zero_shot_distill.student import checkpoint, train
from test_student import ROWS, TASK, VALID, train_student
from test_training import MOIST
moment, tiny, out_dir = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
checkpoint.EVERY_S = 0.0  # after every step
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
save, n = checkpoint.TrainingState.save, 0
def killed_while_saving(self, folder):
    global n
    n += 1
    die() if n == 6 else save(self, folder)
if moment == "saving":
    checkpoint.TrainingState.save = killed_while_saving
train_student(tiny, "tiny T5", ROWS, VALID, TASK, MOIST, out_dir, lambda done, total: die() if (moment, done) == ("training", 6) else None)
"""


@pytest.mark.parametrize("moment", ["training", "saving"])
def test_a_killed_training_goes_on(tiny, unbroken, tmp_path, moment):
    "SIGKILL between steps, or inside a save: what is not complete is ignored."
    search = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    killed = zsd(tmp_path, "-c", KILLED, search, moment, str(tiny), str(tmp_path / "students" / "student"))
    assert killed.status == -signal.SIGKILL, killed.err
    (folder,) = (tmp_path / "students").iterdir()
    left = {path.name: (path / "complete.json").is_file() for path in folder.iterdir()}
    assert left == {"checkpoint-5": True} | ({"checkpoint-6": False} if moment == "saving" else {})
    steps = []
    again = train_student(tiny, "tiny T5", ROWS, VALID, TASK, MOIST, tmp_path / "students" / "student", lambda done, _: steps.append(done))
    assert steps[0] == 6
    assert same(again, unbroken)
    assert [path.name for path in (tmp_path / "students").iterdir()] == ["student"]


def test_a_checkpoint_of_another_student_is_never_used(tiny, unbroken, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 4:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(MOIST, seed=1), tmp_path / "student", stop)
    steps = []
    mine = train_student(tiny, "tiny T5", ROWS, VALID, TASK, MOIST, tmp_path / "student", lambda done, _: steps.append(done))
    assert steps[0] == 1
    assert same(mine, unbroken)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("PytorchStreamWriter failed writing file")]
)
def test_a_full_disk_keeps_the_last_good_checkpoint(tiny, unbroken, tmp_path, monkeypatch, caplog, error):
    "One line, and training goes on; only where it was to stop there, that line is the error."
    save = checkpoints.TrainingState.save

    def full_from_step_6_on(self, folder):
        if int(folder.name.partition("-")[2]) >= 6:
            (folder / "half").write_bytes(b"half")
            raise error
        save(self, folder)

    def stop(done: int, total: int) -> None:
        if done == 7:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints.TrainingState, "save", full_from_step_6_on)
    with refused(StudentError, r"student.checkpoint: no checkpoint at step 7", r"the one before is kept \(checkpoint-5\); free some space"):
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, MOIST, tmp_path / "student", stop)
    assert [len(record.getMessage().splitlines()) for record in caplog.records] == [1, 1]
    assert [path.name for path in (tmp_path / ".student.checkpoint").iterdir()] == ["checkpoint-5"]
    monkeypatch.undo()
    assert same(train_student(tiny, "tiny T5", ROWS, VALID, TASK, MOIST, tmp_path / "student"), unbroken)


def test_a_training_that_never_gets_a_checkpoint_still_ends(tiny, unbroken, tmp_path, monkeypatch, caplog):
    def full(self, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints.TrainingState, "save", full)
    assert same(train_student(tiny, "tiny T5", ROWS, VALID, TASK, MOIST, tmp_path / "student"), unbroken)
    assert "no checkpoint at step 1 (No space left on device); there is none before it; free some space" in caplog.text


@pytest.mark.parametrize("began", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_training_goes_on_in_the_precision_in_which_it_began(tiny, tmp_path, monkeypatch, began):
    "Also on a machine for which `auto` says another one."

    def stop(done: int, total: int) -> None:
        if done == 4:
            signal.raise_signal(signal.SIGTERM)

    config = replace(MOIST, precision="auto")
    monkeypatch.setattr(trainer, "resolve_precision", lambda precision: began)
    with pytest.raises(SystemExit):
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / "student", stop)
    monkeypatch.setattr(trainer, "resolve_precision", lambda precision: {"fp32": "bf16", "bf16": "fp32"}[began])
    ended = train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / "student")
    monkeypatch.undo()
    whole = train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(MOIST, precision=began), tmp_path / "whole")
    assert (ended.precision, weights_of(ended.path)) == (began, weights_of(whole.path))


# --- what decides the result


def test_smaller_passes_give_the_same_student(tiny, tmp_path):
    dry = replace(MOIST, dropout=0.0, precision="fp32", batch_size=5)
    whole = train_student(tiny, "tiny T5", ROWS, VALID, TASK, dry, tmp_path / "whole")
    shared = train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(dry, accumulate=4), tmp_path / "shared")
    assert [point.loss for point in shared.history] == pytest.approx([point.loss for point in whole.history], rel=1e-3)
    assert [point.rationale_loss for point in shared.history] == pytest.approx([point.rationale_loss for point in whole.history], rel=1e-3)


def test_gradients_are_shortened_only_where_asked(tiny, unbroken, tmp_path):
    clipped = train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(MOIST, max_grad_norm=0.01), tmp_path / "clipped")
    assert weights_of(clipped.path) != weights_of(unbroken.path)
    loose = train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(MOIST, max_grad_norm=1e9), tmp_path / "loose")
    assert [point.loss for point in loose.history] == pytest.approx([point.loss for point in unbroken.history], rel=1e-3)


def test_training_ends_early_where_nothing_is_gained(tiny, tmp_path):
    config = replace(SHORT, steps=60, eval_every=2, learning_rate=1e-6, patience=3)
    ended = train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / "ended")
    assert [point.step for point in ended.history] == [2, 4, 6, 8]
    assert ended.best_step == max(ended.history, key=lambda point: -point.valid_loss).step


def test_a_tracker_that_is_not_there(tiny, tmp_path):
    with refused(UnusableInput, "report_to 'nowhere'"):
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(SHORT, report_to="nowhere"), tmp_path / "x")
    assert replace(SHORT, report_to="nowhere").identity() == SHORT.identity()
    assert not list(tmp_path.iterdir())


def test_training_does_without_the_attention_of_cudnn(tiny, tmp_path):
    "Also where it fails in the middle, what was set before is set again."
    enabled, seen = torch.backends.cuda.cudnn_sdp_enabled, []
    assert enabled()
    decoder = make_tiny_causal(tmp_path / "decoder", [text for row in ROWS for text in (row.input, row.rationale, row.label)])
    train_student(decoder, "tiny Llama", ROWS, VALID, TASK, BRIEF, tmp_path / "out", lambda *_: seen.append(enabled()))
    assert set(seen) == {False}
    with pytest.raises(ZeroDivisionError):
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, BRIEF, tmp_path / "failed", lambda *_: 1 / 0)
    assert enabled()


# --- methods


# Of the others there are quick tests of one kind each: those of a label that comes first, of a shared encoder, and of one answer in test_student_measure.py.
QUICK_METHODS = ("standard", "step-by-step", "mutual-information")


@pytest.mark.parametrize("method", [pytest.param(name, marks=() if name in QUICK_METHODS else pytest.mark.slow) for name in METHODS])
def test_each_method_learns_by_heart_and_is_read_again(tiny, tmp_path, method):
    config = TrainingConfig(method, "teacher", steps=90, eval_every=90, batch_size=12, learning_rate=1e-2)
    learned = train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / "student")
    assert learned.valid_accuracy == 1.0
    assert not learned.at_chance
    assert evaluate_student(learned.path, examples_of(ROWS)).n_correct == 12
    inputs = [row.input for row in ROWS]
    answers = predict(learned.path, inputs)
    assert [(answer.label, answer.rationale, answer.is_truncated) for answer in answers] == [(row.label, None, False) for row in ROWS]
    if METHODS[method].explains:
        assert [answer.rationale for answer in predict(learned.path, inputs, explain=True)] == [row.rationale for row in ROWS]
    else:
        with refused(UnusableInput, "was trained by the standard method and cannot explain"):
            predict(learned.path, inputs, explain=True)
    record = learned.record("x", evaluate_student(learned.path, examples_of(ROWS)))
    assert RunRecord.read(record.write(tmp_path / "runs")) == record
    assert METHODS[method].title in repr(learned)


def test_a_label_that_comes_first_needs_no_rationale_to_be_read(tiny, tmp_path):
    "Asked for the label alone, the student stops soon; what was cut off is not missed."
    config = TrainingConfig("label-then-rationale", "teacher", steps=90, eval_every=90, batch_size=12, learning_rate=1e-2)
    rows = [replace(row, rationale=f"{row.rationale} {row.rationale} {row.rationale} {row.rationale}") for row in ROWS]
    learned = train_student(tiny, "tiny T5", rows, VALID, TASK, config, tmp_path / "student")
    short = predict(learned.path, [ROWS[0].input])[0]
    long = predict(learned.path, [ROWS[0].input], explain=True)[0]
    assert (short.label, short.is_truncated) == (long.label, long.is_truncated) == (ROWS[0].label, False)
    assert len(short.text) < len(long.text)


def broken_and_whole(tiny, rows, config, tmp_path):
    "Train a student that a signal stops at its fifth step and that goes on, and one that is not stopped."

    def stop(done: int, total: int) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        train_student(tiny, "tiny T5", rows, VALID, TASK, config, tmp_path / "broken", stop)
    return [train_student(tiny, "tiny T5", rows, VALID, TASK, config, tmp_path / name) for name in ("broken", "whole")]


def test_a_shared_encoder_is_stopped_and_asked_like_any_other(tiny, tmp_path):
    "What begins its rationales is kept, and what begins its labels is as it was; a student without an encoder is refused before it is trained."
    rows = [replace(row, more_rationales=("it is an animal",)) for row in ROWS]
    config = replace(MOIST, method="shared-encoder", rationale_share=0.5, accumulate=2)
    one, two = broken_and_whole(tiny, rows, config, tmp_path)
    assert same(one, two)
    assert one.n_rationales == 6
    kept = json.loads((one.path / "student.json").read_text())
    assert (kept["rationale_start"], kept["prefixes"]) == (1, {"label": "", "rationale": ""})
    assert json.loads((one.path / "config.json").read_text())["decoder_start_token_id"] == 0
    assert load_student(one.path) == one
    decoder = make_tiny_causal(tmp_path / "decoder", [text for row in ROWS for text in (row.input, row.label)])
    with refused(UnusableInput, "method shared-encoder: this student is a decoder, which has no encoder to share"):
        train_student(decoder, "tiny Llama", rows, VALID, TASK, config, tmp_path / "none")


# --- rationales


@pytest.mark.parametrize(("missing", "n_train", "n_left_out"), [("mask", 12, 0), ("blank", 12, 0), ("drop", 9, 3)])
@pytest.mark.parametrize("method", ["step-by-step", "shared-encoder", "standard"])
def test_rows_without_a_rationale(tiny, tmp_path, missing, n_train, n_left_out, method):
    rows = [replace(row, rationale=None) if row.id.startswith("bird") else row for row in ROWS]
    config = replace(BRIEF, method=method, missing_rationale=missing)
    learned = train_student(tiny, "tiny T5", rows, VALID, TASK, config, tmp_path / "student")
    assert (learned.n_train, learned.n_without_rationale) == (n_train, n_left_out)
    assert learned.n_rationales == (9 if METHODS[method].explains else 0)


@pytest.mark.parametrize("control", ["shuffled", "other-row", "length-matched", "wrong-label", "first-words", "empty"])
def test_controls_are_drawn_from_the_seed(tiny, brief, tmp_path, control):
    config = replace(BRIEF, rationale_control=control, first_words=2)
    one, two = (train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / name) for name in ("one", "two"))
    assert weights_of(one.path) == weights_of(two.path) != weights_of(brief.path)
    assert one.n_rationales == 12
    assert one.config.rationale_control == json.loads((one.path / "student.json").read_text())["config"]["rationale_control"] == control


def test_one_of_several_rationales_is_drawn_each_time(tiny, unbroken, tmp_path):
    "From the seed: a training that was stopped draws the same."
    rows = [replace(row, more_rationales=("it is an animal", "it may be a pet")) for row in ROWS]
    one, two = broken_and_whole(tiny, rows, MOIST, tmp_path)
    assert same(one, two)
    assert weights_of(one.path) != weights_of(unbroken.path)


def test_a_rationale_method_needs_rationales(tiny, tmp_path):
    rows = [replace(row, rationale=None) for row in ROWS]
    for method in [name for name, method in METHODS.items() if method.explains]:
        with refused(UnusableInput, "no training row has a rationale; train with the standard method"):
            train_student(tiny, "x", rows, VALID, TASK, replace(SHORT, method=method), tmp_path / "out")
    with refused(UnusableInput, "rationale_control other-row: needs two rows with a rationale, there are 1"):
        train_student(tiny, "x", [ROWS[0], *rows[1:]], VALID, TASK, replace(SHORT, rationale_control="other-row"), tmp_path / "out")


# --- confidence


def test_rows_that_the_teacher_was_not_sure_of(tiny, unbroken, tmp_path):
    sure = [replace(row, confidence=0.3 if row.id.startswith("bird") else 0.9, confidence_kind="logprob") for row in ROWS]
    sure[0] = replace(sure[0], gold="neutral")
    kept = train_student(tiny, "tiny T5", sure, VALID, TASK, replace(MOIST, min_confidence=0.5), tmp_path / "kept")
    assert (kept.n_train, kept.n_unsure) == (9, 3)
    assert (kept.teacher_accuracy, kept.kept_accuracy) == (pytest.approx(11 / 12), pytest.approx(8 / 9))
    assert kept.notes[-1:] == [
        "3 training rows left out, for the teacher was not sure of them; of the teacher's labels 91.7% were right before, 88.9% after"
    ]
    assert load_student(kept.path) == kept
    weighed = train_student(tiny, "tiny T5", sure, VALID, TASK, replace(MOIST, weigh_by_confidence=True), tmp_path / "weighed")
    assert (weighed.n_train, weighed.n_unsure) == (12, 0)
    assert weights_of(weighed.path) != weights_of(unbroken.path)
    with refused(UnusableInput, "no training row has a confidence; annotate with --confidence"):
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(MOIST, min_confidence=0.5), tmp_path / "none")


# --- the guard


def test_a_training_that_stays_at_chance_is_flagged_and_tried_again(tiny, tmp_path, caplog):
    config = replace(SHORT, learning_rate=1e-9, restarts=2)
    lost = train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / "lost")
    assert (lost.at_chance, lost.n_restarts, lost.chance) == (True, 2, pytest.approx(1 / 3))
    assert [record.getMessage().partition("seed ")[2].split()[0] for record in caplog.records] == [
        "0",
        "1000",
    ]  # of the last one its notes say it
    assert "trying seed 1000" in caplog.text
    assert "not shown to be above chance" in lost.notes[0]
    assert "not shown to be above chance" in lost._repr_html_()
    assert load_student(lost.path) == lost
    record = lost.record("x", evaluate_student(lost.path, examples_of(ROWS)))
    assert json.loads(record.write(tmp_path / "runs").read_text())["at_chance"] is True
    # The student that the last seed gives, which another run with that seed would give too.
    alone = train_student(tiny, "tiny T5", ROWS, VALID, TASK, replace(config, seed=2000, restarts=0), tmp_path / "alone")
    assert weights_of(alone.path) == weights_of(lost.path)


def test_a_restart_that_was_stopped_goes_on(tiny, tmp_path):
    config = replace(SHORT, learning_rate=1e-9, restarts=1)
    whole = train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / "whole")
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 6:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / "student", stop)
    steps = []
    again = train_student(tiny, "tiny T5", ROWS, VALID, TASK, config, tmp_path / "student", lambda done, _: steps.append(done))
    assert steps == [4]
    assert same(again, whole)
    assert again.n_restarts == 1


# --- what cannot be learned


def test_one_label_only(tiny, tmp_path):
    with refused(UnusableInput, "all 4 training rows have the label 'neutral': nothing can be learned of one label"):
        train_student(tiny, "x", [row for row in ROWS if row.label == "neutral"], VALID, TASK, SHORT, tmp_path / "out")


def test_inputs_that_are_longer_than_the_student_reads_are_said(tiny, tmp_path):
    long = [replace(ROWS[0], input=ROWS[0].input + " cat" * 30), *ROWS[1:]]
    cut = train_student(tiny, "tiny T5", long, VALID, TASK, replace(SHORT, max_input_tokens=16), tmp_path / "cut")
    assert "1 of 12 training inputs are longer than the student reads, and were truncated" in cut.notes


@pytest.mark.parametrize(
    ("config", "advice"), [({"batch_size": 4}, "a batch_size below 4, or accumulate 2"), ({"batch_size": 1}, "max_input_tokens below 256")]
)
def test_out_of_memory_names_the_setting(tiny, tmp_path, monkeypatch, config, advice):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(training, "training_loss", exhausted)
    with refused(StudentError, f"out of memory; use {advice}"):
        train_student(tiny, "x", ROWS, VALID, TASK, replace(SHORT, **config), tmp_path / "out")
    assert not list(tmp_path.iterdir())


# --- settings


def test_presets():
    assert list(PRESETS) == ["smoke", "quick", "hsieh", "thesis"]
    hsieh, thesis = (TrainingConfig.preset(name, "step-by-step", "teacher") for name in ("hsieh", "thesis"))
    assert (hsieh.learning_rate, hsieh.batch_size, hsieh.steps, hsieh.eval_every, hsieh.max_input_tokens) == (5e-5, 64, 10_000, 250, 1024)
    assert (thesis.batch_size, thesis.patience, thesis.min_delta) == (32, 20, 1e-4)
    for old, new in {"small": "quick", "paper": "hsieh"}.items():
        assert TrainingConfig.preset(old, "standard", "gold") == TrainingConfig.preset(new, "standard", "gold")
