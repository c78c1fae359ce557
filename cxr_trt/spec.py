"""The specification: everything besides the weights that decides which scores an image gets."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from cxr_trt.errors import GraphError
from cxr_trt.findings import FINDINGS, why_not_findings
from cxr_trt.images.preprocess import Fit
from cxr_trt.spec_versions import from_mapping, to_mapping
from cxr_trt.views import NETWORK_STRIDE, Size, View, ViewSet, Window, views, windows

MAX_SPEC_VALUE = 4096  # pixels per side; also larger than the other whole numbers in a specification
MAX_PIXEL_VALUE = 1 << 17  # of `pixel_range`, mean and std: more than 16 bits can say
MAX_CHANNELS = 16
MAX_PLANES = 2
CROP_MARGIN_STEP = 16  # pixels; image and crop size differ by a multiple of it, so that merged class maps stay small
MIN_CELL = 8  # pixels per cell of merged class maps, for the same reason

Output = Literal["logits", "probabilities", "softmax", "softmax-logits"]
"""What a network gives for each of its outputs: a logit; a probability; or for exclusive classes, of which one is true,
probabilities that sum to 1, or logits whose softmax they are."""

MapKind = Literal["pooled", "activation", "none"]
"""What the class maps are: maps that the network pools to its scores; activation maps of a linear layer on pooled
features (Zhou et al. 2016), which show where a finding is; or none, because the network has none."""


class Pooling(NamedTuple):
    """Max-min pooling of class maps (paper, eq. 4)."""

    k_max: int = 1
    k_min: int = 1
    alpha: float = 0.7


PAPER_IMAGE_SIZE, PAPER_CROP_SIZE, PAPER_POOLING = Size.square(512), Size.square(448), Pooling()  # sec. 4.2


class Area(NamedTuple):
    """A part of the resized image: upper left corner, height and width in pixels."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class Specification:
    """Preprocessing, views, pooling and outputs of a scoring graph. Equal hashes mean that images are treated equally.

    The defaults are the paper's network's (sec. 4.2): ImageNet statistics, 448-pixel crops of a 512-pixel image.

    findings: what is scored; the names of the columns.
    outputs: the network's outputs in its own order, if they are not the findings.
    output: what the network gives for each output.
    image_size, crop_size: sizes of the resized image and of the crops that the network sees.
    fit: how the X-ray is brought to the image's aspect ratio (`cxr_trt.images.preprocess`).
    pixel_range: what black and white become before `mean` is subtracted, and the result divided by `std`; both are per
        input channel, and the grey image is repeated to that many channels.
    pooling: of the paper's network, whose class maps the scoring graph pools; None for a network that gives scores.
    maps: what the class maps are. map_cells: their size for a view; None for the paper's network, where it follows from
        the size of the view, and where there are none.
    operating_points: empty, or one probability per finding, which becomes 0.5: probabilities below and above it are
        scaled linearly, as in torchxrayvision.
    planes: how many X-rays of a study the network sees at once. They are stacked from top to bottom into one image,
        whose size is `image_size`.

    Raises:
        GraphError: sizes or maps that do not fit together.
    """

    views: ViewSet = "ten-crop"
    findings: tuple[str, ...] = FINDINGS
    outputs: tuple[str, ...] = ()
    output: Output = "logits"
    image_size: Size = PAPER_IMAGE_SIZE
    crop_size: Size = PAPER_CROP_SIZE
    fit: Fit = "stretch"
    pixel_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    pooling: Pooling | None = PAPER_POOLING
    maps: MapKind = "pooled"
    map_cells: Size | None = None
    operating_points: tuple[float, ...] = ()
    planes: int = 1

    def __post_init__(self) -> None:
        if min(self.crop_size) < 1 or min(self.margin) < 0:
            raise GraphError(f"crops of {self.crop_size} pixels do not fit into an image of {self.image_size}")
        if self.views == "whole" and self.crop_size != self.image_size:
            raise GraphError(
                f"crops of {self.crop_size} from {self.image_size} pixels are not the whole image; choose other --views"
            )
        if self.image_size.height % self.planes or (self.planes > 1 and self.views != "whole"):
            raise GraphError(
                f"{self.planes} X-rays are stacked to a whole image of equal parts, not to {self.image_size}"
            )
        if self.pooling is not None:
            self._check_grid()
        elif self.views == "dense":
            raise GraphError("dense views are only possible where class maps are pooled by this project's own pooling")
        elif (self.maps == "none") != (self.map_cells is None):
            raise GraphError("class maps need a size, and no size can be given where there are none")
        elif self.map_cells is not None and not self._maps_can_be_merged():
            raise GraphError("the class maps of these views do not lie on one grid")

    def _check_grid(self) -> None:
        sides = zip(self.crop_size, self.margin, strict=True)
        if any(crop < NETWORK_STRIDE or crop % NETWORK_STRIDE or margin % CROP_MARGIN_STEP for crop, margin in sides):
            raise GraphError(
                f"crops of {self.crop_size} from {self.image_size} pixels cannot be scored: the crop size must be a "
                f"multiple of {NETWORK_STRIDE}, and equal to the image size or smaller by a multiple of "
                f"{CROP_MARGIN_STEP}"
            )
        if self.views == "dense" and any(margin % (2 * NETWORK_STRIDE) for margin in self.margin):
            raise GraphError(
                f"crops of {self.crop_size} from {self.image_size} pixels have no dense views: the crop must be "
                f"smaller than the image by a multiple of {2 * NETWORK_STRIDE} pixels; choose other --views"
            )
        if self.maps != "pooled" or self.map_cells is not None:
            raise GraphError("this project's own pooling is for class maps that it pools, of its own size")

    @property
    def plane_size(self) -> Size:
        """Size of each X-ray in the image."""
        return Size(self.image_size.height // self.planes, self.image_size.width)

    @property
    def margin(self) -> Size:
        """By how many pixels the image is larger than a crop."""
        return Size(self.image_size.height - self.crop_size.height, self.image_size.width - self.crop_size.width)

    def view_list(self) -> tuple[View, ...]:
        return views(self.views, self.image_size, self.crop_size)

    @property
    def view_size(self) -> Size:
        """Size of a view in pixels."""
        return self.image_size if self.views == "dense" else self.crop_size

    @property
    def view_cells(self) -> Size:
        """Size of a view's class maps; only for a network that has them."""
        if self.map_cells is not None:
            return self.map_cells
        return Size(self.view_size.height // NETWORK_STRIDE, self.view_size.width // NETWORK_STRIDE)

    @property
    def windows(self) -> tuple[Window, ...]:
        """The parts of a view's class maps that are pooled, each to one score per finding."""
        return windows(self.views, self.image_size, self.crop_size)

    @property
    def network_outputs(self) -> tuple[str, ...]:
        """The names of the network's outputs, in its own order."""
        return self.outputs or self.findings

    @property
    def repeats_itself(self) -> bool:
        """Whether several views would show the same pixels, because a crop is the whole image."""
        return self.crop_size == self.image_size and self.views in ("ten-crop", "five-crop", "dense")

    @property
    def class_map_region(self) -> Area:
        """The part of the resized image that the output `class_maps` covers."""
        all_views, size = self.view_list(), self.view_size
        y, x = min(view.y for view in all_views), min(view.x for view in all_views)
        bottom = max(view.y for view in all_views) + size.height
        right = max(view.x for view in all_views) + size.width
        return Area(y, x, bottom - y, right - x)

    @property
    def class_map_parts(self) -> Size:
        """Into how many cells of the output `class_maps` a cell of a view is divided, down and across.

        The output has the coarsest grid on which the cells of all views lie.
        """
        cells, size, region = self.view_cells, self.view_size, self.class_map_region
        parts = []
        for axis, (count, length) in enumerate(zip(cells, size, strict=True)):
            offsets = {(view.y - region.y, view.x - region.x)[axis] for view in self.view_list()}
            parts.append(1 if offsets == {0} else length // count // math.gcd(length // count, *offsets))
        return Size(*parts)

    @property
    def class_map_cells(self) -> Size:
        """Size of the output `class_maps`."""
        cells, parts, region, size = self.view_cells, self.class_map_parts, self.class_map_region, self.view_size
        return Size(
            region.height * cells.height * parts.height // size.height,
            region.width * cells.width * parts.width // size.width,
        )

    def _maps_can_be_merged(self) -> bool:
        for axis, (cells, length) in enumerate(zip(self.view_cells, self.view_size, strict=True)):
            offsets = {(view.y, view.x)[axis] for view in self.view_list()}
            if len(offsets) == 1:
                continue
            stride, rest = divmod(length, cells)
            if rest or math.gcd(stride, *(offset - min(offsets) for offset in offsets)) < MIN_CELL:
                return False
        return True

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values: of version 1 if that can express it, so that its hash stays, otherwise of version 2."""
        return to_mapping(dataclasses.asdict(self))

    def to_json(self) -> str:
        """Canonical JSON: the text that is hashed and written into every graph and bundle."""
        return json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Specification":
        """The inverse of `to_mapping`, from parsed JSON. Raises GraphError for what this version does not support."""
        fields = from_mapping(values)
        if reason := why_not_findings(fields.get("findings")):
            raise GraphError(f"its specification cannot be used: {reason}")
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(fields):
            differing = ", ".join(sorted(names ^ set(fields)))
            raise GraphError(f"its specification comes from another version of cxr-trt (fields {differing})")
        try:
            fields["image_size"], fields["crop_size"] = Size(*fields["image_size"]), Size(*fields["crop_size"])
            fields["map_cells"] = fields["map_cells"] and Size(*fields["map_cells"])
            fields["pooling"] = fields["pooling"] and Pooling(*fields["pooling"])
            _check_values(fields)
        except (TypeError, ValueError) as error:
            raise GraphError(
                "its specification holds sizes, names or statistics that no network of this project has"
            ) from error
        return cls(**fields)


def _check_values(fields: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError unless every field has its type and a size that is safe to allocate.

    A file can say anything.
    """
    integers = (*fields["image_size"], *fields["crop_size"], *(fields["map_cells"] or ()), fields["planes"])
    pooling = fields["pooling"] or Pooling()
    mean, std, points = fields["mean"], fields["std"], fields["operating_points"]
    numbers = (pooling.alpha, *mean, *std, *points, *fields["pixel_range"])
    names = (fields["findings"], fields["outputs"] or fields["findings"])
    choices = {"views": ViewSet, "fit": Fit, "output": Output, "maps": MapKind}
    all_hold = (
        all(type(value) is int and 1 <= value <= MAX_SPEC_VALUE for value in (*integers, pooling.k_max, pooling.k_min))
        and all(type(value) in (int, float) and abs(value) < MAX_PIXEL_VALUE for value in numbers)
        and abs(pooling.alpha) < MAX_SPEC_VALUE
        and 1 <= len(mean) == len(std) <= MAX_CHANNELS
        and len(fields["pixel_range"]) == 2
        and all(std)
        and all(fields[name] in get_args(choice) for name, choice in choices.items())
        and why_not_findings(names[1]) is None
        and set(fields["findings"]) <= set(names[1])
        and len(points) in (0, len(fields["findings"]))
        and all(0 < point < 1 for point in points)
        and fields["planes"] <= MAX_PLANES
    )
    if not all_hold:
        raise ValueError
