"""Measurements and studies: `python -m benchmarks` lists them.

Each is a module of its own that measures into `benchmarks/results/NAME.json` and makes `docs/studies/NAME.md` from
that.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))  # its modules serve some studies too
