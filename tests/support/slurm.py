"""Slurm on this machine: a controller and one node with two processors, in a network namespace of their own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SchedulerParameters=bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes=ALL Default=YES State=UP
"""
START = """
ip link set lo up
ip addr add 192.0.2.1/32 dev lo  # with the loopback address alone, Slurm takes the machine to have no network
munged --force --key-file={folder}/munge.key --socket={folder}/munge.socket --pid-file={folder}/munge.pid \
    --log-file={folder}/munge.log --seed-file={folder}/munge.seed
slurmctld -D & slurmd -D & wait
"""


def why_not() -> str | None:
    """Why Slurm cannot be started here."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"needs {missing[0]}: apt-get install slurmctld slurmd slurm-client munge"
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        return "needs root, for a network namespace"
    return None


class Slurm:
    """Runs Slurm's commands where its controller is."""

    def __init__(self, folder: Path, namespace: int) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        self._namespace = namespace

    def run(self, *arguments: object, folder: Path, seconds: float = 120) -> str:
        """What a command says, which must end with 0."""
        command = ["nsenter", f"--target={self._namespace}", "--net", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, cwd=folder, capture_output=True, text=True, timeout=seconds
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def slurm_cluster(folder: Path):
    """The cluster, with its state and logs in an empty folder."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=socket.gethostname().split(".")[0], folder=folder))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", START.format(folder=folder)],
        env={**os.environ, "SLURM_CONF": str(folder / "slurm.conf")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        slurm = Slurm(folder, process.pid)
        deadline = time.monotonic() + 60
        while "idle" not in _states(slurm, folder):
            assert time.monotonic() < deadline, "Slurm did not start"
            time.sleep(0.5)
        yield slurm
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for line in (folder / "munge.pid").read_text().split() if (folder / "munge.pid").exists() else ():
            os.kill(int(line), signal.SIGTERM)


def _states(slurm: Slurm, folder: Path) -> str:
    try:
        return slurm.run("sinfo", "--noheader", "--format=%T", folder=folder, seconds=30)
    except (AssertionError, subprocess.TimeoutExpired):  # the controller does not answer yet
        return ""
