"""Memory, batch shapes and step time of students trained one after the other in one process.

python tests/benchmarks/students.py [--students 3] [--steps 20] [--weights flan-t5-small]

Each line is a process of its own. "nothing" is the first version: exact lengths, and oneDNN's own cache of 1,024 prepared shapes;
"both" is what `zsd run` does. Where there are no bfloat16 instructions the lines are alike: only they need prepared shapes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

VARIANTS = {  # name -> (lengths rounded up to a multiple of, prepared shapes kept; None: as many as the package says)
    "nothing": (1, 1024),
    "cache limited": (1, None),
    "lengths rounded": (None, 1024),
    "both": (None, None),
}


def memory_gb(kind: str) -> float:  # "VmRSS": resident now, "VmHWM": its peak
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1e6


def train_in_turn(n_students: int, steps: int, weights: str, multiple: int | None) -> None:
    import time

    from zero_shot_distill.annotate.rows import read_annotations
    from zero_shot_distill.student import data, seq2seq
    from zero_shot_distill.student.config import TrainingConfig
    from zero_shot_distill.student.job import TrainingJob, train_student
    from zero_shot_distill.study.records import recorded_run_dir
    from zero_shot_distill.task.task import load_task
    from zero_shot_distill.weights.pull import pull

    if multiple is not None:
        data.LENGTH_MULTIPLE = seq2seq.LENGTH_MULTIPLE = multiple
    shapes, pad = set(), data.pad

    def noted(*arguments):
        padded = pad(*arguments)
        shapes.add(tuple(padded.shape))
        return padded

    seq2seq.pad = noted
    pulled = pull(weights)
    rows, valid = (read_annotations(recorded_run_dir() / "annotations" / f"{split}.jsonl") for split in ("train", "valid"))
    job = TrainingJob(pulled.path, pulled.title, load_task("pocket_nli"), rows, valid)
    memory, step_s, losses = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(n_students):
            times = [time.perf_counter()]
            config = TrainingConfig("step-by-step", "teacher", seed=seed, steps=steps, eval_every=steps)
            student = train_student(job, config, Path(folder) / str(seed), lambda *_, times=times: times.append(time.perf_counter()))
            memory.append(f"{memory_gb('VmRSS'):.2f}")
            # The first step waits for the memory, the last one for the evaluation.
            step_s.append(f"{median(after - before for before, after in pairwise(times[1:-1])):.2f}")
            losses.append(f"{student.history[-1].loss:.3f}")
    print(f"{', '.join(memory)} | {memory_gb('VmHWM'):.2f} | {len(shapes)} | {', '.join(step_s)} | {', '.join(losses)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--weights", default="flan-t5-small")
    parser.add_argument("--variant", choices=list(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        train_in_turn(options.students, options.steps, options.weights, VARIANTS[options.variant][0])
        return
    print("| | resident after each student, GB | peak, GB | batch shapes | step, s | last loss |\n|---|---|---|---|---|---|", flush=True)
    for name, (_, capacity) in VARIANTS.items():
        environment = {key: value for key, value in os.environ.items() if not key.endswith("DNNL_PRIMITIVE_CACHE_CAPACITY")}
        if capacity is not None:
            environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(capacity)
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--variant", name], env=environment, text=True, stdout=subprocess.PIPE
        )
        print(f"| {name} | {done.stdout.strip() or f'failed with status {done.returncode}'} |", flush=True)


if __name__ == "__main__":
    main()
