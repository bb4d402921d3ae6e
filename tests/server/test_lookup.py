"""Lookups, history, heads and consistency out of a replica, verified by the client's own trust logic."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from kt_es.client.trust import verify_lookup
from kt_es.client.trusted import Trusted
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import ConfigError, DivergenceError, MalformedError, RefusedError, UnavailableError
from kt_es.eventstore.streams import NewEvent
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.proofs import decode_configs
from kt_es.ledger.proofs import map_root_at
from kt_es.merkle.verify import log_root_from_consistency
from projections.service import FrontendService
from tests import builders as b
from tests.reference.frontends import Front, front
from tests.reference.signed_streams import SignedStreams

NOW = b.START + 20_000


@dataclass
class Story:
    """Alice in epoch 1, Bob in 2, nothing in 3, Alice's second version in 4, nothing in 5."""

    front: Front
    streams: SignedStreams
    alice: list[Mutation]
    bob: Mutation

    def trusted(self, checkpoint: str | None = None) -> Trusted:
        configs = decode_configs(self.front.directory.describe().configs)
        return Trusted(b.ORIGIN, b.SIGNER_KEY, configs, 0, checkpoint)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    streams = SignedStreams()
    first = streams.put_user("alice")
    streams.epoch()
    bob = streams.put_user("bob")
    streams.epoch()
    streams.epoch()
    second = streams.put_user("alice", first)
    streams.epoch()
    streams.epoch()
    with front(streams) as running:
        yield Story(running, streams, [first, second], bob)


def test_the_directory_describes_itself(story: Story) -> None:
    info = story.front.directory.describe()
    assert (info.origin, info.directory, info.label_policy) == (b.ORIGIN, "people", "email")
    assert decode_configs(info.configs) == (b.signed_config(),)


@pytest.mark.parametrize("profile", [True, False])
def test_the_latest_entry_is_proven_to_the_client(story: Story, profile: bool) -> None:
    found = story.front.directory.lookup("Alice@Example.ORG", profile=profile)
    assert (found.epoch, found.result) == (5, "found")
    _, lookup = verify_lookup(
        story.trusted(), "alice@example.org", found.answer, found.profile, found.consistency, now=NOW
    )
    assert lookup.mutation == story.alice[1]
    assert found.answer.opening == b.opening("alice", 2)
    assert found.profile == (b.profile("alice", 2) if profile else None)


@pytest.mark.parametrize(
    ("epoch", "alice", "bob"), [(1, 0, False), (2, 0, True), (3, 0, True), (4, 1, True), (5, 1, True)]
)
def test_every_past_epoch_is_proven_to_the_client(story: Story, epoch: int, alice: int, bob: bool) -> None:
    for label, expected in (
        ("alice@example.org", story.alice[alice]),
        ("bob@example.org", story.bob if bob else None),
        ("nobody@example.org", None),
    ):
        found = story.front.directory.lookup(label, epoch)
        _, lookup = verify_lookup(
            story.trusted(), label, found.answer, found.profile, found.consistency, now=NOW, epoch=epoch
        )
        assert (lookup.head.epoch, lookup.mutation) == (epoch, expected)
        assert found.result == ("absent" if expected is None else "found")


def test_the_answer_goes_on_from_any_checkpoint_that_the_client_trusts(story: Story) -> None:
    for since in range(1, 6):
        checkpoint = story.front.directory.head(since).heads_checkpoint
        found = story.front.directory.lookup("bob@example.org", since=since)
        trusted, _ = verify_lookup(
            story.trusted(checkpoint),
            "bob@example.org",
            found.answer,
            found.profile,
            found.consistency,
            now=NOW,
        )
        assert trusted.size == 5
    assert story.front.directory.lookup("bob@example.org", since=0).consistency == ()
    assert story.front.directory.lookup("bob@example.org", since=5).consistency == ()


def test_a_client_that_knows_more_is_asked_to_come_back(story: Story) -> None:
    directory = story.front.directory
    assert directory.head(since=5).epoch == 5
    asks: tuple[Callable[[], object], ...] = (
        lambda: directory.lookup("bob@example.org", since=6),
        lambda: directory.head(since=6),
        lambda: directory.head(2, since=6),
    )
    for ask in asks:
        with pytest.raises(UnavailableError, match="behind: it has 5 epochs, and 6 were seen before"):
            ask()


@pytest.mark.parametrize("epoch", [6, 2**63 - 1])
def test_an_unknown_epoch_is_refused(story: Story, epoch: int) -> None:
    asks: tuple[Callable[[], object], ...] = (
        lambda: story.front.directory.lookup("bob@example.org", epoch),
        lambda: story.front.directory.head(epoch),
    )
    for ask in asks:
        with pytest.raises(RefusedError) as refused:
            ask()
        assert (refused.value.reason, refused.value.field) == ("unknown-epoch", "epoch")


def test_a_label_that_cannot_be_one_is_refused(story: Story) -> None:
    for ask in (story.front.directory.lookup, story.front.directory.history):
        with pytest.raises(MalformedError) as refused:
            ask("no address")
        assert refused.value.what == "label"


