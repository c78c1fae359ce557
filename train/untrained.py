"""Make the untrained model that `make demo` scores with until a trained one is shipped.

    python -m train.untrained cxr_trt/models/demo.onnx

Every weight of a convolution or gate is plus or minus He's standard deviation, the sign drawn from a fixed seed, so
the 28 MB file packs to about one. Batch statistics come from the built-in pictures, so that no layer saturates.
"""

import sys
import tempfile
from pathlib import Path

import onnx
import torch
from torch import nn

from cxr_trt.export.export import export_checkpoint
from cxr_trt.export.pictures import check_pictures
from cxr_trt.model.checkpoint import save_checkpoint
from cxr_trt.model.network import Network
from cxr_trt.model.settings import SETTINGS

SEED = 0


def untrained_network() -> Network:
    """The paper's network with seeded random weights."""
    generator = torch.Generator().manual_seed(SEED)
    network = Network(SETTINGS["paper"])
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            signs = torch.randint(0, 2, module.weight.shape, generator=generator) * 2 - 1
            module.weight.data = signs * (2 / module.weight[0].numel()) ** 0.5
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # averages over all batches
    network.load_state_dict({**network.state_dict(), "transfer.conv.bias": torch.zeros(168)})
    pictures = torch.from_numpy(check_pictures(448)).float().expand(-1, 3, -1, -1)
    with torch.inference_mode():
        network.train()((pictures - 120) / 60)
    return network.eval()


def main(output: Path) -> None:
    """Write the ten-crop scoring graph of the untrained network."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "untrained.safetensors")
        save_checkpoint(untrained_network(), checkpoint, trained=False)
        exported = export_checkpoint(checkpoint, setting=None, view_set="ten-crop", class_maps=True)
    onnx.save(exported.model, output)
    print(f"{output}: agrees with PyTorch to {exported.difference:.1e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
