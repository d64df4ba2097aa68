"""Run the notebooks as `nbdev_test` does, with its options, in workers that have imported already what most notebooks import.

nbdev forks its workers (but for Python 3.14 and newer, where this only costs the imports): they share what is imported here, once, and their
garbage collector does not look through it. No thread of Python's is running by then.
"""

import gc
import importlib
import sys
from pathlib import Path

from nbdev.test import nbdev_test

ROOT = Path(__file__).resolve().parent.parent
IMPORTED = (
    "datasets",
    "fastcore.test",
    "matplotlib.figure",
    "openai",
    "pandas",
    "scipy.stats",
    "torch",
    "transformers",
    "zero_shot_distill.project",
    "zero_shot_distill.student.job",
    "zero_shot_distill.study.drawing",
)

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # the modules of this checkout
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    nbdev_test()  # reads the options, for it is called by a script itself
