"""The two versions of a specification's JSON form.

Version 1 could say only what the first networks needed: squares, the 14 findings, the project's own pooling. What it
can say is still written in it, field by field in its order, because the hash of that text is half of every fingerprint.
"""

from collections.abc import Mapping
from typing import Any

from cxr_trt.errors import GraphError
from cxr_trt.findings import FINDINGS
from cxr_trt.images.preprocess import PREPROCESSING, PREPROCESSING_1
from cxr_trt.views import CROP_VIEW_SETS

VERSION = 2
VERSION_1_FITS = {"stretch": "stretch", "center-crop": "center-square"}
DEFAULTS = {
    "outputs": (),
    "output": "logits",
    "pixel_range": (0.0, 1.0),
    "maps": "pooled",
    "map_cells": None,
    "planes": 1,
}
"""What version 2 has in addition, and its values for every specification of version 1."""
FIELDS_1 = (
    *("views", "findings", "image_size", "crop_size", "mean", "std", "k_max", "k_min", "alpha", "fit"),
    *("operating_points", "preprocessing"),
)


def to_mapping(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON values of the fields of a `cxr_trt.spec.Specification`."""
    if not _fits_version_1(fields):
        return {"version": VERSION, **fields, "preprocessing": PREPROCESSING}
    k_max, k_min, alpha = fields["pooling"]
    values = {
        **fields,
        **{name: fields[name][0] for name in ("image_size", "crop_size")},
        **{"k_max": k_max, "k_min": k_min, "alpha": alpha},
        "fit": VERSION_1_FITS[fields["fit"]],
        "preprocessing": PREPROCESSING_1,
    }
    return {name: values[name] for name in FIELDS_1}


def from_mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields for `cxr_trt.spec.Specification`, from parsed JSON; values are not checked, only versions are.

    Raises:
        GraphError: the fields or the preprocessing are of a version that this one does not know.
    """
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    is_version_1 = "version" not in fields
    expected = PREPROCESSING_1 if is_version_1 else PREPROCESSING
    if is_version_1 and fields.keys() != set(FIELDS_1):
        differing = ", ".join(sorted(fields.keys() ^ set(FIELDS_1)))
        raise GraphError(f"its specification comes from another version of cxr-trt (fields {differing})")
    if fields.pop("version", VERSION) != VERSION:
        raise GraphError("its specification comes from a later version of cxr-trt; update cxr-trt")
    if fields.pop("preprocessing", None) != expected:
        raise GraphError("its preprocessing comes from another version of cxr-trt")
    if not is_version_1:
        return fields
    fits = {name: fit for fit, name in VERSION_1_FITS.items()}
    fields["pooling"] = tuple(fields.pop(name) for name in ("k_max", "k_min", "alpha"))
    fields["image_size"], fields["crop_size"] = ((fields[name],) * 2 for name in ("image_size", "crop_size"))
    return {**fields, **DEFAULTS, "fit": fits.get(str(fields["fit"]))}


def _fits_version_1(fields: Mapping[str, Any]) -> bool:
    return (
        fields["pooling"] is not None
        and tuple(fields["findings"]) == FINDINGS
        and fields["fit"] in VERSION_1_FITS
        and fields["views"] in CROP_VIEW_SETS
        and all(fields[name][0] == fields[name][1] for name in ("image_size", "crop_size"))
        and len(fields["mean"]) in (1, 3)
        and all(fields[name] == value for name, value in DEFAULTS.items())
    )
