"""The configuration of a run: one TOML file; every field has a default, so an empty file is a valid run."""

from qfed.config.binding import Conversion, DataBinding
from qfed.config.born import BACKENDS, BornConfig
from qfed.config.coding import MOST_BITS, CodingConfig
from qfed.config.data import EMBEDDED, CategoricalColumn, Column, DataConfig, NumericColumn, TargetColumn
from qfed.config.federation import FederationConfig, SecAggConfig
from qfed.config.model import ARCHITECTURES, CIRCUITS, MAX_WIRES, ModelConfig
from qfed.config.prices import Price, PriceTable, shipped_prices
from qfed.config.privacy import PrivacyConfig
from qfed.config.quantum import NoiseConfig, QuantumConfig
from qfed.config.reader import (
    anchored,
    environment,
    load_config,
    load_prices,
    load_server,
    load_site,
    replace,
    to_toml,
    to_tree,
)
from qfed.config.schema import FEW_SITES, Failure, RunConfig, SimulationConfig, TrainingConfig
from qfed.config.server import ServerConfig
from qfed.config.site import ServerAddress, SiteConfig, SitePolicy
from qfed.config.synth import GENERATORS, SynthConfig

__all__ = [
    "ARCHITECTURES",
    "BACKENDS",
    "CIRCUITS",
    "EMBEDDED",
    "FEW_SITES",
    "GENERATORS",
    "MAX_WIRES",
    "MOST_BITS",
    "BornConfig",
    "CategoricalColumn",
    "CodingConfig",
    "Column",
    "Conversion",
    "DataBinding",
    "DataConfig",
    "Failure",
    "FederationConfig",
    "ModelConfig",
    "NoiseConfig",
    "NumericColumn",
    "Price",
    "PriceTable",
    "PrivacyConfig",
    "QuantumConfig",
    "RunConfig",
    "SecAggConfig",
    "ServerAddress",
    "ServerConfig",
    "SimulationConfig",
    "SiteConfig",
    "SitePolicy",
    "SynthConfig",
    "TargetColumn",
    "TrainingConfig",
    "anchored",
    "environment",
    "load_config",
    "load_prices",
    "load_server",
    "load_site",
    "replace",
    "shipped_prices",
    "to_toml",
    "to_tree",
]
