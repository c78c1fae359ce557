"""Make a shipped model from the checkpoint of its training: float16 weights, ten crops, class maps.

python -m train.publish best.safetensors cxr_trt/models/edge.onnx
"""

import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
import torch
from onnx import numpy_helper

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
    graph = exported.graph.model
    _round(graph)
    onnx.save(pack(graph), model)
    click.echo(f"{model}: {model.stat().st_size / 1e6:.1f} MB, agreed with PyTorch to {exported.difference:.1e}")


def _round(model: onnx.ModelProto) -> None:
    """Round float32 matrices and kernels to float16 again: those that the export has folded batch norms into."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


if __name__ == "__main__":
    main(prog_name="python -m train.publish")
