"""The house itself: layers, exported names, cost of import, size of modules, nothing of one machine in the tree."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qfed

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("qfed/**/*.py"), *ROOT.glob("server/**/*.py"), *ROOT.glob("client/**/*.py")]


def test_imports_point_down() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_exported_names_are_these() -> None:
    assert qfed.__all__ == [
        "BudgetExhausted",
        "ConfigError",
        "DataError",
        "Model",
        "PolicyRefused",
        "ProtocolError",
        "QfedError",
        "QuantumLayer",
        "QuorumLost",
        "RunConfig",
        "RunResult",
        "load_config",
        "load_model",
        "read_result",
        "simulate",
    ]
    for name in qfed.__all__:
        assert getattr(qfed, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qfed.nothing


def test_names_of_the_quantum_engine_are_these() -> None:
    import qfed.quantum

    assert qfed.quantum.__all__ == ["QuantumLayer", "Trainability", "refuse_torch_layer", "trainability", "warmup"]
    parameters = inspect.signature(qfed.quantum.trainability).parameters
    assert [name for name, p in parameters.items() if p.default is inspect.Parameter.empty] == ["circuit"]


def test_importing_qfed_loads_nothing_heavy_and_touches_no_global_state() -> None:
    code = (
        "import sys, os, warnings, random\n"
        "before, state, filters = dict(os.environ), random.getstate(), list(warnings.filters)\n"
        "import qfed\n"
        "heavy = {'torch', 'pennylane', 'flwr', 'numpy', 'opacus', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert before == dict(os.environ) and state == random.getstate() and filters == list(warnings.filters)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_aggregator_is_importable_without_torch() -> None:
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'pennylane', 'opacus', 'numba', 'sklearn', 'dp_accounting'}:\n"
        "            raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import qfed_server.app, qfed.report, qfed.secagg, qfed.cli.app\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_holds_one_idea(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    assert path.stem not in {"utils", "util", "helpers", "manager", "common", "misc", "base"}
    assert text.startswith('"""'), "a module begins with what it is for"
    assert len(text.split('"""')[1]) > 10


def test_no_path_of_one_machine_in_the_tree() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".html", ".json", ""}
            and path.is_file()
            and name != "tests/unit/test_house.py"
        ):
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not re.search(r"(^|[^.\w])/(work|root|home)/\w", text), name
