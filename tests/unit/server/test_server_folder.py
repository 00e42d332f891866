"""What must lie in a server's data directory, and who may connect: each mistake is told in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from small_runs import small
from typer.testing import CliRunner

from qfed._flower.superlink import SuperLink
from qfed.cli.app import app
from qfed.config import ServerConfig, to_toml
from qfed.errors import ConfigError
from qfed.federation.authority import Authority
from qfed.federation.coordinator import amend, found
from qfed.secagg import Federation, Identity
from qfed_server.admission import admitted
from qfed_server.datadir import DataDir
from qfed_server.datadir import make as make_folder
from qfed_server.host import Server
from qfed_server.registry import Registry

CONFIG = small("federation.sites=4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coordinator's folder of four sites with its authority."""
    folder = tmp_path_factory.mktemp("coordinator") / "ward"
    publics = [Identity.generate(f"site-{index}", node=True).public for index in range(4)]
    found(folder, "ward", publics, lambda sites: small(f"federation.sites={sites}"), "coordinator")
    Authority.create(folder, "ward", datetime.now(UTC))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> DataDir:
    """A data directory that a server could start on."""
    place = make_folder(tmp_path / "server", made / "federation.json", ServerConfig(listen="127.0.0.1"))
    Authority.open(made).certify(place.path / "tls", ["localhost"], datetime.now(UTC))
    return place


def refused(place: DataDir) -> str:
    from threading import Event

    with pytest.raises(ConfigError) as error:
        Server(place.path).serve(Event())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_each_thing_that_is_missing_is_named_with_the_way_out(place: DataDir) -> None:
    place.tls("server.crt").rename(place.path / "aside")
    assert "qfed federation certify" in refused(place)
    (place.path / "aside").rename(place.tls("server.crt"))
    place.tls("server.key").chmod(0o640)
    assert "chmod 600" in refused(place)
    place.tls("server.key").chmod(0o600)
    place.federation_file.rename(place.path / "aside")
    assert "get a copy of the coordinator's federation.json" in refused(place)
    (place.path / "aside").write_text("{}")
    (place.path / "aside").rename(place.federation_file)
    assert "federation.json" in refused(place)
    place.settings.write_text("port = 0\n")
    with pytest.raises(ConfigError, match="port=0"):
        Server(place.path)
    place.settings.unlink()
    with pytest.raises(ConfigError, match="qfed server init"):
        Server(place.path)


def test_an_expired_certificate_and_another_host_are_told(place: DataDir) -> None:
    with pytest.raises(ConfigError, match="expired"):
        place.check_certificate(datetime.now(UTC) + timedelta(days=500))
    assert "expires in" in place.check_certificate(datetime.now(UTC) + timedelta(days=380))[0]
    place.settings.write_text(to_toml(ServerConfig(address="elsewhere.example:9443")))
    with pytest.raises(ConfigError, match="would refuse"):
        place.check_certificate()


def test_one_server_at_a_time(place: DataDir) -> None:
    with place.locked():
        told = refused(place)
    assert f"another server runs on {place.path} (process {os.getpid()})" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(place: DataDir) -> None:
    place.path.chmod(0o500)
    try:
        assert "cannot be written" in refused(place)
    finally:
        place.path.chmod(0o700)


def test_a_path_too_long_for_a_socket_is_told(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"too long for a socket; use a shorter --data"):
        make_folder(tmp_path / ("x" * 100), made / "federation.json", ServerConfig())


