"""The engine that `cxr-trt score` uses: the one that is named, the only one at hand, or the demonstration network's."""

from collections.abc import Sequence
from pathlib import Path

import click

from cxr_trt.commands.options import PATH
from cxr_trt.errors import UsageError
from cxr_trt.score.engine import Engine

engine_option = click.option(
    "-e",
    "--engine",
    "bundles",
    type=PATH,
    multiple=True,
    envvar="CXR_TRT_ENGINE",
    show_envvar=True,
    help="The engine bundle. Default: the only .cxr folder in the current folder, or the demonstration network. With "
    "--ray several times: each node takes the first that it can open.",
)


def chosen_bundles(named: Sequence[Path]) -> tuple[Path, ...]:
    """The bundles that are named, or the only one in the current folder. Raises UsageError if there are several."""
    here = sorted(Path().glob("*.cxr"))
    if not named and len(here) > 1:
        raise UsageError(f"which engine? There are {len(here)} .cxr folders here; name one with --engine")
    return tuple(named or here)


def open_engine(named: Sequence[Path]) -> Engine:
    """The engine of `chosen_bundles`, or that of the demonstration network.

    Raises:
        UsageError: several are named.
        BundleError, BackendError: see `cxr_trt.score.engine.Engine`.
    """
    bundles = chosen_bundles(named)
    if len(bundles) > 1:
        raise UsageError("several engines are for the nodes of a Ray cluster; name one, or add --ray")
    if bundles:
        return Engine(bundles[0])
    from cxr_trt.commands.demo import demo_engine  # what it takes to build an engine is slow to import

    return demo_engine()
