"""Speed and memory of a training step: the published trainer's way, a tuned Seq2SeqTrainer, and ours.

python tests/benchmarks/student.py [--task svamp|esnli|long] [--dtype fp32|bf16|both] [--batch 16] [--steps 4] [--rounds 3]
python tests/benchmarks/student.py --each          what each idea gives, alone and taken away
python tests/benchmarks/student.py --students 10   memory and step time of students trained one after the other in one process
python tests/benchmarks/student.py --shape large   random weights of the shape of flan-t5-large, for a GPU

(a) is written from the description of Hsieh et al. 2023 (arXiv 2305.02301): label and rationale by two forward passes a step, each
padded to its own longest text, logits on every position, float32, PyTorch's AdamW. (b) is transformers' Seq2SeqTrainer with the same two
passes, texts grouped by length, SDPA, fused AdamW and, with bf16, half-width arithmetic. (c) is what `zsd train` does. All ways go over the
same rows once a round, in turn (on a GPU one way after the other), in one process, after a step that does not count; (a) and (c) in the same batches. (c) keeps the
pages of memory that a step frees, as `zsd train` does; (a) and (b) leave that to the C library. Dropout is off. First, the parity gate: on the same
batches in float32, the losses and all gradients of (a) and (c) agree to 1e-5 (a model of a larger shape on a GPU: 1e-4, for sums of more numbers, in
another order). Peak memory is that of a process for each way, or on a GPU that of the weights, gradients, optimiser and batches that torch holds there.

A GPU is used where torch finds one. There the table also says how many floating-point operations a second the model needs (those of the real tokens:
two for each weight of a linear layer that a token passes, three times over for both directions; attention's own products and padding count as nothing),
beside what a product of two square bfloat16 matrices reaches on the same card, and whether a gradient was not a finite number.
"""

import argparse
import copy
import gc
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from unittest.mock import patch

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, Seq2SeqTrainer, Seq2SeqTrainingArguments

from zero_shot_distill.student.model import load_student_model, pages_kept, quiet_transformers
from zero_shot_distill.student.seq2seq import Seq2SeqStudent, prepared_losses
from zero_shot_distill.weights.pull import pull

