"""Addresses of shared stores: what is read, and what is said of one that cannot be used."""

from __future__ import annotations

import pytest

from kt_es.errors import ConfigError
from kt_es.ledger.cassandra_settings import CassandraSettings, parse_shared


@pytest.mark.parametrize(
    ("uri", "settings"),
    [
        ("cassandra://db.example.org/kt_people", CassandraSettings(("db.example.org",), "kt_people")),
        (
            "cassandra://kt@10.0.0.1:9142,10.0.0.2:9142/kt?datacenter=eu-west",
            CassandraSettings(("10.0.0.1", "10.0.0.2"), "kt", 9142, "eu-west", "kt"),
        ),
        (
            "cassandra://[::1]:1234,[2001:db8::1]:1234/kt",
            CassandraSettings(("::1", "2001:db8::1"), "kt", 1234),
        ),
        ("cassandra://[::1]/kt", CassandraSettings(("::1",), "kt")),
        ("cassandra://kt%40people@localhost/kt", CassandraSettings(("localhost",), "kt", user="kt@people")),
    ],
)
def test_an_address_is_read(uri: str, settings: CassandraSettings) -> None:
    assert parse_shared(uri) == settings


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("db.example.org/kt", "it begins with no scheme"),
        ("redis://db/kt", "it begins with redis://"),
        ("cassandra://[::1/kt", "it is not an address"),
        ("cassandra://db", "no keyspace follows the hosts"),
        ("cassandra://db/", "no keyspace follows the hosts"),
        ("", "it is empty"),
        ("cassandra://db/system", "the keyspace 'system' belongs to Cassandra itself"),
        ("cassandra://db/system_auth", "the keyspace 'system_auth' belongs to Cassandra itself"),
        ("cassandra://db/Kt", "the keyspace 'Kt' is not a-z"),
        ("cassandra://db/kt/more", "the keyspace 'kt/more' is not a-z"),
        ("cassandra://db/kt;drop", "the keyspace 'kt;drop' is not a-z"),
        ("cassandra://db/" + 49 * "k", "48 characters at most"),
        ("cassandra:///kt", "a host is empty"),
        ("cassandra://db,/kt", "a host is empty"),
        ("cassandra://db,d b/kt", "'d b' is not HOST or HOST:PORT"),
        ("cassandra://::1/kt", "'::1' is not HOST or HOST:PORT"),
        ("cassandra://db:0/kt", "'0' is not a port"),
        ("cassandra://db:99999/kt", "'99999' is not a port"),
        ("cassandra://db:/kt", "'' is not a port"),
        ("cassandra://a:1,b:2/kt", "the hosts have different ports (1, 2)"),
        ("cassandra://a:9043,b/kt", "the hosts have different ports (9042, 9043)"),
        ("cassandra://a,b,a/kt", "a host is named twice"),
        ("cassandra://db/kt?dc=eu", "'dc' is not a parameter"),
        ("cassandra://db/kt?datacenter=", "the datacenter '' is not a name"),
        ("cassandra://db/kt?datacenter=a&datacenter=b", "datacenter is given twice"),
        ("cassandra://db/kt#x", "nothing may follow a #"),
    ],
)
def test_a_wrong_address_is_refused_with_the_part_that_is_wrong(uri: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_shared(uri)
    said = str(refused.value)
    assert problem in said
    assert "the address of the shared store cannot be used: " in said
    assert "an example is cassandra://" in said


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="write the password into a file of its own") as refused:
        parse_shared("cassandra://kt:s3cret@db/kt")
    assert "s3cret" not in str(refused.value)


def test_a_password_is_not_shown() -> None:
    assert "s3cret" not in repr(CassandraSettings(("db",), "kt", user="kt", password="s3cret"))


def test_the_place_is_for_people() -> None:
    assert parse_shared("cassandra://kt@[::1]:9043,db:9043/kt").place == "[::1]:9043, db:9043"
