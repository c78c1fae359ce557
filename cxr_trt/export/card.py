"""The card of a network: a small TOML file that says what an ONNX file or a state dict does not.

Every key is in docs/guide/any-network.md. Unknown keys, missing ones and values of another type are refused.
"""

import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from cxr_trt.errors import GraphError
from cxr_trt.findings import why_not_findings
from cxr_trt.images.preprocess import Fit
from cxr_trt.spec import MAX_CHANNELS, MAX_PIXEL_VALUE, MAX_SPEC_VALUE, Output, Specification
from cxr_trt.views import VIEW_SETS, Size

MAX_CARD_BYTES = 1 << 20
VIEWS = tuple(view_set for view_set in VIEW_SETS if view_set != "dense")
MEANINGS = {
    "findings": "names of the network's outputs, in its order",
    "report": "names of the findings to report, if not all",
    "image_size": "side of the image in pixels, or [height, width]",
    "crop_size": "side of the network's crops in pixels, or [height, width]",
    "fit": f"one of {', '.join(get_args(Fit))}",
    "channels": "number of input channels",
    "mean": "list of numbers, one per channel",
    "std": "list of numbers above 0, one per channel",
    "pixel_range": "[black, white], two different numbers",
    "output": f"one of {', '.join(get_args(Output))}",
    "views": f"one of {', '.join(VIEWS)}",
    "scores": "name of the ONNX file's output that holds the scores",
}
"""Every key, and what its value must be."""


@dataclass(frozen=True)
class Card:
    """A card. values: what it says, by key, each checked on its own."""

    path: Path
    values: Mapping[str, Any]

    @property
    def findings(self) -> tuple[str, ...]:
        """The names of the network's outputs."""
        names: tuple[str, ...] = self.values["findings"]
        return names

    @property
    def scores(self) -> str | None:
        """The name of the output that holds the scores, if the card says it."""
        name: str | None = self.values.get("scores")
        return name

    def specification(self, **known: Any) -> Specification:
        """What the card says as a specification of a network without class maps.

        Args:
            known: values for keys that the card leaves out, and for other fields of the specification.

        Raises:
            GraphError: a key is missing that is not in `known` either, or values do not fit together.
        """
        values = {**known, **self.values}
        if missing := [key for key in ("image_size", "mean", "std") if key not in values]:
            raise GraphError(f"{self.path}: lacks the key {missing[0]} ({MEANINGS[missing[0]]})")
        channels = values.pop("channels", len(values["mean"]))
        for key in ("mean", "std"):
            if len(values[key]) != channels:
                raise GraphError(f"{self.path}: {key} has {len(values[key])} numbers for {channels} channels")
        outputs = values["findings"]
        reported = values.pop("report", outputs)
        if unknown := [name for name in reported if name not in outputs]:
            raise GraphError(f"{self.path}: reports {unknown[0]!r}, which is none of its findings")
        values.pop("scores", None)
        values["views"] = values.get("views", "whole")
        if values["views"] == "whole" and values.get("crop_size", values["image_size"]) != values["image_size"]:
            raise GraphError(f'{self.path}: has a crop_size, so it needs views, such as "center" or "ten-crop"')
        try:
            return Specification(
                **{
                    "pooling": None,
                    "maps": "none",
                    "crop_size": values["image_size"],
                    **values,
                    "findings": reported,
                    "outputs": () if reported == outputs else outputs,
                }
            )
        except GraphError as error:
            raise GraphError(f"{self.path}: {error}") from error


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        GraphError: it cannot be read, has an unknown key, lacks its findings, or a value is not what its key means.
    """
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise GraphError(f"{path}: has more than 1 MiB, but a card has a few lines; name a TOML file")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GraphError(f"{path}: no such card; write one, see docs/guide/any-network.md") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise GraphError(f"{path}: not a TOML file ({error}); see docs/guide/any-network.md") from error
    if unknown := sorted(values.keys() - MEANINGS.keys()):
        raise GraphError(f"{path}: has the unknown key {unknown[0]}; a card has {', '.join(MEANINGS)}")
    if "findings" not in values:
        raise GraphError(f"{path}: lacks the key findings ({MEANINGS['findings']})")
    checked = {}
    for key, value in values.items():
        try:
            checked[key] = _checked(key, value)
        except (TypeError, ValueError) as error:
            problem = f": {error}" if str(error) else ""
            raise GraphError(f"{path}: {key} is {reprlib.repr(value)}; it must be: {MEANINGS[key]}{problem}") from error
    return Card(path, checked)


def _checked(key: str, value: Any) -> Any:
    """The value in the type of the specification. Raises TypeError or ValueError."""
    if key in ("findings", "report"):
        if problem := why_not_findings(value):
            raise ValueError(problem)
        return tuple(value)
    if key in ("image_size", "crop_size"):
        size = Size(*value) if isinstance(value, list) else Size(value, value)
        if not all(type(side) is int and 1 <= side <= MAX_SPEC_VALUE for side in size):
            raise ValueError
        return size
    if key in ("mean", "std", "pixel_range"):
        numbers = tuple(float(_number(number)) for number in value)
        if not numbers or (key == "std" and min(numbers) <= 0):
            raise ValueError
        if key == "pixel_range" and (len(numbers) != 2 or numbers[0] == numbers[1]):
            raise ValueError
        return numbers
    choices = {"fit": get_args(Fit), "output": get_args(Output), "views": VIEWS}
    if key in choices and value not in choices[key]:
        raise ValueError
    if key == "channels" and not (type(value) is int and 1 <= value <= MAX_CHANNELS):
        raise ValueError
    if key == "scores" and not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < MAX_PIXEL_VALUE:
        raise ValueError
    return float(value)
