"""Exporting a PyTorch module as a verified scoring graph: PyTorch's own exporter writes it for one crop."""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from packaging.version import Version
from torch import Tensor, nn

from cxr_trt.errors import BackendError, GraphError
from cxr_trt.export.builder import OPSET
from cxr_trt.export.card import read_card
from cxr_trt.export.export import Export
from cxr_trt.export.from_network import export_network
from cxr_trt.export.onnx_network import OnnxNetwork, to_network
from cxr_trt.export.session import first_line
from cxr_trt.hashing import hash_file
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.families import FamilyNetwork, Library, load_library_network, run_module
from cxr_trt.model.network import PooledMapsNetwork
from cxr_trt.model.settings import WeightsKind
from cxr_trt.spec import MapKind, Specification
from cxr_trt.views import ViewSet

MIN_EXPORTER = "2.7.0a0"  # the first PyTorch whose exporter takes the networks of torchvision and timm
CROPS, SCORES, MAPS = "crops", "scores", "class_maps"  # names in the exported file


def export_library_network(
    path: Path,
    library: Library,
    name: str,
    card_path: Path,
    *,
    view_set: ViewSet | None = None,
    images: Sequence[Path] = (),
) -> Export:
    """Make the scoring graph of a checkpoint of a library's network, and compare it with PyTorch.

    Args:
        path: the checkpoint.
        library: "timm" or "torchvision".
        name: the network's name there.
        card_path: the card, which says at least the findings; size and statistics come from the library otherwise.
        view_set: which views the graph cuts from each image; None means the card's.
        images: X-rays to compare on, in addition to the built-in pictures.

    Raises:
        CheckpointError, GraphError, UsageError: see `load_library_network` and `export_network`.
    """
    card = read_card(card_path)
    channels = card.values.get("channels", len(card.values["mean"]) if "mean" in card.values else None)
    network = load_library_network(path, library, name, len(card.findings), channels)
    return export_family_network(network, card.specification(**network.known), path, view_set, images)


def export_family_network(
    network: FamilyNetwork, spec: Specification, path: Path, view_set: ViewSet | None, images: Sequence[Path]
) -> Export:
    """Make the scoring graph around a module with weights, which were read from `path`."""
    exported = export_module(network.module, spec, str(path))

    def run(crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return run_module(network.module, torch.from_numpy(crops)).numpy()

    return export_network(
        exported.graph, exported.map_cells, "activation", run, spec, hash_file(path), str(path), view_set, images
    )


def xrv_resnet_spec(network: FamilyNetwork) -> Specification:
    """The specification of torchxrayvision's ResNet, of which no card is needed."""
    return Specification(**{"pooling": None, "maps": "none", **network.known})


def export_crop_network(
    network: CropNetwork,
    spec: Specification,
    weights: WeightsKind,
    sha256: str,
    path: Path,
    images: Sequence[Path],
) -> Export:
    """Make the scoring graph around a network of one of `cxr_trt.systems`, and compare it with PyTorch.

    Args:
        network: the network.
        spec: its specification, without class maps.
        weights: the kind of its weights.
        sha256: hash of the checkpoint.
        path: the checkpoint, for messages.
        images: X-rays to compare on.
    """
    exported = export_module(_OutputsAndMaps(network), spec, str(path), with_maps=True)

    def run(crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return run_module(network, torch.from_numpy(crops)).numpy()

    maps: MapKind = "pooled" if isinstance(network, PooledMapsNetwork) else "activation"
    return export_network(exported.graph, exported.map_cells, maps, run, spec, sha256, str(path), None, images, weights)


class _OutputsAndMaps(nn.Module):
    def __init__(self, network: CropNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        outputs, maps = self.network.outputs_and_maps(crops)
        assert maps is not None  # noqa: S101 - for the type checker
        return outputs, maps


def export_module(module: nn.Module, spec: Specification, name: str, *, with_maps: bool = False) -> OnnxNetwork:
    """Export a module for one view, with a free batch size.

    Args:
        module: takes crops [N, channels, h, w]; gives outputs [N, K], or outputs and maps if `with_maps`.
        spec: says the size of a crop.
        name: stands in messages.
        with_maps: whether the module gives class maps too.

    Raises:
        GraphError: PyTorch cannot export it.
        BackendError: what PyTorch exports with is missing.
    """
    if Version(torch.__version__) < Version(MIN_EXPORTER):
        raise BackendError(
            f"exporting this network needs PyTorch {Version(MIN_EXPORTER).base_version} or newer, but "
            f"{torch.__version__} is installed: export it on another machine, or run pip install --upgrade torch"
        )
    if importlib.util.find_spec("onnxscript") is None:
        raise BackendError("exporting this network needs onnxscript: pip install 'cxr-trt[export]'")
    example = torch.zeros(2, len(spec.mean), *spec.view_size)
    outputs = [SCORES, MAPS] if with_maps else [SCORES]
    try:
        model = _exported(module.eval(), example, outputs, ({0: torch.export.Dim.DYNAMIC},))
    except Exception:  # the exporter raises whatever its passes raise; the network may be written for one crop
        try:
            model = _exported(module, example[:1], outputs, None)
        except Exception as error:
            raise GraphError(f"{name}: PyTorch cannot export it to ONNX ({first_line(error)})") from error
    return to_network(model, name, len(spec.network_outputs), SCORES, MAPS if with_maps else None)


def _exported(
    module: nn.Module, crops: Tensor, outputs: list[str], shapes: tuple[dict[int, object]] | None
) -> onnx.ModelProto:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (crops,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=[CROPS],
            output_names=outputs,
            opset_version=OPSET - 1,  # what the exporter writes itself; it is raised afterwards
            verbose=False,
        )
    assert program is not None  # noqa: S101 - for the type checker
    model: onnx.ModelProto = program.model_proto
    return model
