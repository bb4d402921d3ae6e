"""An owner's client against a real front end: ranges, pages of a history, and the watch over both."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from kt_es.client.changes import Mine
from kt_es.client.client import Client
from kt_es.client.history import kept_versions
from kt_es.client.state import MemoryStateStore
from kt_es.client.watching import Change, Watcher, every_epoch
from kt_es.errors import RefusedError
from kt_es.formats.entries import Mutation, ProfileKey
from kt_es.ledger.retention import prune
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

ALICE = b.label_of("alice")
KEY, STRANGER = b.private_key("alice"), b.private_key("stranger")


class Streams(SignedStreams):
    """alice's account: ``newest`` is what stands, ``follow`` adds a version in an epoch of its own."""

    newest: Mutation

    def follow(self, **options: object) -> None:
        self.newest = b.next_mutation("alice", self.newest, **options)
        self.opening("alice", self.newest)
        self.put(self.newest)
        self.epoch()


@pytest.fixture
def streams() -> Streams:
    """bob in epoch 1, alice's versions 1 to 3 in the epochs 2, 4 and 5."""
    streams = Streams()
    streams.put_user("bob")
    streams.epoch()
    streams.newest = streams.put_user("alice")
    streams.epoch()
    streams.epoch()
    streams.follow()
    streams.follow()
    return streams


@pytest.fixture
def running(streams: Streams) -> Iterator[Front]:
    with front(streams) as made:
        yield made


def client_of(running: Front, store: MemoryStateStore) -> Client:
    def handle(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        headers = {"content-type": "application/json"}
        answer = running.request(request.method, path, content=request.content, headers=headers)
        return httpx.Response(answer.status_code, content=answer.content)

    def now() -> int:
        return b.START + 1_000 * (running.ledger.committed.epoch + 1)

    return Client("http://kt.test", store, transport=httpx.MockTransport(handle), now=now)


def test_ranges_and_histories_of_a_real_front_end(running: Front) -> None:
    store = MemoryStateStore()
    client = client_of(running, store)
    history = client.history(ALICE)
    assert [(version.number, version.epoch) for version in history.versions] == [(1, 2), (2, 4), (3, 5)]
    assert len(kept_versions(store, ALICE)) == 3
    versions = [one.mutation and one.mutation.entry.version for one in every_epoch(client, ALICE, 1, 5)]
    assert versions == [None, 1, 1, 2, 3]
    absent = list(every_epoch(client, "nobody@example.org", 1, 5))
    assert [one.mutation for one in absent] == [None] * 5


def test_a_watch_over_a_real_front_end(running: Front, streams: Streams) -> None:
    told: list[Change] = []
    store = MemoryStateStore()
    watcher = Watcher(client_of(running, store), Mine(frozenset({b.public(KEY)})), told.append)
    watcher.look(ALICE)
    assert [(one.entry.version, one.mine) for one in told] == [(1, True), (2, True), (3, True)]
    told.clear()
    streams.follow(keys=[KEY, STRANGER], signed_by=[KEY])
    streams.follow(keys=[KEY], signed_by=[KEY])
    streams.epoch()
    until(running.caught_up)
    assert watcher.look(ALICE).epoch == 8
    assert [(one.epoch, one.mine) for one in told] == [(6, False), (7, True)]


def test_publishing_through_a_real_front_end(running: Front, streams: Streams) -> None:
    with streams.signing():
        client = client_of(running, MemoryStateStore())
        published = client.publish(ALICE, [ProfileKey("laptop", "raw", b"new")], [KEY])
    assert published.stands
    assert published.lookup.entry is not None
    assert published.lookup.entry.version == 4


@pytest.mark.parametrize(
    ("label", "with_a_labels"),
    [
        ("संपर्क@डाटामेल.भारत", "संपर्क@xn--c2bd4bq1db8d.xn--h2brj9c"),
        ("fv@பரிட்சை.இந்தியா", "fv@xn--hlcj6aya9esc7a.xn--xkc2dl3a5ee0h"),
    ],
)
def test_an_indic_domain_is_one_account_in_both_forms(
    running: Front, streams: Streams, label: str, with_a_labels: str
) -> None:
    with streams.signing():
        client = client_of(running, MemoryStateStore())
        published = client.publish(label, [ProfileKey("laptop", "raw", b"new")], [KEY])
    assert published.stands
    found = client_of(running, MemoryStateStore()).lookup(with_a_labels)
    assert found.label == label
    assert found.entry == published.lookup.entry


def test_versions_of_pruned_epochs_are_not_believed_without_their_proofs(
    streams: Streams, running: Front
) -> None:
    verified = MemoryStateStore()
    client_of(running, verified).history(ALICE)
    prune(running.ledger, 1)
    streams.follow()
    until(running.caught_up)
    gone = r"^pruned-epoch: the map of epoch 1 is not kept here any more, only those from epoch 5 on; ask a"
    with pytest.raises(RefusedError, match=gone):
        client_of(running, MemoryStateStore()).history(ALICE)
    with pytest.raises(RefusedError, match=gone):
        client_of(running, verified).history(ALICE, afresh=True)
    # What was verified before continues with the epochs that are kept.
    history = client_of(running, verified).history(ALICE)
    assert [version.number for version in history.versions] == [1, 2, 3, 4]
    assert client_of(running, verified).history("nobody@example.org").versions == ()


def test_a_watch_never_skips_epochs_that_were_pruned(streams: Streams, running: Front) -> None:
    mine = Mine(frozenset({b.public(KEY)}))
    told: list[Change] = []
    before, current = MemoryStateStore(), MemoryStateStore()
    Watcher(client_of(running, before), mine, told.append).look(ALICE)
    streams.follow()
    until(running.caught_up)
    Watcher(client_of(running, current), mine, told.append).look(ALICE)
    told.clear()
    prune(running.ledger, 1)
    streams.follow(keys=[KEY, STRANGER], signed_by=[KEY])
    until(running.caught_up)
    for store, epoch in ((before, 5), (MemoryStateStore(), 1)):
        with pytest.raises(RefusedError, match=f"^pruned-epoch: the map of epoch {epoch} is not kept here"):
            Watcher(client_of(running, store), mine, told.append).look(ALICE)
    assert told == []
    # A watch that has seen all epochs that were pruned continues, and one may begin with the present.
    for store, from_now in ((current, False), (MemoryStateStore(), True)):
        Watcher(client_of(running, store), mine, told.append, from_now=from_now).look(ALICE)
        assert [(change.epoch, change.mine) for change in told] == [(7, False)]
        told.clear()
