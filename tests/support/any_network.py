"""Networks of other architectures with random weights, as their projects would hand them over: needs PyTorch."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

FINDINGS = ("Atelectasis", "Effusion", "Lung Lesion", "Röntgen/Rand", "No Finding")
CARD = 'findings = ["Atelectasis", "Effusion", "Lung Lesion", "Röntgen/Rand", "No Finding"]\n'


def statistics(channels: int = 3) -> str:
    """The lines of a card for so many channels."""
    return f"mean = {[0.5] * channels}\nstd = {[0.25] * channels}\n"


def timm_network(name: str, outputs: int = len(FINDINGS), **options: Any) -> Any:
    """One of timm's networks, for 64 pixels where it can be, in which every layer matters."""
    import timm
    import torch

    torch.manual_seed(3)
    network = timm.create_model(name, num_classes=outputs, **options)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if key.endswith(("running_var", "running_mean")):
                value.uniform_(0.5, 1.5) if key.endswith("var") else value.uniform_(-0.1, 0.1)
    return network.eval()


def write_onnx(network: Any, path: Path, shape: tuple[int, int, int], *, batch: int | None = None) -> Path:
    """Let PyTorch's exporter write a network for crops of this shape, with a free batch size or a fixed one."""
    import torch

    crops = torch.zeros(batch or 2, *shape)
    shapes = None if batch else ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (crops,),
            path,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["picture"],
            output_names=["answer"],
            external_data=False,
            verbose=False,
        )
    return path
