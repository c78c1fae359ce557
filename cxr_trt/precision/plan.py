"""The precision plan: how an engine's graph is made from the scoring graph."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import onnx

from cxr_trt.errors import BundleError
from cxr_trt.export.crops_in_turn import score_crops_in_turn
from cxr_trt.export.grey_stem import read_grey
from cxr_trt.export.pool_first import pool_before_convolutions
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.precision import PRECISIONS, Precision
from cxr_trt.precision.float16 import to_float16
from cxr_trt.precision.int8 import quantize
from cxr_trt.precision.int8_calibration import Int8Calibration, unit_of
from cxr_trt.precision.int8_features import keep_features_in_int8

PRECISION_FILE = "precision.json"  # in every bundle that is not float32
MANY_VIEWS = 10  # from which on int8 features were measured to be faster: ten crops; with two dense views they were not


class GraphForm(Protocol):
    """What a backend wants of the graph that it builds an engine from; `cxr_trt.engine.backend.Backend` is one.

    share_crops, chunk_concats: see `cxr_trt.export.rewrites.Rewrites`.
    rewrite_networks: whether other projects' networks are rewritten (`cxr_trt.export.grey_stem`,
        `cxr_trt.export.pool_first`).
    crops_in_turn: whether the network sees the crops one after the other (`cxr_trt.export.crops_in_turn`).
    sets_float16: whether float16 is a setting of the backend, so that the graph stays float32.
    int8_features: whether the features that dense blocks join are kept in int8 (`cxr_trt.precision.int8_features`) if
        there are MANY_VIEWS or more, and the calibration measured them.
    on_cpu: whether activations of int8 layers that are never negative have no sign, and what is not int8 stays float32.
        On a GPU it is float16.
    """

    @property
    def share_crops(self) -> bool: ...
    @property
    def chunk_concats(self) -> bool: ...
    @property
    def rewrite_networks(self) -> bool: ...
    @property
    def crops_in_turn(self) -> bool: ...
    @property
    def int8_features(self) -> bool: ...
    @property
    def sets_float16(self) -> bool: ...
    @property
    def on_cpu(self) -> bool: ...


@dataclass(frozen=True)
class PrecisionPlan:
    """How to make an engine's graph from the scoring graph.

    float32: layers that stay float32 in a float16 graph, because their activations would not fit into float16.
    headroom: for each layer, the largest float16 number divided by the largest activation that was seen.
    calibration: only for int8.
    """

    precision: Precision = "fp32"
    float32: tuple[str, ...] = ()
    headroom: Mapping[str, float] = field(default_factory=dict)
    calibration: Int8Calibration | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "PrecisionPlan":
        """The inverse of `to_json`. Raises BundleError for anything else."""
        try:
            fields: dict[str, Any] = json.loads(text)
            calibration = fields.pop("calibration")
            plan = cls(**fields, calibration=calibration and Int8Calibration.from_mapping(calibration))
            if plan.precision not in PRECISIONS or (plan.precision == "int8") != (plan.calibration is not None):
                raise ValueError("unknown precision, or a calibration is missing or not wanted")
            return replace(plan, float32=tuple(map(str, plan.float32)))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(f"its {PRECISION_FILE} is damaged or from another version of cxr-trt") from error

    def check_weights(self, graph: ScoringGraph) -> None:
        """Raise BundleError if the plan was calibrated for other weights than the scoring graph's."""
        if self.calibration and self.calibration.weights_sha256 != graph.weights_sha256:
            raise BundleError("its calibration was made for other weights")

    def summary(self) -> dict[str, Any]:
        """What the manifest says about the plan: plain JSON values."""
        least = min(self.headroom, key=self.headroom.__getitem__, default=None)
        summary: dict[str, Any] = {
            "float32_layers": list(self.float32),
            "least_headroom": least and {"layer": least, "times": round(self.headroom[least], 1)},
        }
        if calibration := self.calibration:
            units = {unit_of(layer) for layer in calibration.thresholds}
            floating = sorted({*calibration.sensitivity} - units)
            summary["int8"] = {**calibration.origin(), "floating_point_layers": floating}
        return summary

    def has_int8_features(self, graph: ScoringGraph, form: GraphForm) -> bool:
        """Whether the graph for a backend keeps the features of dense blocks in int8."""
        is_measured = self.calibration is not None and bool(self.calibration.features)
        return is_measured and form.int8_features and len(graph.spec.view_list()) >= MANY_VIEWS

    def engine_graph(self, graph: ScoringGraph, form: GraphForm, *, share_crops: bool | None = None) -> onnx.ModelProto:
        """The graph that a backend builds an engine from.

        Args:
            graph: the scoring graph that this plan was made for.
            form: what the backend wants. In int8, features are not joined in chunks.
            share_crops: in place of the backend's own wish, if given.
        """
        typed = (self.precision == "fp16" and not form.sets_float16) or (self.precision == "int8" and not form.on_cpu)
        rewrites = Rewrites(
            share_crops=form.share_crops if share_crops is None else share_crops,
            affine_norms=typed,
            chunk_concats=form.chunk_concats and self.calibration is None,
        )
        model = graph.rewritten(rewrites)
        if self.calibration:
            model = quantize(model, self.calibration.thresholds, unsigned=form.on_cpu)
            if self.has_int8_features(graph, form):
                model = keep_features_in_int8(model, self.calibration.features)
        if form.rewrite_networks:
            model = read_grey(model)
            model = model if self.calibration else pool_before_convolutions(model)
        if form.crops_in_turn and not typed and len(graph.spec.view_list()) > 1:
            model = score_crops_in_turn(model)
        return to_float16(model, self.float32) if typed else model


FLOAT32 = PrecisionPlan()
