"""SIGTERM and SIGHUP end a command as Ctrl-C does: it cleans up and says that it was stopped."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click


class Stopped(BaseException):
    """A signal asked the command to end. Not an Exception, so that nothing that handles errors handles it."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the body when SIGTERM or SIGHUP arrives, and then exit with 128 plus the signal's number.

    Under `nohup`, SIGHUP stays ignored. Only for the main thread.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except Stopped as stopped:
        number = signal.Signals(stopped.args[0])
        click.echo(f"stopped by {number.name}", err=True)
        click.get_current_context().exit(128 + number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
