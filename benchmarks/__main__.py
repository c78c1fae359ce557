"""`python -m benchmarks` lists the studies, and `python -m benchmarks NAME` runs one."""

from pathlib import Path
from typing import Any

import click

from benchmarks.catalogue import STUDIES
from benchmarks.pages import write_all_pages
from benchmarks.study import PAGES, RESULTS, Study


class StudyGroup(click.Group):
    """Imports a study only when it is called: most need more than the base dependencies."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*STUDIES, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if study := STUDIES.get(cmd_name):
            try:
                return study_command(study)
            except ModuleNotFoundError as error:
                raise click.ClickException(
                    f"{cmd_name} needs {study.needs}, and {error.name} is not installed: pip install -e '.[dev]'"
                ) from error
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Studies"):
            formatter.write_dl(
                [
                    (study.name, f"{study.shows} Needs {study.needs}. Takes {study.duration}.")
                    for study in STUDIES.values()
                ]
            )
        with formatter.section("All of them"):
            formatter.write_dl([(name, command.get_short_help_str(100)) for name, command in self.commands.items()])


@click.group(cls=StudyGroup, invoke_without_command=True, context_settings={"max_content_width": 120})
@click.pass_context
def main(ctx: click.Context) -> None:
    """Run a study: it writes benchmarks/results/NAME.json, and docs/studies/NAME.md from that.

    Durations are on two idle processors.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@main.command("pages")
def pages() -> None:
    """Write every page again from the committed results, and the table of speed in README.md."""
    write_all_pages()


def study_command(study: Study) -> click.Command:
    """The command that runs a study: its own options, and those that all have."""
    measure: click.Command = study.load().measure

    def run(page_only: bool, output: Path | None, **options: Any) -> None:
        results, folder = output or RESULTS, output or PAGES
        if not page_only:
            study.measure(results, options)
        study.write_page(results, folder)
        click.echo((folder / f"{study.name}.md").read_text(encoding="utf-8"))
        if problems := study.problems(study.result(results)):
            raise click.ClickException("\n".join(problems))

    common = [
        click.Option(["--page-only"], is_flag=True, help="Measure nothing: write the page from the result again."),
        click.Option(
            ["--output"],
            type=click.Path(path_type=Path, file_okay=False),
            help="For a trial: a folder for result and page, in place of the committed ones.",
        ),
    ]
    return click.Command(
        study.name,
        params=[*measure.params, *common],
        callback=run,
        help=measure.help,
        context_settings={"default_map": dict(study.options), "show_default": True},
    )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
