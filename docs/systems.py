"""The page of all systems and the table in README.md, from the systems' own facts.

`python docs/systems.py` writes both.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from cxr_trt.markdown import markdown_table
from cxr_trt.systems import SYSTEMS
from cxr_trt.systems.system import Published, Split, System

DOCS = Path(__file__).parent
PAGE, README = DOCS / "reference" / "systems.md", DOCS.parent / "README.md"
RECIPES = DOCS.parent / "train" / "recipes"
BEGIN, END = "<!-- systems table -->\n", "<!-- end of systems table -->\n"
HEAD = """\
# Systems

<!-- written by `python docs/systems.py` -->

A system is the networks of one publication. A setting is one of its networks: the `setting` of a recipe, and
`--setting` of commands that are given a bare state dict. [Training](../guide/training.md) a system;
[adding one](../architecture.md#add-a-system).

"""
PUBLISHED = """\
## Published results

Mean AUC on ChestX-ray14, as published. None has been reproduced here yet.

Only results in the same table can be compared: those in different tables were measured on different test images or
for different findings. With a split by image, X-rays of one patient are in training and test, which raises every AUC.
"""
SPLIT_TITLES: dict[Split, str] = {
    "official": "NIH's official split",
    "random by patient": "a random split by patient",
    "random by image": "a random split by image",
}
MOST_FINDINGS = 14
MAP_TITLES = {
    "pooled": "what is pooled to the scores",
    "activation": "activations, as the prediction layer weighs them",
    "none": "none",
}


def render() -> str:
    """The page."""
    return HEAD + "\n".join([_published(), *map(_section, SYSTEMS)])


def render_readme(text: str) -> str:
    """README.md with the table of today."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    rows = [(f"on {title}", "; ".join(_firsts(split))) for split, title in SPLIT_TITLES.items()]
    table = markdown_table(("mean AUC", f"of {MOST_FINDINGS} findings, unless it says otherwise"), rows)
    return f"{before}{BEGIN}{table}\n{END}{after}"


def _firsts(split: Split) -> Iterable[str]:
    """The best known result of each system on a split: those of all findings first, and the highest of them first."""
    found = [(system, row) for system in SYSTEMS if (row := _first(system, split))]
    for system, row in sorted(found, key=lambda pair: (-pair[1].findings, -pair[1].mean_auc)):
        fewer = f" ({row.findings} findings)" if row.findings != MOST_FINDINGS else ""
        besides = f" (trained with {row.besides} too)" if row.besides else ""
        yield f"{system.title}: {_auc(row)}{fewer}{besides}"


def _first(system: System, split: Split) -> Published | None:
    return next((row for row in system.published if row.split == split), None)


def _auc(row: Published) -> str:
    return f"{row.mean_auc:.4f}".removesuffix("0")


def _besides(row: Published) -> str:
    return f"Trained with {row.besides} too." if row.besides else ""


def _published() -> str:
    rows = [(system, row) for system in SYSTEMS for row in system.published]
    groups = dict.fromkeys((row.split, row.findings) for _, row in rows)
    order = sorted(groups, key=lambda group: (list(SPLIT_TITLES).index(group[0]), -group[1]))
    sections = [PUBLISHED]
    for split, findings in order:
        members = [(system, row) for system, row in rows if (row.split, row.findings) == (split, findings)]
        members.sort(key=lambda member: -member[1].mean_auc)
        cells = [
            (system.title, row.network, _auc(row), " ".join(filter(None, (f"{row.source}.", row.note, _besides(row)))))
            for system, row in members
        ]
        table = markdown_table(("system", "network", "AUC", "source"), cells)
        sections.append(f"### {findings} findings, {SPLIT_TITLES[split]}\n\n{table}\n")
    without = [f"- {system.title}: {system.unpublished}." for system in SYSTEMS if system.unpublished]
    sections.append("### No published result on ChestX-ray14\n\n" + "\n".join(without) + "\n")
    return "\n".join(sections)


def _section(system: System) -> str:
    about = inspect.getdoc(sys.modules[f"cxr_trt.systems.{system.name}"]) or ""
    size = f"{system.image_size} x {system.image_size}"
    crop = f"{system.crop_size} x {system.crop_size}"
    facts = [
        ("publication", system.citation),
        ("module", f"`cxr_trt/systems/{system.name}.py`"),
        *([("X-rays", f"{system.planes} of a study at once")] if system.planes > 1 else []),
        ("image", f"{size} pixels" + (f", of which the network sees {crop}" if crop != size else "")),
        ("views", f"{system.views}"),
        ("class maps", MAP_TITLES[system.maps]),
    ]
    recipes = _recipes()
    settings = [
        (f"`{name}`", description, ", ".join(f"`{recipe}`" for recipe in recipes.get(name, ())))
        for name, description in system.settings.items()
    ]
    tables = markdown_table(("", ""), facts), markdown_table(("setting", "network", "recipes"), settings)
    return "\n\n".join([f"## {system.title}", _wrapped(about.splitlines()), *tables]) + "\n"


def _recipes() -> dict[str, list[str]]:
    """The names of the recipes of each setting."""
    found: dict[str, list[str]] = {}
    for path in sorted(RECIPES.glob("*.toml")):
        for setting in re.findall(r'^setting = "(.+)"', path.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(setting, []).append(path.stem)
    return found


def _wrapped(lines: Iterable[str]) -> str:
    """A docstring as paragraphs and lists of 120 columns."""
    paragraphs = re.split(r"\n\s*\n|\n(?=- )", "\n".join(lines))
    filled = [
        textwrap.fill(" ".join(one.split()), 120, subsequent_indent="  " if one.startswith("- ") else "")
        for one in paragraphs
    ]
    text = "\n\n".join(filled)
    return re.sub(r"\n\n(?=- )", "\n", text).replace(":\n- ", ":\n\n- ")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    README.write_text(render_readme(README.read_text(encoding="utf-8")), encoding="utf-8")
