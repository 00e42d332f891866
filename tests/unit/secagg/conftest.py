"""Puts the in-process laboratory (tests/protocol/secagg_lab.py) on the path of these tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "protocol"))
