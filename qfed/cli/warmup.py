"""qfed warmup: compile the circuit kernel once for this machine."""

from __future__ import annotations

from rich.console import Console


def warmup() -> None:
    """Compile the circuit kernel now (once a machine), so that the first run does not wait for it."""
    from qfed.quantum import warmup as compile_kernels

    console = Console()
    with console.status("compiling the circuit kernel") as status:
        seconds = compile_kernels(lambda what: status.update(what))
    console.print(f"the circuit kernel is ready ({seconds:.1f} s)")
