"""A role that lacks a part gets one line that says what to install, not a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("missing", "extra"), [("torch", "client"), ("jinja2", "server")])
def test_a_missing_part_is_named_with_the_way_to_get_it(tmp_path: Path, missing: str, extra: str) -> None:
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "sys.argv = ['qfed', 'simulate', '--quiet', '--set', 'training.rounds=1', '--set', 'simulation.compare=[]',\n"
        "            '--set', 'federation.sites=3', '--out', 'out']\n"
        "from qfed.cli.app import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"pip install 'qfed[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "said before anything ran"
