"A sweep on a Ray cluster of two nodes, one of whose processes is killed."

import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from zero_shot_distill.core.on_ray import ClusterError
from zero_shot_distill.student.model import make_tiny_t5
from zero_shot_distill.student.record import RunRecord
from zero_shot_distill.student.training_rows import TrainingRows, training_rows
from zero_shot_distill.study.sweep import PlannedRun, Sweep, plan_sweep
from zero_shot_distill.study.sweep_ray import train_all_on_ray

TEXTS = [
    (f"{thing} {number}", label, f"a {thing} is {label}") for number in range(30) for thing, label in (("rose", "red"), ("sky", "blue"))
]


@pytest.fixture
def planned(tmp_path) -> tuple[list[PlannedRun], TrainingRows]:
    lines = [json.dumps({"text": text, "label": label, "rationale": why}) for text, label, why in TEXTS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    tiny = str(tmp_path / "tiny")
    make_tiny_t5(tmp_path / "tiny", ["predict: explain:", *(part for row in TEXTS for part in row)])
    settings = {"steps": 100, "eval_every": 100}
    ways = ({"method": ("standard",)}, {"rationale_share": (0.0, 1.0)})  # without any rationale step by step fails
    sweep = Sweep(name="flowers", annotations=str(tmp_path / "rows.jsonl"), students=(tiny,), settings=settings, vary=ways, seeds=(0, 1))
    rows = training_rows(sweep.annotations, tmp_path)
    return plan_sweep(sweep, rows, lambda student: "tiny"), rows


def kill_one(killed: list[int]) -> None:
    "Kill the first process that trains."
    for _ in range(1200):
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [""])[0] == "ray::train_apart":
                process.kill()
                killed.append(process.pid)
                return
        time.sleep(0.1)


@pytest.mark.slow
def test_a_cluster_of_two_nodes_trains_all_though_a_process_is_killed(planned, tmp_path: Path, monkeypatch):
    pytest.importorskip("ray", reason="pip install 'zero_shot_distill[ray]' to run this")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        killed: list[int] = []
        killer = threading.Thread(target=kill_one, args=(killed,))
        killer.start()
        folders = (tmp_path / "work", "flowers")
        ends = train_all_on_ray(*planned, folders)
        killer.join()
        again = train_all_on_ray(*planned, folders)
    finally:
        cluster.shutdown()
    assert killed
    records = [RunRecord.read(path) for path in sorted((folders[0] / "runs").glob("*.json"))]
    assert {(one.config.method, one.config.seed) for one in records} == {
        (way, seed) for way in ("standard", "step-by-step") for seed in (0, 1)
    }
    assert all((folders[0] / "runs" / f"{one.run_id}.predictions.jsonl").is_file() for one in records)
    assert sorted(bool(end.fault) for end in ends) == [False] * 4 + [True] * 2
    assert len(again) == 2
    assert all("no training row has a rationale" in end.fault for end in again)
    assert len(list((folders[0] / "sweeps" / "flowers").iterdir())) == 2


def test_without_ray_one_line_says_what_to_install(planned, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"ray is not installed; pip install 'zero_shot_distill\[ray\]'"):
        train_all_on_ray(*planned, (tmp_path, "flowers"))
