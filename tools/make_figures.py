"""Run the experiment notebooks at full size: `python tools/make_figures.py [NAME ...]`. They write figures/.

An experiment runs here where a YAML file of the same name stands beside it; that file holds the full-size parameters, its paths
as seen from the repository's root. Executed copies go to zsd-work/executed/, never back into nbs/.
"""

import os
import sys

import yaml
from make_readme import ROOT

from zero_shot_distill.study.notebook import execute_notebook


def main(names: list[str]) -> None:
    os.chdir(ROOT)
    for path in sorted((ROOT / "nbs" / "experiments").glob("*.yaml")):
        if not names or path.stem in names:
            print(f"{path.stem} ...", file=sys.stderr)
            executed = ROOT / "zsd-work" / "executed" / f"{path.stem}.ipynb"
            execute_notebook(path.with_suffix(".ipynb"), executed, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
            print(executed.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