SHARED = Path(os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
MAX_INPUT, MAX_RATIONALE = 1024, 256  # tokens, as Hsieh et al. set them
ALPHA = 0.5
ON_GPU = torch.cuda.is_available()
SHAPES = {  # of flan-t5-base and -large, by their config.json
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12},
    "large": {"d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 16},
}


# --- what is trained on


def read_svamp() -> list[tuple[str, str, str]]:
    "Input, label and rationale of the thesis's 800 train rows; the rationales are GPT-3.5's, of template 2."
    problems = json.loads((SHARED / "svamp" / "SVAMP.json").read_text())
    equations = {f"{problem['Body']}\n{problem['Question']}": problem["Equation"] for problem in problems}
    with (SHARED / "thesis/query-results/svamp/train/2/responses.json").open() as lines:
        replies = [json.loads(line) for line in lines]
    asked = [(reply["prompt_values"]["question"], reply["response"]) for reply in replies]
    return [(question, equations[question], reply) for question, reply in asked]


def read_esnli() -> list[tuple[str, str, str]]:
    with (SHARED / "esnli" / "esnli_dev.jsonl").open() as lines:
        rows = [json.loads(line) for line in lines]
    return [(f"premise: {row['premise']} hypothesis: {row['hypothesis']}", row["label"], row["explanation"]) for row in rows]


def read_long() -> list[tuple[str, str, str]]:
    "As long as ANLI's: a premise of 100 to 400 tokens, put together from the premises of e-SNLI; two explanations."
    rows, draw = read_esnli(), random.Random(0)
    premises = list(dict.fromkeys(text.split(" hypothesis: ")[0].removeprefix("premise: ") for text, _, _ in rows))
    made = []
    for (text, label, reason), (_, _, other) in pairwise(rows[:3000]):
        n_words, words = draw.randint(75, 290), []
        while len(words) < n_words:
            words += draw.choice(premises).split()
        made.append((f"premise: {' '.join(words[:n_words])} hypothesis: {text.split(' hypothesis: ')[1]}", label, f"{reason} {other}"))
    return made


TASKS = {"svamp": read_svamp, "esnli": read_esnli, "long": read_long}
Row = tuple[list[int], list[int], list[int], list[int]]  # label input and target, rationale input and target


def read_rows(task: str, student: Seq2SeqStudent, n: int) -> list[Row]:
    "A random sample, as token ids."
    texts = random.Random(0).sample(TASKS[task](), n)
    return list(
        zip(
            student.encode_prompts(["predict: " + text for text, _, _ in texts], MAX_INPUT),
            student.encode_targets([label for _, label, _ in texts]),
            student.encode_prompts(["explain: " + text for text, _, _ in texts], MAX_INPUT),
            student.encode_targets([reason for _, _, reason in texts], MAX_RATIONALE),
            strict=True,
        )
    )


def in_batches(rows: Sequence[Row], size: int) -> list[list[Row]]:
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


# --- the ways to train


def padded(sequences: Sequence[list[int]], filler: int) -> torch.Tensor:
    return pad_sequence([torch.tensor(ids) for ids in sequences], batch_first=True, padding_value=filler)


def collated(inputs: Sequence[list[int]], targets: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    mask = padded([[1] * len(ids) for ids in inputs], 0)
    return {"input_ids": padded(inputs, 0), "attention_mask": mask, "labels": padded(targets, -100)}


def two_passes(model: PreTrainedModel, label: dict, rationale: dict) -> torch.Tensor:
    label, rationale = ({name: value.to(model.device) for name, value in part.items()} for part in (label, rationale))
    return ALPHA * model(**label).loss + (1 - ALPHA) * model(**rationale).loss


def published_loss(student: Seq2SeqStudent, batch: Sequence[Row]) -> torch.Tensor:
    "(a): a pass for each task, each padded to its own longest text, logits everywhere."
    columns = list(zip(*batch, strict=True))
    return two_passes(student.model, collated(*columns[:2]), collated(*columns[2:]))


def parts_of(batch: Sequence[Row]) -> list[list[list[int]]]:
    "All prompts, and all targets; labels before rationales."
    labels, label_targets, rationales, rationale_targets = (list(column) for column in zip(*batch, strict=True))
    return [labels + rationales, label_targets + rationale_targets]


def mean_loss(part_losses: Callable[..., torch.Tensor], batch: Sequence[Row]) -> torch.Tensor:
    prompts, targets = parts_of(batch)
    losses, n = part_losses(prompts, targets), len(batch)
    means = [losses[part].sum() / sum(map(len, targets[part])) for part in (slice(n), slice(n, None))]
    return ALPHA * means[0] + (1 - ALPHA) * means[1]


def our_loss(student: Seq2SeqStudent, batch: Sequence[Row]) -> torch.Tensor:
    "(c): all parts in one pass, without padding."
    return mean_loss(student.part_losses, batch)


def real_positions_loss(student: Seq2SeqStudent, batch: Sequence[Row]) -> torch.Tensor:
    "(a), with logits where there is a target."
    model, losses = student.model, []
    columns = list(zip(*batch, strict=True))
    for inputs, targets in (columns[:2], columns[2:]):
        asked = {name: value.to(model.device) for name, value in collated(inputs, targets).items()}
        labels = asked.pop("labels")
        encoded = model.encoder(**asked).last_hidden_state
        shifted = model.prepare_decoder_input_ids_from_labels(labels)
        decoded = model.decoder(
            input_ids=shifted, encoder_hidden_states=encoded, encoder_attention_mask=asked["attention_mask"], use_cache=False
        )
        logits = model.lm_head(decoded.last_hidden_state[labels != -100])
        losses.append(cross_entropy(logits.float(), labels[labels != -100]))
    return ALPHA * losses[0] + (1 - ALPHA) * losses[1]


@dataclass(frozen=True)
class Way:
    "One way to train."

    name: str
    loss: Callable[[Seq2SeqStudent, Sequence[Row]], torch.Tensor]
    dtype: str = "fp32"
    fused: bool = True  # AdamW in one computation
    grouped: bool = False  # batches of like length
    keeps: bool = False  # memory that is freed, for the next step
    changed: tuple[str, object] | None = None  # a name of the package that stands for something else

    def memory(self) -> AbstractContextManager[None]:
        "Keep memory as the way does."
        return pages_kept() if self.keeps else nullcontext()

    def start(self, student: Seq2SeqStudent, rows: list[Row], size: int) -> Callable[..., None]:
        "Make what goes over all rows once each time it is called, or over the first batches of them. Ways share the weights: how fast they are does not depend on them."
        optimiser = torch.optim.AdamW(student.model.parameters(), lr=1e-6, weight_decay=0.0, fused=self.fused)
        batches = in_batches(sorted(rows, key=lambda row: len(row[0])) if self.grouped else rows, size)

        def once(n_steps: int | None = None) -> None:
            student.model.train()
            with patch(*self.changed) if self.changed else nullcontext():
                for batch in batches[:n_steps]:
                    with torch.autocast(student.model.device.type, torch.bfloat16, enabled=self.dtype == "bf16"):
                        loss = self.loss(student, batch)
                    loss.backward()
                    optimiser.step()
                    optimiser.zero_grad(set_to_none=True)

        return once


class _TwoPasses(Seq2SeqTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return two_passes(model, inputs["label"], inputs["rationale"])


class Tuned(Way):
    "(b): the computations of transformers' own trainer."

    def start(self, student: Seq2SeqStudent, rows: list[Row], size: int) -> Callable[..., None]:
        "Make what goes over all rows once each time it is called, in batches of like length."

        def collate(batch: list[dict]) -> dict:
            columns = list(zip(*(one["row"] for one in batch), strict=True))
            return {"label": collated(*columns[:2]), "rationale": collated(*columns[2:])}

        settings = Seq2SeqTrainingArguments(
            output_dir=tempfile.gettempdir(),
            per_device_train_batch_size=size,
            bf16=self.dtype == "bf16",
            optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length",
            max_grad_norm=0.0,
            use_cpu=not ON_GPU,
            remove_unused_columns=False,
            report_to=[],
        )
        # A copy, because the trainer wraps the model's forward pass.
        data = [{"input_ids": row[0], "row": row} for row in rows]
        trainer = _TwoPasses(copy.deepcopy(student.model), settings, data_collator=collate, train_dataset=data)
        trainer.current_gradient_accumulation_steps = 1
        trainer.create_optimizer()
        model, optimiser = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        loader = trainer.get_train_dataloader()

        def once(n_steps: int | None = None) -> None:
            for batch in islice(loader, n_steps):
                trainer.training_step(model, batch)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)

        return once


class Captured(Way):
    "(c) on a GPU: as a training runs it, by a CUDA graph."

    def start(self, student: Seq2SeqStudent, rows: list[Row], size: int) -> Callable[..., None]:
        "Make what goes over all rows once each time it is called."
        dtype = torch.bfloat16 if self.dtype == "bf16" else torch.float32
        student.model.train()
        losses = prepared_losses(student, [parts_of(batch) for batch in in_batches(rows, size)], dtype)
        return replace(OURS, dtype=self.dtype, loss=lambda _, batch: mean_loss(losses, batch)).start(student, rows, size)


PUBLISHED = Way("(a) published way", published_loss, fused=False)
TUNED = Tuned("(b) tuned Seq2SeqTrainer", published_loss)
OURS = Way("(c) ours", our_loss, keeps=True)
CAPTURED = Captured("(c) ours, as a CUDA graph", our_loss, keeps=True)


def ways_of(dtype: str) -> dict[str, Way]:
    kinds = ["fp32", "bf16"] if dtype == "both" else [dtype]
    ways = {"b": TUNED, "c": OURS} | ({"g": CAPTURED} if ON_GPU else {})
    return {"a": PUBLISHED} | {f"{name}-{kind}": replace(way, dtype=kind) for kind in kinds for name, way in ways.items()}


def _plain_norm(rows, weight, epsilon):
    return weight * (rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + epsilon))


def _plain_vocabulary_loss(hidden, weight, targets):
    return cross_entropy(torch.nn.functional.linear(hidden, weight).float(), targets, reduction="none")


def each_way(dtype: str) -> dict[str, Way]:
    "What each idea gives: added to (a), and taken away from (c)."
    base, ours, package = replace(PUBLISHED, dtype=dtype), replace(OURS, dtype=dtype), "zero_shot_distill.student."
    added = {
        "(a) and fused AdamW": replace(base, fused=True),
        "(a) and batches of like length": replace(base, grouped=True),
        "(a) and logits where there is a target": replace(base, loss=real_positions_loss),
        "(a) and memory kept between steps": replace(base, keeps=True),
        "(a) and these four": replace(base, fused=True, grouped=True, loss=real_positions_loss, keeps=True),
    }
    taken = {
        "(c) without fused AdamW": replace(ours, fused=False),
        "(c) without memory kept between steps": replace(ours, keeps=False),
        "(c) and batches of like length": replace(ours, grouped=True),
        "(c) with attention in one group, padded to the longest": replace(ours, changed=(f"{package}packed.MAX_WASTE", 1.0)),
        "(c) with rows not rounded up": replace(ours, changed=(f"{package}packed.ROWS_MULTIPLE", 1)),
        "(c) with transformers' norm": replace(ours, changed=(f"{package}t5.rms_norm", _plain_norm)),
        "(c) with PyTorch's cross-entropy": replace(ours, changed=(f"{package}t5.vocabulary_loss", _plain_vocabulary_loss)),
        "(c) with logits computed twice instead of kept": replace(ours, changed=(f"{package}packed.MAX_KEPT", 0)),
    }
    return {"(a)": base, **added, "(c)": ours, **taken}


# --- measuring


def memory_mb(kind: str) -> float:  # "VmRSS": resident now, "VmHWM": its peak
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def processor() -> str:
    if ON_GPU:
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}; a bfloat16 product reaches {matmul_rate() / 1e12:.0f} TFLOP/s"
    names = [line.split(": ")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    halves = [name for name in ("avx512_bf16", "amx_bf16") if known.get(name)]
    return f"{names[0] if names else 'unknown'}, {torch.get_num_threads()} threads, {' and '.join(halves) or 'no bfloat16 instructions'}"


@cache
def matmul_rate() -> float:
    "Floating-point operations a second of a product of two square bfloat16 matrices on this card: the best of five rounds of ten."
    n, rates = 8192, []
    one, other = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(6):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            one @ other
        torch.cuda.synchronize()
        rates.append(10 * 2 * n**3 / (time.perf_counter() - began))
    return max(rates[1:])


def operations(student: Seq2SeqStudent, rows: Sequence[Row]) -> float:
    "Floating-point operations that a training step over these rows needs, as the docstring of this file counts them."
    model = student.model
    n_weights = {
        name: sum(part.numel() for part in getattr(model, name).parameters()) - model.shared.weight.numel()
        for name in ("encoder", "decoder")
    }
    # Keys and values of the attention to the input are computed from the input's tokens.
    crossed = sum(
        weight.numel() for name, weight in model.decoder.named_parameters() if "EncDecAttention.k" in name or "EncDecAttention.v" in name
    )
    n_inputs = sum(len(label) + len(rationale) for label, _, rationale, _ in rows)
    n_targets = sum(len(label) + len(rationale) for _, label, _, rationale in rows)
    passed = n_inputs * (n_weights["encoder"] + crossed) + n_targets * (n_weights["decoder"] - crossed + model.lm_head.weight.numel())
    return 3 * 2 * passed


def require_parity(student: Seq2SeqStudent, batches: Sequence[list[Row]]) -> None:
    "Stop where the losses or gradients of (a) and (c) differ by more than 1e-5 of the largest."
    worst_loss = worst_gradient = 0.0
    model = student.model.train()
    for batch in batches:
        losses, gradients = [], []
        for loss_of in (published_loss, our_loss):
            loss = loss_of(student, batch)
            loss.backward()
            losses.append(loss.item())
            gradients.append({name: weight.grad for name, weight in model.named_parameters()})
            model.zero_grad(set_to_none=True)
        worst_loss = max(worst_loss, abs(losses[0] - losses[1]) / abs(losses[0]))
        # Each is compared with the largest of its tensor, or with the thousandth part of the largest of all.
        scale = max(gradient.abs().max().item() for gradient in gradients[0].values())
        for name, gradient in gradients[0].items():
            most = max(gradient.abs().max().item(), scale / 1000)
            worst_gradient = max(worst_gradient, (gradient - gradients[1][name]).abs().max().item() / most)
    print(
        f"parity on {len(batches)} batches: losses differ by {worst_loss:.1e}, gradients by {worst_gradient:.1e} of the largest", flush=True
    )
    if not max(worst_loss, worst_gradient) < (1e-4 if ON_GPU else 1e-5):
        sys.exit("(a) and (c) do not compute the same; nothing was measured")


def n_not_finite(student: Seq2SeqStudent, batches: Sequence[list[Row]]) -> int:
    "Count the numbers in the gradients of (b)'s and (c)'s losses that are not finite, with bfloat16."
    found, model = 0, student.model.train()
    for batch in batches:
        for loss_of in (published_loss, our_loss):
            with torch.autocast(model.device.type, torch.bfloat16):
                loss = loss_of(student, batch)
            loss.backward()
            found += sum(int((~weight.grad.isfinite()).sum()) for weight in model.parameters() if weight.grad is not None)
            model.zero_grad(set_to_none=True)
    return found


@dataclass(frozen=True)
class Speed:
    "Examples a second of one way: by the clock, and by what the processor spent on it, which a busy machine distorts less."

    n_rows: int  # of a round
    seconds: list[float]  # of each round
    cpu_seconds: list[float]  # of each round, all threads

    @property
    def rate(self) -> float:
        return self.n_rows * len(self.seconds) / sum(self.seconds)

    @property
    def cpu_rate(self) -> float:
        return self.n_rows * len(self.seconds) / sum(self.cpu_seconds)

    def __str__(self) -> str:
        return f"{self.rate:.2f} ({self.n_rows / max(self.seconds):.2f} to {self.n_rows / min(self.seconds):.2f})"


def measure(ways: dict[str, Way], student: Seq2SeqStudent, rows: list[Row], size: int, rounds: int) -> dict[str, Speed]:
    "Measure each way, after one round that does not count, and after the first step of each round. The ways take turns, but on a GPU, which has no room for all of them."
    speeds = {name: Speed(len(rows), [], []) for name in ways}
    for together in [[name] for name in ways] if ON_GPU else [list(ways)]:
        started = {name: ways[name].start(student, rows, size) for name in together}
        for number in range(rounds + 1):
            for name, once in started.items():
                with ways[name].memory():
                    once(1)  # does not count: it finds memory as the way before has left it
                    if ON_GPU:
                        torch.cuda.synchronize()
                    began, cpu_began = time.perf_counter(), time.process_time()
                    once()
                    if ON_GPU:
                        torch.cuda.synchronize()
                    if number:
                        speeds[name].seconds.append(time.perf_counter() - began)
                        speeds[name].cpu_seconds.append(time.process_time() - cpu_began)
        del started, once
        gc.collect()
    return speeds


def gpu_memory_mb(way: Way, student: Seq2SeqStudent, rows: list[Row], size: int) -> float:
    "Peak of what torch holds on the GPU while one way goes over all rows once."
    before = torch.cuda.memory_allocated()  # the weights, mainly
    torch.cuda.reset_peak_memory_stats()
    once = way.start(student, rows, size)
    once()
    copied = before if isinstance(way, Tuned) else 0  # (b) has made itself a copy
    peak = torch.cuda.max_memory_allocated() - copied
    del once
    gc.collect()
    torch.cuda.empty_cache()
    return peak / 2**20


def peak_memory(name: str, options: argparse.Namespace, task: str) -> float:
    "Run one way in a process of its own."
    given = ["--task", task, "--batch", str(options.batch), "--steps", str(options.steps), "--weights", options.weights, "--only", name]
    done = subprocess.run([sys.executable, __file__, *given], text=True, stdout=subprocess.PIPE)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else math.nan


def compare(student: Seq2SeqStudent, options: argparse.Namespace) -> None:
    for task in [options.task] if options.task else TASKS:
        rows = read_rows(task, student, options.batch * options.steps)
        require_parity(student, in_batches(rows, options.batch)[:2])
        ways = ways_of(options.dtype)
        speeds = measure(ways, student, rows, options.batch, options.rounds)
        gc.collect()
        if options.no_memory:
            peaks = {}
        elif ON_GPU:
            peaks = {name: gpu_memory_mb(way, student, rows, options.batch) for name, way in ways.items()}
        else:
            peaks = {name: peak_memory(name, options, task) for name in ways}
        needed = operations(student, rows) / len(rows)
        print(f"\n{task}: {len(rows)} rows a round, {options.rounds} rounds, batch {options.batch}\n")
        print(
            "| way | precision | examples a second (slowest to fastest round) | times (a) | times (b) | times (a), CPU time | times (b), CPU time | peak MB | of (a) |"
            + " TFLOP/s | of the product's |" * ON_GPU
        )
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|" + "---:|---:|" * ON_GPU)
        for name, way in ways.items():
            speed, first, tuned = speeds[name], speeds["a"], speeds[f"b-{way.dtype}"]
            times = [speed.rate / first.rate, speed.rate / tuned.rate, speed.cpu_rate / first.cpu_rate, speed.cpu_rate / tuned.cpu_rate]
            memory = [f"{peaks[name]:,.0f}", f"{peaks[name] / peaks['a']:.2f}"] if peaks else ["", ""]
            reached = f" {speed.rate * needed / 1e12:.1f} | {speed.rate * needed / matmul_rate():.1%} |" if ON_GPU else ""
            print(
                f"| {way.name} | {way.dtype} | {speed} | {' | '.join(f'{one:.2f}' for one in times)} | {' | '.join(memory)} |{reached}",
                flush=True,
            )
        if ON_GPU:
            print(
                f"\ngradients that are no finite numbers, with bfloat16: {n_not_finite(student, in_batches(rows, options.batch))}",
                flush=True,
            )


def each(student: Seq2SeqStudent, options: argparse.Namespace) -> None:
    task = options.task or "svamp"
    rows = read_rows(task, student, options.batch * options.steps)
    kinds = ["fp32", "bf16"] if options.dtype == "both" else [options.dtype]
    print(f"{task}: {len(rows)} rows a round, {options.rounds} rounds, batch {options.batch}\n")
    print("| way | precision | examples a second (slowest to fastest round) | times (a) | times (a), CPU time |\n|---|---|---:|---:|---:|")
    for kind in kinds:
        speeds = measure(each_way(kind), student, rows, options.batch, options.rounds)
        base = speeds["(a)"]
        for name, speed in speeds.items():
            print(f"| {name} | {kind} | {speed} | {speed.rate / base.rate:.2f} | {speed.cpu_rate / base.cpu_rate:.2f} |", flush=True)


def train_in_turn(folder: Path, options: argparse.Namespace) -> None:
    "Resident memory and step time of students trained one after the other, each on batches of its own."
    print("| student | resident afterwards, MB | peak so far, MB | a step, s |\n|---|---:|---:|---:|")
    for number in range(options.students):
        student = load_student_model(folder)
        rows = random.Random(number).sample(read_rows(options.task or "esnli", student, 3000), options.batch * options.steps)
        once = replace(OURS, dtype="bf16" if options.dtype == "both" else options.dtype).start(student, rows, options.batch)
        began = time.perf_counter()
        with OURS.memory():
            once()
        step_s = (time.perf_counter() - began) / options.steps
        print(f"| {number + 1} | {memory_mb('VmRSS'):,.0f} | {memory_mb('VmHWM'):,.0f} | {step_s:.2f} |", flush=True)


def shaped(folder: Path, shape: str, to: Path) -> Path:
    "Write a model with random weights of another shape, with the tokenizer of the one in a folder."
    config = AutoConfig.from_pretrained(folder)
    config.update(SHAPES[shape])
    torch.manual_seed(0)
    with torch.device("cuda" if ON_GPU else "cpu"):
        model = AutoModelForSeq2SeqLM.from_config(config)
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), help="default: each in turn")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "both"], default="both", help="of (b) and (c)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4, help="steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", default="flan-t5-small", help="a name that zsd knows, or a folder")
    parser.add_argument("--shape", choices=list(SHAPES), help="random weights of this shape instead of those of --weights")
    parser.add_argument("--each", action="store_true", help="a table of what each idea gives")
    parser.add_argument("--students", type=int, help="train as many one after the other")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = Path(options.weights) if Path(options.weights).is_dir() else pull(options.weights).path
    with quiet_transformers(), tempfile.TemporaryDirectory() as scratch:
        if options.shape:
            folder = shaped(folder, options.shape, Path(scratch))
            options.weights = str(folder)
        if options.students:
            print(f"{processor()}\n", flush=True)
            train_in_turn(folder, options)
            return
        student = load_student_model(folder)
        if options.only:
            rows = read_rows(options.task, student, options.batch * options.steps)
            way = ways_of("both")[options.only]
            once = way.start(student, rows, options.batch)
            del student  # (b) has made itself a copy
            with way.memory():
                once()
            print(memory_mb("VmHWM"))
            return
        print(f"{processor()}\n", flush=True)
        (each if options.each else compare)(student, options)


if __name__ == "__main__":
    main()
