"""What a run's configuration holds: frozen sections, every field documented, unknown keys refused."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

EMBEDDED = ("breast_cancer", "digits", "wine")
CIRCUITS = ("reuploading", "strongly_entangling", "basic_entangler")
MAX_WIRES = 20

# Strict: "3", true and 3.0 are not counts, and a range never ends in inf or nan.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Fraction = Annotated[Number, Field(gt=0, lt=1)]
Positive = Annotated[Number, Field(gt=0)]
Count = Annotated[Whole, Field(ge=1)]


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys are refused, docstrings become descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _different(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < max(len(labels), 2):
        raise ValueError(f"expected at least two labels, each once, got {list(labels)}")
    return labels


Labels = Annotated[tuple[str, ...], AfterValidator(_different)]


class NumericColumn(Section):
    """A numeric feature and its public range; values are scaled to [-1, 1] by it and clipped to it."""

    name: str
    """Name of the column in the file."""
    kind: Literal["numeric"] = "numeric"
    """Marks the column as a number."""
    low: Number
    """Smallest value that can occur, from public knowledge (a data dictionary), never from the data."""
    high: Number
    """Largest value that can occur, from public knowledge."""
    missing: Literal["refuse"] | Number = "refuse"
    """What an empty cell becomes: "refuse" stops with an error, a number is filled in (and must be public)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"column {self.name!r} needs low < high, got low={self.low}, high={self.high}")
        if self.missing != "refuse" and not self.low <= self.missing <= self.high:
            raise ValueError(
                f"column {self.name!r}: missing={self.missing} lies outside its range [{self.low}, {self.high}]"
            )
        return self


