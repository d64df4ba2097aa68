"""Keep what prompts for named entities found as a record for the experiment `ner_prompts`: counts of each row, no text.

    zsd experiment --task wnut17 --split valid --samples 24 --seed 0 --sampling '{max_tokens: 400}' --work-dir WORKDIR
    python tests/benchmarks/ner_prompts.py --task wnut17 --split valid --samples 24 --seed 0 --work-dir WORKDIR --note "..."

asks nothing: it scores what the first command left in the store, prints the table, and writes `data/recorded_runs/entity_prompts/TASK.json`.
"""

import argparse
from pathlib import Path

from zero_shot_distill.core.display import table_text
from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.project import Project
from zero_shot_distill.study.entity_prompts import EntityPrompts, entity_prompt_sentence
from zero_shot_distill.teacher.price import price_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--note", default="", help="For readers: when and on which machine.")
    asked = parser.parse_args()
    project = Project(asked.task, work_dir=asked.work_dir, offline=True)
    scored = project.score(n=asked.samples, split=asked.split, seed=asked.seed)
    found = EntityPrompts.of(project.task.name, project.opened.teacher.model, scored, asked.note)
    print(table_text(found.as_rows(price_of("gpt-4o-mini"))))
    print(entity_prompt_sentence(found))
    found.write(definitions_dir() / "recorded_runs" / "entity_prompts" / f"{project.task.name}.json")


if __name__ == "__main__":
    main()
