"""A compiled circuit in words: what the kernel runs, what it costs, what cost nothing, what fell back and why."""

from __future__ import annotations

from qfed.quantum.compiled import Compiled
from qfed.quantum.device import DeviceCircuit
from qfed.quantum.plan import Plan

_SHOWN = 12  # rotations of a step that are written out


def explain(runner: Compiled | DeviceCircuit) -> str:
    """Lines of text; the figures of cost are vector operations (a fused multiply-add is one) a record."""
    if isinstance(runner, DeviceCircuit):
        return (
            f"runs on device {runner.name}, record by record, gradients by parameter shift\nbecause {runner.reason}\n"
        )
    program, plan = runner.program, runner.plan
    maps = "affine" if runner.angles.graph is None else "a torch graph"
    lines = [
        f"{program.wires} wires, {plan.rows} rotations: {len(plan.own)} with an angle a record, "
        f"{len(plan.shared)} shared by all records; angles are {maps} in inputs and weights",
        f"free: {program.absorbed} Clifford rotations absorbed, {program.idle} rotations that change no result",
    ]
    if runner.state is not None:
        lines.append(f"start: amplitudes of every record, {program.size} numbers")
    elif len(plan.prefix):
        lines.append(f"start: product state of {len(plan.prefix)} rotations of single wires")
    else:
        lines.append("start: |0...0>")
    lines += [_step(plan, kind, index) for kind, index in plan.steps.tolist()]
    words = len(plan.diagonal) + len(plan.terms)
    lines.append(
        f"measure: {words} Pauli words ({len(plan.diagonal)} by one transform), {len(plan.outcomes)} probability "
        f"vectors -> {program.outputs} numbers"
    )
    forward = 2 * plan.cost
    lines.append(f"cost: about {forward} operations a record forward, {3 * forward} backward")
    lines.append(f"memory: {7 * plan.size * 64 / 2**20:.3g} MiB a thread")
    return "\n".join(lines) + "\n"


def _step(plan: Plan, kind: int, index: int) -> str:
    if kind == 1:
        first, last = plan.folds[index].tolist()
        masks = [f"Z{_mask(z, plan)}" for _, z, _, _ in plan.members[first:last].tolist()]
        return f"fold of {last - first} diagonal rotations: {_some(masks)}"
    block = plan.blocks[index].tolist()
    words = [_word(block[3 + j], block[6 + j], plan) for j in range(3) if block[j] < plan.rows]
    return f"block of {len(words)} rotations: {_some(words)}"


def _some(words: list[str]) -> str:
    return ", ".join(words[:_SHOWN]) + (", ..." if len(words) > _SHOWN else "")


def _mask(bits: int, plan: Plan) -> str:
    return "".join(f"[{w}]" for w in range(plan.wires) if bits >> w & 1)


def _word(x: int, z: int, plan: Plan) -> str:
    letters = "IXZY"
    places = ((w, (x >> w & 1) | (z >> w & 1) << 1) for w in range(plan.wires))
    return "".join(f"{letters[k]}[{w}]" for w, k in places if k)
