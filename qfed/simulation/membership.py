"""Membership inference on a trained model, for the picture: RMIA with a few reference models.

    ratio(x) = p(x | theta) / mean_k p(x | theta_k),     score(x) = P_z[ratio(x) >= ratio(z)],    z other records

p(x | theta) = exp(-loss), theta_k trained without privacy on random halves of all records (Zarifzadeh, Liu and Shokri,
ICML 2024). Departures: gamma = 1; the reference models that saw x count as well (their online variant); z are the
records held out, so the attack is a little stronger than one without them. It says what an outsider with the final
model could see, not what is proven: that is the business of the canaries.
Cost    `models` trainings of one site without privacy
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from qfed.config import RunConfig, replace
from qfed.data import SiteData
from qfed.federation.contribution import unfolded
from qfed.federation.local import Learner, learner_for
from qfed.models import flatten, loss, unflatten
from qfed.privacy.audit.verdict import Membership
from qfed.privacy.plan import OpenPlan, Task, ZerothPlan
from qfed.privacy.rounds import Read, only

_POINTS = 60


def membership(config: RunConfig, vector: NDArray[np.float32], data: Sequence[SiteData], models: int = 8) -> Membership:
    """The attack on the model `vector` (P,) that was trained on the sites' training records."""
    x = torch.from_numpy(np.concatenate([part.x for site in data for part in (site.train, site.test)]))
    y = torch.from_numpy(np.concatenate([part.y for site in data for part in (site.train, site.test)]))
    member = np.concatenate([[True] * len(site.train) + [False] * len(site.test) for site in data])
    rng = np.random.default_rng(config.seed)
    alone = {"privacy.mode": "off", "training.batch_size": max(1.0, config.training.sampling_rate * len(x) / 2)}
    learner = learner_for(replace(config, alone))
    reference = [_likelihood(learner, _trained(learner, x, y, rng), x, y) for _ in range(models)]
    ratio = _likelihood(learner, vector, x, y) / np.maximum(np.mean(reference, axis=0), 1e-12)
    score = np.searchsorted(np.sort(ratio[~member]), ratio, side="right") / np.count_nonzero(~member)
    false, true, _ = roc_curve(member, score)
    keep = np.unique(np.linspace(0, len(false) - 1, _POINTS).astype(int))
    return Membership(
        float(roc_auc_score(member, score)), tuple(false[keep].tolist()), tuple(true[keep].tolist()), models, len(x)
    )


def _trained(learner: Learner, x: Tensor, y: Tensor, rng: np.random.Generator) -> NDArray[np.float32]:
    half = torch.from_numpy(np.flatnonzero(rng.random(len(x)) < 0.5))
    unflatten(learner.model, learner.start)
    learner.model.train()
    training, plan = learner.config.training, learner.plan
    if isinstance(plan, ZerothPlan):
        return _stepped(learner, plan, lambda: (x[half], y[half]), rng)
    assert isinstance(plan, OpenPlan)  # noqa: S101  mode off
    for round in range(1, training.rounds + 1):
        plan.train_round(
            learner.model,
            loss(learner.schema.task),
            lambda: (x[half], y[half]),
            optimizer=lambda parameters: torch.optim.SGD(
                parameters, lr=training.learning_rate, momentum=training.momentum
            ),
            ledger=None,
            dataset="reference",
            run="reference",
            round=round,
            rng=rng,
        )
    return flatten(learner.model)


def _stepped(learner: Learner, plan: ZerothPlan, read: Read, rng: np.random.Generator) -> NDArray[np.float32]:
    """A reference model of training.method = "dp_zo"."""
    vector = learner.start
    for round in range(1, learner.config.training.rounds + 1):
        task = Task(torch.from_numpy(vector.copy()), read, None, "reference", "reference", round, rng)
        move = only(plan.release_rounds(learner.model, loss(learner.schema.task), [task]))
        vector = (vector + unfolded(learner.config, move, "reference", round, len(vector))).astype(np.float32)
    return vector


def _likelihood(learner: Learner, vector: NDArray[np.float32], x: Tensor, y: Tensor) -> NDArray[np.float64]:
    unflatten(learner.model, vector)
    learner.model.eval()
    with torch.no_grad():
        return np.asarray(torch.exp(-loss(learner.schema.task)(learner.model(x), y)).double().numpy())
