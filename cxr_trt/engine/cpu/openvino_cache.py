"""What OpenVINO has compiled, kept for the next start: reading it takes a third of the time of compiling."""

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cxr_trt.engine.user_cache import cache_folder, read_cached, write_cached
from cxr_trt.hashing import hash_fields

if TYPE_CHECKING:
    import openvino

MAX_FILES = 8  # the least recently used ones go; each is as large as its engine
HASH_BYTES = hashlib.sha256().digest_size


def compiled_once(
    core: "openvino.Core", properties: Mapping[str, Any], identity: Mapping[str, Any], compile_model: Callable[[], Any]
) -> "openvino.CompiledModel":
    """A compiled model from the user's cache folder, or a new one, which is then kept there.

    Args:
        core: the process's Core.
        properties: what `compile_model` compiles with.
        identity: plain values that identify the model; versions and the processor are added here.
        compile_model: compiles it.
    """
    import openvino

    key = hash_fields(
        {
            **identity,
            "properties": dict(properties),
            "openvino": openvino.get_version(),
            "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
            "capabilities": list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
            "limit": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        }
    )
    path = cache_folder() / f"openvino-{key[:32]}.blob"
    content = read_cached(path)
    digest, blob = content[:HASH_BYTES], content[HASH_BYTES:]
    if digest == hashlib.sha256(blob).digest():
        with suppress(RuntimeError):  # OpenVINO may refuse it for a reason that the key does not hold
            compiled = core.import_model(blob, "CPU", dict(properties))
            with suppress(OSError):
                path.touch()
            return compiled
    compiled = compile_model()
    exported = io.BytesIO()
    compiled.export_model(exported)
    blob = exported.getvalue()
    with suppress(OSError):  # the next start then compiles again
        write_cached(path, hashlib.sha256(blob).digest() + blob)
        _remove_old()
    return compiled


def _remove_old() -> None:
    files = sorted(cache_folder().glob("openvino-*.blob"), key=lambda path: path.stat().st_mtime)
    for path in files[:-MAX_FILES]:
        path.unlink(missing_ok=True)
