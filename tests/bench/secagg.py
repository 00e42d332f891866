"""Secure aggregation against Flower's SecAgg+ on the same work: one interleaved run, medians and ratios.

    python tests/bench/secagg.py [--json FILE] [--quick] [--large]

Flower's side is its own client code (setup, share keys, collect masked vectors, unmask; k = 20 neighbours) and its
server's loop over its own primitives. Ours is the whole of each role: encoding, store (in memory), masking, hashing
and signing, and the setup divided by the 32 rounds of an epoch, on two threads. The goals are held against the clock
on the wall; processor time (all threads), which others on the machine disturb least, stands beside it.
--large adds a simulation of 1000 sites with 10 % drops, of the protocol alone and through `qfed simulate`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flwr.app import ConfigRecord
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "protocol")]
from report import finish  # noqa: E402
from secagg_lab import RUN, Lab, identity, names  # noqa: E402

from qfed.secagg import (  # noqa: E402
    ClientSession,
    ClientStore,
    Federation,
    Layout,
    Policy,
    ServerEpoch,
    ServerSession,
    encode,
    primitives,
)
from qfed.secagg.masking import add_streams  # noqa: E402

flower: Any = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")  # the package shadows the module
SITES, NEIGHBOURS, THRESHOLD = 100, 20, 14
RECOMMENDED = (19, 4)  # L and d that Policy.recommended gives for 100 sites: 10 of them may collude
MANY_DROPS = (27, 8)  # as many colluders; 30 % of the members may vanish
SAMPLE = 20  # plain sites over which the cost of a setup is averaged (a third of all sites open nonces, so check more)
Figure = dict[str, Any]
Seconds = np.ndarray  # [wall, processor]


def clock() -> Seconds:
    return np.array([time.perf_counter(), time.process_time()])


def seconds(call: Callable[[], object]) -> Seconds:
    begin = clock()
    call()
    return clock() - begin


# -- Flower ----------------------------------------------------------------------------------------------------------


class FlowerRing:
    """Flower's sites 0..count-1; each shares with its 20 nearest neighbours on the ring, as its workflow has it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.states = [flower.SecAggPlusState() for _ in range(count)]
        for nid, state in enumerate(self.states):
            state.nid = nid
        self.keys = {nid: self.setup(nid) for nid in range(count)}
        self.mail: dict[int, list[tuple[int, bytes]]] = {nid: [] for nid in range(count)}
        for nid in range(count):
            self.post(nid, self.share(nid))
        for nid in range(count):
            self.collect(nid, np.zeros(1))  # where a site opens its neighbours' shares

    def near(self, nid: int) -> list[int]:
        half = NEIGHBOURS // 2
        return [(nid + step) % self.count for step in range(-half, half + 1)]

    def setup(self, nid: int) -> tuple[bytes, bytes]:
        config = ConfigRecord(
            {
                Key.SAMPLE_NUMBER: self.count,
                Key.SHARE_NUMBER: NEIGHBOURS + 1,
                Key.THRESHOLD: THRESHOLD,
                Key.CLIPPING_RANGE: 8.0,
                Key.TARGET_RANGE: 1 << 22,
                Key.MOD_RANGE: 1 << 32,
                Key.MAX_WEIGHT: 1000.0,
            }
        )
        out = flower._setup(self.states[nid], config)
        return out[Key.PUBLIC_KEY_1], out[Key.PUBLIC_KEY_2]  # type: ignore[return-value]

    def share(self, nid: int) -> dict[str, Any]:
        config = ConfigRecord({str(other): list(self.keys[other]) for other in self.near(nid)})
        return flower._share_keys(self.states[nid], config)

    def post(self, nid: int, out: dict[str, Any]) -> None:
        for to, ciphertext in zip(out[Key.DESTINATION_LIST], out[Key.CIPHERTEXT_LIST], strict=True):
            self.mail[to].append((nid, ciphertext))

    def collect(self, nid: int, vector: np.ndarray) -> dict[str, Any]:
        config = ConfigRecord(
            {
                Key.CIPHERTEXT_LIST: [c for _, c in self.mail[nid]],
                Key.SOURCE_LIST: [s for s, _ in self.mail[nid]],
            }
        )
        return flower._collect_masked_vectors(self.states[nid], config, 1000, ndarrays_to_parameters([vector]))

    def unmask(self, nid: int, dead: set[int]) -> dict[str, Any]:
        near = self.near(nid)
        config = ConfigRecord(
            {
                Key.ACTIVE_NODE_ID_LIST: [o for o in near if o not in dead],
                Key.DEAD_NODE_ID_LIST: [o for o in near if o in dead],
            }
        )
        return flower._unmask(self.states[nid], config)


