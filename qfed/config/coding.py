"""How records become bits, for simulated data: public ranges, thresholds and categories only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from qfed.config.section import Count, Fraction, Number, Section


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError(f"expected rising values, each once, got {list(values)}")
    return values


MOST_BITS = 8


class CodingConfig(Section):
    """Coding of records into bits for kind = "synthesize"; never taken from the records themselves."""

    columns: tuple[str, ...] = ()
    """Features to code, by name; empty codes all. Pair counts grow with the square of the bits, and noise with them."""
    bits: Annotated[Count, Field(le=MOST_BITS)] = 1
    """Bits of a numeric column: thresholds evenly spaced over its public range (on its scale, linear or log)."""
    levels: Annotated[tuple[Fraction, ...], AfterValidator(_rising)] = ()
    """In place of evenly spaced thresholds: shares of every numeric column's public range, such as [0.25, 0.5]."""
    thresholds: dict[str, Annotated[tuple[Number, ...], Field(min_length=1), AfterValidator(_rising)]] = Field({})
    """Thresholds of single columns in their own unit, such as clinical limits: {age = [18, 65]}; must be public."""
    numeric: Literal["thermometer", "gray"] = "thermometer"
    """"thermometer": bit k says whether the value is above threshold k, so pair counts hold all two-way tables of the
    binned columns exactly; "gray": 2^bits evenly spaced bins numbered by a Gray code, more bins for as many bits, of
    whose two-way tables pair counts hold a part."""
    categories: Literal["onehot", "binary"] = "onehot"
    """"onehot": one bit a category (one for two categories), which pair counts describe in full; "binary": the
    category's number as a Gray code, fewer bits, less of it in pair counts."""
    pool: Count = 1
    """Square images: side of the blocks whose mean becomes one feature; 2 makes 4 x 4 of 8 x 8 pixels."""
    classes: dict[str, tuple[str, ...]] = Field({})
    """Groups of the target's classes to tell apart, such as {even = ["0", "2"], odd = ["1", "3"]}; leave out for the
    classes themselves."""
    values: Literal["uniform", "centre"] = "uniform"
    """Where in its bin a decoded number lies: drawn evenly, or in the middle."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        if twice := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise ValueError(f"coding.columns names {twice} more than once")
        grouped = [label for group in self.classes.values() for label in group]
        if twice := sorted({label for label in grouped if grouped.count(label) > 1}):
            raise ValueError(f"coding.classes puts {twice} into more than one group")
        if self.classes and (len(self.classes) < 2 or not all(self.classes.values())):
            raise ValueError("coding.classes needs at least two groups, none of them empty")
        return self
