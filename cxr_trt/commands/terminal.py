"""Tables on the terminal."""

from collections.abc import Iterable, Mapping, Sequence

import click
from rich.console import Console
from rich.table import Column, Table

from cxr_trt.findings import ranked_findings
from cxr_trt.tables.rows import NOTICE, Row

MAX_SHOWN_FINDINGS = 3


def show_rows(rows: Sequence[Row], findings: Sequence[str], omitted: int, common_warnings: Sequence[str]) -> None:
    """Print the most probable findings of each row to standard output, and the warnings common to all rows once."""
    caption = "\n".join((*common_warnings, NOTICE))
    shown = min(MAX_SHOWN_FINDINGS, len(findings))
    columns = (f"{i}." for i in range(1, shown + 1))
    table = Table(Column("file", overflow="fold"), *columns, "note", caption=caption)
    for row in rows:
        if row.probabilities is None:
            table.add_row(row.path, *[""] * shown, f"error: {row.error}")
            continue
        ranked = ranked_findings(row.probabilities)[:shown]
        cells = (f"{findings[finding]} {row.probabilities[finding]:.3f}" for finding in ranked)
        table.add_row(row.path, *cells, "; ".join(w for w in row.warnings if w not in common_warnings))
    console = Console()
    console.print(table, markup=False)
    if omitted:
        console.print(f"and {omitted} more rows; write them all with -o scores.csv")


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
    """Print a table to standard output."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table, markup=False)
