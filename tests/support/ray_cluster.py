"""A Ray cluster of several nodes, in a network namespace: even on 127.0.0.2, Ray listens on every interface there is.

As a program: starts the cluster, prints its address and the process ids of its raylets, and ends with standard input.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from object_store import store_environment

ROOT = Path(__file__).parents[2]
OBJECT_STORE_BYTES = 80 << 20
PORT = 4566  # of an object storage in the namespace, where nothing else listens below 6379
TRAP = """
import ctypes, os, signal, sys, time

def die_of_a_black_picture():
    from cxr_trt.score.engine import Engine
    submit = Engine.submit
    def submit_or_die(engine, images, class_maps):
        time.sleep(float(os.environ.get("ENGINE_SECONDS", 0)))
        if not all(image.any() for image in images):
            os.kill(os.getpid(), signal.SIGSEGV)
        return submit(engine, images, class_maps)
    Engine.submit = submit_or_die

def die_of_a_file():
    from cxr_trt import images
    decode = images.decode
    images.decode = lambda data: ctypes.string_at(0) if data == b"crash" else decode(data)

class Trap:
    def find_spec(self, name, path=None, target=None):
        if name in ("cxr_trt.cluster.scoring", "cxr_trt.images.worker"):
            sys.meta_path.remove(self)
        if name == "cxr_trt.cluster.scoring":
            die_of_a_black_picture()
            if os.environ.get("UNLIKE_NODE"):
                import onnxruntime
                onnxruntime.__version__ = "1.0"
                time.sleep(5)  # meanwhile, the other node could score
        if name == "cxr_trt.images.worker":
            die_of_a_file()

sys.meta_path.insert(0, Trap())
"""
"""Engines die of a black picture, decoders of a file; a node may have another ONNX Runtime, and be slower to start, or
an engine that is slower."""


def main(store_bytes: str, kind: str = "") -> None:
    from ray.cluster_utils import Cluster

    def options(address: str) -> dict:
        return {
            "object_store_memory": int(store_bytes),
            "node_ip_address": address,
            "include_dashboard": False,
        }

    cluster = Cluster(initialize_head=True, head_node_args={**options("127.0.0.2"), "num_cpus": 0})
    nodes = []
    for number, gpus in enumerate((0, 1, 0) if kind == "gpu" else (0, 0), start=3):
        if kind == "unlike" and number == 4:
            os.environ["UNLIKE_NODE"] = "1"
        nodes.append(cluster.add_node(num_cpus=1, num_gpus=gpus, **options(f"127.0.0.{number}")))
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    with suppress(Exception):  # a test has killed parts of it
        cluster.shutdown()


class RayCluster:
    """address: for --ray. raylets: the process ids of the nodes that have a CPU."""

    def __init__(self, process: subprocess.Popen, environment: dict[str, str]) -> None:
        facts = json.loads(process.stdout.readline())
        self.address, self.raylets = facts["address"], facts["raylets"]
        self.environment = environment
        self._namespace = process.pid

    def start(self, *arguments) -> subprocess.Popen:
        """Start `cxr-trt` with these arguments where the cluster is."""
        return self.start_python("-m", "cxr_trt", *arguments)

    def start_python(self, *arguments, stdin: int | None = None) -> subprocess.Popen:
        """Start Python there."""
        command = ["nsenter", f"--target={self._namespace}", "--net", sys.executable, *arguments]
        return subprocess.Popen(
            [*map(str, command)],
            env=self.environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def actors(self, kind: str = "ShardActor") -> list[int]:
        """The process ids of the actors."""
        return [pid for raylet in self.raylets for pid in children(raylet, f"ray::{kind}")]

    def lose(self, raylet: int) -> None:
        """Kill a node with everything that runs on it."""
        for pid in (raylet, *children(raylet)):
            with suppress(ProcessLookupError):  # some end by themselves
                os.kill(pid, signal.SIGKILL)
        self.raylets.remove(raylet)


def children(pid: int, words: str = "") -> list[int]:
    """The process ids of the children of a process whose command has these words."""
    found = subprocess.run(["pgrep", "-P", str(pid), "-f", words], capture_output=True, text=True)
    return [int(child) for child in found.stdout.split()]


def dies_of(pid: int, number: int) -> bool:
    """Whether a process leaves a signal to the system."""
    with suppress(FileNotFoundError):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return not int(status["SigCgt"], 16) >> (number - 1) & 1
    return False


def why_not() -> str | None:
    """Why no cluster can be started here."""
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        return "needs pip install 'cxr-trt[ray]'"
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        return "needs root, for a network namespace: Ray listens on every interface"
    return None


def end(process: subprocess.Popen, code: int = 1, seconds: float = 900) -> str:
    """What a command has said on standard error, after it ended with this exit code and nothing on standard output."""
    said, errors = process.communicate(timeout=seconds)
    assert (process.returncode, said) == (code, ""), errors
    return errors


def wait_for(what: Callable[[], Any]) -> Any:
    """The first result of a function that is not empty."""
    for _ in range(6000):
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen")


@contextmanager
def ray_cluster(folder: Path, kind: str = "", *, store_bytes: int = OBJECT_STORE_BYTES, **variables: str):
    """The cluster; its tokens and caches are below `folder`, and its logs where paths are short: it has sockets there.

    Args:
        folder: an empty one.
        kind: "unlike": the second node has another version of ONNX Runtime, as far as it says. "gpu": the second of
            three has a GPU, as far as Ray knows.
        store_bytes: of each node's object store.
        variables: of the environment of all nodes.
    """
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as short:
        environment = _environment(folder, short, variables)
        process = subprocess.Popen(
            [
                "unshare",
                "--net",
                "sh",
                "-c",
                f"ip link set lo up && exec {sys.executable} {__file__} {store_bytes} {kind}",
            ],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            yield RayCluster(process, environment)
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()


def _environment(folder: Path, short: str, variables: dict[str, str]) -> dict[str, str]:
    """What the processes of the cluster get: the trap, a token, and homes of their own."""
    (folder / "trap").mkdir()
    (folder / "trap" / "sitecustomize.py").write_text(TRAP)
    return {
        **os.environ,
        **store_environment(PORT),
        **variables,
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "RAY_TMPDIR": short,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_worker_niceness": "0",  # else they hardly get on where processors are busy
        "RAY_health_check_failure_threshold": "3",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "PYTHONPATH": os.pathsep.join([str(folder / "trap"), str(ROOT)]),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
