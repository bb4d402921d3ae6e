"""Which addresses are public: a process that follows somebody else's URL asks no others."""

from __future__ import annotations

import pytest

from kt_es.process.network import is_public


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "::"),
        *("224.0.0.1", "255.255.255.255", "example.org", "", "8.8.8.8:53"),
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(address)