def test_init_makes_what_a_server_needs_and_overwrites_nothing(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    arguments = ["server", "init", str(folder), "--federation", str(made / "federation.json")]
    done = CliRunner().invoke(app, [*arguments, "--address", "fed.example.org:7000"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (DataDir(folder).config().address, DataDir(folder).config().port) == ("fed.example.org:7000", 7000)
    assert "qfed federation certify" in done.output
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(ConfigError, match="host:port"):
        CliRunner().invoke(app, [*arguments, "--address", "nowhere"], catch_exceptions=False)


def test_commands_say_when_no_server_answers(place: DataDir, tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.write_text(to_toml(CONFIG))
    for arguments in (["submit", str(run)], ["status"]):
        with pytest.raises(ConfigError, match=r"no server answers on .* start it: qfed server"):
            CliRunner().invoke(app, [*arguments, "--data", str(place.path)], catch_exceptions=False)
    with pytest.raises(ConfigError, match="is no run here"):
        CliRunner().invoke(app, ["logs", "abc", "--data", str(place.path)], catch_exceptions=False)
    done = CliRunner().invoke(app, ["list", "--json", "--data", str(place.path)], catch_exceptions=False)
    assert done.output.strip() == "[]"


# -- what is admitted ------------------------------------------------------------------------------------------------


def test_what_the_federation_runs_is_admitted(place: DataDir) -> None:
    assert admitted(to_toml(CONFIG), place.federation()) == CONFIG


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("federation.sites=5",), "set it to 4"),
        (("secagg.mode=off", "privacy.mode=off"), "simulations only"),
        (("secagg.update_clip=9",), r"clip=9.0 \(the federation's is 4.0\)"),
        (("simulation.failures=[{site=0,round=1}]",), "qfed simulate"),
    ],
)
def test_what_no_site_would_run_is_refused_at_once(place: DataDir, changes: tuple[str, ...], told: str) -> None:
    text = to_toml(small("federation.sites=4", *changes))
    with pytest.raises(ConfigError, match=told):
        admitted(text, place.federation())


def test_a_text_that_is_none_names_no_file_of_the_server(place: DataDir) -> None:
    for text in ("[training", "[training]\nrounds = 0"):
        with pytest.raises(ConfigError, match="the configuration") as error:
            admitted(text, place.federation())
        assert "/tmp" not in str(error.value)  # noqa: S108
    with pytest.raises(ConfigError, match="at most"):
        admitted("#" * (1 << 21), place.federation())


# -- who may connect -------------------------------------------------------------------------------------------------


@pytest.fixture
def link(place: DataDir) -> Iterator[SuperLink]:
    """A SuperLink of the directory."""
    return SuperLink()


def keys(link: SuperLink) -> int:
    return len(link.nodes())


def test_the_roster_may_connect_and_a_restart_changes_nothing(place: DataDir, link: SuperLink) -> None:
    before = {site.name: site.node_id for site in Registry(place, link).sites()}
    assert sorted(before) == [f"site-{index}" for index in range(4)]
    assert all(site.status == "registered" and site.last_seen is None for site in Registry(place, link).sites())
    assert {site.name: site.node_id for site in Registry(place, link).sites()} == before
    assert keys(link) == 4


def test_who_was_there_last_outlives_the_server(place: DataDir, link: SuperLink) -> None:
    registry = Registry(place, link)
    node, *_ = link.nodes()
    registry.logged_in(node.key, "qfed/9.9")
    assert link._state.activate_node(node.id, 15)
    registry.note()
    (seen,) = [site for site in registry.sites() if site.status == "online"]
    assert seen.last_seen is not None
    again = {site.name: site for site in Registry(place, SuperLink()).sites()}
    assert again[seen.name] == replace(seen, status="offline", node_id=again[seen.name].node_id)
    assert {site.status for name, site in again.items() if name != seen.name} == {"registered"}
    link._state.deactivate_node(node.id)
    place.seen_file.unlink()
    registry.note()
    assert place.seen_file.exists(), "written when it goes as well"
    place.seen_file.write_text("[]")
    assert {site.status for site in Registry(place, SuperLink()).sites()} == {"registered"}


def test_a_newer_file_is_taken_up_and_what_is_none_is_not(
    place: DataDir, link: SuperLink, made: Path, tmp_path: Path
) -> None:
    taken: list[bytes] = []
    registry = Registry(place, link, taken.append)
    folder = tmp_path / "coordinator"
    folder.mkdir()
    for name in ("federation.json", "terms.toml", "coordinator.key"):
        (folder / name).write_bytes((made / name).read_bytes())
        (folder / name).chmod(0o600)
    first = (folder / "federation.json").read_bytes()
    second = amend(folder, revoke=["site-3"])
    place.federation_file.write_bytes((folder / "federation.json").read_bytes())
    registry.look()
    assert registry.federation.version == 2
    assert [site.name for site in registry.sites()] == ["site-0", "site-1", "site-2"]
    assert keys(link) == 3
    assert len(taken) == 1
    stranger = tmp_path / "stranger"
    publics = [second.roster[0], second.roster[1], Identity.generate("evil", node=True).public]
    found(stranger, "ward", publics, lambda sites: small(f"federation.sites={sites}"), "coordinator")
    for body in (first, b"{", b"\xff", (stranger / "federation.json").read_bytes()):
        place.federation_file.write_bytes(body)
        registry.look()
        assert (registry.federation.version, keys(link), len(taken)) == (2, 3, 1)
    place.federation_file.unlink()
    registry.look()
    amend(folder, add=[Identity.generate("site-9", node=True).public])
    place.federation_file.write_bytes((folder / "federation.json").read_bytes())
    registry.look()
    assert registry.federation.version == 3
    assert [site.name for site in registry.sites()][-1] == "site-9"


def test_a_site_without_a_node_key_is_on_the_roster_and_cannot_connect(
    place: DataDir, link: SuperLink, tmp_path: Path
) -> None:
    publics = [Identity.generate(f"site-{index}", node=index > 0).public for index in range(4)]
    found(tmp_path / "other", "ward", publics, lambda sites: small(f"federation.sites={sites}"), "coordinator")
    place.federation_file.write_bytes((tmp_path / "other" / "federation.json").read_bytes())
    sites = Registry(place, link).sites()
    assert [site.node_id is None for site in sites] == [True, False, False, False]
    assert Federation.load(place.federation_file).version == 1
