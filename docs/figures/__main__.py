"""Draws all figures into docs/, or those named: `python3 docs/figures [NAME...]`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from figures import attention, costs, tape  # noqa: E402

ALL = {figure.__name__: figure for figure in attention.FIGURES + tape.FIGURES + costs.FIGURES}

unknown = [name for name in sys.argv[1:] if name not in ALL]
if unknown:
    sys.exit(f"figures: there is no {unknown[0]}; there are {', '.join(ALL)}")
for name in sys.argv[1:] or ALL:
    ALL[name]()
