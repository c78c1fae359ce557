"""Scores one X-ray part by part, as a process of its own, and prints when each part had ended.

Arguments: the reading of time.monotonic() when the process was started, an engine bundle, an X-ray.
"""

import itertools
import json
import sys
import time

PARTS = (
    "starting Python",
    "importing the command",
    "checking the engine and importing its backend",
    "loading the network",
    "starting a decoder and reading the X-ray",
    "the first inference",
)


def main() -> None:
    """Print the seconds that each of PARTS took, as JSON."""
    started, bundle, file = sys.argv[1:]
    times = [float(started), time.monotonic()]
    from pathlib import Path

    import cxr_trt.commands.score  # noqa: F401
    from cxr_trt.images.decoders import Decoders, Limits, Request
    from cxr_trt.images.files import Source
    from cxr_trt.score.engine import Engine

    times.append(time.monotonic())
    engine = Engine(bundle)
    times.append(time.monotonic())
    engine.prepare(1)
    times.append(time.monotonic())
    with Decoders(1, engine.spec.image_size, Limits(), engine.spec.fit) as decoders:
        ((_, answer),) = decoders.map([Request(Source(Path(file), file))], 1)
        times.append(time.monotonic())
        if answer.image is None:
            sys.exit(answer.error)
        engine.run(answer.image[None])
    times.append(time.monotonic())
    print(json.dumps([later - earlier for earlier, later in itertools.pairwise(times)]))


if __name__ == "__main__":
    main()
