"""qpu: a D-Wave system in D-Wave's cloud, through the vendor's own client.

The client finds its token itself, in DWAVE_API_TOKEN or in dwave.conf (`dwave setup` writes one); qfed never reads,
prints or stores it. What is sent are fields, couplings and the number of reads: post-processing of the release, no
records. Reads and the processor's seconds (the solver's own estimate, raised once an answer took longer) are charged
before a problem is submitted and corrected by its answer (qfed.quantum.spending): synth.most_shots and
synth.most_seconds stop a fit before they are passed.
`auto_scale` is off (see embedded.py) and every read comes back by itself (answer_mode "raw").
Units   annealing_time in microseconds, seconds of access time to the processor
Errors  ConfigError without a token, with one that is refused, without such a system; QfedError when the service fails;
        SpendingCapReached
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from qfed.config import SynthConfig
from qfed.errors import ConfigError, QfedError
from qfed.generative.embedded import EmbeddedAnnealer
from qfed.quantum.spending import Caps, Meter, current_meter

DEVICE = "dwave"
_NOT_SET_UP = (
    'synth.sampler="qpu" needs a token of D-Wave Leap: set DWAVE_API_TOKEN, or run `dwave setup`; without one use '
    'sampler = "mock", the same graph simulated here'
)


class RemoteSystem:
    """One D-Wave system."""

    def __init__(self, config: SynthConfig) -> None:
        from dwave.system import DWaveSampler

        wanted = config.solver or {"topology__type": config.topology}
        with _explained(f"solver={config.solver!r}" if config.solver else f"topology={config.topology!r}"):
            self.sampler = DWaveSampler(solver=wanted)
        self.name = str(self.sampler.solver.name)
        self._annealing_time = config.annealing_time
        self._meter = current_meter() or meter_for(config)
        self._estimate, self._seconds, self._above = 0.0, 0.0, 1.0

    @contextmanager
    def submitting(self, qubits: int, reads: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Charges, then lets the problem be submitted."""
        times = {"num_reads": reads, "annealing_time": self._annealing_time}
        seconds = self.sampler.solver.estimate_qpu_access_time(num_qubits=qubits, **times) / 1e6
        self._estimate = seconds * self._above
        self._meter.charge(1, reads, self._estimate)
        with _explained(self.name):
            yield {**times, "auto_scale": False, "answer_mode": "raw", "label": "qfed"}

    def done(self, samples: Any) -> None:
        """Correct the account by what the answer says."""
        used = float(samples.info["timing"]["qpu_access_time"]) / 1e6
        self._meter.correct(used - self._estimate)
        self._above = max(self._above, self._above * used / self._estimate)
        self._seconds += used

    def report(self) -> dict[str, Any]:
        """The system and what it was used for."""
        return {"sampler": "qpu", "annealing_time": self._annealing_time, "seconds": self._seconds}


def remote_system(config: SynthConfig, bits: int) -> EmbeddedAnnealer:
    """synth.sampler = "qpu"."""
    return EmbeddedAnnealer(RemoteSystem(config), bits, config.chain_strength)


def meter_for(config: SynthConfig, **account: Any) -> Meter:
    """The account of one fit and its samples, with the caps of the configuration; keywords as of `Meter`."""
    caps = Caps(shots=config.most_shots, seconds=config.most_seconds)
    return Meter(DEVICE, caps=caps, section="synth", **account)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """The vendor's errors as qfed's. Their texts are left out where a token or an address may be in them."""
    from dwave.cloud import exceptions as cloud

    try:
        yield
    except cloud.SolverAuthenticationError:
        raise ConfigError(f"D-Wave refuses the token for {what}; renew DWAVE_API_TOKEN or dwave.conf") from None
    except cloud.SolverNotFoundError:
        raise ConfigError(
            f"D-Wave has {what} not online for this token; choose another synth.solver (`dwave solvers` lists them) or "
            "another synth.topology"
        ) from None
    except (OSError, cloud.PollingTimeout, cloud.CanceledFutureError) as error:  # most of the vendor's are OSErrors
        raise QfedError(f"D-Wave's service failed ({type(error).__name__}) for {what}; try again later") from None
    except cloud.ConfigFileError as error:
        raise ConfigError(f"D-Wave's client cannot read dwave.conf ({type(error).__name__}); correct it") from None
    except ValueError as error:
        if "token not defined" not in str(error):
            raise
        raise ConfigError(_NOT_SET_UP) from None
