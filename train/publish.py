"""Make a shipped model from the checkpoint of its training: float16 weights, ten crops, class maps.

python -m train.publish last.safetensors cxr_trt/models/demo.onnx
"""

import tempfile
from pathlib import Path

import click
import onnx
import torch

from cxr_trt.export.from_checkpoint import export_checkpoint
from cxr_trt.export.storage import pack
from cxr_trt.model.checkpoint import load_checkpoint, save_checkpoint
from cxr_trt.model.weights_file import read_weights

path_option = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", type=path_option)
@click.argument("model", type=path_option)
def main(checkpoint: Path, model: Path) -> None:
    """Round the weights of CHECKPOINT to float16, export it and write MODEL."""
    loaded, setting = load_checkpoint(checkpoint), read_weights(checkpoint)[0].get("setting", "")
    with torch.no_grad():
        for weights in loaded.network.parameters():
            weights.copy_(weights.half())
    with tempfile.TemporaryDirectory() as folder:
        rounded = Path(folder, "rounded.safetensors")
        sizes = loaded.spec.image_size.height, loaded.spec.crop_size.height
        save_checkpoint(loaded.network, rounded, weights="demonstration", setting=setting, sizes=sizes)
        exported = export_checkpoint(rounded, view_set="ten-crop")
    onnx.save(pack(exported.graph.model), model)
    click.echo(f"{model}: {model.stat().st_size / 1e6:.1f} MB, agrees with PyTorch to {exported.difference:.1e}")


if __name__ == "__main__":
    main(prog_name="python -m train.publish")
