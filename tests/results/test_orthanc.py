"""DICOM results in a real archive: Orthanc, which sends the X-rays by C-STORE and takes the results.

In a network namespace, because Orthanc listens on every interface there is. It and dcmtk are Debian's packages.
"""

import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pydicom
import pytest

PROGRAMS = {"Orthanc": "orthanc", "storescp": "dcmtk", "storescu": "dcmtk"}
MISSING = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
CAN_UNSHARE = subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs apt-get install {' '.join(MISSING)}"),
    pytest.mark.skipif(not CAN_UNSHARE, reason="needs root, for a network namespace"),
]
HTTP_PORT, ARCHIVE_PORT, LISTENER_PORT = 8042, 4242, 11112
REQUEST = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], sys.stdin.buffer.read() or None).read().decode())
"""


class Archive:
    """Orthanc on loopback, in a namespace of its own."""

    def __init__(self, folder, stack):
        folder.mkdir()
        settings = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": HTTP_PORT,
            "DicomPort": ARCHIVE_PORT,
            "DicomAet": "ORTHANC",
            "DicomModalities": {"cxr": ["CXRTRT", "127.0.0.1", LISTENER_PORT]},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        command = f"ip link set lo up && exec Orthanc {folder}/settings.json"
        process = stack.enter_context(running(["unshare", "--net", "sh", "-c", command]))
        self.enter = ["nsenter", f"--target={process.pid}", "--net"]
        for _ in range(600):
            if process.poll() is None and self.run(sys.executable, "-c", REQUEST, self._url("system")).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError("Orthanc does not answer")

    def run(self, *command, data=b""):
        return subprocess.run([*self.enter, *map(str, command)], input=data, capture_output=True)

    def ask(self, path, data=b""):
        """The answer of its interface; with data, to a POST."""
        done = self.run(sys.executable, "-c", REQUEST, self._url(path), data=data)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def _url(self, path):
        return f"http://127.0.0.1:{HTTP_PORT}/{path}"

    def store(self, paths):
        """Send files to it by C-STORE."""
        done = self.run("storescu", "-R", "-aec", "ORTHANC", "127.0.0.1", ARCHIVE_PORT, *paths)
        assert done.returncode == 0, done.stderr.decode()

    def send_everything_to(self, folder):
        """Let it send all that it has to a listener, which writes files."""
        folder.mkdir()
        listener = [*self.enter, "storescp", "-aet", "CXRTRT", "+xa", "-od", str(folder), "-fe", ".dcm"]
        instances = self.ask("instances")
        with running([*listener, str(LISTENER_PORT)]):
            for _ in range(100):
                if self.run("echoscu", "127.0.0.1", LISTENER_PORT).returncode == 0:
                    break
                time.sleep(0.1)
            body = json.dumps({"Resources": instances, "Synchronous": True}).encode()
            assert self.ask("modalities/cxr/store", body)["FailedInstancesCount"] == 0
        assert len(list(folder.iterdir())) == len(instances)


@contextmanager
def running(command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def archive(tmp_path):
    with ExitStack() as stack:
        yield Archive(tmp_path / "archive", stack)


def test_results_come_back_once_and_are_not_scored_again(archive, cli, cheap_bundle, radiographs, tmp_path):
    pytest.importorskip("highdicom", reason="needs pip install 'cxr-trt[dicom-results]'")
    for name in ("RG1_UNCR.dcm", "RG1_J2KR.dcm"):
        archive.ask("instances", (radiographs / name).read_bytes())
    archive.send_everything_to(tmp_path / "incoming")
    scored = score(cli, cheap_bundle, tmp_path, "incoming")
    assert "scored 2 of 2 files" in scored
    results = [path for path in (tmp_path / "results").rglob("*.dcm") if path.is_file()]
    kinds = [pydicom.dcmread(path).Modality for path in results]
    assert (kinds.count("SR"), kinds.count("OT")) == (2, 6)

    archive.store(results)
    assert len(archive.ask("instances")) == 2 + 8
    assert len(archive.ask("studies")) == len({pydicom.dcmread(path).StudyInstanceUID for path in results})
    archive.store(results)
    assert len(archive.ask("instances")) == 2 + 8

    archive.send_everything_to(tmp_path / "routed-back")
    before = {path: path.read_bytes() for path in results}
    said = score(cli, cheap_bundle, tmp_path, "routed-back")
    assert "scored 2 of 10 files" in said
    assert "skipped, not X-rays: results of cxr-trt (6), structured reports (2)" in said
    again = [path for path in (tmp_path / "results-of-routed-back").rglob("*.dcm") if path.is_file()]
    assert {uid(path) for path in again} == {uid(path) for path in before}


def score(cli, bundle, folder, source):
    output = folder / ("results" if source == "incoming" else f"results-of-{source}")
    arguments = ("score", folder / source, "-e", bundle, "-o", folder / f"{source}.csv", "--dicom-results", output)
    result = cli(*arguments)
    assert result.exit_code == 0, result.output
    return result.stderr


def uid(path):
    return pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