def test_the_history_has_every_version_oldest_first(story: Story) -> None:
    page = story.front.directory.history("alice@example.org", profiles=True)
    assert not page.more
    assert [(v.epoch, v.mutation, v.opening, v.profile) for v in page.versions] == [
        (1, story.alice[0].encode(), b.opening("alice", 1), b.profile("alice", 1)),
        (4, story.alice[1].encode(), b.opening("alice", 2), b.profile("alice", 2)),
    ]
    assert [v.profile for v in story.front.directory.history("alice@example.org").versions] == [None, None]
    assert story.front.directory.history("nobody@example.org").versions == ()


def test_heads_are_the_published_ones(story: Story) -> None:
    published = [event.data for event in story.streams.log.read(story.streams.names.heads)]
    for epoch in range(1, 6):
        head = story.front.directory.head(epoch)
        event = HeadEvent(head.smh, head.heads_checkpoint, head.mutations_checkpoint)
        assert event.encode() == published[epoch - 1]
    assert story.front.directory.head().epoch == 5


def test_consistency_of_both_logs(story: Story) -> None:
    committed = story.front.ledger.committed
    for log, state in (("heads", committed.heads), ("mutations", committed.log)):
        sizes = {
            SignedMapHead.decode(story.front.directory.head(epoch).smh).head.log_size: epoch
            for epoch in range(1, 6)
        }
        for size, epoch in sizes.items():
            first = epoch if log == "heads" else size
            proof = story.front.directory.consistency(log, first, state.size)
            if log == "mutations":
                head = SignedMapHead.decode(story.front.directory.head(epoch).smh).head
                assert log_root_from_consistency(first, state.size, head.log_root, proof) == state.root()
        assert story.front.directory.consistency(log, 0, state.size) == ()
        with pytest.raises(RefusedError) as refused:
            story.front.directory.consistency(log, 1, state.size + 1)
        assert (refused.value.reason, refused.value.field) == ("unknown-epoch", "to")
        with pytest.raises(RefusedError) as refused:
            story.front.directory.consistency(log, 2, 1)
        assert (refused.value.reason, refused.value.field) == ("malformed", "from")


def test_the_map_of_a_past_epoch_is_the_one_that_the_signer_had() -> None:
    streams = SignedStreams()
    streams.epoch()  # epoch 1 has no entries
    roots = [streams.ledger.committed.root]
    for step in range(24):
        if step % 3:
            streams.put_user(f"user{step}")
        streams.epoch()
        roots.append(streams.ledger.committed.root)
    for epoch, root in enumerate(roots, 1):
        assert map_root_at(streams.ledger, streams.ledger.committed, epoch) == root


def test_configs_of_a_rotation_are_all_described() -> None:
    streams = SignedStreams()
    streams.epoch()
    first = b.config()
    keys = (b.SIGNER, b.private_key("successor"))
    second = SignedConfig.sign(b.config(signer_keys=keys, max_interval=30_000, previous=first.hash), keys)
    streams.queue("Config", second.encode())
    streams.epoch()
    with front(streams) as running:
        chain = decode_configs(running.directory.describe().configs)
        assert chain == (b.signed_config(), second)
        with front(streams, running.store) as restarted:
            assert decode_configs(restarted.directory.describe().configs) == chain


def test_a_replica_whose_configs_are_incomplete_reports_it() -> None:
    streams = SignedStreams()
    streams.epoch()
    with front(streams) as running:
        for key, _ in list(running.store.scan("meta", b"config ")):
            running.store.write([("meta", key, None)])
        with pytest.raises(DivergenceError, match="lacks configs"):
            running.directory.describe()


def test_without_an_epoch_there_is_no_answer() -> None:
    with front(SignedStreams()) as running:
        with pytest.raises(UnavailableError, match="has no epoch yet: it is still reading the logs"):
            running.directory.lookup("alice@example.org")
        assert running.get("/readyz").json()["problems"] == ["no epoch yet"]


def test_a_vrf_key_of_another_directory_ends_the_front_end() -> None:
    streams = SignedStreams()
    streams.epoch()
    made = Front(streams)
    other = VrfPrivateKey.from_seed(b.seed("another vrf"))
    running = FrontendService(made.ledger, streams.names, other, lambda: streams.log, made.errors.append)
    running.replica.worker.start()
    assert running.replica.worker.join(30)
    assert [type(error) for error in made.errors] == [ConfigError]
    with pytest.raises(UnavailableError, match="stopped serving"):
        running.directory.lookup("alice@example.org")
    with pytest.raises(ConfigError, match="VRF key"):
        FrontendService(made.ledger, streams.names, other, lambda: streams.log, made.errors.append)
    running.stop()


def test_a_log_that_diverges_ends_the_front_end() -> None:
    streams = SignedStreams()
    streams.epoch()
    with front(streams) as running:
        published = next(streams.log.read(streams.names.heads))
        again = NewEvent(published.type, published.data, uuid.uuid4())
        streams.log.append(streams.names.heads, 0, [again])
        assert running.running.replica.worker.join(30)
        assert [type(error) for error in running.errors] == [DivergenceError]
        answer = running.get("/readyz")
        assert answer.status_code == 503
        assert "stopped serving" in answer.json()["detail"]
        assert running.post("/v1/lookup", {"label": "alice@example.org"}).status_code == 503
