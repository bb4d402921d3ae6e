"""Accounts of addresses and networks: rates that refill, who is exempt, whom a proxy speaks for."""

from __future__ import annotations

import pytest

from kt_es.errors import ConfigError
from kt_es.server import clients as module
from kt_es.server.clients import Clients
from kt_es.server.limits import BURST, ClientLimits, Route, networks_of, room_for_connections
from tests.reference.clocks import Clock

ONE = Route()


def clients(clock: Clock, **values: object) -> Clients:
    return Clients(ClientLimits(**{"exempt": (), **values}), clock)  # type: ignore[arg-type]


def ask(made: Clients, address: str, route: Route = ONE, size: int = 0) -> bool:
    wait = made.enter(address, route, size)
    if wait is None:
        made.leave(address, request=True, large=route.large)
    return wait is None


def test_an_address_may_ask_a_burst_at_once_and_then_its_rate() -> None:
    clock = Clock()
    made = clients(clock, address_rate=10.0, network_rate=0.0)
    assert sum(ask(made, "192.0.2.1") for _ in range(100)) == 10 * BURST
    assert ask(made, "192.0.2.2")
    clock.now += 1
    assert sum(ask(made, "192.0.2.1") for _ in range(100)) == 10


def test_a_network_shares_a_rate() -> None:
    made = clients(Clock(), address_rate=0.0, network_rate=10.0)
    assert sum(ask(made, f"192.0.2.{number}") for number in range(100)) == 10 * BURST
    assert ask(made, "192.0.3.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_an_address_of_ipv6_is_what_one_customer_has(one: str, other: str, same: bool) -> None:
    made = clients(Clock(), address_rate=1.0, network_rate=0.0)
    while ask(made, one):
        pass
    assert ask(made, other) != same


def test_large_answers_and_bodies_cost_more_and_the_wait_is_as_long() -> None:
    clock = Clock()
    made = clients(clock, address_rate=1.0, network_rate=0.0)
    assert ask(made, "192.0.2.1", Route(cost=10.0))
    wait = made.owes("192.0.2.1")
    assert wait == 10 - BURST
    clock.now += wait + 0.1
    assert made.owes("192.0.2.1") == 0
    assert ask(made, "192.0.2.1", size=1 << 20)
    assert made.owes("192.0.2.1") > 60


def test_who_is_exempt_has_no_limits_of_its_own() -> None:
    made = clients(Clock(), address_rate=1.0, exempt=networks_of("192.0.2.0/24"))
    assert all(ask(made, "192.0.2.1") for _ in range(100))
    assert not all(ask(made, "192.0.3.1") for _ in range(100))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    ],
)
def test_only_a_trusted_proxy_names_the_client(peer: str, forwarded: list[str], client: str) -> None:
    made = clients(Clock(), proxies=networks_of("10.0.0.0/8"))
    assert made.origin(peer, forwarded) == client


def test_connections_of_a_trusted_proxy_are_those_of_many_clients() -> None:
    made = clients(Clock(), address_connections=1, proxies=networks_of("10.0.0.1"))
    assert all(made.connect("10.0.0.1") for _ in range(5))
    assert made.connect("10.0.0.2")
    assert not made.connect("10.0.0.2")


def test_accounts_are_forgotten_and_those_in_use_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ACCOUNTS", 100)
    clock = Clock()
    made = clients(clock, address_connections=1)
    assert made.connect("192.0.2.1")
    for number in range(1000):
        clock.now += 0.01
        assert ask(made, f"2001:db8:{number:x}::1")
        assert len(made._accounts) <= 101
    assert not made.connect("192.0.2.1")


def test_what_is_no_network_is_named() -> None:
    assert [str(network) for network in networks_of(" 10.0.0.0/8, ::1,")] == ["10.0.0.0/8", "::1/128"]
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1/8"):
        networks_of("10.0.0.1/8")


def test_connections_leave_half_of_the_files_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr("resource.setrlimit", lambda _, values: asked.append(values))
    assert room_for_connections(2048) == 512
    assert room_for_connections(100) == 100
    assert asked == [(1024, 1024)]


def test_what_a_client_uses_at_one_process_counts_at_the_others() -> None:
    clock = Clock()
    one, other = (clients(clock, address_rate=1.0, network_rate=0.0, address_connections=2) for _ in range(2))
    one.is_shared = other.is_shared = True
    assert one.connect("192.0.2.1")
    while ask(one, "192.0.2.1"):
        pass
    assert ask(other, "192.0.2.1")
    other.used_elsewhere(one.uses())
    # All that one process gave beyond the rate is owed at both.
    assert not ask(other, "192.0.2.1")
    assert ask(other, "192.0.2.2")
    # Nothing is passed on twice, neither by one process nor back from the other.
    assert one.uses() == {}
    back = {key: use for key, use in other.uses().items() if use != (0.0, 0)}
    assert {str(key): use for key, use in back.items() if key.prefixlen == 32} == {
        "192.0.2.1/32": (1.0, 0),
        "192.0.2.2/32": (1.0, 0),
    }
    assert other.connect("192.0.2.1")
    assert not other.connect("192.0.2.1")
    one.disconnect("192.0.2.1")
    other.used_elsewhere(one.uses())
    assert other.connect("192.0.2.1")


def test_what_a_batch_is_charged_counts_at_the_others_as_well() -> None:
    clock = Clock()
    one, other = (clients(clock, address_rate=1.0, network_rate=0.0) for _ in range(2))
    one.is_shared = other.is_shared = True
    assert ask(one, "192.0.2.1")
    one.charge("192.0.2.1", 50.0)
    assert one.owes("192.0.2.1") == 51.0 - BURST
    assert ask(other, "192.0.2.1")
    other.used_elsewhere(one.uses())
    assert other.owes("192.0.2.1") == 52.0 - BURST
    clock.now += 60.0
    assert ask(one, "192.0.2.1")


def test_the_rate_over_many_processes_is_that_of_one() -> None:
    """However the requests are spread, over a long time a client gets its rate and one burst."""
    clock = Clock()
    made = [clients(clock, address_rate=10.0, network_rate=0.0) for _ in range(4)]
    for each in made:
        each.is_shared = True
    answered, chosen = 0, 0
    for _ in range(1000):
        for _ in range(5):
            chosen += 1
            answered += ask(made[chosen * 7 % 4], "192.0.2.1")
        clock.now += 0.1
        for each in made:
            uses = each.uses()
            for other in made:
                if other is not each:
                    other.used_elsewhere(uses)
    assert answered == pytest.approx(10 * (100 + BURST), rel=0.05)


def test_a_client_without_account_is_not_passed_on() -> None:
    made = Clients(ClientLimits(), Clock())
    made.is_shared = True
    assert made.connect("127.0.0.1")
    assert ask(made, "127.0.0.1")
    assert made.uses() == {}
