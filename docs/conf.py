"""The settings of the documentation site, which `make docs` builds with Sphinx. Pages are Markdown (MyST)."""

import re
from typing import Any

project = "cxr-trt"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "cxr-trt"
html_show_copyright = False
html_copy_source = False

highlight_language = "sh"  # a block without a language is a shell's
myst_heading_anchors = 3  # links to headings, as on GitHub

default_role = "code"  # docstrings write code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
nitpick_ignore_regex = [("py:.*", ".*")]  # signatures name types of other libraries; links of pages are still checked


def edit_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make a list of a docstring's lines of `attribute: text`, and keep its backslashes."""
    is_attribute = False
    for number, line in enumerate(lines):
        escaped = line.replace("\\", "\\\\")
        if re.match(r"\w+(, \w+)*: ", line):
            is_attribute = True
            lines[number] = f"- {escaped}"
        elif is_attribute and line.strip():
            lines[number] = f"  {escaped.strip()}"
        else:
            is_attribute = False
            lines[number] = escaped


def shorten_arrays(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Write the type of an array as the source does."""
    pattern = (
        r"~?(numpy\.)?ndarray\[tuple\[~?(typing\.)?Any, \.\.\.\], ~?(numpy\.)?dtype\[~?(numpy\.|typing\.)?(\w+)\]\]"
    )
    short = [text and re.sub(pattern, r"NDArray[\5]", text) for text in (signature, returned)]
    return short[0], short[1]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", edit_docstring)
    app.connect("autodoc-process-signature", shorten_arrays)
