"""An engine bundle on its way to other machines, which keep it in a cache folder."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from platformdirs import user_cache_path

from cxr_trt.calibrate.calibration import CALIBRATION_FILE
from cxr_trt.engine.manifest import MANIFEST_FILE
from cxr_trt.errors import BundleError, UsageError
from cxr_trt.score.engine import Engine

BundleFiles = Mapping[str, bytes]


def read_bundle(bundle: Path) -> BundleFiles:
    """The files of a bundle by their names. Raises UsageError if one cannot be read."""
    try:
        return {path.name: path.read_bytes() for path in sorted(bundle.iterdir())}
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error


def bundle_key(files: BundleFiles) -> str:
    """Names a bundle by its content: the manifest, which has the hashes of the engine's files, and the calibration."""
    digest = hashlib.sha256(files[MANIFEST_FILE] + files.get(CALIBRATION_FILE, b""))
    return digest.hexdigest()[:32]


def open_cached(key: str, fetch: Callable[[], BundleFiles]) -> Engine:
    """Open the bundle of this name from the cache folder of this machine; if it is not there or damaged, fetch it.

    Several processes may do so at once: a bundle appears whole.

    Args:
        key: from `bundle_key`.
        fetch: gets the files from where they are.

    Raises:
        BundleError, BackendError: the engine cannot be opened here.
        UsageError: the cache folder cannot be written.
    """
    folder = Path(os.environ.get("CXR_TRT_CACHE") or user_cache_path("cxr-trt")) / "bundles"
    bundle = folder / f"{key}.cxr"
    if bundle.exists():
        try:
            return Engine(bundle)
        except BundleError:
            shutil.rmtree(bundle, ignore_errors=True)
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
    return Engine(bundle)
