"""The HTML page of `cxr-trt report`: one file that needs nothing else and makes no requests.

Texts of the table, such as file names, come from outside. In the markup they are escaped, in the data they are JSON
without `<`. The page's security policy allows only its own two scripts, by their hashes, and no requests.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from cxr_trt.report.cases import Case, Cases
from cxr_trt.report.pictures import Picture
from cxr_trt.report.truth import Truth
from cxr_trt.results.drawing import COLOUR_MAP
from cxr_trt.tables.rows import NOTICE
from cxr_trt.words import quantity

DISTRIBUTION_BINS = 24
WIDE_FACT = 40  # characters
GENERATOR = '<meta name="generator" content="cxr-trt report">'
HEAD_BYTES = 512  # of a page, with its generator
NO_TRUTH = Truth()
MAPS_HINT = "Point at a picture, or move to it with Tab and the arrow keys, to see the heat map of its finding."
NO_MAPS_HINT = (
    "This page has no heat maps: <code>--heatmaps</code> adds those of <code>cxr-trt score --heatmaps FOLDER "
    "--raw-maps</code>, if the network has class maps."
)
ASSETS = files("cxr_trt.report") / "assets"


def build_page(
    title: str,
    table: Cases,
    pictures: Mapping[str, Picture],
    truth: Truth = NO_TRUTH,
    engine: str | None = None,
    state: str | None = None,
) -> str:
    """Make the whole page.

    Args:
        title: title of the page.
        table: the cases and errors to show.
        pictures: pictures of any of the cases, by path.
        truth: labels and boxes of any of the cases.
        engine: what the engine is, in words, if known.
        state: how far the run is whose cases these are, if there is no table of it yet.
    """
    library, script = _asset("tabulator/tabulator.min.js"), _asset("page.js")
    scripts = " ".join(f"'sha256-{_digest(text)}'" for text in (library, script))
    scores = np.array([case.scores for case in table.cases]).reshape(-1, len(table.findings))
    largest_score = math.ceil(10 * float(scores.max(initial=0.1))) / 10
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}",
        "generator": GENERATOR,
        "title": html.escape(title),
        "styles": _asset("tabulator/tabulator_simple.min.css") + _asset("page.css"),
        "notice": html.escape("; ".join((NOTICE, *table.common_warnings))),
        "state": f'<p class="state" role="status">{html.escape(state)}</p>' if state else "",
        "facts": _facts(table, pictures, truth, engine),
        "largest": f"{largest_score:g}",
        "distributions": "".join(
            _distribution(i, name, scores[:, i], largest_score, truth.areas[i] if truth.areas else None)
            for i, name in enumerate(table.findings)
        ),
        "options": "".join(f'<option value="{i}">{_words(name)}</option>' for i, name in enumerate(table.findings)),
        "maps": MAPS_HINT if any(picture.fields.get("maps") for picture in pictures.values()) else NO_MAPS_HINT,
        "warnings": _warning_options(table),
        "errors": _errors(table),
        "footer": html.escape(f"Made by cxr-trt {version('cxr-trt')} on {date.today().isoformat()}. {NOTICE}."),
        "data": _data(table, pictures, truth),
        "library": library,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def is_report(path: Path) -> bool:
    """Whether a file is a page that `build_page` made."""
    try:
        with path.open("rb") as stream:
            return GENERATOR.encode() in stream.read(HEAD_BYTES)
    except OSError:
        return False


def _asset(name: str) -> str:
    """A file of the assets, without references to source maps, which a browser's developer tools would request."""
    text = (ASSETS / name).read_text(encoding="utf-8")
    return re.sub(r"(//#|/\*#) sourceMappingURL=\S+( \*/)?", "", text)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _facts(table: Cases, pictures: Mapping[str, Picture], truth: Truth, engine: str | None) -> str:
    with_picture = sum("picture" in picture.fields for picture in pictures.values())
    with_warnings = sum(bool(case.warnings) for case in table.cases)
    facts = {
        "X-rays scored": f"{len(table.cases):,}",
        "could not be scored": f"{len(table.errors):,}",
        "with warnings": f"{with_warnings:,}",
        "with a picture on this page": f"{with_picture:,}",
        "engine": ", ".join(filter(None, (engine, *table.engines))) or "unknown",
        **({"with labels": f"{len(truth.labels):,}"} if truth.labels else {}),
        **({"with boxes": f"{len(truth.boxes):,}"} if truth.boxes else {}),
        **_mean_area(truth),
        "calibration": ", ".join(table.calibrations) or "none: the scores are not calibrated",
    }
    return "".join(_fact(name, value) for name, value in facts.items())


