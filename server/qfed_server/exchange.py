"""Asking sites and collecting their answers, within a deadline, over any Flower Grid.

Flower's own `send_and_receive` sleeps three seconds between polls; this one starts at 2 ms and slows down to 0.5 s.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field

from qfed._flower import Grid, Message
from qfed.errors import QuorumLost, RemoteProtocolError
from qfed.federation import wire
from qfed_server.witness import Witness

Accept = Callable[[str, Mapping[str, wire.Field]], None]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.5


@dataclass
class Traffic:
    """Payload bytes a site, up (to the aggregator) and down, bytes and seconds a phase, and budgets that sites tell."""

    up: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    down: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    phases: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    spent: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Epsilon that a site's records have spent over all runs, and their budget, where the site tells it."""


@dataclass(frozen=True)
class Answers:
    """Fields that came back by site, and for each other site that was asked why nothing did."""

    fields: Mapping[str, Mapping[str, wire.Field]]
    missing: Mapping[str, str]

    def bodies(self) -> dict[str, bytes]:
        """The protocol messages, by site."""
        return {site: bytes(fields["body"]) for site, fields in self.fields.items()}  # type: ignore[arg-type]


class Exchange:
    """The sites of a run behind a Grid, by name; counts traffic until `take_traffic`."""

    def __init__(self, grid: Grid, nodes: Mapping[str, int], deadline: float) -> None:
        self._grid, self._nodes, self._deadline = grid, dict(nodes), deadline
        self._traffic = Traffic()
        self.heads: dict[str, bytes] = {}
        """Token of each site's ledger, as it was told last; shown to the site with every round."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites that joined, sorted."""
        return tuple(sorted(self._nodes))

    @property
    def nodes(self) -> frozenset[int]:
        """Their nodes."""
        return frozenset(self._nodes.values())

    def take_traffic(self) -> Traffic:
        """Traffic since the last call."""
        taken, self._traffic = self._traffic, Traffic()
        return taken

    def ask(
        self,
        phase: str,
        kind: str,
        requests: Mapping[str, wire.Fields],
        *,
        round: int,
        accept: Accept | None = None,
        **expected: type,
    ) -> Answers:
        """Send each site its fields and take the answers as they come, at most until the deadline.

        With `accept` an answer is handed over and not kept, so memory does not grow with the number of sites; a site
        whose answer it refuses with RemoteProtocolError counts as missing.
        """
        if not requests:
            return Answers({}, {})
        start = time.monotonic()
        rounds = kind in (wire.TRAIN, wire.EVALUATE)
        if rounds:
            requests = {site: {**fields, "witness": self.heads.get(site, b"")} for site, fields in requests.items()}
            expected |= {"head": bytes, "spent": str}
        sites = {self._nodes[site]: site for site in requests if site in self._nodes}
        kept: dict[str, dict[str, wire.Field]] = {}
        missing = dict.fromkeys(requests, f"no answer within {self._deadline:g} s")
        missing |= dict.fromkeys(set(requests) - set(self._nodes), "has not joined since the aggregator started again")
        messages = []
        for site in sites.values():
            fields = requests[site]
            self._traffic.down[site] += wire.size(fields)
            self._traffic.phases[phase] += wire.size(fields)
            node = self._nodes[site]
            messages.append(Message(wire.pack(fields), node, kind, ttl=self._deadline, group_id=str(round)))
        for reply in collect(self._grid, messages, self._deadline):
            site = sites[reply.metadata.src_node_id]
            if reply.has_error():
                missing[site] = reply.error.reason or f"error {reply.error.code}"
                continue
            try:
                answer = wire.unpack(reply, **expected)
                self._traffic.up[site] += wire.size(answer)
                self._traffic.phases[phase] += wire.size(answer)
                if rounds:
                    self.heads[site] = _head(answer.pop("head"))
                    if told := answer.pop("spent"):
                        self._traffic.spent[site] = _spent(told)
                if accept is not None:
                    accept(site, answer)
                else:
                    kept[site] = answer
                del missing[site]
            except RemoteProtocolError as error:
                missing[site] = str(error)
        self._traffic.seconds[phase] += time.monotonic() - start
        return Answers(kept, missing)


