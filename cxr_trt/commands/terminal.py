"""Tables on the terminal."""

from collections.abc import Iterable, Mapping, Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Column, Table

from cxr_trt.findings import ranked_findings
from cxr_trt.tables.rows import NOTICE, Row
from cxr_trt.words import quantity

MAX_SHOWN_FINDINGS = 3
MIN_PATH_WIDTH = 30  # of a longer path, before findings are left out for its sake


def show_rows(rows: Sequence[Row], findings: Sequence[str], omitted: int, common_warnings: Sequence[str]) -> None:
    """Print the most probable findings of each row to standard output, then notes on rows, and what all have once.

    There are as many findings as the width allows, at most MAX_SHOWN_FINDINGS, so that no name of one is cut.
    """
    console = Console()
    scored = [(row.path, row.probabilities) for row in rows if row.probabilities]
    ranked = [ranked_findings(probabilities)[:MAX_SHOWN_FINDINGS] for _, probabilities in scored]
    widest = max((len(findings[finding]) for places in ranked for finding in places), default=0) + len(" 0.000 ") + 1
    room = console.width - min(max((len(path) for path, _ in scored), default=0), MIN_PATH_WIDTH) - 2
    shown = max(1, min(MAX_SHOWN_FINDINGS, len(findings), room // widest))
    lines = [
        (path, *(f"{probabilities[finding]:.3f} {findings[finding]}" for finding in places[:shown]))
        for (path, probabilities), places in zip(scored, ranked, strict=True)
    ]
    if lines:
        show_table(("file", "highest", "second", "third")[: shown + 1], lines)
    for row in rows:
        note = row.error or "; ".join(warning for warning in row.warnings if warning not in common_warnings)
        if note:
            console.print(f"{row.path}: {'error: ' if row.error else ''}{note}", markup=False, highlight=False)
    if omitted:
        console.print(f"and {quantity(omitted, 'more row')}; write them all with -o scores.csv", highlight=False)
    for text in (*common_warnings, NOTICE):
        console.print(text, markup=False, highlight=False)


def show_markdown(text: str) -> None:
    """Print Markdown to standard output: with drawn tables on a terminal, as it is into a file or another program."""
    console = Console()
    if console.is_terminal:
        from rich.markdown import Markdown  # here: scoring starts sooner without it

        console.print(Markdown(text))
    else:
        click.echo(text)


def show_facts(facts: Mapping[str, object]) -> None:
    """Print names and values in two columns to standard output."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(name, str(value))
    Console(soft_wrap=True).print(table, markup=False)


def show_table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output, drawn as rich draws those of Markdown."""
    headers = (Column(name, overflow="fold") for name in columns)
    table = Table(*headers, box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table, markup=False)
