"""An engine bundle on its way to other machines, which keep it in a cache folder."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_cache_path

from cxr_trt.calibrate.calibration import CALIBRATION_FILE
from cxr_trt.engine.manifest import MANIFEST_FILE, Manifest, read_manifest
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError, BundleError, CxrTrtError, UsageError
from cxr_trt.score.engine import Engine
from cxr_trt.spec import Specification

BundleFiles = Mapping[str, bytes]


class NodeBundle(NamedTuple):
    """An engine for the nodes that can open it.

    name: what the user calls it. fingerprint: of the engine. spec: of its scoring graph. on_gpu: whether it needs a
    GPU. files: of the bundle.
    """

    name: str
    fingerprint: str
    spec: Specification
    on_gpu: bool
    files: BundleFiles


def read_bundle(bundle: Path) -> BundleFiles:
    """The files of a bundle by their names. Raises UsageError if one cannot be read."""
    try:
        return {path.name: path.read_bytes() for path in sorted(bundle.iterdir())}
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error


def node_bundles(paths: Sequence[Path], manifests: Sequence[Manifest]) -> list[NodeBundle]:
    """Read bundles, of which each node will take one.

    Raises:
        UsageError: one cannot be read, or they are not engines of one network that see X-rays alike.
    """
    models = {(manifest.graph.checkpoint_sha256, manifest.graph.spec.sha256) for manifest in manifests}
    if len(models) > 1:
        raise UsageError(
            f"{' and '.join(map(str, paths))}: engines of different networks, or with other views; "
            "build all of them from one scoring graph, or score with each into a folder of its own"
        )
    return [
        NodeBundle(str(path), manifest.fingerprint, manifest.graph.spec, _is_for_gpus(manifest), read_bundle(path))
        for path, manifest in zip(paths, manifests, strict=True)
    ]


def _is_for_gpus(manifest: Manifest) -> bool:
    return manifest.backend in BACKENDS and not BACKENDS[manifest.backend].on_cpu


def bundle_key(files: BundleFiles) -> str:
    """Names a bundle by its content: the manifest, which has the hashes of the engine's files, and the calibration."""
    digest = hashlib.sha256(files[MANIFEST_FILE] + files.get(CALIBRATION_FILE, b""))
    return digest.hexdigest()[:32]


def open_cached(key: str, name: str, fetch: Callable[[], BundleFiles]) -> Engine:
    """Open the bundle of this key from the cache folder of this machine; if it is not there or damaged, fetch it.

    Several processes may do so at once: a bundle appears whole.

    Args:
        key: from `bundle_key`.
        name: what errors call the bundle.
        fetch: gets the files from where they are.

    Raises:
        BundleError, BackendError: the engine cannot be opened here.
        UsageError: the cache folder cannot be written.
    """
    folder = Path(os.environ.get("CXR_TRT_CACHE") or user_cache_path("cxr-trt")) / "bundles"
    bundle = folder / f"{key}.cxr"
    with _called(bundle, name):
        if bundle.exists():
            try:
                return Engine(bundle)
            except BundleError:
                if _is_whole(bundle, key):
                    raise
                shutil.rmtree(bundle, ignore_errors=True)
        _fetch(folder, bundle, fetch)
        return Engine(bundle)


@contextmanager
def _called(bundle: Path, name: str) -> Iterator[None]:
    """Put the name of a bundle in place of its path, which no user knows."""
    try:
        yield
    except (BundleError, BackendError) as error:
        raise type(error)(str(error).replace(str(bundle), name)) from error


def _is_whole(bundle: Path, key: str) -> bool:
    try:
        read_manifest(bundle)
        return bundle_key(read_bundle(bundle)) == key
    except CxrTrtError:
        return False


def _fetch(folder: Path, bundle: Path, fetch: Callable[[], BundleFiles]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            partial = Path(name, bundle.name)
            partial.mkdir()
            for file, content in fetch().items():
                (partial / file).write_bytes(content)
            try:
                partial.rename(bundle)
            except OSError:
                if not bundle.exists():  # else another process was faster
                    raise
    except OSError as error:
        raise UsageError(
            f"{folder}: the engine cannot be kept there ({error.strerror}); set CXR_TRT_CACHE to another folder"
        ) from error
