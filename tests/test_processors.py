"""Affinity and quotas of control groups, with the files that Linux has for them."""

import os
import subprocess
import sys

import pytest

from cxr_trt.processors import cgroup_quota, processors

VERSION_2 = "0::/pod/container\n"
VERSION_1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n"
HYBRID = "1:cpu:/docker/abc\n0::/docker/abc\n"


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def version_1(folder, quota, period=100_000):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        (VERSION_2, {"sys/fs/cgroup/pod/container/cpu.max": "max 100000\n"}, None),
        (VERSION_2, {"sys/fs/cgroup/pod/container/cpu.max": "250000 100000\n"}, 2.5),
        (
            VERSION_2,
            {"sys/fs/cgroup/pod/container/cpu.max": "400000 100000\n", "sys/fs/cgroup/pod/cpu.max": "50000 50000\n"},
            1,
        ),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ("0::/../other\n", {"sys/fs/cgroup/cpu.max": "300000 100000\n"}, None),
        (VERSION_1, version_1("sys/fs/cgroup/cpu/docker/abc", 150_000), 1.5),
        (VERSION_1, version_1("sys/fs/cgroup/cpu", 200_000), 2),
        (VERSION_1, version_1("sys/fs/cgroup/cpu", -1), None),
        (HYBRID, version_1("sys/fs/cgroup/cpu", 200_000), 2),
        (VERSION_1, {}, None),
        (VERSION_1, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "many\n"}, None),
        (None, {}, None),
    ],
)
def test_quota_of_control_groups(tmp_path, groups, files, quota):
    write(tmp_path, files)
    if groups is not None:
        write(tmp_path, {"proc/self/cgroup": groups})
    assert cgroup_quota(tmp_path) == quota


@pytest.mark.parametrize(("limit", "expected"), [("max", 8), ("10000", 1), ("250000", 3), ("900000", 8)])
def test_affinity_and_quota_together(tmp_path, monkeypatch, limit, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8))
    write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{limit} 100000\n"})
    assert processors(tmp_path) == expected


def test_only_the_processors_of_the_affinity_count():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from cxr_trt.processors import cores, processors; print(processors(), cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1 1\n"
