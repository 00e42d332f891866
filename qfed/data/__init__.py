"""Records for a model: sources, schema, public-range scaling, and the dealing of records to simulated sites."""

from qfed.data.bind import hold_out, load_bound, read_bound
from qfed.data.coding import Coding, Decoded
from qfed.data.draft import draft_schema
from qfed.data.load import load, schema_of
from qfed.data.partition import partition
from qfed.data.records import Dataset, Records, Schema, SiteData

__all__ = [
    "Coding",
    "Dataset",
    "Decoded",
    "Records",
    "Schema",
    "SiteData",
    "draft_schema",
    "hold_out",
    "load",
    "load_bound",
    "partition",
    "read_bound",
    "schema_of",
]
