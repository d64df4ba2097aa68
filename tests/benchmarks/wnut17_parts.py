"""Write the task `wnut17_parts` of `data/recorded_runs/taggers` into a folder, from WNUT-17 in the shared data.

    python tests/benchmarks/wnut17_parts.py FOLDER

Training rows are the first 3,000 sentences of the training file, validation rows the next 200, test rows those of the dev file. Definition and guidelines
are those of the built-in `wnut17`; the template *candidates-nearest* takes its examples from 100 training rows. Inside FOLDER go on with

    zsd annotate --task wnut17_parts.yaml --mix candidates-nearest --rows 240 --sampling '{max_tokens: 400}'
    zsd annotate --task wnut17_parts.yaml --mix candidates-nearest --splits train,valid,test --sampling '{max_tokens: 400}' --offline

The second asks nobody: it leaves an annotation in which all other rows have their gold label alone, and names it. Then

    zsd sweep GRID.yaml --annotations ID --workers 2
"""

import argparse
import os
from pathlib import Path

import yaml

from zero_shot_distill.prompt.starter import starter_templates
from zero_shot_distill.task.task import load_task

SHARED = Path(os.environ.get("ZSD_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
N_TRAIN, N_VALID = 3000, 200


def sentences_of(path: Path) -> list[str]:
    "Part a file of tokens and tags at its empty lines."
    blocks = "\n".join(line.strip() for line in path.read_text(encoding="utf-8").splitlines()).split("\n\n")
    return [block.strip() for block in blocks if block.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    train = sentences_of(SHARED / "wnut17" / "wnut17train.conll")
    test = sentences_of(SHARED / "wnut17" / "emerging.dev.conll")
    for name, some in (("train", train[:N_TRAIN]), ("valid", train[N_TRAIN : N_TRAIN + N_VALID]), ("test", test)):
        (folder / f"{name}.conll").write_text("\n\n".join(some) + "\n", encoding="utf-8")
    built_in = load_task("wnut17")
    same = built_in.model_dump(mode="json", include={"description", "types", "guidelines", "aliases", "licence", "metric", "fields"})
    columns = {"label_column": "tags", "tokens_column": "tokens", "student_input": "{text}"}
    splits = {name: f"{name}.conll" for name in ("train", "valid", "test")}
    task = {"name": "wnut17_parts", "version": 1, **same, **columns, "splits": splits}
    (folder / "wnut17_parts.yaml").write_text(yaml.safe_dump(task, sort_keys=False, allow_unicode=True), encoding="utf-8")
    made = starter_templates(load_task(str(folder / "wnut17_parts.yaml")))["candidates-nearest"]
    template = made.model_dump(mode="json", exclude_defaults=True) | {"examples": {"of": 100}}
    prompts = {"task": "wnut17_parts", "templates": [template]}
    (folder / "wnut17_parts-prompts.yaml").write_text(yaml.safe_dump(prompts, sort_keys=False, allow_unicode=True), encoding="utf-8")
    print(f"{folder}: {N_TRAIN:,} training rows, {N_VALID} validation rows, {len(test):,} test rows")


if __name__ == "__main__":
    main()
