"""The examples for Slurm and Kubernetes: their own commands, once per task, with the variables of their scheduler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import slurm
from pages import ROOT

from cxr_trt.commands.score import score
from cxr_trt.storage import Url

EXAMPLES = ROOT / "docs" / "cluster"
TASKS = 100


@pytest.fixture
def here(tmp_path, cheap_bundle, cli, monkeypatch):
    """A list of three shards, an engine under the name that the examples use, and cxr-trt on the path."""
    (tmp_path / "xrays").mkdir()
    for i in range(5):
        picture = np.random.default_rng(i).integers(0, 256, (64, 64), np.uint8)
        cv2.imwrite(str(tmp_path / "xrays" / f"{i}.png"), picture)
    shutil.copytree(cheap_bundle, tmp_path / "mine.cxr")
    monkeypatch.chdir(tmp_path)
    assert cli("list", "xrays", "-o", "run/list", "--shard", 2).exit_code == 0
    assert cli("score", "xrays", "-e", "mine.cxr", "-o", "scores.csv").exit_code == 0
    return tmp_path


def run(command, folder, **variables):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def check_table(cli, here):
    result = cli("collect", "run/parts", "--list", "run/list", "-o", "collected.csv")
    assert result.exit_code == 0, result.output
    assert (here / "collected.csv").read_bytes() == (here / "scores.csv").read_bytes()


def test_slurm(cli, here):
    script = EXAMPLES / "slurm.sh"
    assert f"--array=1-{TASKS}" in script.read_text()
    run(["sh", "-n", script], here)
    for task in (3, 1, 2):
        run(["sh", script], here, SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_TASK_COUNT=str(TASKS))
    said = run(["sh", script], here, SLURM_ARRAY_TASK_ID="100", SLURM_ARRAY_TASK_COUNT=str(TASKS))
    assert "scoring 0 files in 0 of 0 shards" in said
    check_table(cli, here)


@pytest.mark.slow
def test_slurm_itself_runs_its_script(cli, here, tmp_path_factory):
    """With fewer tasks, of which none needs four processors. A task that runs again finds its shards scored."""
    if reason := slurm.why_not():
        pytest.skip(reason)
    with slurm.slurm_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        command = ("sbatch", "--wait", "--array=1-3", "--cpus-per-task=1", "--output=%a.txt", EXAMPLES / "slurm.sh")
        cluster.run(*command, folder=here)
        said = [(here / f"{task}.txt").read_text() for task in (1, 2, 3)]
        assert all("in 1 of 1 shard:" in text for text in said), said
        check_table(cli, here)
        cluster.run(*command, folder=here)
        said = [(here / f"{task}.txt").read_text() for task in (1, 2, 3)]
        assert all("scoring 0 files in 0 of 1 shard:" in text for text in said), said


def test_kubernetes(cli, here):
    yaml = pytest.importorskip("yaml", reason="needs pip install pyyaml")
    job = yaml.safe_load((EXAMPLES / "job.yaml").read_text())
    assert (job["kind"], job["spec"]["completionMode"], job["spec"]["completions"]) == ("Job", "Indexed", TASKS)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for index in (2, 0, 1):
        run([*container["command"], *container["args"]], here, JOB_COMPLETION_INDEX=str(index))
    check_table(cli, here)


def test_ray_on_kubernetes():
    """Its command names options that exist; nothing here can run it."""
    yaml = pytest.importorskip("yaml", reason="needs pip install pyyaml")
    job = yaml.safe_load((EXAMPLES / "ray.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    program, command, *arguments = job["spec"]["entrypoint"].split()
    assert (program, command) == ("cxr-trt", "score")
    given = score.make_context("score", arguments).params
    assert (given["address"], given["output"]) == ("auto", Url("s3", "hospital/run/parts"))


def test_a_job_with_broken_files_is_done_too(here, cli):
    """Exit code 1 says that some files could not be scored; starting the index again would not change that."""
    yaml = pytest.importorskip("yaml", reason="needs pip install pyyaml")
    (here / "xrays" / "0.png").write_bytes(b"broken")
    (container,) = yaml.safe_load((EXAMPLES / "job.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    said = run([*container["command"], *container["args"]], here, JOB_COMPLETION_INDEX="0")
    assert "scored 1 of 2 files" in said
