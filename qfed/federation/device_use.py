"""What a run's circuits will cost on its device, and the meter that counts them while they run.

    circuits a step = records x (circuits of one record's gradient, or 2 x directions x those of its loss)

How many circuits one record needs is found by running one through the model on PennyLane's device that computes nothing
("null.qubit"), under a meter: the same code that will be charged. Records a step are the public denominator
`training.batch_size`, so an estimate needs no data.
Units   circuits, shots, money by the price table (None where the table has no price)      Cost  some 0.1 s
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from qfed.config import Price, QuantumConfig, RunConfig, load_prices
from qfed.data import schema_of
from qfed.errors import SpendingCapReached
from qfed.federation.result import DeviceUse, RoundRecord
from qfed.models import build, loss
from qfed.privacy.gradients import clipped_sum
from qfed.quantum.spending import Caps, Meter, counted_by

_COUNTING = QuantumConfig(device="null.qubit", shots=1)


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to submit to its device, all sites together."""

    device: str
    circuits: int
    shots: int | None
    price: float | None
    """None when the table has no price; 0 on this machine."""
    currency: str
    as_of: str
    """When the price was listed."""
    exceeds: str
    """Which cap that is above, in words; empty for none."""

    def sentence(self) -> str:
        """One line for people."""
        shots = "" if self.shots is None else f", {self.shots:,} shots"
        text = f"device {self.device}: about {self.circuits:,} circuits{shots} in training"
        if self.price is None:
            text += "; its price is not in the table (qfed config prices)"
        elif self.price > 0:
            text += f", {self.currency} {self.price:,.2f} by list prices as of {self.as_of}"
        return text + (f"; that is above {self.exceeds}, so the run will stop there" if self.exceeds else "")


def price_of(quantum: QuantumConfig, table: str | None) -> Price | None:
    """The price of a device by a table in a file (None: the one that qfed ships)."""
    return load_prices(table).price_of(quantum.device, quantum.target)


def meter_for(config: RunConfig, run: str, file: Path, prices: str | None, owner: Caps | None = None) -> Meter | None:
    """The account of a run on its device, kept in `file`; None where the kernel runs everything.

    `prices` is the table of whoever pays, `owner` are a site's own caps over all runs. ConfigError for a cap in money
    without a price.
    """
    quantum = config.quantum
    if quantum.on_kernel:
        return None
    return Meter(
        quantum.device,
        run,
        price=price_of(quantum, prices),
        caps=Caps(quantum.most_shots, quantum.most_price),
        owner=owner,
        file=file,
        free=quantum.is_local,
    )


def use_of(config: RunConfig, meter: Meter | None, rounds: Sequence[RoundRecord]) -> DeviceUse | None:
    """What a run has spent on its device, and whether a cap ended it; None where there is no device."""
    if meter is None or config.model.kind == "twin":
        return None
    spent, price = meter.spent(), meter.price
    reasons = {dropout.reason for record in rounds for dropout in record.dropouts}
    return DeviceUse(
        device=config.quantum.device,
        circuits=spent.circuits,
        shots=spent.shots,
        price=spent.price if price is not None or config.quantum.is_local else None,
        currency="" if price is None else price.currency,
        as_of="" if price is None else price.as_of,
        capped=any(SpendingCapReached.__name__ in reason for reason in reasons),
    )


def estimate(config: RunConfig) -> Estimate | None:
    """What training will submit, all sites together; None where the kernel runs everything or the model is a twin."""
    quantum, training = config.quantum, config.training
    if quantum.on_kernel or config.model.kind == "twin" or config.kind != "train":
        return None
    steps = training.rounds * training.local_steps * config.federation.sites
    circuits = round(steps * training.batch_size * circuits_of_a_record(config))
    shots = None if quantum.shots is None else circuits * quantum.shots
    price = price_of(quantum, quantum.prices)
    cost = 0.0 if quantum.is_local and price is None else None if price is None else price.of(circuits, shots or 0)
    over = []
    if quantum.most_shots is not None and shots is not None and shots > quantum.most_shots:
        over.append(f"most_shots = {quantum.most_shots:,}")
    if quantum.most_price is not None and cost is not None and cost > quantum.most_price:
        over.append(f"most_price = {quantum.most_price:,.2f}")
    return Estimate(
        device=quantum.device,
        circuits=circuits,
        shots=shots,
        price=cost,
        currency="" if price is None else price.currency,
        as_of="" if price is None else price.as_of,
        exceeds=" and ".join(over),
    )


def circuits_of_a_record(config: RunConfig) -> int:
    """Circuits that one record needs in one step."""
    schema = schema_of(config.data)
    model = build(config.model, schema.inputs, schema.outputs, config.seed, _COUNTING)
    x, y = torch.zeros(1, schema.inputs), torch.int64 if schema.task == "classification" else torch.float32
    meter = Meter(_COUNTING.device)
    with counted_by(meter):
        if config.training.method == "dp_zo":
            with torch.no_grad():
                model(x)
            return 2 * config.training.directions * meter.spent().circuits
        clipped_sum(model.train(), loss(schema.task), x, torch.zeros(1, dtype=y), 1.0)
    return meter.spent().circuits
