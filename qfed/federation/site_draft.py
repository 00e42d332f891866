"""The first draft of a site's site.toml: every section, what it is for, and the defaults, to be read by a person.

What is commented out is a default or an example: "#" and a key, without a space, becomes a setting when the "#" goes.
"""

from __future__ import annotations

import tomli_w

from qfed.config import PrivacyConfig


def draft_site(name: str, source: str | None = None) -> str:
    """The text of a new site.toml for a site of this name; `source` is a table of its own, if it is known."""
    privacy = PrivacyConfig()
    head = tomli_w.dumps({"name": name, "dataset": name}).strip()
    data = f"[data]\n{tomli_w.dumps({'source': source}).strip()}" if source else '#[data]\n#source = "cohort.csv"'
    return f"""\
# Settings of the site {name}. They are this site's own: no run and no aggregator can change them.
{head}
# dataset names the records in the privacy ledger: the budget below belongs to them, over all runs and for ever.
# Fingerprint of the coordinator who may say who belongs; qfed site join sets it after you compared it by telephone.
#coordinator = "0000 0000 0000 0000 0000 0000 0000 0000 0000 0000"
# An agent loads torch as soon as it is connected, so that its first answer comes at once; with false the first message
# loads it, and until then the agent takes a quarter of the memory.
#preload = true

# Where the records are. A .csv or .parquet file, relative to this folder ...
{data}
# ... or a database, whose URL (with a user who may only read) stands in an environment variable:
#url_env = "COHORT_URL"
#table = "cohort"
# Runs say which columns they want. Where a column has another name here, its values other codes, or another unit:
#rename = {{ Alter = "age" }}
#recode = {{ sex = {{ m = "male", w = "female" }} }}
#convert = {{ glucose = {{ factor = 18.02 }} }}

# The aggregator; qfed site join sets it.
#[server]
#address = "aggregator.example.org:9443"
#ca = "ca.crt"

# What this site refuses, whatever a run asks for. Check a run against it with: qfed site check --config RUN.toml
[policy]
# The privacy budget of the records, over all runs: epsilon at delta.
epsilon = {privacy.epsilon}
delta = {privacy.delta}
#require_privacy = true
#kinds = ["train", "synthesize"]
#modes = ["shared", "local", "site"]
#units = ["record", "site"]
#least_noise = 0.0
#epsilon_alone = 20.0
#least_survivors = 3
#least_sites = 5
#most_rounds = 200
#models = ["reuploading", "qcnn"]
#most_parameters = 10000
#most_wires = 10
#most_seconds = 600.0
#threads = 2
#hours = "18:00-06:00"
#days = ["mon", "tue", "wed", "thu", "fri"]
#own_circuits = false
# Tell the aggregator's operator how much of the budget is spent; it may tell about the number of records too.
#tell_epsilon = false
# Accept runs on a remote quantum device, whose provider gets your records, encoded in circuits; differential privacy
# does not protect them from it.
#trust_provider = false
# PennyLane devices that simulate on this machine, besides those that qfed knows (default.qubit, lightning.qubit, ...).
#local_devices = ["my.simulator"]
# Most shots, and most money by the price table, that this site spends on quantum devices, over all runs.
#most_shots = 1000000
#most_price = 100.0
"""
