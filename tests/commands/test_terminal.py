"""What a terminal shows, in a real one (a pseudo-terminal)."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest


@pytest.fixture
def on_terminal(tmp_path):
    """Runs a command whose standard output is a terminal of so many columns; returns what it shows there."""

    def run(*arguments, columns=100):
        main, other = pty.openpty()
        environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
        process = subprocess.Popen(
            [sys.executable, "-m", "cxr_trt", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=other,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=tmp_path,
        )
        os.close(other)
        shown = b""
        while True:
            try:
                chunk = os.read(main, 4096)
            except OSError:  # Linux's end of a terminal whose program has ended
                break
            if not chunk:
                break
            shown += chunk
        os.close(main)
        errors = process.stderr.read().decode()
        process.stderr.close()
        assert process.wait() == 0, errors
        return shown.decode()

    return run


@pytest.fixture
def tables(tmp_path):
    scores = "path,Mass,Hernia\n" + "".join(f"{i}.png,{i / 20},{(i * 7 % 20) / 20}\n" for i in range(20))
    labels = "image,patient_id,Mass,Hernia\n" + "".join(f"{i}.png,{i},{i % 2},{i % 3 == 0:d}\n" for i in range(20))
    (tmp_path / "scores.csv").write_text(scores)
    (tmp_path / "labels.csv").write_text(labels)
    return tmp_path


def test_a_terminal_shows_a_drawn_table_and_a_pipe_gets_markdown(on_terminal, tables, cli):
    arguments = ("evaluate", tables / "scores.csv", tables / "labels.csv", "--resamples", 10)
    shown = on_terminal(*arguments)
    assert "Mass" in shown
    assert "| Mass" not in shown
    assert "━" in shown or "─" in shown
    piped = cli(*arguments)
    assert piped.exit_code == 0, piped.output
    assert "| Mass |" in piped.stdout


def test_quiet_leaves_the_table_alone(tables, cli):
    arguments = ("evaluate", tables / "scores.csv", tables / "labels.csv", "--resamples", 10)
    loud, quiet = cli(*arguments), cli(*arguments, "--quiet")
    assert loud.stderr
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


@pytest.mark.parametrize(("columns", "shown"), [(80, 2), (120, 3), (40, 1)])
def test_a_table_of_scores_fits_and_cuts_no_name(on_terminal, cheap_bundle, radiographs, tmp_path, columns, shown):
    """Names of files and findings stay whole; notes stand below the table, those of all X-rays once."""
    for name in ("00001170_046.dcm", "00001170_047.dcm"):
        shutil.copy(radiographs / "RG3_UNCR.dcm", tmp_path / name)
    names = [tmp_path / "00001170_046.dcm", tmp_path / "00001170_047.dcm"]
    text = on_terminal("score", *names, "-e", cheap_bundle, columns=columns)
    lines = re.sub(r"\x1b\[[0-9;]*m|\r", "", text).splitlines()
    assert max(map(len, lines)) <= columns
    (row,) = (line for line in lines if line.lstrip().startswith("00001170_046.dcm  "))
    assert re.findall(r"\d\.\d{3} (\S+)", row) == ["Hernia", "Pleural_Thickening", "Fibrosis"][:shown]
    assert "00001170_046.dcm: Body Part Examined EXTREMITY" in " ".join(" ".join(lines).split())
    assert text.count("Research use only") == 1
    assert "│" not in text


def test_settings_of_an_engine_are_no_json(cli, cheap_bundle):
    text = cli("inspect", cheap_bundle).stdout
    assert "max batch " in text
    assert not set('{}"[]') & set(text)


def test_ctrl_c_leaves_the_bar_before_the_message(cheap_bundle, tmp_path):
    """The sentence begins a line of its own, and the bar is not drawn again after it."""
    (tmp_path / "xrays").mkdir()
    picture = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8))[1].tobytes()
    for i in range(400):
        (tmp_path / "xrays" / f"{i:03}.png").write_bytes(picture)
    main, other = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "cxr_trt",
        "score",
        tmp_path / "xrays",
        "-e",
        cheap_bundle,
        "-o",
        tmp_path / "s.csv",
    ]
    process = subprocess.Popen(
        command,
        stderr=other,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs are deaf to it
    )
    os.close(other)
    shown, is_stopped = b"", False
    while True:
        try:
            shown += os.read(main, 4096)
        except OSError:
            break
        if b" files/s" in shown and not is_stopped:
            process.send_signal(signal.SIGINT)
            is_stopped = True
    os.close(main)
    assert process.wait() == 130
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r\n", "\n")
    assert re.search(r"\nthe rows of \d+ files? are kept in ", text)
    assert "files/s" not in text.split("the rows of")[1]
