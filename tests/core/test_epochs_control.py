"""Markers, configs, the beginning of a queue and the transition from one epoch to the next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.crypto.signatures import PrivateKey
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.epochs import Epoch, Standing, close, decide, decode_standing, encode_standing, parse
from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.codec import encode
from kt_es.formats.configs import SignedConfig
from kt_es.formats.heads import MapHead
from kt_es.formats.queue import Item, ItemKind, Marker, Verdict
from tests.builders import (
    ORIGIN,
    OTHER_ORIGIN,
    SIGNER,
    SIGNER_KEY,
    START,
    accepted,
    config,
    every_changed_byte,
    item,
    marker,
    mutation,
    new_epoch,
    private_key,
    public,
    seed,
    signed_config,
    verdict_of,
)

FIRST = signed_config()
NEXT_SIGNER = private_key("next signer")
ROTATED = signed_config(config(signer_keys=[NEXT_SIGNER], previous=FIRST.config.hash), [SIGNER, NEXT_SIGNER])
BEFORE = Standing(ORIGIN, SIGNER_KEY, epoch=4, timestamp=START, config=FIRST)


def verdict(of: Marker | SignedConfig, epoch: Epoch) -> Verdict:
    return verdict_of(epoch, item(of))


def closed(epoch: Epoch) -> tuple[MapHead, Standing]:
    return close(epoch, map_root=seed("map"), map_size=7, log_size=9, log_root=seed("log"), queue_next=11)


def changed_config(*keys: PrivateKey, **fields: object) -> SignedConfig:
    return signed_config(
        replace(config(previous=FIRST.config.hash, max_interval=50_000), **fields),  # type: ignore[arg-type]
        keys or (SIGNER,),
    )


# Markers: step 2.


def test_marker_closes_the_epoch() -> None:
    epoch = new_epoch(BEFORE)
    assert verdict(marker(START + 1), epoch) is Verdict.EPOCH
    assert epoch.closed_by == marker(START + 1)


@pytest.mark.parametrize("issued_at", [0, START - 1, START], ids=["ancient", "earlier", "the same"])
def test_marker_no_later_than_the_last_head_is_stale(issued_at: int) -> None:
    epoch = new_epoch(BEFORE)
    assert verdict(marker(issued_at), epoch) is Verdict.STALE_MARKER
    assert epoch.closed_by is None


FOREIGN_MARKERS = {
    "by somebody else": marker(START + 1, key=private_key("mallory")),
    "by the next signer before its time": marker(START + 1, key=NEXT_SIGNER),
    "for another directory": marker(START + 1, origin=OTHER_ORIGIN),
    "signature of another marker": replace(marker(START + 1), signature=marker(START + 2).signature),
}


@pytest.mark.parametrize("of", FOREIGN_MARKERS.values(), ids=FOREIGN_MARKERS.keys())
def test_foreign_marker(of: Marker) -> None:
    epoch = new_epoch(BEFORE)
    assert verdict(of, epoch) is Verdict.FOREIGN_MARKER
    assert epoch.closed_by is None


def test_a_marker_that_is_foreign_and_stale_is_foreign() -> None:
    assert verdict(marker(1, key=private_key("mallory")), new_epoch(BEFORE)) is Verdict.FOREIGN_MARKER


def test_every_changed_byte_of_a_marker_is_seen() -> None:
    for changed in every_changed_byte(marker(START + 1).encode()):
        verdict = verdict_of(new_epoch(BEFORE), Item(5, 0, ItemKind.MARKER, changed))
        assert verdict in (Verdict.MALFORMED, Verdict.FOREIGN_MARKER)


# Configs: step 2.


def test_config_change_holds_from_the_next_epoch_on() -> None:
    epoch = new_epoch(BEFORE)
    assert verdict(ROTATED, epoch) is Verdict.CONFIG
    assert verdict(marker(START + 1, key=NEXT_SIGNER), epoch) is Verdict.FOREIGN_MARKER
    assert verdict(marker(START + 1), epoch) is Verdict.EPOCH
    head, standing = closed(epoch)
    assert head.config_hash == FIRST.config.hash
    assert standing.config == ROTATED


def test_after_a_signer_key_rotation_only_the_new_key_closes_epochs() -> None:
    epoch = new_epoch(replace(BEFORE, config=ROTATED))
    assert verdict(marker(START + 1), epoch) is Verdict.FOREIGN_MARKER
    assert verdict(marker(START + 1, key=NEXT_SIGNER), epoch) is Verdict.EPOCH
    assert closed(epoch)[0].config_hash == ROTATED.config.hash


def test_second_change_in_an_epoch_follows_the_first() -> None:
    epoch = new_epoch(BEFORE)
    beside = changed_config()
    after = signed_config(
        config(signer_keys=[NEXT_SIGNER], max_interval=50_000, previous=ROTATED.config.hash), [NEXT_SIGNER]
    )
    assert verdict(ROTATED, epoch) is Verdict.CONFIG
    assert verdict(beside, epoch) is Verdict.FOREIGN_CONFIG
    assert verdict(after, epoch) is Verdict.CONFIG
    assert epoch.next_config == after
    assert epoch.config == FIRST


FOREIGN_CONFIGS = {
    "the first config again": FIRST,
    "no previous": changed_config(previous=None),
    "previous of something else": changed_config(previous=seed("nothing")),
    "signed by nobody in force": changed_config(private_key("mallory")),
    "new signer without the old": changed_config(NEXT_SIGNER, signer_keys=(public(NEXT_SIGNER),)),
    "new signer that did not agree": changed_config(signer_keys=(public(NEXT_SIGNER),)),
    "announced successor instead of the key in force": changed_config(
        NEXT_SIGNER, signer_keys=(SIGNER_KEY, public(NEXT_SIGNER))
    ),
    "another origin": changed_config(origin=OTHER_ORIGIN),
    "another VRF key": changed_config(vrf_key=VrfPrivateKey.from_seed(seed("other vrf")).public),
    "another label policy": changed_config(label_policy="text"),
    "signatures of another config": replace(changed_config(), signatures=FIRST.signatures),
}


@pytest.mark.parametrize("of", FOREIGN_CONFIGS.values(), ids=FOREIGN_CONFIGS.keys())
def test_foreign_config(of: SignedConfig) -> None:
    epoch = new_epoch(BEFORE)
    assert verdict(of, epoch) is Verdict.FOREIGN_CONFIG
    assert epoch.next_config is None


def test_a_config_of_the_past_does_not_roll_the_directory_back() -> None:
    back = signed_config(
        config(signer_keys=[SIGNER], max_interval=30_000, previous=ROTATED.config.hash), [SIGNER, NEXT_SIGNER]
    )
    epoch = new_epoch(replace(BEFORE, config=back))
    for old in (FIRST, ROTATED, back):
        assert verdict(old, epoch) is Verdict.FOREIGN_CONFIG


def test_config_may_announce_successors_and_change_intervals() -> None:
    announcing = changed_config(signer_keys=(SIGNER_KEY, public(NEXT_SIGNER)), min_interval=0)
    assert verdict(announcing, new_epoch(BEFORE)) is Verdict.CONFIG


def test_every_changed_byte_of_a_config_is_seen() -> None:
    for changed in every_changed_byte(ROTATED.encode()):
        verdict = verdict_of(new_epoch(BEFORE), Item(5, 0, ItemKind.CONFIG, changed))
        assert verdict in (Verdict.MALFORMED, Verdict.FOREIGN_CONFIG)


# The beginning of a queue.


def beginning() -> Epoch:
    return Epoch.after(Standing(ORIGIN, SIGNER_KEY))


def test_queue_begins_with_the_config_of_its_directory() -> None:
    epoch = beginning()
    assert verdict(FIRST, epoch) is Verdict.CONFIG
    assert epoch.config == FIRST
    assert verdict_of(epoch, item(mutation("alice"))) is Verdict.ACCEPTED
    assert verdict(marker(1), epoch) is Verdict.EPOCH
    head, standing = closed(epoch)
    assert (head.epoch, head.config_hash) == (1, FIRST.config.hash)
    assert standing == Standing(ORIGIN, SIGNER_KEY, 1, 1, FIRST)


def test_first_config_again_is_foreign() -> None:
    epoch = beginning()
    verdict(FIRST, epoch)
    assert verdict(FIRST, epoch) is Verdict.FOREIGN_CONFIG


STRANGE_BEGINNINGS = {
    "mutation": item(mutation("alice")),
    "marker": item(marker()),
    "garbage": Item(0, 0, ItemKind.CONFIG, b"garbage"),
    "unknown event": Item(0, 0, ItemKind.UNKNOWN, b""),
    "config of another directory": item(signed_config(config(OTHER_ORIGIN))),
    "config by another signer": item(signed_config(config(signer_keys=[NEXT_SIGNER]), [NEXT_SIGNER])),
    "config that only names our signer": item(signed_config(config(), [NEXT_SIGNER])),
    "config that our signer signed for another": item(
        signed_config(config(signer_keys=[NEXT_SIGNER]), [SIGNER, NEXT_SIGNER])
    ),
    "change of a config": item(changed_config()),
}


@pytest.mark.parametrize("of", STRANGE_BEGINNINGS.values(), ids=STRANGE_BEGINNINGS.keys())
def test_a_queue_that_begins_otherwise_is_somebody_elses(of: Item) -> None:
    epoch = beginning()
    with pytest.raises(DivergenceError):
        decide(epoch, parse(of), None)
    assert epoch.config is None


# The transition.


def test_the_head_has_what_the_epoch_was() -> None:
    epoch = new_epoch(BEFORE)
    verdict(marker(START + 5), epoch)
    head, standing = closed(epoch)
    assert head == MapHead(ORIGIN, 5, seed("map"), 7, 9, seed("log"), 11, START + 5, FIRST.config.hash)
    assert standing == Standing(ORIGIN, SIGNER_KEY, 5, START + 5, FIRST)
    assert Epoch.after(standing).number == 6
    assert accepted(Epoch.after(standing)) == {}


def test_an_epoch_without_marker_has_no_head() -> None:
    with pytest.raises(DivergenceError, match="epoch 5 has no marker"):
        closed(new_epoch(BEFORE))


@pytest.mark.parametrize("standing", [BEFORE, Standing(ORIGIN, SIGNER_KEY)], ids=["running", "new"])
def test_standing_is_kept_and_read_again(standing: Standing) -> None:
    assert decode_standing(encode_standing(standing), ORIGIN, SIGNER_KEY) == standing


def test_standing_of_another_directory_is_not_taken() -> None:
    with pytest.raises(DivergenceError, match="belongs to"):
        decode_standing(encode_standing(BEFORE), OTHER_ORIGIN, SIGNER_KEY)


BROKEN_STANDINGS = {
    "not CBOR": b"\xff",
    "too short": encode([ORIGIN, 1, 2]),
    "wrong epoch": encode([ORIGIN, None, 2, None]),
    "wrong config": encode([ORIGIN, 1, 2, b"\x80"]),
}


@pytest.mark.parametrize("data", BROKEN_STANDINGS.values(), ids=BROKEN_STANDINGS.keys())
def test_broken_standing(data: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_standing(data, ORIGIN, SIGNER_KEY)
