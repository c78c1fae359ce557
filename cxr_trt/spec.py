"""The specification: everything that decides which number comes out for an image, besides the weights."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from cxr_trt.errors import GraphError
from cxr_trt.findings import FINDINGS
from cxr_trt.images.preprocess import PREPROCESSING, Fit
from cxr_trt.views import NETWORK_STRIDE, VIEW_SETS, View, ViewSet, Window, views, windows

MAX_SPEC_VALUE = 4096  # pixels per side, and more than any other number of a specification
CROP_MARGIN_STEP = 16  # pixels; image and crop differ by a multiple of it, so that merged class maps stay small


@dataclass(frozen=True)
class Specification:
    """Preprocessing, views, pooling and outputs of a scoring graph. Two equal hashes mean the same treatment.

    `mean` and `std` are per input channel, for grey values scaled to 0..1; the grey image is repeated to that many
    channels. The defaults are the paper's (sec. 4.2): ImageNet statistics, 448-pixel crops of a 512-pixel image.

    `fit` makes the image square (`cxr_trt.images.preprocess`). `operating_points`, one probability per finding or none,
    become 0.5: probabilities below and above them are scaled linearly, as torchxrayvision does.

    Raises GraphError for sizes whose crops do not lie on the grid of class maps.
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
                f"crops of {self.crop_size} from {self.image_size} pixels cannot be scored: the crop must be a "
                f"multiple of {NETWORK_STRIDE}, and smaller than the image by none or a multiple of {CROP_MARGIN_STEP}"
            )
        if self.views == "dense" and margin % (2 * NETWORK_STRIDE):
            raise GraphError(
                f"crops of {self.crop_size} from {self.image_size} pixels have no dense views: the crop must be "
                f"smaller than the image by a multiple of {2 * NETWORK_STRIDE}; choose other --views"
            )

    def view_list(self) -> tuple[View, ...]:
        return views(self.views, self.image_size, self.crop_size)

    @property
    def view_size(self) -> int:
        """Side in pixels of a view."""
        return self.image_size if self.views == "dense" else self.crop_size

    @property
    def windows(self) -> tuple[Window, ...]:
        """The parts of a view's class maps that are pooled, each to a score a finding."""
        return windows(self.views, self.image_size, self.crop_size)

    @property
    def repeats_itself(self) -> bool:
        """Whether several crops would be the same pixels, as a crop is the whole image."""
        return self.crop_size == self.image_size and self.views not in ("center", "center-mirror")

    @property
    def class_map_region(self) -> tuple[int, int]:
        """(offset, side) in pixels of the resized image: the square that the output `class_maps` covers."""
        all_views = self.view_list()
        start = min(view.y for view in all_views)
        return start, max(view.y for view in all_views) + self.view_size - start

    @property
    def class_map_cell(self) -> int:
        """Pixels to one cell of the output `class_maps`: the largest grid that all views' cells lie on."""
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
        """The inverse of `to_json`, after parsing. Raises GraphError for what this version does not do."""
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(values):
            odd = ", ".join(sorted(names ^ set(values)))
            raise GraphError(f"its specification is of another version of cxr-trt (fields {odd})")
        if values["views"] not in VIEW_SETS:
            raise GraphError(f"its views {values['views']!r} are unknown to this version of cxr-trt")
        if values["preprocessing"] != PREPROCESSING or tuple(values["findings"]) != FINDINGS:
            raise GraphError("its preprocessing or findings are those of another version of cxr-trt")
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        spec = cls(**fields)
        if not spec.is_reasonable():
            raise GraphError("its specification holds sizes or statistics that no network of this project has")
        return spec

    def is_reasonable(self) -> bool:
        """Whether every field has its type and is of a size that may be allocated; a file can say anything."""
        whole = (self.image_size, self.crop_size, self.k_max, self.k_min)
        real = (self.alpha, *self.mean, *self.std, *self.operating_points)
        return (
            all(type(value) is int for value in whole)
            and all(type(value) in (int, float) and abs(value) < MAX_SPEC_VALUE for value in real)
            and 0 < self.crop_size <= self.image_size <= MAX_SPEC_VALUE
            and min(self.k_max, self.k_min) >= 0
            and max(self.k_max, self.k_min) <= MAX_SPEC_VALUE
            and len(self.mean) == len(self.std)
            and len(self.std) in (1, 3)
            and self.fit in get_args(Fit)
            and len(self.operating_points) in (0, len(self.findings))
            and all(0 < point < 1 for point in self.operating_points)
        )
