"""An engine of a network that comes with the package, in the user's cache folder, for who names none."""

from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_path

from cxr_trt.commands.messages import say
from cxr_trt.commands.progress import PhaseProgress
from cxr_trt.commands.sources import DEFAULT_NETWORK, SHIPPED
from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.choice import choose_backend
from cxr_trt.engine.cpu.tuning import cpu_configs
from cxr_trt.errors import BundleError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.hashing import hash_file
from cxr_trt.outputs import locked
from cxr_trt.precision.plan import FLOAT32
from cxr_trt.score.engine import Engine


def demo_engine() -> Engine:
    """Open the engine of the demonstration network; build it first if there is none of these versions."""
    name = f"{DEFAULT_NETWORK}-{version('cxr-trt')}-{hash_file(SHIPPED[DEFAULT_NETWORK])[:12]}.cxr"
    bundle = user_cache_path("cxr-trt") / name
    say(
        "no engine is named: using the DEMONSTRATION network that comes with cxr-trt, whose scores say little about "
        "any X-ray; for results, name an engine of your own with --engine",
        "warning",
    )
    with locked(bundle.with_name(f".{name}.lock"), bundle):
        try:
            return Engine(bundle)
        except BundleError:
            _build(bundle)
    return Engine(bundle)


def _build(bundle: Path) -> None:
    say(f"building it once, into {bundle} (half a minute)")
    graph = ScoringGraph.load(SHIPPED[DEFAULT_NETWORK])
    backend = choose_backend("auto", FLOAT32, graph, say)
    say("trying what is fastest on this CPU (about 20 s)")
    with PhaseProgress() as progress:
        options = BuildOptions(backend.default_max_batch, progress)
        request = BuildRequest(graph, backend, FLOAT32, options, cpu_configs=tuple(cpu_configs(None)))
        build_bundle(request, bundle, overwrite=True)
