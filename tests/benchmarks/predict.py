"""Peak memory and processor time of `zsd predict` over files of several lengths. Prints a Markdown table.

    python tests/benchmarks/predict.py [--rows 2000,20000,100000]

The student is a T5 of two narrow layers with made-up weights, trained for a moment: its labels say nothing, and what is measured is what surrounds it.
Each file has rows of 40 words with a number and a label, as CSV, JSONL and Parquet; what comes out has the form of what went in. Every line is a process of its own.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from zero_shot_distill.student.model import make_tiny_t5

WORDS = "the a good bad film plot actor scene works fails broke love hate fine poor well made never again one two three"
FORMS = ("csv", "jsonl", "parquet")
ZSD = Path(sys.executable).with_name("zsd")

# A small process begins the command and waits for it: a child's peak begins with what its parent held.
WAITING = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
print(status, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime)
"""


def rows(n: int) -> Iterator[dict[str, str | int]]:
    draw, words = random.Random(0), WORDS.split()
    for number in range(n):
        yield {"number": number, "text": " ".join(draw.choices(words, k=40)), "label": draw.choice(["good", "bad"])}


def write(path: Path, n: int) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows(n))), path)
        return path
    with path.open("w", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows(n))
        else:
            writer = csv.DictWriter(file, ["number", "text", "label"])
            writer.writeheader()
            writer.writerows(rows(n))
    return path


def trained(folder: Path) -> Path:
    "Train the student for four steps, and name its folder."
    make_tiny_t5(folder / "tiny", [WORDS, "predict: explain: good bad"])
    options = ("--fields", "text", "--label", "label", "--student", "./tiny", "--method", "standard", "--steps", "4", "--quiet")
    made = subprocess.run(
        [ZSD, "train", "--annotations", write(folder / "train.csv", 400).name, *options, "--json"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "zsd-work" / "students" / json.loads(made.stdout)["run_id"]


def measured(student: Path, source: Path) -> tuple[float, float]:  # peak MB, processor seconds
    command = [ZSD, "predict", "--student", student, "--input", source, "--output", source.with_stem("out"), "--quiet"]
    done = subprocess.run([sys.executable, "-c", WAITING, *command], check=True, capture_output=True, text=True)
    status, peak, seconds = map(float, done.stdout.split())
    assert status == 0, done.stderr
    return peak, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="2000,20000,100000", help="with commas between")
    lengths = [int(n) for n in parser.parse_args().rows.split(",")]
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"| rows | {' | '.join(f'{form}, MB | {form}, CPU s' for form in FORMS)} |\n|---:|{'---:|' * 2 * len(FORMS)}")
    with tempfile.TemporaryDirectory() as name:
        student = trained(Path(name))
        for n in lengths:
            found = [measured(student, write(Path(name) / f"{n}.{form}", n)) for form in FORMS]
            print(f"| {n:,} | {' | '.join(f'{peak:.0f} | {seconds:.0f}' for peak, seconds in found)} |", flush=True)


if __name__ == "__main__":
    main()
