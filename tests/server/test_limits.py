"""What one client may take, from kt.toml and from options."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es.cli.operators.processes import limits_of
from kt_es.client.trusted import Pinned
from kt_es.config.settings import load_settings
from kt_es.config.tables import FrontendTable
from kt_es.errors import ConfigError
from kt_es.server.limits import DEFAULT_LIMITS, networks_of
from tests import builders as b

VKEY = Pinned(b.ORIGIN, b.SIGNER_KEY).vkey
HEAD = f'directory = "people"\norigin = "{b.ORIGIN}"\nkey = "{VKEY}"\n[frontend]\n'


def test_without_settings_the_limits_are_the_defaults() -> None:
    assert FrontendTable().limits == DEFAULT_LIMITS


def test_settings_and_options_set_them(tmp_path: Path) -> None:
    path = tmp_path / "kt.toml"
    path.write_text(HEAD + 'address_rate = 7.5\nhead_seconds = 3\ntrusted_proxies = "10.0.0.0/8, ::1"\n')
    table = load_settings(path).frontend
    assert (table.limits.address_rate, table.limits.head_seconds) == (7.5, 3)
    assert table.limits.proxies == networks_of("10.0.0.0/8,::1")
    given = limits_of(table, {"address_rate": 0.0, "max_connections": 9, "exempt": "", "network_rate": None})
    assert (given.address_rate, given.connections, given.exempt) == (0, 9, ())
    assert (given.network_rate, given.head_seconds) == (DEFAULT_LIMITS.network_rate, 3)


@pytest.mark.parametrize(
    "line",
    [
        "address_rate = -1",
        "head_seconds = 0",
        "max_connections = 0",
        'exempt = "10.0.0.1/8"',
        "idle_seconds = inf",
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "kt.toml"
    path.write_text(HEAD + line + "\n")
    with pytest.raises(ConfigError, match=rf"frontend\.{line.split(maxsplit=1)[0]}: "):
        load_settings(path)


def test_an_option_that_cannot_be_is_called_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"trusted-proxies: .*'proxy' is no network"):
        limits_of(FrontendTable(), {"trusted_proxies": "proxy"})
