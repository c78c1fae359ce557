"""The pages, and the commands in their blocks."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE_BEFORE_FENCE = re.compile(r"`([\w./-]+)`:\n\n\Z")
SHELL = ("", "sh", "bash", "console")
SILENT = (  # there is nothing to execute
    *("text", "csv", "json", "toml", "diff"),
    *("{toctree}", "{literalinclude}", "{include}", "{eval-rst}"),
)
SEPARATORS = ("&&", "||", "|", ";")


class Block(NamedTuple):
    """A fenced block.

    line: of its first line of text, from 1. file: the file that it is about: that which the text before it ends with.
    """

    language: str
    text: str
    line: int
    file: str | None


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text, found = page.read_text(), []
    for fence in FENCE.finditer(text):
        file = FILE_BEFORE_FENCE.search(text, 0, fence.start())
        line = text.count("\n", 0, fence.start(2)) + 1
        found.append(Block(fence[1], fence[2], line, file[1] if file else None))
    return found


def shell_lines(block: Block) -> Iterator[tuple[int, str]]:
    """(line number, text) of each line of a shell block, with continued lines joined; comments are kept."""
    text, number = "", block.line
    for offset, part in enumerate(block.text.splitlines()):
        if not text:
            number = block.line + offset
        text += part.removesuffix("\\")
        if not part.endswith("\\"):
            if shlex.split(text, comments=True):
                yield number, text
            text = ""
    assert not text, f"line {number}: continued beyond the block"


def simple_commands(line: str) -> list[list[str]]:
    """The words of each command of a line, without assignments before it and redirections after it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word in SEPARATORS:
            commands.append([])
        elif commands[-1] or not re.match(r"\w+=", word):
            commands[-1].append(word)
    return [command[: command.index(">")] if ">" in command else command for command in commands]


def inline_code(page: Path) -> list[str]:
    """Every code span outside the blocks, in one line."""
    return [" ".join(found[1].split()) for found in re.finditer(r"`([^`]+)`", FENCE.sub("", page.read_text()))]
