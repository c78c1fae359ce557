"""What a terminal shows, in a real one (a pseudo-terminal)."""

import os
import pty
import subprocess
import sys

import pytest


@pytest.fixture
def on_terminal(tmp_path):
    """Runs a command whose standard output is a terminal of 100 columns; returns what it shows there."""

    def run(*arguments):
        main, other = pty.openpty()
        environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
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
