"""A directory is known by any signer key of its chain of configs, to everybody who replays it."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from kt_es.cli.operators.init import NewDirectory, begin_queue
from kt_es.client.trusted import Pinned
from kt_es.config.settings import Settings
from kt_es.errors import ConfigError, DivergenceError, KtError
from kt_es.formats.configs import SignedConfig
from kt_es.formats.queue import CONFIG
from kt_es.ledger.ledger import Ledger, check_pinned
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES
from projections.auditor import AuditReport, audit
from projections.snapshot import load, save
from signer.keys import KeyRing
from signer.loop import Signer
from tests import builders as b
from tests.reference.forks import first_epochs, rotate, story
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams
from tests.reference.signing import LIMITS, NAMES, effects

CHAIN = ("signer", "successor", "third")


@pytest.fixture(scope="module")
def rotated() -> SignedStreams:
    """Seven epochs: the second accepts a config of the successor, the fourth one of the third key."""
    streams = story("alice")
    second = rotate(streams, b.signed_config(), "signer", "successor")
    streams.put_user("bob")
    streams.epoch()
    rotate(streams, second, "successor", "third")
    for user in ("carol", "dave", "erin"):
        streams.put_user(user)
        streams.epoch()
    return streams


def ledger(key: str, store: MemoryStore | None = None) -> Ledger:
    return Ledger(MemoryStore(FAMILIES) if store is None else store, b.ORIGIN, b.public(b.private_key(key)))


def audited(log: object, of: Ledger) -> AuditReport:
    return audit(log, NAMES, of, with_queue=True, now=lambda: b.START)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", CHAIN)
def test_an_audit_works_with_any_key_of_the_chain(rotated: SignedStreams, key: str) -> None:
    assert audited(rotated.log, ledger(key)).epochs == 7


def test_a_foreign_key_is_none_of_the_directory(rotated: SignedStreams) -> None:
    with pytest.raises(DivergenceError, match=r"never was a signer key of kt\.example\.org/people") as caught:
        audited(rotated.log, ledger("eve"))
    assert caught.value.exit_code == 4
    for key in CHAIN:
        assert b.public(b.private_key(key)).id.hex() in str(caught.value)


def test_a_key_whose_config_was_never_accepted_is_none_either(rotated: SignedStreams) -> None:
    with pytest.raises(DivergenceError, match="never was a signer key"):
        audited(first_epochs(rotated, 3), ledger("third"))


def test_the_first_head_under_the_key_has_to_be_there(rotated: SignedStreams) -> None:
    """The fourth epoch accepts the config of the third key and is signed by the one before."""
    with pytest.raises(DivergenceError, match="no head is signed under its config yet"):
        audited(first_epochs(rotated, 4), ledger("third"))
    assert audited(first_epochs(rotated, 5), ledger("third")).epochs == 5


def test_an_announced_key_that_never_signed_is_no_signer_key() -> None:
    streams = story("alice")
    keys = [b.SIGNER, b.private_key("announced")]
    config = b.config(signer_keys=keys, previous=b.signed_config().config.hash)
    streams.queue(CONFIG, SignedConfig.sign(config, [b.SIGNER]).encode())
    for user in ("bob", "carol"):
        streams.put_user(user)
        streams.epoch()
    assert audited(streams.log, ledger("signer")).epochs == 3
    with pytest.raises(DivergenceError, match="never was a signer key"):
        audited(streams.log, ledger("announced"))


def test_one_data_directory_serves_whichever_key_is_given(rotated: SignedStreams) -> None:
    store = MemoryStore(FAMILIES)
    for epochs, key in ((1, "signer"), (5, "third"), (6, "successor"), (6, "signer"), (7, "third")):
        audited(first_epochs(rotated, epochs), ledger(key, store))
    assert ledger("signer", store).committed.epoch == 7
    with pytest.raises(DivergenceError, match="never was a signer key"):
        audited(rotated.log, ledger("eve", store))


@pytest.mark.parametrize("key", CHAIN)
def test_a_front_end_and_a_signer_may_be_given_any_key(rotated: SignedStreams, key: str) -> None:
    made = Front(rotated, None, ledger(key))
    with front(rotated, made=made) as running:
        assert running.directory.lookup(b.label_of("erin")).result == "found"
    signer(rotated, ledger(key)).recover()


def signer(streams: SignedStreams, of: Ledger) -> Signer:
    ring = KeyRing([b.private_key(name) for name in CHAIN])
    return Signer(streams.log, NAMES, of, ring, effects=effects(lambda: streams.log), limits=lambda: LIMITS)


def test_a_front_end_and_a_signer_refuse_a_foreign_key(rotated: SignedStreams) -> None:
    with pytest.raises(DivergenceError, match="never was a signer key"):
        signer(rotated, ledger("eve")).recover()
    with front(rotated, made=Front(rotated, None, ledger("eve")), wait=False) as running:
        until(lambda: bool(running.errors))
        assert "never was a signer key" in str(running.errors[0])
        assert running.get("/v1/heads/latest").status_code == 503


def test_a_signer_begins_a_directory_by_its_own_key_only() -> None:
    streams = SignedStreams()
    streams.mark()
    found = signer(streams, ledger("successor"))
    with pytest.raises((DivergenceError, ConfigError), match="is not signed by the directory's key"):
        found._read(10)


def test_a_snapshot_is_loaded_by_any_key_of_its_chain(rotated: SignedStreams) -> None:
    sink = io.BytesIO()
    save(rotated.ledger, sink)
    for key in CHAIN:
        load(io.BytesIO(sink.getvalue()), MemoryStore(FAMILIES), b.ORIGIN, b.public(b.private_key(key)))
    store = MemoryStore(FAMILIES)
    with pytest.raises(KtError, match="never was a signer key"):
        load(io.BytesIO(sink.getvalue()), store, b.ORIGIN, b.public(b.private_key("eve")))
    assert all(not list(store.scan(family)) for family in FAMILIES)


@pytest.mark.parametrize("key", CHAIN)
def test_the_settings_may_name_any_key_of_the_chain(rotated: SignedStreams, key: str) -> None:
    assert not begun(rotated, key)


def test_settings_with_a_foreign_key_are_refused(rotated: SignedStreams) -> None:
    with pytest.raises(ConfigError, match="does not begin with the config"):
        begun(rotated, "eve")


def begun(streams: SignedStreams, key: str) -> bool:
    """Whether ``kt init`` with this key in ``kt.toml`` begins the queue, which has been begun."""
    settings = Settings(
        directory="people", origin=b.ORIGIN, key=Pinned(b.ORIGIN, b.public(b.private_key(key))).vkey
    )
    return begin_queue(settings, streams.log, NewDirectory("people", b.ORIGIN, "", "email", 1.0, 60.0))


def test_a_damaged_head_differs_when_the_key_has_to_be_in_force(rotated: SignedStreams) -> None:
    followed = ledger("third")
    audited(rotated.log, followed)
    check_pinned(followed, in_force=True)
    heads = followed.tables.heads
    followed.store.write(heads.put(7, replace(heads.event(7), smh_bytes=b"\x80")))
    with pytest.raises(DivergenceError, match="the head of epoch 7 in the data directory is damaged"):
        check_pinned(followed, in_force=True)
