"""Exporting a network that comes as it is, with a specification: the scoring graph around it, verified."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from cxr_trt.errors import GraphError, UsageError
from cxr_trt.export.card import read_card
from cxr_trt.export.export import Export
from cxr_trt.export.network_graph import NetworkGraph
from cxr_trt.export.network_reference import (
    RunNetwork,
    problem_with_outputs,
    reference_outputs,
    reference_probabilities,
)
from cxr_trt.export.onnx_network import load_onnx_network
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.hashing import hash_file
from cxr_trt.images.load import load_images
from cxr_trt.model.settings import WeightsKind
from cxr_trt.spec import MapKind, Specification
from cxr_trt.views import Size, ViewSet

MAX_DIFFERENCE = 1e-5  # of a probability
MAX_ROUNDING = 2.0**-22  # times the largest output: two last places of float32, a part of which reaches a probability
MAX_ROUNDED_DIFFERENCE = 1e-3  # of networks that round their input, so that its last bit can become a larger step


def export_onnx(path: Path, card_path: Path, *, view_set: ViewSet | None = None, images: Sequence[Path] = ()) -> Export:
    """Make the scoring graph around the network of an ONNX file, and compare it with that file.

    Args:
        path: the ONNX file.
        card_path: the network's card, see `cxr_trt.export.card`.
        view_set: which views the graph cuts from each image; None means the card's.
        images: X-rays to compare on, in addition to the built-in pictures.

    Raises:
        GraphError: file or card cannot be used, do not fit each other, or the graph does not agree with the file.
        UsageError: one of the images cannot be read.
    """
    card = read_card(card_path)
    network = load_onnx_network(path, len(card.findings), card.scores)
    spec = card.specification()
    if len(spec.mean) != network.ends.channels:
        raise GraphError(
            f"{card_path}: has {len(spec.mean)} channels, but the network of {path} has {network.ends.channels}"
        )
    if spec.view_size != network.ends.size:
        name = "image_size" if spec.views == "whole" else "crop_size"
        raise GraphError(
            f"{card_path}: {name} is {spec.view_size}, but the network of {path} takes {network.ends.size}"
        )
    sha256 = hashlib.sha256((hash_file(path) + hash_file(card_path)).encode()).hexdigest()
    return export_network(
        network.graph, network.map_cells, "activation", network.run, spec, sha256, str(path), view_set, images
    )


def export_network(
    network: NetworkGraph,
    map_cells: Size | None,
    maps: MapKind,
    run: RunNetwork,
    spec: Specification,
    sha256: str,
    name: str,
    view_set: ViewSet | None,
    images: Sequence[Path],
    weights: WeightsKind = "trained",
) -> Export:
    """Make the scoring graph around a network, and compare it with the network as `run` computes it.

    Args:
        network: the network.
        map_cells: size of its class maps; None if it has none.
        maps: what its class maps are.
        run: the network as it came, the reference.
        spec: its specification, still without class maps.
        sha256: hash of what it came from.
        name: stands in messages.
        view_set: which views the graph cuts; None means those of `spec`.
        images: X-rays to compare on.
        weights: the kind of its weights.
    """
    spec = replace(spec, views=view_set or spec.views)
    if spec.repeats_itself:
        raise GraphError(f"{name}: scores whole images, so all crops would be equal; leave out --views")
    if map_cells is not None:
        try:
            spec = replace(spec, maps=maps, map_cells=map_cells)
        except GraphError:  # maps of overlapping crops that do not lie on one grid
            network = replace(network, has_maps=False)
    graph = ScoringGraph.around(network, GraphInfo.of_this_version(spec, weights, sha256))
    onnx.checker.check_model(graph.model)
    pictures = check_pictures(spec.image_size)
    if images and spec.planes > 1:
        raise UsageError(f"{name}: sees {spec.planes} X-rays of a study at once; leave out --images")
    if images:
        pictures = np.concatenate([pictures, load_images(images, spec.image_size, spec.fit)])
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = largest = 0.0
    for picture in pictures:
        outputs = reference_outputs(run, spec, picture[0])
        if problem := problem_with_outputs(outputs, spec):
            raise GraphError(f"{name}: {problem}")
        largest = max(largest, float(np.abs(outputs).max()))
        (found,) = session.run(["probabilities"], {"images": picture[None]})
        worst = np.maximum(worst, np.abs(found[0] - reference_probabilities(outputs, spec)).max())
    rounds = network.is_float16 or network.is_quantized
    allowed = MAX_ROUNDED_DIFFERENCE if rounds else max(MAX_DIFFERENCE, MAX_ROUNDING * largest)
    if not worst <= allowed:  # NaN fails too
        raise GraphError(
            f"nothing was written: the scoring graph's probabilities differ from those of {name} by {worst:.1e} "
            f"(allowed: {allowed:.0e}); please report this bug"
        )
    return Export(graph, len(pictures), float(worst))
