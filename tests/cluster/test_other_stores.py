"""Google Cloud Storage and Azure, each as an emulator on loopback, with the client libraries that users have."""

import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress

import cv2
import numpy as np
import pytest
from object_store import free_port, upload

from cxr_trt import storage
from cxr_trt.storage import SCHEMES, parse_location

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Those of every Azurite, and no secret."""
BUCKETS = {"gs": "gs://hospital", "abfss": f"abfss://hospital@{AZURE_ACCOUNT}.dfs.core.windows.net"}
NAMES = ("a.png", "ward/über b%20c.png", "ward/d+e&f.png", "ward/x")


def google(port):
    pytest.importorskip("gcp_storage_emulator", reason="needs pip install gcp-storage-emulator")
    command = "from gcp_storage_emulator.__main__ import main; main()"
    arguments = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=hospital"]
    return [sys.executable, "-c", command, *arguments], {"CLOUD_STORAGE_EMULATOR_ENDPOINT": f"http://127.0.0.1:{port}"}


def azure(port):
    if not shutil.which("azurite-blob"):
        pytest.skip("needs npm install --global azurite")
    command = ["azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
    return [*command, "--silent", "--skipApiVersionCheck", "--disableTelemetry"], {
        "AZURE_STORAGE_SERVICE_ENDPOINT": f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}",
        "AZURE_STORAGE_KEY": AZURE_KEY,
    }


@pytest.fixture(scope="module", params=["gs", "abfss"])
def store(request):
    """The address of a bucket, and the environment of its clients."""
    port = free_port()
    command, environment = {"gs": google, "abfss": azure}[request.param](port)
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            if request.param == "abfss":  # Google's has made it
                storage._place(parse_location(BUCKETS["abfss"]))[0].create_dir("hospital")
        yield BUCKETS[request.param], environment
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def bucket(store, tmp_path, cheap_bundle, monkeypatch):
    """The address; the environment is set, and there is no waiting between two tries."""
    for name, value in {**store[1], "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CXR_TRT_ENGINE", str(cheap_bundle))
    monkeypatch.setattr(storage, "WAITS", (0.01,))
    monkeypatch.chdir(tmp_path)
    return store[0]


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores") / "xrays"
    (folder / "ward").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        picture = np.random.default_rng(i).integers(0, 256, (64, 80), np.uint8)
        (folder / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return folder


def run(cli, *arguments, code=0):
    result = cli(*arguments)
    assert result.exit_code == code, result.output
    return result.stderr


def put(bucket, folder):
    """Copy a folder to the bucket, below its own name."""
    files, path = storage._place(parse_location(f"{bucket}/{folder.name}"))
    upload(files, folder, path)


def test_a_bucket_gives_the_table_of_the_same_folder(cli, bucket, xrays, tmp_path):
    put(bucket, xrays)
    run(cli, "score", f"{bucket}/xrays", "-o", f"{bucket}/scores.csv", "--workers", 1)
    run(cli, "score", xrays, "-o", "scores.csv", "--workers", 1)
    assert parse_location(f"{bucket}/scores.csv").read() == (tmp_path / "scores.csv").read_bytes()
    assert (tmp_path / "scores.csv").read_text().count("\n") == 1 + len(NAMES)
    again = run(cli, "score", f"{bucket}/xrays", "-o", f"{bucket}/scores.csv", "--workers", 1)
    assert f"({len(NAMES)} of them in an earlier run)" in again


def test_list_parts_and_table_in_a_bucket(cli, bucket, xrays, tmp_path):
    put(bucket, xrays)
    run(cli, "list", f"{bucket}/xrays", "-o", f"{bucket}/run/list", "--shard", 2)
    run(cli, "score", f"{bucket}/run/list", "-o", f"{bucket}/run/parts", "--workers", 1)
    run(cli, "collect", f"{bucket}/run/parts", "--list", f"{bucket}/run/list", "-o", f"{bucket}/run/all.csv")
    run(cli, "score", xrays, "-o", "scores.csv", "--workers", 1)
    assert parse_location(f"{bucket}/run/all.csv").read() == (tmp_path / "scores.csv").read_bytes()
    parse_location(f"{bucket}/run/parts/part-00000001.parquet").unlink()
    missing = run(cli, "collect", f"{bucket}/run/parts", "--list", f"{bucket}/run/list", "-o", "a.csv", code=2)
    assert "missing: 1 of 2 shards (1)" in missing


def test_mistakes_are_one_sentence(cli, bucket, xrays):
    nowhere = bucket.replace("hospital", "nowhere")
    said = run(cli, "score", f"{nowhere}/xrays", "-o", "a.csv", code=2)
    assert f"{nowhere}: there is no such bucket" in said
    assert "no DICOM, PNG, JPEG or TIFF file" in run(cli, "score", f"{bucket}/none", "-o", "a.csv", code=2)


def test_a_store_that_is_not_there_is_one_sentence(cli, bucket, store, monkeypatch):
    monkeypatch.setattr(storage, "RETRY_SECONDS", 1)
    name = next(name for name in store[1] if name.endswith("ENDPOINT"))
    monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}/{AZURE_ACCOUNT}")
    said = run(cli, "score", f"{bucket}/xrays", "-o", "a.csv", code=2)
    assert "Could not connect to server" in said
    assert "the same command goes on when the store answers" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("key", [AZURE_KEY[::-1], "bm90IHRoZSBrZXk="])
def test_wrong_credentials_are_one_sentence_and_final(key, cli, bucket, monkeypatch):
    if not bucket.startswith("abfss"):
        pytest.skip("Google's emulator takes any")
    waited = []
    monkeypatch.setattr(storage.time, "sleep", waited.append)
    monkeypatch.setenv("AZURE_STORAGE_KEY", key)
    storage._filesystem.cache_clear()
    said = run(cli, "score", f"{bucket}/xrays", "-o", "a.csv", code=2)
    storage._filesystem.cache_clear()
    assert "check its name, and the credentials in the environment" in said
    assert key not in said
    assert waited == []


def test_every_store_has_its_endpoint():
    assert set(storage.ENDPOINTS) == set(SCHEMES)
