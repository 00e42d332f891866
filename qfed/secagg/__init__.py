"""Secure aggregation: the aggregator learns the sum of the cohort's vectors and nothing else.

Pure state machines, bytes in and bytes out: `ClientSession` on a site, `ServerSession` on the aggregator. The
protocol and the argument for it are in SECURITY.md beside this file; it has had no outside review.
"""

from qfed.secagg.client import ClientSession
from qfed.secagg.client_groups import GroupedSession, client_session
from qfed.secagg.encoding import Block, Layout, decode, encode
from qfed.secagg.federation import Federation
from qfed.secagg.groups import Group
from qfed.secagg.identity import Identity, PublicIdentity
from qfed.secagg.policy import Policy
from qfed.secagg.reasons import Reason, SecAggMisuse, SecAggRefused, SecAggState
from qfed.secagg.receipt import Receipt, ledger_token
from qfed.secagg.server import Aggregate, ServerRound, ServerSession
from qfed.secagg.server_epoch import ServerEpoch
from qfed.secagg.server_setup import EpochSetup
from qfed.secagg.store import ClientStore

__all__ = [
    "Aggregate",
    "Block",
    "ClientSession",
    "ClientStore",
    "EpochSetup",
    "Federation",
    "Group",
    "GroupedSession",
    "Identity",
    "Layout",
    "Policy",
    "PublicIdentity",
    "Reason",
    "Receipt",
    "SecAggMisuse",
    "SecAggRefused",
    "SecAggState",
    "ServerEpoch",
    "ServerRound",
    "ServerSession",
    "client_session",
    "decode",
    "encode",
    "ledger_token",
]
