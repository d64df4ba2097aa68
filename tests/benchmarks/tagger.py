"""How long a training step of a student that tags words takes, with and without what makes it faster on a CPU. Prints a Markdown table, from one run.

    python tests/benchmarks/tagger.py [--steps 40] [--batch-size 16] [--rounds 2] [--threads 1]

The sentences are WNUT-17's, from the shared data; the student is all-MiniLM-L6-v2. Each round trains a new student by each way, in turn, with the same
sentences in the same order. `float32`: attention in float32 where the rest is in bfloat16 (`student.model.attention_in_float32`); `passes`: the sentences
of a step in passes of like length (`ner.tagging.like_lengths`).
"""

import argparse
import os
import platform
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch

from zero_shot_distill.ner.config import TaggerConfig
from zero_shot_distill.ner.learner import TagLearner, TagSentences
from zero_shot_distill.ner.model import load_tagger_model
from zero_shot_distill.ner.sentences import TaggedSentence, tag_sentence
from zero_shot_distill.student.model import resolve_precision
from zero_shot_distill.student.trainer import run_training
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import Task, load_task
from zero_shot_distill.weights.pull import pull

SHARED = os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
WAYS = {"neither": (), "float32": ("float32",), "passes": ("passes",), "both": ("float32", "passes")}


@contextmanager
def only(parts: tuple[str, ...]) -> Iterator[None]:
    "Train with some of the two."
    attention = nullcontext() if "float32" in parts else mock.patch("zero_shot_distill.student.trainer.attention_in_float32", nullcontext)
    one_pass = mock.patch("zero_shot_distill.ner.tagging.like_lengths", lambda lengths: [list(range(len(lengths)))])
    with attention, nullcontext() if "passes" in parts else one_pass:
        yield


def step_s(task: Task, sentences: list[TaggedSentence], steps: int, batch_size: int, precision: str) -> float:
    "Train one student, and give the seconds of a step."
    torch.manual_seed(0)
    model = load_tagger_model(pull("all-minilm-l6-v2").path, tuple(task.types))
    config = TaggerConfig("gold", steps=steps, batch_size=batch_size, eval_every=steps, precision=precision)
    return run_training(TagLearner(model, TagSentences(sentences, [], {"gold": sentences[:20]}), config), config).step_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    os.environ.setdefault("ZSD_DATA", str(SHARED))
    torch.set_num_threads(asked.threads)
    task = load_task("wnut17")
    sentences = [
        tag_sentence(row.id, task.input_text(row), row.label, tuple(task.types), task.words_of) for row in load_examples(task, "train")
    ]
    precisions = ["fp32"] + (["bf16"] if resolve_precision("auto") == "bf16" else [])
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {asked.threads} thread(s), {asked.batch_size} sentences\n"
    )
    print("| precision | way | seconds a step, each round | against neither |\n|---|---|---|---:|")
    for precision in precisions:
        ways = {name: parts for name, parts in WAYS.items() if precision == "bf16" or "float32" not in parts}
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, parts in ways.items():
                with only(parts):
                    found[name].append(step_s(task, sentences, asked.steps, asked.batch_size, precision))
        for name, times in found.items():
            ratio = statistics.mean(times) / statistics.mean(found["neither"])
            print(f"| {precision} | {name} | {', '.join(f'{one:.3f}' for one in times)} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
