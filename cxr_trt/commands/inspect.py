"""The command `cxr-trt inspect`: shows what an engine bundle is."""

import json
from pathlib import Path

import click

from cxr_trt.calibrate.calibration import read_calibration
from cxr_trt.commands.options import PATH
from cxr_trt.commands.terminal import show_facts
from cxr_trt.engine.manifest import read_manifest


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE is, and check every file of it against its hash."""
    manifest = read_manifest(bundle)
    calibration = read_calibration(bundle, manifest.fingerprint, manifest.graph.spec.findings)
    if as_json:
        click.echo(manifest.to_json(), nl=False)
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
            "settings": json.dumps(manifest.settings),
            "findings": ", ".join(spec.findings),
            "views": f"{spec.views}: {views}{windows}",
            "pooling": f"k_max {spec.k_max}, k_min {spec.k_min}, alpha {spec.alpha}",
            "preprocessing": spec.preprocessing,
            "calibration": calibration.summary() if calibration else "none",
        }
    )
