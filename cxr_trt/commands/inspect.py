"""The command `cxr-trt inspect`: shows what an engine bundle is."""

from pathlib import Path
from typing import Any

import click

from cxr_trt.calibrate.calibration import read_calibration
from cxr_trt.commands.options import PATH
from cxr_trt.commands.terminal import show_facts
from cxr_trt.engine.gpu.tensorrt import TensorRTBackend
from cxr_trt.engine.manifest import Manifest, read_manifest
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.spec import Specification
from cxr_trt.words import quantity


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@click.option(
    "--layers",
    is_flag=True,
    help="Print the layers of a TensorRT engine with types and tactics, as JSON; needs its GPU.",
)
def inspect(bundle: Path, as_json: bool, layers: bool) -> None:
    """Show what BUNDLE is, and check every file of it against its hash."""
    manifest = read_manifest(bundle)
    calibration = read_calibration(bundle, manifest.fingerprint, manifest.graph.spec.findings)
    if as_json:
        click.echo(manifest.to_json(), nl=False)
        return
    if layers:
        click.echo(_layers(bundle, manifest))
        return
    spec = manifest.graph.spec
    views = f"{len(spec.view_list())} of {spec.view_size} pixels from {spec.image_size}"
    windows = f", {len(spec.windows)} windows of {spec.crop_size} in each" if len(spec.windows) > 1 else ""
    show_facts(
        {
            "bundle": f"{bundle} (all {len(manifest.files)} files unchanged)",
            "fingerprint": manifest.fingerprint,
            "weights": f"{manifest.graph.weights}, checkpoint {manifest.graph.checkpoint_sha256[:16]}",
            "backend": f"{manifest.backend} {manifest.backend_version}, {manifest.precision}",
            "settings": _in_words(manifest.settings),
            "views": f"{spec.views}: {views}{windows}",
            "class maps": _class_maps(spec),
            "outputs": _outputs(spec),
            "preprocessing": spec.to_mapping()["preprocessing"],
            "calibration": calibration.summary() if calibration else "none",
        }
    )


def _layers(bundle: Path, manifest: Manifest) -> str:
    backend = BACKENDS.get(manifest.backend)
    if not isinstance(backend, TensorRTBackend):
        raise UsageError(f"--layers shows engines of TensorRT, and {bundle} is for {manifest.backend}")
    if reason := backend.why_not_run() or backend.why_not_open(manifest.settings):
        raise BackendError(f"{bundle}: {reason}")
    return backend.layers(bundle, manifest.settings)


def _in_words(value: Any) -> str:
    """Settings of an engine, which may hold further settings, in one line."""
    if isinstance(value, dict):
        parts = (f"{name.replace('_', ' ')} {_in_words(one)}" for name, one in value.items() if one not in (None, []))
        return ", ".join(parts)
    if isinstance(value, list):
        return " ".join(map(_in_words, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _class_maps(spec: Specification) -> str:
    if spec.pooling:
        pooling = spec.pooling
        return f"pooled with k_max {pooling.k_max}, k_min {pooling.k_min}, alpha {pooling.alpha}"
    if spec.maps == "none":
        return "none: the network has none"
    kind = "activation maps of the last linear layer" if spec.maps == "activation" else "pooled by the network"
    return f"{kind}, {spec.class_map_cells} cells"


def _outputs(spec: Specification) -> str:
    reported = "" if spec.findings == spec.network_outputs else f" of {len(spec.network_outputs)} outputs"
    return f"{quantity(len(spec.findings), 'finding')}{reported}, {spec.output}: {', '.join(spec.findings)}"
