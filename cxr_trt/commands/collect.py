"""The command `cxr-trt collect`: counts the parts of a list, names what is missing, and writes one table."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import click

from cxr_trt.calibrate.calibration import parse_calibration
from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.parts import FINGERPRINT_KEY, SKIPPED_KEY, facts_of_parts, part_path, rows_of_part
from cxr_trt.commands.kept_rows import check_table
from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import LOCATION, finish, overwrite_option
from cxr_trt.errors import GraphError, UsageError
from cxr_trt.spec import Specification
from cxr_trt.storage import Location, writing
from cxr_trt.tables.rows import Row
from cxr_trt.tables.writing import CALIBRATION_KEY, ENGINE_KEY, SPECIFICATION_KEY, check_xlsx, write_table
from cxr_trt.words import quantity

MAX_NAMED_SHARDS = 20


@click.command()
@click.argument("parts", type=LOCATION)
@click.option("--list", "list_folder", type=LOCATION, required=True, help="The list that the parts are of.")
@click.option("-o", "--output", type=LOCATION, help="Also write one table: .csv, .parquet, .jsonl or .xlsx.")
@click.option(
    "--several-engines",
    is_flag=True,
    help="Also collect parts of several engines, as of a cluster with unlike nodes. The column `engine` says which one "
    "made a row; there are no calibrated columns, since a calibration is of one engine.",
)
@overwrite_option
@message_options
def collect(
    parts: Location, list_folder: Location, output: Location | None, several_engines: bool, overwrite: bool
) -> None:
    """Count the rows in the folder PARTS and name the shards that are missing.

    With -o, write one table in the order of the list, as `cxr-trt score` would have written it. Exit codes: 0 if all is
    there, 1 if some files could not be scored, 2 if shards are missing.
    """
    files = FileList.open(list_folder)
    count = files.shards.count
    found = facts_of_parts(parts, files, range(count))
    if missing := [shard for shard in range(count) if shard not in found]:
        named = ", ".join(map(str, missing[:MAX_NAMED_SHARDS])) + (", ..." if len(missing) > MAX_NAMED_SHARDS else "")
        say(f"missing: {len(missing)} of {count} shards ({named}); score the list again for them", "error")
    if not found:
        finish(2)
    here, facts = list(found), list(found.values())
    _check_engines(parts, facts, several_engines=several_engines)
    is_of_one = len({fact[FINGERPRINT_KEY] for fact in facts}) == 1
    try:
        spec = Specification.from_mapping(json.loads(facts[0][SPECIFICATION_KEY]))
        text = facts[0].get(CALIBRATION_KEY) if is_of_one else None
        calibration = parse_calibration(text, spec.findings) if text else None
    except (GraphError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{part_path(parts, here[0])}: damaged; remove it, and score its shard again") from error
    counter = _Counter()
    rows = counter.counted(row for shard in here for row in rows_of_part(part_path(parts, shard), spec))
    if output is None:
        for _ in rows:
            pass
    elif missing:
        say(f"{output}: not written, because shards are missing", "error")
        finish(2)
    else:
        check_table(output, overwrite=overwrite)
        if output.suffix == ".xlsx":
            check_xlsx()
        with writing(output) as partial:
            write_table(
                partial,
                output.suffix,
                rows,
                spec,
                calibration,
                root=files.root,
                facts={ENGINE_KEY: "; ".join(sorted({fact[ENGINE_KEY] for fact in facts}))},
            )
        say(f"table: {output}")
    skipped = sum(int(fact[SKIPPED_KEY]) for fact in facts)
    say(
        f"scored {counter.rows - counter.errors} of {quantity(files.shards.files, 'file')} "
        f"in {len(here)} of {quantity(count, 'shard')}, errors: {counter.errors}, skipped: {skipped}"
    )
    finish(2 if missing else 1 if counter.errors else 0)


def _check_engines(parts: Location, facts: Sequence[Mapping[str, str]], *, several_engines: bool) -> None:
    """Raise UsageError if rows of several engines would come into one table unasked, or ones that say unlike things."""
    engines = Counter(fact[FINGERPRINT_KEY] for fact in facts)
    if len(engines) == 1:
        return
    if len({fact[SPECIFICATION_KEY] for fact in facts}) > 1:
        raise UsageError(f"{parts}: has parts of engines with other findings or views ({', '.join(sorted(engines))})")
    if not several_engines:
        raise UsageError(
            f"{parts}: has parts of several engines ({', '.join(sorted(engines))}); score the list with one of them, "
            "or add --several-engines"
        )
    for engine, count in sorted(engines.items()):
        say(f"{quantity(count, 'shard')} of the engine {engine}")


class _Counter:
    """Counts rows, and those with errors, as they pass."""

    def __init__(self) -> None:
        self.rows = self.errors = 0

    def counted(self, rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            self.rows += 1
            self.errors += row.error is not None
            yield row
