"""The engine that `cxr-trt score` uses: the one that is named, the only one at hand, or the demonstration network's."""

from pathlib import Path

from cxr_trt.errors import UsageError
from cxr_trt.score.engine import Engine


def chosen_bundle(named: Path | None) -> Path | None:
    """The bundle that is named, or the only one in the current folder."""
    bundles = [named] if named else sorted(Path().glob("*.cxr"))
    if len(bundles) > 1:
        raise UsageError(f"which engine? There are {len(bundles)} .cxr folders here; name one with --engine")
    return bundles[0] if bundles else None


def open_engine(named: Path | None) -> Engine:
    """The engine of `chosen_bundle`, or that of the demonstration network."""
    if bundle := chosen_bundle(named):
        return Engine(bundle)
    from cxr_trt.commands.demo import demo_engine  # what it takes to build an engine is slow to import

    return demo_engine()
