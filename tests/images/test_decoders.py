"""Decoding behind a wall: real crashes, hangs and memory, each of one row."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless
from seeds import content, radiograph

from cxr_trt.errors import BackendError
from cxr_trt.images import decoders as decoders_module
from cxr_trt.images.decoder_process import WORKER_CODE
from cxr_trt.images.decoders import Decoders, Limits, Request, Spares
from cxr_trt.images.files import find_files

LIMITS = Limits(seconds=30)


def picture(seed, side=64):
    return cv2.imencode(".png", np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8))[1].tobytes()


def children():
    """Process ids of our own children that are decoders."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"cxr_trt.images.worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def answers(folder, limits=LIMITS, workers=2):
    requests = [Request(source) for source in find_files(folder).sources]
    with Decoders(workers, 64, limits) as decoders:
        return {request.source.name: answer for request, answer in decoders.map(requests, 3)}


def test_processes_are_started_as_needed_and_all_end(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    requests = [Request(source) for source in find_files(tmp_path).sources]
    with Decoders(3, 64, LIMITS) as decoders:
        for request, answer in decoders.map(requests, 6):
            expected = cv2.imdecode(np.frombuffer(request.source.path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
            np.testing.assert_array_equal(answer.image, expected)
            assert 1 <= len(children()) <= 3
    assert children() == []


def test_processes_that_were_started_ahead_are_used_and_all_end(tmp_path):
    (tmp_path / "a.dcm").write_bytes(content(radiograph(np.arange(4096).reshape(64, 64))))
    requests = [Request(source) for source in find_files(tmp_path).sources]
    with Spares(2, 2, LIMITS, dicom=True) as spares:
        started = children()
        assert len(started) == 2
        with Decoders(2, 64, LIMITS, spares=spares) as decoders:
            ((_, answer),) = decoders.map(requests, 1)
            assert answer.image is not None
            assert sorted(children()) == sorted(started)
        assert len(children()) == 1
    assert children() == []


@pytest.mark.parametrize(("workers", "processors", "threads"), [(1, 4, 4), (2, 4, 2), (3, 4, 0), (9, 4, 0), (1, 64, 8)])
def test_idle_processors_decode_jpeg_2000_in_further_threads(monkeypatch, tmp_path, workers, processors, threads):
    monkeypatch.setattr(decoders_module, "processors", lambda: processors)
    (tmp_path / "a.png").write_bytes(picture(0))
    with Decoders(workers, 64, LIMITS) as decoders:
        for _ in decoders.map([Request(source) for source in find_files(tmp_path).sources], 1):
            (child,) = children()
            assert f"OPJ_NUM_THREADS={threads}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")


THREADS_WHILE_DECODING = """
import os, sys, threading
import imagecodecs, numpy as np
noise = np.random.default_rng(0).integers(0, 65536, (1500, 1500)).astype(np.uint16)
stream = imagecodecs.jpeg2k_encode(noise, codecformat="J2K")
before = most = len(os.listdir("/proc/self/task"))
decoding = threading.Thread(target=imagecodecs.jpeg2k_decode, args=(stream,))
decoding.start()
while decoding.is_alive():
    most = max(most, len(os.listdir("/proc/self/task")))
print(most - before - 1)
"""


@pytest.mark.parametrize(("asked", "further"), [("0", 0), ("3", 3)])
def test_openjpeg_of_imagecodecs_takes_as_many_threads(asked, further):
    environment = {**os.environ, "OPJ_NUM_THREADS": asked}
    done = subprocess.run(
        [sys.executable, "-c", THREADS_WHILE_DECODING], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(further)], done.stderr


PYDICOM_LATER = """
import json, sys
from pathlib import Path
from cxr_trt.images.worker import answer
for name in sys.argv[1:]:
    assert "error" not in answer(Path(name), None, 64)[0]
    print("pydicom" in sys.modules)
"""


def test_only_a_dicom_file_waits_for_pydicom(tmp_path):
    """It takes most of the time that a decoder's start takes."""
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.eye(64, dtype=np.uint8))[1].tobytes())
    (tmp_path / "b.dcm").write_bytes(content(radiograph(np.arange(4096).reshape(64, 64))))
    command = [sys.executable, "-c", PYDICOM_LATER, tmp_path / "a.png", tmp_path / "b.dcm"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.parametrize(("longest", "shape"), [(0, None), (50, (33, 50)), (120, (80, 120)), (1 << 16, (80, 120))])
def test_the_picture_keeps_its_shape_and_is_never_enlarged(tmp_path, longest, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    with Decoders(1, 64, LIMITS, picture=longest) as decoders:
        ((_, answer),) = decoders.map([Request(source) for source in find_files(tmp_path).sources], 1)
    assert answer.image.shape == (64, 64)
    if shape is None:
        assert answer.picture is None
    else:
        assert answer.picture.shape == shape
        same = cv2.resize(pixels.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(answer.picture, np.rint(same))


def test_a_file_that_takes_too_much_memory_costs_one_row(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "b.png").write_bytes(cv2.imencode(".png", np.zeros((9000, 9000), np.uint8))[1].tobytes())
    (tmp_path / "c.png").write_bytes(picture(1))
    found = answers(tmp_path, Limits(memory=200 << 20, seconds=30))
    assert "memory" in found["b.png"].error
    assert found["a.png"].image is not None
    assert found["c.png"].image is not None


def slow_dicom(side):
    """Noise in JPEG 2000, which takes its decoder the longest."""
    made = radiograph(np.random.default_rng(0).integers(0, 1 << 16, (side, side)), 16)
    made.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
    return content(made)


def test_a_file_that_takes_too_long_costs_one_row(tmp_path, monkeypatch):
    monkeypatch.setattr(decoders_module, "processors", lambda: 1)  # one thread
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "b.dcm").write_bytes(slow_dicom(3500))
    (tmp_path / "c.png").write_bytes(picture(1))
    found = answers(tmp_path, Limits(seconds=1), workers=1)
    assert found["b.dcm"].error == "reading takes longer than 1 s; copy or export the file again"
    assert found["a.png"].image is not None
    assert found["c.png"].image is not None


def test_the_time_for_a_file_ends_with_it(tmp_path):
    """A decoder that waits for the next file is not ended, or that file would be blamed."""
    (tmp_path / "a.png").write_bytes(picture(0))
    requests = [Request(source) for source in find_files(tmp_path).sources]
    with Decoders(1, 64, Limits(seconds=1)) as decoders:
        list(decoders.map(requests, 1))
        before = children()
        time.sleep(1.3)
        ((_, answer),) = decoders.map(requests, 1)
        assert answer.error is None
        assert children() == before


def test_a_decoder_writes_no_files_says_nothing_and_does_not_hear_ctrl_c(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    with Decoders(1, 64, LIMITS) as decoders:
        list(decoders.map([Request(source) for source in find_files(tmp_path).sources], 1))
        (pid,) = children()
        limits = Path(f"/proc/{pid}/limits").read_text()
        for limit in ("Max file size", "Max core file size"):
            assert re.search(rf"^{limit} +0 +0 ", limits, re.M)
        assert {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (1, 2)} == {os.devnull}
        assert os.getsid(pid) == pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_decoder_that_is_killed_is_replaced_and_the_file_tried_again(tmp_path, number):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(picture(i, 1500))
    requests = [Request(source) for source in find_files(tmp_path).sources]
    killed = 0
    with Decoders(2, 64, LIMITS) as decoders:
        for i, (_, answer) in enumerate(decoders.map(requests, 4)):
            assert answer.error is None
            assert answer.image is not None
            if i == 2:
                for child in children():
                    os.kill(child, number)
                    killed += 1
        assert len(decoders._all) <= 2  # those that died are forgotten
    assert killed
    assert children() == []


CRASH = """
import ctypes, cxr_trt.images.worker as worker
def decode(data, decode=worker.decode):
    return ctypes.string_at(0) if data == b"crash" else decode(data)
worker.decode = decode
"""


def test_a_file_that_always_crashes_its_decoder_costs_one_row(tmp_path, monkeypatch):
    """No file is known that does: a read of address 0 is planted for one content."""
    (tmp_path / "a.png").write_bytes(picture(0))
    (tmp_path / "b.png").write_bytes(b"crash")
    (tmp_path / "c.png").write_bytes(picture(1))
    first, rest = WORKER_CODE.split("; from", 1)
    monkeypatch.setattr("cxr_trt.images.decoder_process.WORKER_CODE", f"{first}\n{CRASH}\nfrom{rest}")
    found = answers(tmp_path)
    assert found["b.png"].error == "the decoder failed (SIGSEGV); export the image again"
    assert found["a.png"].image is not None
    assert found["c.png"].image is not None


AFTER_DECODING = """
import ctypes, os, select, time, cxr_trt.images.worker as worker
def preprocess(pixels, *sizes, preprocess=worker.preprocess):
    if pixels.shape == (3, 5):
        assert select.select([0], [], [], 20)[0], "the next request does not come before the answer"
        {act}
    return preprocess(pixels, *sizes)
worker.preprocess = preprocess
"""


def plant_after_decoding(monkeypatch, act):
    """Have processes do something between decoding and answering, for pictures of 3 x 5 pixels, once more is asked."""
    first, rest = WORKER_CODE.split("; from", 1)
    monkeypatch.setattr(
        "cxr_trt.images.decoder_process.WORKER_CODE", f"{first}\n{AFTER_DECODING.format(act=act)}\nfrom{rest}"
    )


@pytest.fixture
def special_files(tmp_path):
    """A file of 3 x 5 pixels, and three others."""
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((3, 5), np.uint8))[1].tobytes())
    for name in "bcd":
        (tmp_path / f"{name}.png").write_bytes(picture(1))
    return tmp_path


def test_a_decoder_is_asked_for_the_next_file_before_it_answers(special_files, monkeypatch):
    plant_after_decoding(monkeypatch, "pass")
    assert [answer.error for answer in answers(special_files, workers=1).values()] == [None] * 4


@pytest.mark.parametrize(
    ("act", "seconds", "error"),
    [
        ("ctypes.string_at(0)", 30, "the decoder failed (SIGSEGV); export the image again"),
        ("os._exit(3)", 30, "the decoder failed (exit code 3); export the image again"),
        ("time.sleep(30)", 2, "reading takes longer than 2 s; copy or export the file again"),
    ],
)
def test_a_file_is_not_blamed_for_the_one_that_its_decoder_died_of_before(
    special_files, monkeypatch, act, seconds, error
):
    plant_after_decoding(monkeypatch, act)
    found = answers(special_files, Limits(seconds=seconds), workers=1)
    assert found["a.png"].error == error
    for name in ("b.png", "c.png", "d.png"):
        np.testing.assert_array_equal(
            found[name].image, cv2.imdecode(np.frombuffer(picture(1), np.uint8), cv2.IMREAD_GRAYSCALE)
        )
    assert children() == []


@pytest.mark.parametrize(
    "reply",
    [
        '{}, b""',
        '{"error": "a"}, bytes(64 * 64)',
        '{"size": 3}, b""',
        '{}, b"short"',
        '[], b""',
        '{"identity": ["a"]}, bytes(64 * 64)',
        '{"error": "a" * 100_000}, b""',
    ],
)
def test_an_answer_that_makes_no_sense_is_a_failure(tmp_path, monkeypatch, reply):
    """As from a decoder that a file has taken over."""
    (tmp_path / "a.png").write_bytes(picture(0))
    first, rest = WORKER_CODE.split("; from", 1)
    planted = f"import cxr_trt.images.worker as worker; worker.answer = lambda *_: ({reply})"
    planted = planted.replace("{", "{{").replace("}", "}}")  # WORKER_CODE is a format
    monkeypatch.setattr("cxr_trt.images.decoder_process.WORKER_CODE", f"{first}\n{planted}\nfrom{rest}")
    assert answers(tmp_path)["a.png"].error.startswith("the decoder failed")


def test_the_same_content_is_not_decoded_again(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    (source,) = find_files(tmp_path).sources
    with Decoders(1, 64, LIMITS) as decoders:
        ((_, first),) = decoders.map([Request(source)], 1)
        ((_, second),) = decoders.map([Request(source, first.sha256)], 1)
    assert second.sha256 == first.sha256
    assert second.image is None
    assert second.error is None


def test_a_decoder_that_cannot_start_is_no_fault_of_the_file(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(picture(0))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BackendError, match="no decoding process can be started"):
        answers(tmp_path)


def test_what_lies_in_the_current_folder_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "xrays").mkdir()
    (tmp_path / "xrays" / "a.png").write_bytes(picture(0))
    for name in ("numpy", "cv2", "json", "pydicom", "struct"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert answers(tmp_path / "xrays")["a.png"].image is not None
    assert not (tmp_path / "ran").exists()


def test_closing_does_not_wait_for_what_is_being_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((8000, 8000), np.uint8))[1].tobytes())
    requests = [Request(source) for source in find_files(tmp_path).sources] * 4
    decoders = Decoders(2, 64, LIMITS)
    results = decoders.map(requests, 4)
    next(results)
    decoders.close()
    assert children() == []


def test_closing_bears_with_threads_that_it_does_not_know(tmp_path):
    """As after Ctrl-C while a thread is being started: it runs, but its pool does not wait for it."""
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((8000, 8000), np.uint8))[1].tobytes())
    requests = [Request(source) for source in find_files(tmp_path).sources] * 8
    for _ in range(5):
        decoders = Decoders(4, 64, LIMITS)
        results = decoders.map(requests, 8)
        next(results)
        decoders._threads._threads.clear()
        decoders.close()
        assert children() == []


def test_a_decoder_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(0))
    code = f"""
import os, subprocess
from cxr_trt.images.decoders import Decoders, Limits, Request
from cxr_trt.images.files import find_files
with Decoders(1, 64, Limits()) as decoders:
    list(decoders.map([Request(s) for s in find_files({str(tmp_path)!r}).sources], 1))
    print([p._process.pid for p in decoders._all][0], flush=True)
    os.kill(os.getpid(), 9)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid = int(process.stdout)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