def _fact(name: str, value: str) -> str:
    wide = ' class="wide"' if len(value) > WIDE_FACT else ""
    return f"<div{wide}><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"


def _mean_area(truth: Truth) -> dict[str, str]:
    areas = [area for area in truth.areas if area is not None]
    return {f"mean AUC of {quantity(len(areas), 'finding')}": f"{sum(areas) / len(areas):.3f}"} if areas else {}


def _distribution(
    number: int,
    finding: str,
    scores: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    largest: float,
    area: float | None,
) -> str:
    """A button with the histogram of a finding; the heights are relative to its highest bin."""
    counts, _ = np.histogram(scores, DISTRIBUTION_BINS, (0, largest))
    heights = 40 * counts / max(counts.max(), 1)
    bars = "".join(
        f'<rect x="{4 * i}" y="{44 - height:.1f}" width="3.4" height="{height:.1f}"/>'
        for i, height in enumerate(heights)
        if height
    )
    values = f"median {np.median(scores):.3f}, max {scores.max():.3f}" if len(scores) else "no scores"
    values = values if area is None else f"AUC {area:.3f}, {values}"
    return (
        f'<button type="button" data-finding="{number}" aria-pressed="false"><span>{_words(finding)}</span>'
        f'<svg viewBox="0 0 {4 * DISTRIBUTION_BINS} 44" preserveAspectRatio="none" aria-hidden="true">{bars}</svg>'
        f"<small>{values}</small></button>"
    )


def _warning_options(table: Cases) -> str:
    options = [("any", f"any ({sum(bool(case.warnings) for case in table.cases)})")]
    options += [(str(i), f"{name} ({count})") for i, (name, count) in enumerate(table.warnings.most_common())]
    return "".join(f'<option value="{value}">{html.escape(text)}</option>' for value, text in options)


def _errors(table: Cases) -> str:
    if not table.errors:
        return ""
    rows = "".join(
        f'<tr><td>{html.escape(path)}</td><td class="error">{html.escape(reason)}</td></tr>'
        for path, reason in table.errors
    )
    return (
        '<section aria-labelledby="errors-title"><h2 id="errors-title">Errors</h2>'
        f'<p class="hint">{quantity(len(table.errors), "file")} could not be scored.</p>'
        '<table class="errors"><thead><tr><th scope="col">File</th><th scope="col">Reason</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _data(table: Cases, pictures: Mapping[str, Picture], truth: Truth) -> str:
    palette = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLOUR_MAP)[:, 0, ::-1]
    content = {
        "findings": table.findings,
        "calibrated": bool(table.calibrations),
        "warnings": [name for name, _ in table.warnings.most_common()],
        "palette": base64.b64encode(palette.tobytes()).decode(),
        "labelled": bool(truth.labels),
        "scales": _common_scales(len(table.findings), pictures.values()),
        "cases": [_case(case, pictures.get(case.path), bool(table.calibrations), truth) for case in table.cases],
    }
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _common_scales(findings: int, pictures: Iterable[Picture]) -> list[tuple[float, float] | None]:
    """For each finding, the colours for all its maps: from the median of their medians to their largest value."""
    maps = [item for picture in pictures for item in picture.fields.get("maps", ())]
    own = [[item for item in maps if item["finding"] == finding] for finding in range(findings)]
    return [
        (float(np.median([item["median"] for item in some])), max(item["high"] for item in some)) if some else None
        for some in own
    ]


def _case(case: Case, picture: Picture | None, has_calibration: bool, truth: Truth) -> dict[str, object]:
    height, width = case.size
    facts = [f"{width} x {height} pixels" if height else "", case.format, f"sha256 {case.sha256[:16]}"]
    if picture and picture.reason:
        facts.append(picture.reason)
    fields: dict[str, object] = {
        "path": case.path,
        "scores": [_rounded(score) for score in case.scores],
        "warnings": case.warnings,
        "facts": ", ".join(filter(None, facts)),
    }
    if has_calibration:
        fields["calibrated"] = [_rounded(value) for value in case.calibrated or (None,) * len(case.scores)]
        fields["positive"] = case.positive or (None,) * len(case.scores)
    if case.path in truth.labels:
        fields["labels"] = truth.labels[case.path]
    if truth.boxes.get(case.path):
        fields["boxes"] = truth.boxes[case.path]
    return {**fields, **(picture.fields if picture else {})}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _words(finding: str) -> str:
    return html.escape(finding.replace("_", " "))