class CategoricalColumn(Section):
    """A categorical feature; each listed category becomes one coordinate in {-1, 1}."""

    name: str
    """Name of the column in the file."""
    kind: Literal["categorical"]
    """Marks the column as a category."""
    categories: Labels
    """All categories that can occur, from public knowledge; any other value is refused."""
    missing: Literal["refuse"] | str = "refuse"
    """What an empty cell becomes: "refuse" stops with an error, else one of the categories."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.missing != "refuse" and self.missing not in self.categories:
            raise ValueError(
                f"column {self.name!r}: missing={self.missing!r} is none of its categories {list(self.categories)}"
            )
        return self


def _kind(value: Any) -> str:
    return str(value.get("kind", "numeric") if isinstance(value, dict) else getattr(value, "kind", "numeric"))


Column = Annotated[
    Annotated[NumericColumn, Tag("numeric")] | Annotated[CategoricalColumn, Tag("categorical")], Discriminator(_kind)
]


class TargetColumn(Section):
    """What is predicted: classes (classification) or a number with its public range (regression)."""

    name: str
    """Name of the column in the file."""
    classes: Labels | None = None
    """All class labels, as text, from public knowledge; leave out for regression."""
    low: Number | None = None
    """Regression: smallest possible value, public."""
    high: Number | None = None
    """Regression: largest possible value, public."""

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        given = [end for end in (self.low, self.high) if end is not None]
        if (self.classes is None) != (len(given) == 2) or (self.classes is not None and given):
            raise ValueError("a target needs either classes = [...] (classification) or both low and high (regression)")
        if given and not given[0] < given[1]:
            raise ValueError(f"the target needs low < high, got low={self.low}, high={self.high}")
        return self


class DataConfig(Section):
    """Which records there are, what their columns mean, and how a simulation deals them to sites."""

    source: str = "breast_cancer"
    """An embedded data set (breast_cancer, digits, wine) or the path of a .csv or .parquet file."""
    columns: tuple[Column, ...] = ()
    """The features of a file, in order, each with its public range or categories; embedded sets bring their own."""
    target: TargetColumn | None = None
    """The column to predict, for a file; embedded sets bring their own."""
    partition: Literal["iid", "dirichlet", "column"] = "iid"
    """How a simulation deals records to sites: shuffled evenly, label-skewed, or by the values of a column."""
    alpha: Positive = 0.5
    """Dirichlet concentration for partition = "dirichlet"; smaller is more skewed."""
    column: str | None = None
    """The column whose values name the sites, for partition = "column" (a file's column; it is not a feature)."""
    test_fraction: Fraction = 0.2
    """Share of every site's records held out at that site for evaluation."""

    @model_validator(mode="after")
    def _file_has_schema(self) -> Self:
        if self.source not in EMBEDDED:
            if Path(self.source).suffix not in (".csv", ".parquet"):
                near = difflib.get_close_matches(self.source, EMBEDDED, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"source={self.source!r} is neither an embedded data set ({', '.join(EMBEDDED)}) "
                    f"nor a .csv or .parquet file{hint}"
                )
            if not self.columns or self.target is None:
                raise ValueError(
                    f"source={self.source!r} is a file, so data.columns and data.target must say what is in it "
                    "(qfed config init --from FILE writes a first draft)"
                )
        elif self.columns or self.target is not None:
            raise ValueError(f"the embedded data set {self.source!r} brings its own columns and target; leave them out")
        if self.target is not None:
            roles = [*(column.name for column in self.columns), self.target.name]
            roles += [self.column] if self.partition == "column" and self.column is not None else []
            if twice := sorted({name for name in roles if roles.count(name) > 1}):
                raise ValueError(
                    f"column names {twice} are used twice; a column is one feature, the target or the sites' names"
                )
        if self.partition == "column" and self.column is None:
            raise ValueError('partition = "column" needs data.column, the column whose values name the sites')
        if self.partition == "column" and self.source in EMBEDDED:
            raise ValueError(f'partition = "column" needs a file; {self.source!r} has no column that names sites')
        return self


class ModelConfig(Section):
    """Encoder (linear, features to angles), circuit, head (linear, expectations to outputs)."""

    kind: Literal["hybrid", "twin"] = "hybrid"
    """"hybrid" is encoder + circuit + head; "twin" its classical twin with the same number of parameters."""
    wires: Annotated[Whole, Field(ge=1, le=MAX_WIRES)] = 4
    """Qubits of the circuit."""
    layers: Count = 2
    """Repetitions of the circuit's trainable block."""
    circuit: str = "reuploading"
    """A built-in circuit (reuploading, strongly_entangling, basic_entangler) or your own as FILE.py:FUNCTION."""
    weight_shapes: dict[str, tuple[Whole, ...]] | None = None
    """Shapes of the weights that your own circuit takes, as for qml.qnn.TorchLayer; leave out for built-in ones."""

    @model_validator(mode="after")
    def _circuit(self) -> Self:
        own = ".py:" in self.circuit
        if not own and self.circuit not in CIRCUITS:
            near = difflib.get_close_matches(self.circuit, CIRCUITS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"circuit={self.circuit!r} is none of {', '.join(CIRCUITS)} and not FILE.py:FUNCTION{hint}"
            )
        if bad := [name for name, shape in (self.weight_shapes or {}).items() if any(size < 1 for size in shape)]:
            raise ValueError(f"model.weight_shapes of {bad} must be positive integers; use [] for a single number")
        if own and not self.weight_shapes:
            raise ValueError(
                f"circuit={self.circuit!r} is your own, so model.weight_shapes must give its weights' shapes"
            )
        if not own and self.weight_shapes:
            raise ValueError(
                f"circuit={self.circuit!r} is built in and knows its weights; leave model.weight_shapes out"
            )
        return self


class TrainingConfig(Section):
    """What every site does in a round; all of it public and the same for every site."""

    rounds: Count = 15
    """Rounds of the run: one aggregation each."""
    local_steps: Count = 4
    """Optimiser steps of a site in one round."""
    sampling_rate: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Probability q with which each record enters a step (Poisson sampling); 1 takes every record every step."""
    batch_size: Positive = 36
    """Denominator of a site's mean gradient: about sampling_rate x records of a typical site. Public, never counted."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """The site's optimiser; its state lives for one round."""
    learning_rate: Positive = 0.2
    """The site's learning rate."""
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    """Momentum of the site's SGD."""


class PrivacyConfig(Section):
    """Differential privacy of the run."""

    mode: Literal["local", "off"] = "local"
    """"local": DP-SGD at every site, trusting nobody. "off": none (comparison and debugging only)."""
    unit: Literal["record"] = "record"
    """What is protected: one record."""
    epsilon: Positive = 3.0
    """Budget of the whole run (all rounds together) for each record; the noise is calibrated to it."""
    delta: Fraction = 1e-5
    """Failure probability of the guarantee; should be well below 1 / records."""
    clip_norm: Positive = 1.0
    """Bound C on the L2 norm of each record's gradient."""
    noise_multiplier: Positive | None = None
    """sigma; leave out to have it calibrated from epsilon. When given, the run must still fit epsilon."""


class FederationConfig(Section):
    """Who takes part and how answers are merged."""

    sites: Annotated[Whole, Field(ge=3, le=4096)] = 10
    """Sites of the federation (a simulation makes this many); a sum of fewer than three hides nobody's part."""
    quorum: Annotated[Number, Field(gt=0, le=1)] = 0.8
    """Share of the sites that must answer a round; below it the round fails and the model is kept."""
    deadline: Positive = 600.0
    """Seconds after which a site that has not answered a round counts as dropped out."""
    max_failed_rounds: Annotated[Whole, Field(ge=0)] = 3
    """Failed rounds in a row after which the run ends."""
    weighting: Literal["records", "uniform"] = "records"
    """Weight of a site in the mean: its number of records (hidden in the masked sum), or one each."""
    strategy: Literal["fedavg"] = "fedavg"
    """Server optimiser applied to the mean update."""
    server_learning_rate: Positive = 1.0
    """Step size of the server optimiser."""


class SecAggConfig(Section):
    """Secure aggregation: the aggregator decodes the cohort's sum and nothing else."""

    mode: Literal["on", "off"] = "on"
    """"off" sends updates in clear; simulation only, and every report says so."""
    update_clip: Positive = 4.0
    """Bound on the L2 norm of a site's update, so on each coordinate; a longer update is scaled down to it."""
    bits: Annotated[Whole, Field(ge=8, le=24)] | None = None
    """Quantisation: 2^(bits-1) steps between 0 and update_clip; leave out for the finest that fits the ring."""
    ring_bits: Literal[32] = 32
    """Width w of the ring that masks live in."""
    max_weight: Count = 1024
    """Largest record count that a site may weigh in with; larger sites count as this many."""
    committee_size: Annotated[Whole, Field(ge=2)] | None = None
    """Members that hold masks; all sites up to 32, beyond that leave out for the smallest safe committee."""
    recoverable_drops: Annotated[Whole, Field(ge=0)] | None = None
    """Committee members that may vanish between upload and unmask; leave out for about a fifth."""
    epoch_rounds: Annotated[Whole, Field(ge=1, le=1024)] = 32
    """Rounds after which keys are made anew."""


class Failure(Section):
    """A site that fails on purpose in one round of a simulation."""

    site: Annotated[Whole, Field(ge=0)]
    """Index of the site, from 0."""
    round: Count
    """The round, from 1."""
    phase: Literal["train", "unmask"] = "train"
    """Before it uploads, or after (it then vanishes from the committee)."""


Comparison = Literal["twin", "non_private", "no_federation"]


class SimulationConfig(Section):
    """How a simulation runs on this machine; nothing here reaches a deployed site."""

    engine: Literal["inprocess", "ray"] = "inprocess"
    """"inprocess" runs the sites here one after another; "ray" on Flower's Ray runtime (extra qfed[sim])."""
    compare: tuple[Comparison, ...] = ("twin", "non_private", "no_federation")
    """Runs beside the main one: classical twin, without privacy, each site alone."""
    failures: tuple[Failure, ...] = ()
    """Failures to inject into the main run, e.g. [{site = 3, round = 5}]."""


class RunConfig(Section):
    """One run: a training job of one federation."""

    name: str = "breast-cancer"
    """Name of the run, for people."""
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 1
    """Seeds partitions, initial weights and, without privacy, sampling. Keys and privacy noise never use it."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    federation: FederationConfig = FederationConfig()
    secagg: SecAggConfig = SecAggConfig()
    simulation: SimulationConfig = SimulationConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.simulation.failures and self.simulation.engine != "inprocess":
            raise ValueError('simulation.failures are injected by the in-process engine only; use engine = "inprocess"')
        for failure in self.simulation.failures:
            if failure.site >= self.federation.sites or failure.round > self.training.rounds:
                raise ValueError(
                    f"simulation.failures names site={failure.site}, round={failure.round}, but there are "
                    f"{self.federation.sites} sites (from 0) and {self.training.rounds} rounds (from 1)"
                )
        return self
