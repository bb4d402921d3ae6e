"""Gathering keys by label: what shares an account, what does not fit, what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es.errors import ConfigError
from kt_es.formats.entries import MAX_PROFILE, ProfileKey, decode_profile, encode_profile
from kt_es.importers.accounts import Collector, ImportedAccount, Skipped, read_bytes


def key(name: str, size: int = 1) -> ProfileKey:
    return ProfileKey(name, "raw", bytes(size))


def test_labels_are_normalized_and_share_an_account() -> None:
    found = Collector("email")
    found.add("Alice@Example.org", key("1"))
    found.add("bob@example.org", key("2"))
    found.add("alice@example.ORG", key("3"))
    found.add("alice@example.org", key("1"))
    plan = found.plan(3)
    assert plan.accounts == (
        ImportedAccount("alice@example.org", (key("1"), key("3"))),
        ImportedAccount("bob@example.org", (key("2"),)),
    )
    assert (plan.skipped, plan.keys) == ((), 3)


def test_both_forms_of_a_domain_share_an_account() -> None:
    found = Collector("email")
    found.add("alice@xn--bcher-kva.example", key("1"))
    found.add("alice@Bücher.example", key("2"))
    (account,) = found.plan(2).accounts
    assert account == ImportedAccount("alice@bücher.example", (key("1"), key("2")))


def test_what_cannot_be_a_label_is_skipped_with_the_reason() -> None:
    found = Collector("email")
    found.add("alice@localhost", key("1"))
    (skipped,) = found.plan(1).skipped
    assert skipped.what == "alice@localhost"
    assert "e-mail address" in skipped.reason


def test_keys_are_made_smaller_only_where_a_profile_would_be_too_large() -> None:
    found = Collector("text", lambda large: ProfileKey(large.name, large.type, large.data[:10]))
    found.add("large", key("1", MAX_PROFILE // 2))
    found.add("large", key("2", MAX_PROFILE // 2))
    found.add("fits", key("1", MAX_PROFILE // 2))
    large, fits = found.plan(2).accounts
    assert [len(each.data) for each in large.keys] == [10, 10]
    assert [len(each.data) for each in fits.keys] == [MAX_PROFILE // 2]


def test_what_fits_into_no_profile_is_skipped() -> None:
    found = Collector("text", lambda large: large)
    found.add("large", key("1", MAX_PROFILE))
    for number in range(257):
        found.add("many", key(str(number)))
    for number in range(256):
        found.add("just enough", key(str(number)))
    plan = found.plan(300)
    (account,) = plan.accounts
    assert account.label == "just enough"
    assert decode_profile(encode_profile(account.keys)) == account.keys
    assert [skipped.what for skipped in plan.skipped] == ["large", "many"]


def test_control_characters_do_not_reach_the_terminal() -> None:
    found = Collector("text")
    found.skip("\x1b[31mred\r\n", "why")
    found.skip("x" * 100_000, "why")
    first, second = found.plan(0).skipped
    assert first == Skipped("?[31mred??", "why")
    assert len(second.what) == 200


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        read_bytes(tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match="cannot read"):
        read_bytes(tmp_path)
