"""The specification: everything besides the weights that decides which scores an image gets."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from cxr_trt.errors import GraphError
from cxr_trt.findings import FINDINGS, why_not_findings
from cxr_trt.images.preprocess import PREPROCESSING, Fit
from cxr_trt.views import NETWORK_STRIDE, VIEW_SETS, View, ViewSet, Window, views, windows

MAX_SPEC_VALUE = 4096  # pixels per side; also larger than any other number in a specification
CROP_MARGIN_STEP = 16  # pixels; image and crop size differ by a multiple of it, so that merged class maps stay small


@dataclass(frozen=True)
class Specification:
    """Preprocessing, views, pooling and outputs of a scoring graph. Equal hashes mean that images are treated equally.

    `mean` and `std` are per input channel, for grey values scaled to 0..1; the grey image is repeated to that many
    channels. The defaults are the paper's (sec. 4.2): ImageNet statistics, 448-pixel crops of a 512-pixel image.

    `fit` says how the image becomes square (`cxr_trt.images.preprocess`). `operating_points` is empty, or one
    probability per finding, which becomes 0.5: probabilities below and above it are scaled linearly, as in
    torchxrayvision.

    Raises:
        GraphError: the crops do not lie on the grid of class maps.
    """

    views: ViewSet = "ten-crop"
    findings: tuple[str, ...] = FINDINGS
    image_size: int = 512
    crop_size: int = 448
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    k_max: int = 1
    k_min: int = 1
    alpha: float = 0.7
    fit: Fit = "stretch"
    operating_points: tuple[float, ...] = ()
    preprocessing: str = PREPROCESSING

    def __post_init__(self) -> None:
        margin = self.image_size - self.crop_size
        if (
            self.crop_size < NETWORK_STRIDE
            or margin < 0
            or self.crop_size % NETWORK_STRIDE
            or margin % CROP_MARGIN_STEP
        ):
            raise GraphError(
                f"crops of {self.crop_size} from {self.image_size} pixels cannot be scored: the crop size must be a "
                f"multiple of {NETWORK_STRIDE}, and equal to the image size or smaller by a multiple of "
                f"{CROP_MARGIN_STEP}"
            )
        if self.views == "dense" and margin % (2 * NETWORK_STRIDE):
            raise GraphError(
                f"crops of {self.crop_size} from {self.image_size} pixels have no dense views: the crop must be "
                f"smaller than the image by a multiple of {2 * NETWORK_STRIDE} pixels; choose other --views"
            )

    def view_list(self) -> tuple[View, ...]:
        return views(self.views, self.image_size, self.crop_size)

    @property
    def view_size(self) -> int:
        """Side of a view in pixels."""
        return self.image_size if self.views == "dense" else self.crop_size

    @property
    def windows(self) -> tuple[Window, ...]:
        """The parts of a view's class maps that are pooled, each to one score per finding."""
        return windows(self.views, self.image_size, self.crop_size)

    @property
    def repeats_itself(self) -> bool:
        """Whether several views would show the same pixels, because a crop is the whole image."""
        return self.crop_size == self.image_size and self.views not in ("center", "center-mirror")

    @property
    def class_map_region(self) -> tuple[int, int]:
        """The square of the resized image that the output `class_maps` covers: (offset, side) in pixels."""
        all_views = self.view_list()
        start = min(view.y for view in all_views)
        return start, max(view.y for view in all_views) + self.view_size - start

    @property
    def class_map_cell(self) -> int:
        """Pixels per cell of the output `class_maps`: the coarsest grid on which the cells of all views lie."""
        start, _ = self.class_map_region
        return math.gcd(NETWORK_STRIDE, *(view.y - start for view in self.view_list()))

    def to_json(self) -> str:
        """Canonical JSON: the text that is hashed and written into every graph and bundle."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Specification":
        """The inverse of `to_json`, from parsed JSON. Raises GraphError for what this version does not support."""
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(values):
            differing = ", ".join(sorted(names ^ set(values)))
            raise GraphError(f"its specification comes from another version of cxr-trt (fields {differing})")
        if values["views"] not in VIEW_SETS:
            raise GraphError(f"its views {values['views']!r} are unknown to this version of cxr-trt")
        if values["preprocessing"] != PREPROCESSING:
            raise GraphError("its preprocessing comes from another version of cxr-trt")
        if reason := why_not_findings(values["findings"]):
            raise GraphError(f"its specification cannot be used: {reason}")
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        spec = cls(**fields)
        if not spec.is_reasonable():
            raise GraphError("its specification holds sizes or statistics that no network of this project has")
        return spec

    def is_reasonable(self) -> bool:
        """Whether every field has its type and a size that is safe to allocate: a file can say anything."""
        integers = (self.image_size, self.crop_size, self.k_max, self.k_min)
        numbers = (self.alpha, *self.mean, *self.std, *self.operating_points)
        return (
            all(type(value) is int for value in integers)
            and all(type(value) in (int, float) and abs(value) < MAX_SPEC_VALUE for value in numbers)
            and 0 < self.crop_size <= self.image_size <= MAX_SPEC_VALUE
            and min(self.k_max, self.k_min) >= 0
            and max(self.k_max, self.k_min) <= MAX_SPEC_VALUE
            and len(self.mean) == len(self.std)
            and len(self.std) in (1, 3)
            and self.fit in get_args(Fit)
            and len(self.operating_points) in (0, len(self.findings))
            and all(0 < point < 1 for point in self.operating_points)
        )
