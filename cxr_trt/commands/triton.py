"""The command `cxr-trt triton`: an engine in a model repository of the Triton Inference Server."""

import re
from pathlib import Path

import click

from cxr_trt.commands.messages import say
from cxr_trt.commands.options import PATH
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.engine.triton import write_repository
from cxr_trt.errors import UsageError


@click.command()
@click.argument("bundle", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The repository: a folder with a folder per model.")
@click.option("--name", help="What the server calls the model. Default: the bundle's name.")
def triton(bundle: Path, output: Path, name: str | None) -> None:
    """Write the engine in BUNDLE into a model repository of NVIDIA's Triton Inference Server.

    The configuration is compared with the engine's graph. Triton itself has not run any of them. Its clients decode the
    files and send images as `Engine.preprocess` makes them.
    """
    name = name or bundle.stem
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise UsageError(f"--name {name}: take letters, digits, dots, dashes and underscores")
    write_repository(bundle, read_manifest(bundle), output, name)
    say(f"model: {output / name}")
