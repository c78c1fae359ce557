"""The options of `cxr-trt score` that say which heat maps are drawn, and how."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from cxr_trt.commands.options import PATH
from cxr_trt.results.heatmaps import Above, HeatmapFormat, HeatmapLook

Command = TypeVar("Command", bound=Callable[..., Any])


class AboveType(click.ParamType):  # type: ignore[type-arg]
    """Reads a score from 0 to 1, or "calibrated"."""

    name = "SCORE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Above:
        if value == "calibrated":
            return "calibrated"
        try:
            score = float(value)
        except ValueError:
            score = -1
        if not 0 <= score <= 1:
            self.fail(f'{value!r} is neither a score from 0 to 1 nor "calibrated"', param, ctx)
        return score


OPTIONS = (
    click.option(
        "--top",
        type=click.IntRange(1),
        default=3,
        show_default=True,
        help="How many findings per X-ray get a heat map, at most.",
    ),
    click.option(
        "--heatmaps-above",
        type=AboveType(),
        metavar="SCORE",
        help="Draw heat maps only of findings with at least this score; calibrated: of those at or above the threshold "
        "of `cxr-trt calibrate`.",
    ),
    click.option(
        "--findings", "shown_findings", multiple=True, metavar="NAME", help="Draw heat maps of these findings only."
    ),
    click.option(
        "--heatmap-range",
        type=(float, float),
        metavar="LOW HIGH",
        help="One colour scale for all heat maps, in units of the class maps. Default: each from its median to its "
        "largest value.",
    ),
    click.option(
        "--finding-range",
        "finding_ranges",
        type=(str, float, float),
        multiple=True,
        metavar="NAME LOW HIGH",
        help="The same for the heat maps of one finding.",
    ),
    click.option(
        "--heatmap-format",
        type=click.Choice(["png", "jpeg"]),
        default="png",
        show_default=True,
        help="JPEG takes less disk.",
    ),
    click.option("--boxes", type=PATH, help="Boxes as for `evaluate`, to draw over the heat maps of their findings."),
    click.option(
        "--raw-maps", is_flag=True, help="With --heatmaps: also save the class maps of all findings in maps.npz."
    ),
    click.option(
        "--full-size",
        is_flag=True,
        help="Draw heat maps in the X-ray's own size. Default: at most 768 pixels on the longer side.",
    ),
)


def heatmap_options(command: Command) -> Command:
    """Add these options. The command gets --top and how maps look as `look`; --boxes, --raw-maps and --full-size so."""

    @wraps(command)
    def with_look(
        *arguments: Any,
        top: int,
        heatmaps_above: Above | None,
        shown_findings: tuple[str, ...],
        heatmap_range: tuple[float, float] | None,
        finding_ranges: tuple[tuple[str, float, float], ...],
        heatmap_format: HeatmapFormat,
        **options: Any,
    ) -> Any:
        look = HeatmapLook(top, heatmaps_above, shown_findings, heatmap_range, heatmap_format, finding_ranges)
        return command(*arguments, look=look, **options)

    for option in reversed(OPTIONS):
        with_look = option(with_look)
    return with_look  # type: ignore[return-value]
