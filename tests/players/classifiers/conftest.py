"""What the tests of this folder share: `in_numpy.py`, which they import."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
