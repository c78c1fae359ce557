"""What a command says on standard error, as text or as a JSON object per line, and in a log file."""

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

import click

from cxr_trt.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])
Level = Literal["detail", "info", "warning", "error"]
ProgressStyle = Literal["auto", "lines", "json", "none"]

META_KEY = "cxr_trt.messages"
COLOURS: dict[str, str] = {"warning": "yellow", "error": "red", "hint": "cyan"}


@dataclass
class Messages:
    """How a command was asked to speak.

    quiet: errors only. verbose: a line for each file too. progress: how it is shown. log: a file that gets everything.
    """

    quiet: bool = False
    verbose: bool = False
    progress: ProgressStyle = "auto"
    log: TextIO | None = None

    def say(self, text: str, level: Level = "info") -> None:
        if self.log:
            print(
                datetime.now().astimezone().isoformat(timespec="seconds"), f"{level}:", text, file=self.log, flush=True
            )
        if (self.quiet and level != "error") or (level == "detail" and not self.verbose):
            return
        if self.progress == "json":
            self.event("message", level=level, text=text)
        elif level in ("info", "detail"):
            click.echo(text, err=True)
        elif level == "error" and wants_colour() and "; " in text:
            what, _, remedy = text.rpartition("; ")
            _echo_labelled("error", what)
            _echo_labelled("hint", remedy)
        else:
            _echo_labelled(level, text)

    def event(self, kind: str, **values: Any) -> None:
        """Print an event as a line of JSON."""
        click.echo(json.dumps({"event": kind, **values}, ensure_ascii=False), err=True)


def wants_colour() -> bool:
    """Whether standard error is a terminal, and nobody asked for no colours (no-color.org)."""
    return sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def _echo_labelled(label: str, text: str) -> None:
    styled = click.style(f"{label}:", fg=COLOURS[label], bold=True) if wants_colour() else f"{label}:"
    click.echo(f"{styled} {text}", err=True)


def current() -> Messages:
    """How the command that runs was asked to speak."""
    context = click.get_current_context(silent=True)
    messages: Messages = context.meta.setdefault(META_KEY, Messages()) if context else Messages()
    return messages


def say(text: str, level: Level = "info") -> None:
    """Tell the user."""
    current().say(text, level)


def message_options(command: Command) -> Command:
    """Add --quiet, --verbose, --log and --progress."""
    for option in (
        click.option(
            "--progress",
            type=click.Choice(["auto", "lines", "json", "none"]),
            default="auto",
            show_default=True,
            expose_value=False,
            callback=_set_progress,
            help="How to show progress. auto: a bar on a terminal, else lines; json: all messages as a JSON object per "
            "line.",
        ),
        click.option(
            "--log",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_set_log,
            help="Append all messages, with their time, to this file.",
        ),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_set_verbose,
            help="Say a line for each file, and what the backend logs.",
        ),
        click.option(
            "-q", "--quiet", is_flag=True, expose_value=False, callback=_set_quiet, help="Say nothing but errors."
        ),
    ):
        command = option(command)
    return command


def _set_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    current().quiet = value


def _set_verbose(context: click.Context, _: click.Parameter, value: bool) -> None:
    current().verbose = value
    if value:
        logger, handler = logging.getLogger("cxr_trt"), _LogHandler(current())
        level = logger.level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
        context.call_on_close(lambda: logger.removeHandler(handler))
        context.call_on_close(lambda: logger.setLevel(level))


class _LogHandler(logging.Handler):
    """Says what modules log, such as TensorRT's own messages."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.say(f"{record.name}: {record.getMessage()}", "detail")


def _set_progress(context: click.Context, _: click.Parameter, value: ProgressStyle) -> None:
    current().progress = value


def _set_log(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        log = path.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another --log") from error
    current().log = log
    context.find_root().call_on_close(log.close)
