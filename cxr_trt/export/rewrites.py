"""Exact rewrites of the scoring graph: fewer operations, but the same results except for rounding.

Rewrites of weights are functions in this module; `cxr_trt.export.graph_building.build_graph` does those that change the
order of operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.model.settings import ModelSettings

NORM_EPSILON = 1e-5  # the same for every batch norm
CHUNK_LAYERS = 4  # dense layers whose features are joined at once
GROWTH = 32  # channels that a dense layer adds (DenseNet-121)
JOINED, NEW = "joined", "new"  # the two parts of a layer that chunk_concats splits
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
StateDict = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Rewrites:
    """Which rewrites a graph is built with.

    average_maps: the mean over a finding's maps and the 1x1 convolution before it become one convolution.
    fold_norms: a batch norm that follows a convolution becomes part of it.
    pool_first: a transition pools before it convolves, which takes a quarter of the multiplications.
    share_crops: the early layers run once for all crops (`cxr_trt.export.crop_sharing`); needs pool_first.
    affine_norms: the remaining batch norms become a product and a sum, because float16 cannot hold some variances.
    chunk_concats: a dense block joins its features only after every few layers, which copies less
        (`split_first_convs`); needs fold_norms.
    """

    average_maps: bool = True
    fold_norms: bool = True
    pool_first: bool = True
    share_crops: bool = True
    affine_norms: bool = False
    chunk_concats: bool = False

    def __post_init__(self) -> None:
        if self.chunk_concats and not self.fold_norms:
            raise ValueError("chunk_concats needs fold_norms, which finds the norms by the names of whole layers")
        if self.share_crops and not self.pool_first:
            raise ValueError("share_crops needs pool_first, because the early layers end after the pooling")


NO_REWRITES = Rewrites(average_maps=False, fold_norms=False, pool_first=False, share_crops=False)


def average_maps(weights: StateDict, settings: ModelSettings) -> tuple[StateDict, ModelSettings]:
    """Average the kernels of each finding's maps (sec. 3.3): exact, because convolution and mean are both linear."""
    maps = settings.maps_per_finding

    def mean(key: str) -> npt.NDArray[Any]:
        kernel = weights[key]
        averaged: npt.NDArray[Any] = kernel.reshape(-1, maps, *kernel.shape[1:]).mean(1, np.float64)
        return averaged.astype(kernel.dtype)

    keys = ("transfer.conv.weight", "transfer.conv.bias")
    return {**weights, **{key: mean(key) for key in keys}}, replace(settings, maps_per_finding=1)


def fold_norms(weights: StateDict) -> StateDict:
    """Fold each batch norm that follows a convolution into it: the stem's, and the second one of each dense layer."""
    folded = dict(weights)
    for norm in [key.removesuffix(".running_var") for key in weights if key.endswith(".running_var")]:
        conv = {"norm0": "conv0", "norm2": "conv1"}.get(norm.rpartition(".")[2])
        if conv is None:
            continue
        conv = f"{norm.rpartition('.')[0]}.{conv}"
        scale, shift = affine_norm(weights, norm)
        for part in NORM_PARTS:
            del folded[f"{norm}.{part}"]
        kernel = weights[f"{conv}.weight"]
        folded[f"{conv}.weight"] = (kernel * scale[:, None, None, None]).astype(kernel.dtype)
        folded[f"{conv}.bias"] = shift.astype(kernel.dtype)
    return folded


def affine_norm(weights: StateDict, norm: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale [C] and shift [C] of a batch norm."""
    weight, bias, mean, variance = (weights[f"{norm}.{part}"].astype(np.float64) for part in NORM_PARTS)
    scale = weight / np.sqrt(variance + NORM_EPSILON)
    return scale, bias - mean * scale


def split_first_convs(weights: StateDict) -> StateDict:
    """Split the first norm and convolution of a dense layer by their input: features that were joined, and newer ones.

    Norm and ReLU work on each channel alone, and conv(cat(a, b)) = conv(a) + conv(b). So the newer features, up to
    CHUNK_LAYERS - 1 of them, need not be joined with the others for a layer to read both.
    """
    split = dict(weights)
    for conv in [key for key in weights if key.endswith(".conv1.weight")]:
        layer = conv.removesuffix(".conv1.weight")
        new = GROWTH * ((int(layer.rpartition("denselayer")[2]) - 1) % CHUNK_LAYERS)
        if new == 0:
            continue
        for part, channels in ((JOINED, slice(None, -new)), (NEW, slice(-new, None))):
            split[f"{layer}.{part}.conv1.weight"] = np.ascontiguousarray(weights[conv][:, channels])
            for key in NORM_PARTS:
                split[f"{layer}.{part}.norm1.{key}"] = weights[f"{layer}.norm1.{key}"][channels]
        split[f"{layer}.{JOINED}.conv1.bias"] = weights[f"{layer}.conv1.bias"]
    return split