def collect(grid: Grid, messages: list[Message], deadline: float) -> Iterator[Message]:
    """Push messages and yield the replies, one a node, until all have come or the deadline has passed."""
    nodes = {
        name: message.metadata.dst_node_id for name, message in zip(grid.push_messages(messages), messages, strict=True)
    }
    end, pause = time.monotonic() + deadline, _FIRST_PAUSE
    while nodes:
        came = list(grid.pull_messages(set(nodes)))
        for reply in came:
            # A reply counts for the node that was asked, whatever sender it claims.
            if nodes.pop(reply.metadata.reply_to_message_id, None) == reply.metadata.src_node_id:
                yield reply
        if not nodes or time.monotonic() >= end:
            return
        if came:
            pause = _FIRST_PAUSE
        else:
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)


def join(
    grid: Grid,
    *,
    run: str,
    config: str,
    roster: Container[str],
    expected: int,
    quorum: int,
    deadline: float,
    wait: float,
    witness: Witness,
) -> tuple[Exchange, dict[str, str]]:
    """Wait for sites, ask each for its name, show what was last seen of its ledger, and ask for its consent.

    The sites that joined, and why others did not.

    Only sites of the `roster` take part. Waits for all `expected` nodes, and goes on with those present after `wait`
    seconds; QuorumLost below `quorum`.
    """
    end, pause = time.monotonic() + wait, _FIRST_PAUSE
    while len(nodes := list(grid.get_node_ids())) < expected and time.monotonic() < end:
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    unnamed = Exchange(grid, {f"node {node}": node for node in nodes}, deadline)
    hello = unnamed.ask("join", wire.HELLO, {f"node {node}": {"run": run} for node in nodes}, round=0, site=str)
    named: dict[str, int] = {}
    refused = dict(hello.missing)
    for label, fields in hello.fields.items():
        site, node = str(fields["site"]), int(label.removeprefix("node "))
        if site not in roster:
            refused[label] = f"is not in the federation's roster, site={site!r}"
        elif site in named:
            refused[label] = f"claims the name of another node, site={site!r}"
        else:
            named[site] = node
    every = Exchange(grid, named, deadline)
    asked: dict[str, wire.Fields] = {
        site: {"run": run, "config": config, "receipt": witness.receipt(site)} for site in named
    }
    heads: dict[str, bytes] = {}

    def agreed(site: str, fields: Mapping[str, wire.Field]) -> None:
        heads[site] = _head(fields["head"])

    joined = every.ask("join", wire.JOIN, asked, round=0, accept=agreed, head=bytes)
    refused |= joined.missing
    named = {site: node for site, node in named.items() if site in heads}
    if len(named) < quorum:
        why = "; ".join(f"{site}: {reason}" for site, reason in sorted(refused.items())[:5])
        raise QuorumLost(
            f"{len(named)} of {expected} sites joined, but the quorum is {quorum}{': ' + why if why else ''}"
        )
    exchange = Exchange(grid, named, deadline)
    exchange.heads = heads
    witness.note(heads)
    return exchange, refused


def _head(value: wire.Field) -> bytes:
    """A ledger head's token; RemoteProtocolError for what is none."""
    token = bytes(value)  # type: ignore[arg-type]
    if len(token) != wire.HEAD_SIZE:
        raise RemoteProtocolError(f"sent a ledger head of {len(token)} bytes, not {wire.HEAD_SIZE}")
    return token


def _spent(value: wire.Field) -> tuple[float, float]:
    """What a site tells of its budget; RemoteProtocolError for what is none."""
    try:
        epsilon, budget = (float(part) for part in json.loads(str(value)))
        if 0 <= epsilon < math.inf and 0 < budget < math.inf:
            return epsilon, budget
    except (ValueError, TypeError):
        pass
    raise RemoteProtocolError("what a site has spent is told as two figures, epsilon and budget")
