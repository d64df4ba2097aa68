"""Name the notebooks under nbs/ that are a user's own: git does not have them, and no module comes from them.

What checks the repository and builds its pages leaves them alone. The Makefile asks for them as options:
`python tools/scratch.py ruff` (an `--exclude`) and `python tools/scratch.py nbdev` (a `--skip_file_re`); nothing where there are none.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def scratch_notebooks(root: Path) -> list[Path]:
    "List them, sorted; none where there is no git, e.g. in an unpacked source archive."
    listed = subprocess.run(["git", "ls-files", "-z", "--others", "nbs"], cwd=root, text=True, capture_output=True)
    found = [root / name for name in listed.stdout.split("\0") if name.endswith(".ipynb")] if listed.returncode == 0 else []
    return sorted(path for path in found if "default_exp" not in path.read_text(encoding="utf-8", errors="replace"))


def skipped_names(root: Path) -> str:
    "Write a pattern for nbdev, which looks at a file's name alone: its own one, and the names that no other notebook has."
    scratch = set(scratch_notebooks(root))
    others = {path.name for path in (root / "nbs").rglob("*.ipynb") if path not in scratch}
    names = [re.escape(path.name).replace("\\ ", r"\s") for path in scratch if path.name not in others]
    return "|".join(["^[_.]", *(f"^{name}$" for name in sorted(names))])


def main(tool: str) -> None:
    found = [path.relative_to(ROOT).as_posix() for path in scratch_notebooks(ROOT)]
    if found:
        # A question mark stands for a space, at which the shell would divide the option.
        print(f"--exclude={','.join(found).replace(' ', '?')}" if tool == "ruff" else f"--skip_file_re={skipped_names(ROOT)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
