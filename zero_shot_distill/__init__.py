"""Distil a teacher's labels and rationales into a small student, step by step.

`Project` walks through all stages; every other name here is the public function or class of one stage. Nothing is imported before it is used,
so that `import zero_shot_distill` loads neither torch nor openai. This file is written by hand; all other modules come from the notebooks.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {  # module -> its names that stand here
    "core.definition": ("ZsdError",),
    "core.progress": ("Progress",),
    "stats.compare": ("not_worse", "paired_difference", "probability_better"),
    "stats.ppi": ("powered_share",),
    "task.task": ("Example", "Task", "load_task"),
    "task.load": ("load_examples", "sample_examples"),
    "store.store": ("ResponseStore",),
    "teacher.teacher": ("HostedTeacher", "RequestLimits", "StoredTeacher"),
    "teacher.embedded": ("EmbeddedTeacher",),
    "teacher.price": ("Price",),
    "teacher.budget": ("Budget",),
    "teacher.client": ("AskOptions", "TeacherClient"),
    "prompt.template": ("PromptTemplate", "load_templates"),
    "prompt.starter": ("starter_templates",),
    "prompt.mix": ("PromptMix", "load_mix"),
    "prompt.parse": ("parse_reply",),
    "prompt.collect": ("collect_replies",),
    "prompt.score": ("score_replies",),
    "prompt.objective": ("SearchObjective",),
    "prompt.search_job": ("OproSettings", "SearchJob"),
    "prompt.search_result": ("PromptSearch",),
    "prompt.opro": ("search_prompt",),
    "prompt.headroom": ("gain_split", "headroom"),
    "prompt.contest_rows": ("draw_contest",),
    "prompt.confirm": ("confirm",),
    "prompt.choose": ("ContestJob", "choose_prompt"),
    "annotate.confidence": ("ConfidencePlan",),
    "annotate.plan": ("ExplanationRate",),
    "annotate.rows": ("read_annotations",),
    "annotate.job": ("AnnotationJob", "run_annotation"),
    "annotate.forecast": ("forecast",),
    "student.config": ("TrainingConfig",),
    "student.method": ("methods_table",),
    "student.measure": ("PredictedRows", "calibration"),
    "student.record": ("RunRecord",),
    "student.job": ("TrainingJob", "train_student"),
    "student.student": ("Student", "evaluate_student", "load_student", "predict"),
    "student.training_rows": ("rows_of_file",),
    "student.predict_rows": ("predict_rows", "write_rows"),
    "student.export": ("export_student",),
    "study.records": ("read_run",),
    "study.comparable": ("read_records",),
    "study.ablation": ("ablations",),
    "study.ablation_figure": ("ablation_figure",),
    "study.search_comparison": ("confirmation_figure", "trajectory_figure"),
    "project": ("Project",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    "Import a public name when it is first used (PEP 562)."
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    "List the public names, whether they are imported yet or not."
    return sorted({*globals(), *_HOMES})
