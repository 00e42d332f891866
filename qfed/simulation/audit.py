"""The audit of a configuration through the plan that trains it: canaries in, releases out, a verdict.

    m canaries, each in the data with probability 1/2, dealt to the sites in turn, beside the sites' own records;
    every round of the run; the plan's own sampler, clipper, noise and ledger, and secure aggregation in modes that
    rest on it

A canary that is not in the data leaves a null coordinate, and one of another site's as well where sites release alone.
The coin flips are the operating system's unless a seed is given; the noise always is. In mode site a canary is a site,
of which there are few: gates are as sharp, bounds on epsilon are weak.

training.method = "dp_zo" has canaries of its own (qfed.privacy.audit.probes), each with directions of its own.

Source  gates of our own; bounds as in qfed.privacy.audit.bounds (one run, no retraining)
Cost    a training run of the audited sites with m more features and m / 2 more records; dp_zo: 2 m K forward passes of
        a linear model a step and site
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qfed.config import RunConfig
from qfed.config import replace as changed
from qfed.data import load, partition
from qfed.errors import ConfigError, StateError
from qfed.federation.local import Learner, learner_for
from qfed.models import flatten, load_model
from qfed.privacy.audit import gates
from qfed.privacy.audit.bounds import lower_bounds
from qfed.privacy.audit.verdict import Gate, Verdict
from qfed.privacy.ledger import Ledger, Limits
from qfed.report import read_result
from qfed.simulation import simulate
from qfed.simulation.arms import in_kernel
from qfed.simulation.probed import observe as observe_probed
from qfed.simulation.releases import Canaries, Observed, Progress, fewest_sites, observe

CANARIES, SITES = 1000, 3
PROBED_CANARIES = 250
"""Canaries of a zeroth-order plan, each of which takes its own directions: enough to see nine tenths of the noise."""
CONFIDENCE = 0.99


def audit(
    config: RunConfig,
    *,
    canaries: int | None = None,
    sites: int | None = None,
    rounds: int | None = None,
    folder: Path | None = None,
    membership: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Audit the plan of `config` over `rounds` (default: all of the run's) at `sites` sites (default: 3).

    `canaries` is 1000 if left out, 250 for training.method = "dp_zo".
    With the `folder` of a finished simulation its ledgers are checked as well, and `membership` attacks its model;
    without one, `membership` trains the model first. ConfigError when there is nothing to audit.
    """
    if config.privacy.mode == "off":
        raise ConfigError('privacy.mode="off" promises nothing, so there is nothing to audit; choose a private mode')
    config = changed(config, in_kernel(config))  # clipping and noise come after the circuits, wherever those run
    began = time.monotonic()
    learner = learner_for(config)
    rounds = min(rounds or config.training.rounds, config.training.rounds)
    number = fewest_sites(learner, sites or SITES)
    probed = config.training.method == "dp_zo"
    canaries = canaries or (PROBED_CANARIES if probed else CANARIES)
    flips = np.random.default_rng(seed)
    by_site = config.privacy.unit == "site"
    units = number if by_site else canaries
    exists = np.arange(canaries) < units
    included = exists & (flips.random(canaries) < 0.5)
    if by_site:  # few canaries: at least one of each kind
        included[flips.permutation(units)[:2]] = True, False
    chosen = Canaries(exists, included, np.arange(canaries) % number)
    data = partition(load(config.data), config.data, config.federation.sites, config.seed)
    told = progress or (lambda done, total: None)
    with tempfile.TemporaryDirectory(prefix="qfed-audit-") as work:
        observed = (observe_probed if probed else observe)(learner, data[:number], chosen, rounds, Path(work), told)
        verdict = _judged(config, learner, observed, chosen, rounds, number)
        if folder is not None:
            verdict = replace(verdict, gates=(*verdict.gates, _ledgers_agree(folder)))
        if membership:
            from qfed.simulation.membership import membership as attack  # scikit-learn's metrics, only for the picture

            verdict = replace(verdict, membership=attack(config, _final(config, folder, Path(work)), data))
    return replace(verdict, seconds=time.monotonic() - began)


def _final(config: RunConfig, folder: Path | None, work: Path) -> NDArray[np.float32]:
    """The final model (P,) of the run in `folder`, or of one made now."""
    if folder is None:
        folder = work / "run"
        simulate(changed(config, {"simulation.compare": []}), out=folder)
    circuit = config.model.circuit if ":" in config.model.circuit else None
    return flatten(load_model(folder, circuit).module)


def _ledgers_agree(folder: Path) -> Gate:
    """A finished run's ledgers: chains intact, and epsilon as the result tells it."""
    result = read_result(folder)
    wrong = 0
    for site in result.sites:
        file = folder / "ledgers" / f"{site.name}.db"
        if not file.is_file():
            raise ConfigError(f"the run's folder has no ledger of site={site.name!r}; expected {file}")
        book = Ledger(file, Limits(result.config.privacy.epsilon, result.config.privacy.delta))
        try:
            book.verify()
            wrong += site.epsilon is None or abs(book.spent(site.name) - site.epsilon) > 1e-6 * site.epsilon
        except StateError:
            wrong += 1
        finally:
            book.close()
    means = "ledgers of the run that were edited, or that tell another epsilon than its result"
    return Gate("run's ledgers", float(wrong), 0.0, 0.0, means)


def _judged(
    config: RunConfig, learner: Learner, observed: Observed, canaries: Canaries, rounds: int, sites: int
) -> Verdict:
    plan, releases, sigma = learner.plan, observed.releases, observed.sigma
    claimed, delta, multiplier = plan.epsilon(rounds), plan.delta, plan.noise_multiplier
    assert claimed is not None and delta is not None and multiplier is not None  # noqa: S101, PT018  private
    null = releases[:, ~canaries.included]
    scores = (releases * observed.shows).sum(0) / np.maximum(observed.shows.sum(0), 1)
    shown = releases[:, canaries.included][observed.shows[:, canaries.included]][None, :]
    bounds = lower_bounds(scores[canaries.exists], canaries.included[canaries.exists], delta, CONFIDENCE)
    return Verdict(
        name=config.name,
        mode=config.privacy.mode,
        method=config.training.method,
        unit=config.privacy.unit,
        epsilon=claimed,
        delta=delta,
        noise_multiplier=multiplier,
        clip_norm=config.privacy.clip_norm,
        sampling_rate=observed.rate,
        canaries=int(canaries.exists.sum()),
        sites=sites,
        rounds=rounds,
        releases=len(releases),
        confidence=CONFIDENCE,
        gates=(
            gates.noise_level(null, sigma),
            gates.noise_shape(null, sigma),
            gates.noise_correlation(null),
            gates.canary_gain(shown, sigma, observed.rate),
            gates.charged(observed.spent, claimed),
            gates.proven(max(bound.epsilon for bound in bounds if bound.binding), claimed),
        ),
        bounds=bounds,
        scores_in=tuple(scores[canaries.included].tolist()),
        scores_out=tuple(scores[canaries.exists & ~canaries.included].tolist()),
        levels=tuple((null.std(1) / sigma).tolist()),
        seconds=0.0,
    )
