"""What an aggregator without torch must be told about a run, by the sites: metric, schema, parameters, the plan's cost.

It follows from configuration and seed alone, so every site gives the same answer, and nothing of a site's records is in
it. A configuration that is resolved at other versions of the libraries may differ: the aggregator takes the answer that
most sites give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from qfed.errors import RemoteProtocolError
from qfed.federation.statement import Spending


@dataclass(frozen=True)
class Facts:
    """Facts of one run; `schema` as `Schema.to_dict` gives it."""

    task: Literal["classification", "regression"]
    metric: Literal["accuracy", "rmse"]
    unit: float
    """What a scaled error of 1 is worth in the target's unit."""
    parameters: int
    schema: Mapping[str, Any]
    spending: Spending
    """What the rounds that were asked for come to."""
    epsilon: tuple[tuple[int, float], ...]
    """(round, epsilon up to it) at some rounds; empty without privacy."""

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse of `to_text`; RemoteProtocolError for what is none."""
        try:
            tree = json.loads(text)
            spending = Spending(**tree.pop("spending"))
            epsilon = tuple((int(round), float(spent)) for round, spent in tree.pop("epsilon"))
            found = cls(spending=spending, epsilon=epsilon, **tree)
            fits = (
                found.task in ("classification", "regression")
                and found.metric in ("accuracy", "rmse")
                and isinstance(found.parameters, int)
                and 0 < found.parameters < 2**28
                and isinstance(found.unit, float)
                and isinstance(found.schema, dict)
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RemoteProtocolError(f"sent facts that cannot be read ({type(error).__name__})") from None
        if not fits:
            raise RemoteProtocolError("sent facts that cannot be")
        return found
