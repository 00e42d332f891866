"""Results shaped as real runs leave them, without running anything; the figures are invented but fit together."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from qfed.config import RunConfig
from qfed.federation.result import (
    Comparison,
    Dropout,
    PrivacyStatement,
    RoundRecord,
    RunResult,
    Score,
    SiteRecord,
)

Task = Literal["classification", "regression"]
HELD_OUT = 114


def make_result(
    *,
    task: Task = "classification",
    sites: int = 10,
    rounds: int = 15,
    private: bool = True,
    secagg: bool = True,
    kind: str = "hybrid",
    final: float | None = None,
    comparisons: tuple[Comparison, ...] | None = None,
    failed: tuple[int, ...] = (8,),
    drops: bool = True,
    status: Literal["completed", "stopped"] = "completed",
    name: str = "breast-cancer",
    **changes: Any,
) -> RunResult:
    """A run of the default configuration; the keywords change one thing each, `changes` fields of the result."""
    rng = np.random.default_rng(7)
    accuracy = task == "classification"
    start, end = (0.627, 0.9474) if accuracy else (31.2, 12.3456)
    end = end if final is None else final
    config = RunConfig.model_validate(
        {
            "name": name,
            "model": {"kind": kind},
            "training": {"rounds": rounds},
            "federation": {"sites": sites},
            "privacy": {"mode": "local" if private else "off"},
            "secagg": {"mode": "on" if secagg else "off"},
        }
    )

    def curve(last: float) -> list[float]:
        path = last + (start - last) * np.exp(-0.45 * np.arange(1, rounds + 1))
        path += rng.normal(0, 0.008 if accuracy else 0.3, rounds)
        return [*(round(float(min(v, 1.0) if accuracy else v), 6) for v in path[:-1]), last]

    def score(value: float) -> Score:
        loss = 1.1 - 0.98 * value if accuracy else (value / 40) ** 2
        return Score(score=value, loss=round(loss, 6), records=HELD_OUT)

    records, main = [], curve(end)
    for index, value in enumerate(main, 1):
        gone: tuple[Dropout, ...] = ()
        if index in failed:
            gone = tuple(Dropout(site=site_name(i), reason="no answer before the deadline") for i in range(sites // 3))
        elif drops and index in (5, 11):
            gone = (
                Dropout(site=site_name(3), reason="failed in training: DataError"),
                Dropout(site=site_name(6 % sites), reason="no answer before the deadline"),
            )[: max(0, sites - 2)]
        down = index in failed
        setup = 5 if index == 1 else 1
        records.append(
            RoundRecord(
                round=index,
                status="failed" if down else "aggregated",
                metrics=None if down else score(value),
                epsilon=2.9961 * math.sqrt(index / rounds) if private else None,
                survivors=0 if down else sites - len(gone),
                dropouts=gone,
                bytes_up=setup * 1_937 * sites,
                bytes_down=setup * 1_203 * sites,
                seconds={
                    "setup": 1.31 if index == 1 else 0.0,
                    "train": 0.82 + 0.01 * index,
                    "upload": 0.21,
                    "unmask": 0.11,
                    "evaluate": 0.09,
                },
            )
        )
    if comparisons is None:
        shift = 1.0 if accuracy else -60.0
        comparisons = (
            Comparison(
                kind="twin",
                label="classical twin" if kind == "hybrid" else "hybrid",
                parameters=148,
                metrics=score(0.9561 if accuracy else 11.9),
                epsilon=2.9961 if private else None,
                rounds=tuple(curve(0.9561 if accuracy else 11.9)),
            ),
            Comparison(
                kind="non_private",
                label="without privacy",
                parameters=151,
                metrics=score(0.9825 if accuracy else 9.8),
                epsilon=None,
                rounds=tuple(curve(0.9825 if accuracy else 9.8)),
            ),
            Comparison(
                kind="no_federation",
                label="each site alone",
                parameters=151,
                metrics=score(0.8246 * shift if accuracy else 17.6),
                epsilon=2.9961 if private else None,
            ),
        )
    if not private:
        comparisons = tuple(c for c in comparisons if c.kind != "non_private")
    fields: dict[str, Any] = {
        "status": status,
        "run": "9f2c41d07be8a355",
        "config": config,
        "versions": {"python": "3.11.2", "qfed": "0.1.0", "flwr": "1.41.0", "torch": "2.13.0", "numpy": "2.4.1"},
        "task": task,
        "metric": "accuracy" if accuracy else "rmse",
        "parameters": 151,
        "initial": score(start),
        "rounds": tuple(records),
        "final": score(end),
        "privacy": statement(private, secagg, rounds),
        "sites": tuple(
            SiteRecord(
                name=site_name(i),
                train_records=45 + i % 3,
                test_records=11 + i % 2,
                rounds=rounds - len(failed) - (2 if drops and i in (3, 6) else 0),
                epsilon=2.9961 if private else None,
                bytes_up=1_937 * (rounds + 4) + 7 * (i % 5),
                bytes_down=1_203 * (rounds + 4),
            )
            for i in range(sites)
        ),
        "comparisons": comparisons,
        "seconds": {"preparation": 2.4, "main run": 21.7, "comparisons": 17.3, "total": 41.4},
    }
    return RunResult.model_validate(fields | changes)


def site_name(index: int) -> str:
    """`site-03`."""
    return f"site-{index:02d}"


def statement(private: bool, secagg: bool, rounds: int) -> PrivacyStatement:
    """What qfed.federation states about such a run, shortened."""
    return PrivacyStatement(
        mode="local" if private else "off",
        unit="one record of one site" if private else "nothing",
        adjacency="zero-out: one record's contribution to every gradient is replaced by zero" if private else "none",
        epsilon=2.9961 if private else None,
        delta=1e-5 if private else None,
        noise_multiplier=11.27 if private else None,
        clip_norm=1.0 if private else None,
        sampling_rate=1.0,
        steps=4 * rounds,
        accountant="dp-accounting, Gaussian composition in closed form" if private else "none",
        trust="nobody but the site itself: its noise is added before anything leaves it"
        if private
        else "the aggregator and everybody who gets the model",
        secure_aggregation="masked with a committee's keys: the aggregator decodes the sum over the cohort"
        if secagg
        else "off: the aggregator sees every site's own update",
        not_covered=(
            "held-out scores and losses: the aggregator sees their exact totals over the cohort, without noise",
            "record counts: the aggregator sees their total over the cohort",
            "a person with several records, at one site or at several: the guarantee is for one record",
        ),
    )
