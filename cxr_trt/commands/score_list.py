"""`cxr-trt score LIST`: scores the shards of a list, or a part of them, into a folder of parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cxr_trt.cluster.actors import ActorOptions
from cxr_trt.cluster.bundles import node_bundles
from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.parts import facts_of_parts, part_path
from cxr_trt.cluster.scoring import ScoredShard, score_shards
from cxr_trt.commands.chosen_engine import chosen_bundles, open_engine
from cxr_trt.commands.list_options import ListOptions, Part
from cxr_trt.commands.messages import say
from cxr_trt.commands.options import finish
from cxr_trt.commands.progress import FileProgress
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.model.settings import CAUTIONS
from cxr_trt.outputs import check_folder
from cxr_trt.storage import Location, Url, check_writable
from cxr_trt.words import quantity

WHOLE = Part(1, 1)


def score_list(
    folder: Location,
    bundles: Sequence[Path],
    output: Location | None,
    options: ListOptions,
    workers: int | None,
    *,
    overwrite: bool,
) -> None:
    """Score the shards of a part of a list that have no rows yet, and finish as `cxr-trt score` does."""
    part = options.part or WHOLE
    if options.address:
        _score_on_ray(folder, bundles, output, part, workers, options, overwrite=overwrite)
        return
    with open_engine(bundles) as engine:
        plan = _plan(folder, output, part, [engine.fingerprint], overwrite=overwrite)
        say(f"scoring {plan}: {engine.manifest.describe()}, {engine.fingerprint}")
        for warning in engine.warnings:
            say(warning, "warning")
        with FileProgress(plan.total) as progress:
            for result in score_shards(engine, plan.files, plan.shards, plan.output, workers):
                if result.row.error:
                    say(f"{result.row.path}: {result.row.error}", "error")
                progress.advance(error=result.row.error is not None, skipped=result.skipped is not None)
    _finish(plan, progress)


def _score_on_ray(
    folder: Location,
    named: Sequence[Path],
    output: Location | None,
    part: Part,
    workers: int | None,
    options: ListOptions,
    *,
    overwrite: bool,
) -> None:
    """The same on the nodes of a Ray cluster."""
    try:
        from cxr_trt.cluster.ray_runner import score_shards_on_ray
    except ModuleNotFoundError as error:
        raise BackendError("--ray needs Ray; pip install 'cxr-trt[ray]'") from error
    paths = chosen_bundles(named)
    if not paths:
        raise UsageError("--ray: which engine? Name one with --engine")
    manifests = [read_manifest(path) for path in paths]
    bundles = node_bundles(paths, manifests)
    if options.gpus and not any(bundle.on_gpu for bundle in bundles):
        raise UsageError(f"--gpus: {paths[0]} is an engine for CPUs; leave the option out, or name another engine")
    plan = _plan(folder, output, part, [bundle.fingerprint for bundle in bundles], overwrite=overwrite)
    say(f"scoring {plan}: " + "; or ".join(f"{one.describe()}, {one.fingerprint}" for one in manifests))
    for warning in CAUTIONS[manifests[0].graph.weights]:
        say(warning, "warning")
    actors = ActorOptions(options.actors, options.cpus, options.gpus or 1.0, workers, options.decoders)
    with FileProgress(plan.total) as progress:
        if plan.shards:
            for shard in score_shards_on_ray(
                str(options.address), bundles, plan.files, plan.shards, plan.output, actors, say
            ):
                _advance(progress, shard)
    if left := set(plan.shards) - facts_of_parts(plan.output, plan.files, plan.shards).keys():
        raise BackendError(f"{len(left)} shards have no part; run the same command again")
    _finish(plan, progress)


def _advance(progress: FileProgress, shard: ScoredShard) -> None:
    for path, error in shard.errors:
        say(f"{path}: {error}", "error")
        progress.advance(error=True)
    for _ in range(shard.skipped):
        progress.advance(error=False, skipped=True)
    for _ in range(shard.files - shard.skipped - len(shard.errors)):
        progress.advance(error=False)


class _Plan(NamedTuple):
    """What is to be done: `shards` of the `wanted` ones of a list, with `total` files, to parts in `output`."""

    files: FileList
    output: Location
    wanted: int
    shards: list[int]
    total: int

    def __str__(self) -> str:
        return f"{quantity(self.total, 'file')} in {len(self.shards)} of {quantity(self.wanted, 'shard')}"


def _plan(folder: Location, output: Location | None, part: Part, engines: Sequence[str], *, overwrite: bool) -> _Plan:
    files = FileList.open(_absolute(folder))
    if output is None or output.suffix:
        raise UsageError("the rows of a list are written in parts: name a folder for them with -o")
    output = _absolute(output)
    if isinstance(output, Url):
        check_writable(output)
    else:
        check_folder(output)
    wanted = part.shards(files.shards.count)
    if overwrite:
        for shard in wanted:
            part_path(output, shard).unlink(missing_ok=True)
    done = facts_of_parts(output, files, wanted, engines)
    shards = [shard for shard in wanted if shard not in done]
    return _Plan(files, output, len(wanted), shards, sum(map(files.shards.size, shards)))


def _absolute(location: Location) -> Location:
    """The same place for a process that was started in another folder."""
    return location if isinstance(location, Url) else location.absolute()


def _finish(plan: _Plan, progress: FileProgress) -> None:
    say(f"scored {progress.scored} of {quantity(plan.total, 'file')}; parts: {plan.output}")
    finish(0 if not progress.errors else 2 if not progress.scored else 1)