@cache
def flower_ring(count: int) -> FlowerRing:
    return FlowerRing(count)


def flower_site(size: int) -> Seconds:
    """One site's whole round: all four stages."""
    ring, nid = flower_ring(NEIGHBOURS + 5), 0
    vector = np.random.default_rng(0).uniform(-1, 1, size)
    state, mail, keys = ring.states[nid], list(ring.mail[nid]), ring.keys[nid]

    def work() -> None:
        fresh = flower.SecAggPlusState()
        fresh.nid = nid
        ring.states[nid] = fresh
        ring.keys[nid] = ring.setup(nid)
        ring.share(nid)
        # The neighbours' ciphertexts are under the first keys, so the stages after the sharing use the first state.
        ring.states[nid], ring.keys[nid] = state, keys
        ring.collect(nid, vector)
        ring.unmask(nid, set())

    took = seconds(work)
    ring.mail[nid] = mail
    return took


def flower_server(size: int, dropped: int) -> Seconds:
    """The aggregator's work of one round: sum the masked vectors, combine the shares, take off every mask."""
    ring = flower_ring(SITES)
    dead = set(range(0, SITES, SITES // dropped)) if dropped else set()
    dead = set(sorted(dead)[:dropped])
    rng = np.random.default_rng(1)
    masked = [rng.integers(0, 1 << 32, size, dtype=np.int64) for _ in range(2)]
    factor = np.array([7])
    wire = [[_npy(factor), _npy(vector)] for vector in masked]
    shares: dict[int, list[bytes]] = {nid: [] for nid in range(SITES)}
    for nid in range(SITES):
        if nid not in dead:
            out = ring.unmask(nid, dead)
            for owner, share in zip(out[Key.NODE_ID_LIST], out[Key.SHARE_LIST], strict=True):
                shares[owner].append(share)

    def work() -> None:
        total: list[np.ndarray] | None = None
        for at in range(SITES - len(dead)):
            vector = [bytes_to_ndarray(part) for part in wire[at % 2]]
            total = vector if total is None else parameters_addition(total, vector)
        assert total is not None
        total = parameters_mod(total, 1 << 32)
        for nid in range(SITES):
            secret = combine_shares(shares[nid])
            if nid not in dead:
                total = parameters_subtraction(total, pseudo_rand_gen(secret, 1 << 32, get_parameters_shape(total)))
                continue
            for other in ring.near(nid):
                if other == nid or other in dead:
                    continue
                key = generate_shared_key(
                    flower.bytes_to_private_key(secret), flower.bytes_to_public_key(ring.keys[other][0])
                )
                mask = pseudo_rand_gen(key, 1 << 32, get_parameters_shape(total))
                combine = parameters_addition if nid > other else parameters_subtraction
                total = combine(total, mask)
        parameters_mod(total, 1 << 32)

    return seconds(work)


def _npy(array: np.ndarray) -> bytes:
    from flwr.common import ndarray_to_bytes

    return ndarray_to_bytes(array)


# -- ours ------------------------------------------------------------------------------------------------------------


@dataclass
class Ours:
    """A federation of 100 with its epoch, and what the setup cost a plain site, a member and the aggregator."""

    lab: Lab
    epoch: ServerEpoch
    plain: str
    member: str
    setup_seconds: dict[str, Seconds]
    round: int = 0


@cache
def ours(committee: tuple[int, int] = RECOMMENDED, ring_bits: int = 32) -> Ours:
    policy = Policy(
        "bench",
        committee_size=committee[0],
        recoverable_drops=committee[1],
        min_survivors=70,
        epoch_rounds=32,
        ring_bits=ring_bits,  # type: ignore[arg-type]
        bits=16 if ring_bits == 32 else 8,
    )
    roster = [identity(name).public for name in names(SITES)]
    return set_up(Lab(*two_threads(Federation.create(policy, roster, identity("coordinator")))))


def set_up(lab: Lab) -> Ours:
    """Run a setup, each site of the sample paying for all that it verifies."""
    spent = {site: np.zeros(2) for site in lab.sites}
    server = np.zeros(2)
    setup = lab.server.begin_epoch(1, list(lab.sites))
    requests: Any = setup.hello()
    sample = set(names(SITES)[:: SITES // SAMPLE])
    for step in (setup.reveal, setup.setup, setup.finish):
        replies = {}
        for at, (site, request) in enumerate(requests.items()):
            if site in sample or at == 0:
                forget_caches()
            begin = clock()
            replies[site] = lab.sites[site].handle(request)
            spent[site] += clock() - begin
        forget_caches()
        begin = clock()
        requests = step(replies)
        server += clock() - begin
    epoch: ServerEpoch = requests
    begin = clock()
    first = dict(lab.server.begin_round(epoch, 0, 4).upload_requests())  # the sealed keys go out once an epoch
    server += clock() - begin
    plain = [name for name in epoch.names if name not in epoch.member_names and name in sample]
    member = epoch.member_names[0]  # the first that was asked to deal, so with cold caches
    for name in lab.sites:
        if name in plain or name == member:
            forget_caches()
        request = first[name]
        spent[name] += seconds(lambda n=name, r=request: lab.sites[n].round_of(r))
    epoch.installed.update(lab.sites)
    mean = np.mean([spent[name] for name in plain], axis=0)
    return Ours(lab, epoch, plain[0], member, {"plain": mean, "member": spent[member], "server": server})


def forget_caches() -> None:
    """In one process a transcript is verified once; a real site does it itself, so it is measured."""
    from qfed.secagg import epoch_view, transcript

    transcript._open_bundles.cache_clear()
    epoch_view._open_common.cache_clear()


def our_site(size: int, state: Ours, name: str) -> tuple[Seconds, bytes]:
    """A site's upload: encode, mask, sign, store."""
    policy = state.lab.federation.policy
    state.round += 1
    layout = Layout.of_update(policy, size)
    values = {"update": np.random.default_rng(0).uniform(-1, 1, size), "weight": np.ones(1)}
    rng = np.random.default_rng(1)
    request = state.lab.server.begin_round(state.epoch, state.round, layout.size).upload_requests()[name]
    out: list[bytes] = []

    def work() -> None:
        vector = encode(layout, values, rng, policy, SITES)
        out.append(state.lab.sites[name].upload(request, vector))

    took = seconds(work)
    return took, out[0]


def our_member(size: int) -> Seconds:
    """A member's upload and its answer about all survivors."""
    state = ours()
    took, _ = our_site(size, state, state.member)
    step = state.lab.server.begin_round(state.epoch, state.round, size + 1)
    step._survivors = set(names(SITES))
    request = step.unmask_requests()[state.member]
    return took + seconds(lambda: state.lab.sites[state.member].handle(request))


def our_server(size: int, dropped: int) -> Seconds:
    """The aggregator's work of one round, with real replies; as many in a hundred of the members vanish."""
    committee = MANY_DROPS if dropped > 10 else RECOMMENDED
    state = ours(committee)
    lab, epoch = state.lab, state.epoch
    state.round += 1
    members, plain = list(epoch.member_names), [n for n in epoch.names if n not in epoch.member_names]
    lost = members[: round(committee[0] * dropped / 100)]
    away = set(lost) | set(plain[: dropped - len(lost)])
    vectors = {name: np.zeros(size, np.uint32) for name in names(SITES)}
    step = lab.server.begin_round(epoch, state.round, size)
    took = np.zeros(2)

    def timed(call: Callable[[], Any]) -> Any:
        nonlocal took
        begin = clock()
        out = call()
        took += clock() - begin
        return out

    requests = timed(step.upload_requests)
    for name in names(SITES):
        if name not in away:
            request = timed(lambda n=name: requests[n])
            reply = lab.sites[name].upload(request, vectors[name])
            timed(lambda n=name, r=reply: step.add_upload(n, r))
    asked = timed(step.unmask_requests)
    for name in asked:
        request = timed(lambda n=name: asked[n])
        reply = lab.sites[name].handle(request)
        timed(lambda n=name, r=reply: step.add_unmask(n, r))
    assert not timed(step.recovery_requests)
    total = timed(step.result).total
    assert not total.any()
    return took


def expand_and_add(size: int = 1 << 20, keys: int = 16) -> tuple[float, float, float]:
    """The rate of expand-and-add as a part of the rate of AES-256-CTR on the same bytes, one core.

    The cipher is OpenSSL's CTR mode through `cryptography`, in pieces that stay in the cache.
    """
    vector = np.zeros(size, np.uint32)
    secrets = [os.urandom(32) for _ in range(keys)]
    zeros, out = bytes(primitives.STRETCH), bytearray(primitives.STRETCH + 15)

    def cipher() -> None:
        for secret in secrets:
            stream = Cipher(algorithms.AES(secret), modes.CTR(bytes(16))).encryptor()
            for _ in range(size * 4 // primitives.STRETCH):
                stream.update_into(zeros, out)

    pairs = np.array([(seconds(cipher), seconds(lambda: add_streams(vector, secrets))) for _ in range(15)])[:, :, 1]
    bare, ours_ = np.median(pairs, axis=0)
    return statistics.median(pairs[:, 0] / pairs[:, 1]), size * 4 * keys / bare / 1e9, size * 4 * keys / ours_ / 1e9


# -- the table -------------------------------------------------------------------------------------------------------


def figure(name: str, value: float, unit: str, goal: float | None = None, better: str = "higher") -> Figure:
    return {"name": name, "value": float(value), "unit": unit, "goal": goal, "better": better}


def compare(
    name: str, goal: float, theirs: Callable[[], Seconds], mine: Callable[[], Seconds], times: int
) -> list[Figure]:
    """Run both in turn; return the medians and the medians of the ratios."""
    pairs = np.array([(theirs(), mine()) for _ in range(times)])  # (times, 2, wall and processor)
    wall, processor = np.median(pairs[:, 0] / pairs[:, 1], axis=0)
    a, b = np.median(pairs[:, :, 0], axis=0)
    return [
        figure(f"{name}: times faster than SecAgg+", wall, "x", goal),
        figure(f"{name}: the same in processor time", processor, "x"),
        figure(f"{name}: SecAgg+", a * 1e3, "ms", better="lower"),
        figure(f"{name}: qfed", b * 1e3, "ms", better="lower"),
    ]


def measure(quick: bool) -> list[Figure]:
    state = ours()
    rounds = state.lab.federation.policy.epoch_rounds
    share = {role: spent / rounds for role, spent in state.setup_seconds.items()}
    figures = [
        figure("epoch setup: plain site", state.setup_seconds["plain"][0] * 1e3, "ms", better="lower"),
        figure("epoch setup: member", state.setup_seconds["member"][0] * 1e3, "ms", better="lower"),
        figure("epoch setup: aggregator", state.setup_seconds["server"][0] * 1e3, "ms", better="lower"),
    ]
    ratio, bare, added = expand_and_add()
    figures += [
        figure("expand-and-add / AES-256-CTR", ratio, "ratio", 0.6),
        figure("AES-256-CTR, one core", bare, "GB/s"),
        figure("expand-and-add, one core", added, "GB/s"),
    ]
    sizes = [(100_000, 20.0, 3 if quick else 5), (1_000_000, 10.0, 1 if quick else 3)]
    for size, goal, times in sizes:
        figures += compare(
            f"site, {size:.0e} parameters",
            goal,
            lambda s=size: flower_site(s),
            lambda s=size: our_site(s, state, state.plain)[0] + share["plain"],
            times,
        )
    size, _, times = sizes[-1]
    figures += compare(
        "member, 1e+06 parameters",
        2.0,
        lambda: flower_site(size),
        lambda: our_member(size) + share["member"],
        max(3, times),
    )
    for size in (100_000,) if quick else (100_000, 1_000_000):
        for dropped in (0, 10, 30):
            figures += compare(
                f"server, {dropped} % drops, {size:.0e} parameters",
                50.0,
                lambda s=size, d=dropped: flower_server(s, d),
                lambda s=size, d=dropped: (
                    our_server(s, d) + ours(MANY_DROPS if d > 10 else RECOMMENDED).setup_seconds["server"] / rounds
                ),
                1 if quick or size > 100_000 else 3,
            )
    for ring in (32, 16):
        other = ours(RECOMMENDED, ring)
        _, reply = our_site(1_000_000, other, other.plain)
        figures.append(figure(f"upload, ring of {ring} bits", len(reply) / 1e6, "bytes/parameter", 4.0, "lower"))
        if ring == 32:
            head = len(reply) - 4 * 1_000_001  # the weight is a coordinate more
            figures.append(figure("upload: signatures and statement", head, "bytes", better="lower"))
            figures.append(figure("upload: of them, ML-DSA-65", primitives.MLDSA65_SIGNATURE, "bytes"))
    figures += [figure("round trips a round", 2, "trips", 2, "lower"), figure("round trips: SecAgg+", 4, "trips")]
    return figures


def large(count: int = 1000, size: int = 100_000) -> list[Figure]:
    """Setup and one round of 1000 sites, a tenth of which vanish, in one process."""
    policy = Policy.recommended("large", count)
    roster = [identity(name).public for name in names(count)]
    lab = Lab(*two_threads(Federation.create(policy, roster, identity("coordinator"))))
    figures = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    epoch = lab.setup()
    figures.append(figure(f"{count} sites: epoch setup, all roles", time.perf_counter() - begin, "s", better="lower"))
    lab.traffic.clear()
    plain = [n for n in epoch.names if n not in epoch.member_names]
    lost = list(epoch.member_names[: len(epoch.member_names) // 10])
    away = set(lost) | set(plain[: count // 10 - len(lost)])
    vectors = dict.fromkeys(lab.sites, np.ones(size, np.uint32))
    begin = time.perf_counter()
    step = lab.server.begin_round(epoch, 0, size)
    for site, request in step.upload_requests().items():
        if site not in away:
            step.add_upload(site, lab.sites[site].upload(request, vectors[site]))
    for member, request in step.unmask_requests().items():
        step.add_unmask(member, lab.sites[member].handle(request))
    assert not step.recovery_requests()
    total = step.result().total
    took = time.perf_counter() - begin
    assert (total == len(lab.sites) - len(away)).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return [
        *figures,
        figure(f"{count} sites: one round of {size:.0e}, {len(away)} vanish", took, "s", better="lower"),
        figure(f"{count} sites: peak memory of all roles together", peak / 1e6, "GB", better="lower"),
        figure(f"{count} sites: of it before the setup", before / 1e6, "GB", better="lower"),
        figure(f"{count} sites: aggregator's memory of a round", step._total.nbytes / size, "bytes/parameter"),
    ]


def through_the_engine(count: int = 1000) -> list[Figure]:
    """`qfed simulate` with as many sites, a tenth of which vanish: every site its own folder, store and ledger."""
    done = subprocess.run(
        [sys.executable, __file__, "--engine", str(count)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    name = f"{count} sites through the in-process engine"
    return [
        figure(f"{name}: {what}", found[what], "GB" if what == "peak memory" else "s", better="lower") for what in found
    ]


def engine_child(count: int) -> None:
    """Simulate two-layer classical models on made-up records, one round; print seconds and peak memory as JSON."""
    from qfed.config import load_config
    from qfed.simulation import simulate

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        inputs = rng.uniform(-1, 1, (12 * count, 4))
        rows = "".join(f"{a:.4f},{b:.4f},{c:.4f},{d:.4f},{int(a * b > c * d)}\n" for a, b, c, d in inputs)
        (folder / "records.csv").write_text("a,b,c,d,label\n" + rows)
        column = '[[data.columns]]\nname = "{}"\nkind = "numeric"\nlow = -1.0\nhigh = 1.0\n'
        failures = ", ".join(f"{{site = {index}, round = 1}}" for index in range(0, count, 10))
        (folder / "run.toml").write_text(
            '[data]\nsource = "records.csv"\n[data.target]\nname = "label"\nclasses = ["0", "1"]\n'
            + "".join(column.format(letter) for letter in "abcd")
            + '[model]\nkind = "twin"\n[training]\nrounds = 1\nbatch_size = 9.0\n[privacy]\nmode = "off"\n'
            + f"[federation]\nsites = {count}\n[simulation]\ncompare = []\nfailures = [{failures}]\n"
        )
        began = time.perf_counter()
        result = simulate(load_config(folder / "run.toml"))
        took = time.perf_counter() - began
    (record,) = result.rounds
    assert record.status == "aggregated"
    assert record.survivors == count - count // 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    phases = {f"{phase}": seconds for phase, seconds in record.seconds.items()}
    print(json.dumps({"all": took, **phases, "peak memory": peak}))


def two_threads(federation: Federation) -> tuple[Federation, ServerSession, dict[str, ClientSession]]:
    """Return the parts of a lab whose sites and aggregator may use two cores."""
    sites = {
        site.name: ClientSession(identity(site.name), federation, ClientStore(":memory:"), RUN, threads=2)
        for site in federation.roster
    }
    return federation, ServerSession(federation, RUN, threads=2), sites


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=None, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, no server at 1e6 parameters")
    parser.add_argument("--large", action="store_true", help="add the simulation of 1000 sites (minutes)")
    parser.add_argument("--engine", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        engine_child(options.engine)
        return
    figures = measure(options.quick)
    if options.large:
        figures += large() + through_the_engine()
    packages = ("flwr", "cryptography", "numpy", "blake3", "shamirs")
    finish("Secure aggregation, 100 sites", figures, packages, options.json)


if __name__ == "__main__":
    main()
