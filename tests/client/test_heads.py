"""Every way to a head has every check: signature, rollback, consistency, inclusion, order, key, freshness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import (
    CannotTellError,
    EquivocationError,
    MalformedError,
    UnavailableError,
    VerificationError,
)
from kt_es.evidence import convict
from kt_es.formats.configs import SignedConfig
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import SignedMapHead, heads_origin, mutations_origin
from kt_es.formats.queue import Verdict
from tests import builders as b
from tests.reference import naive_log
from tests.reference.clients import changed, client_of
from tests.reference.clocks import Pauses
from tests.reference.directory import INTERVAL, Directory, problem, text

ALICE = b.label_of("alice")
SUCCESSOR = b.private_key("successor")
LATEST = "/v1/heads/latest"

Look = Callable[[Client], object]


def by_lookup(client: Client) -> object:
    return client.lookup(ALICE)


def by_head(client: Client) -> object:
    return client.head()


def by_epochs(client: Client) -> object:
    return client.heads(3)


WAYS = pytest.mark.parametrize("look", [by_lookup, by_head, by_epochs])


@pytest.fixture
def directory() -> Directory:
    directory = Directory()
    directory.put_user("alice")
    for _ in range(3):
        directory.advance()
    return directory


def cut_back(directory: Directory, size: int) -> Directory:
    """The same directory as it was with ``size`` heads."""
    cut = Directory(configs=list(directory.configs))
    cut.configs = list(directory.configs)
    cut.heads = directory.heads[:size]
    cut.mutations, cut.private, cut.versions = directory.mutations, directory.private, directory.versions
    return cut


class TestLatest:
    def test_the_latest_and_past_ones(self, directory: Directory) -> None:
        client = client_of(directory)
        assert client.head().head.epoch == 3
        assert client.head(1).head == directory.heads[0].smh.head
        assert client.trusted().size == 3
        assert client.trusted().smh == directory.heads[2].smh.encode()
        assert client.consistency("heads", 1, 2) == directory.consistency(1, 2)
        assert [shown.head.epoch for shown in client.heads(2)] == [2, 3]
        assert [shown.head.epoch for shown in client.heads(9)] == [1, 2, 3]

    @WAYS
    def test_each_way_moves_trust_on(self, directory: Directory, look: Look) -> None:
        store = MemoryStateStore()
        client_of(directory, store).head()
        directory.advance()
        look(client_of(directory, store))
        stored = store.load()
        assert stored is not None
        assert (stored.checkpoint, stored.smh) == (
            directory.heads_checkpoint(4),
            directory.heads[3].smh.encode(),
        )

    @WAYS
    def test_a_log_that_was_cut_is_a_rollback(self, directory: Directory, look: Look) -> None:
        store = MemoryStateStore()
        client_of(directory, store).lookup(ALICE)
        with pytest.raises(VerificationError, match=r"^rollback:") as refused:
            look(client_of(cut_back(directory, 2), store))
        assert refused.value.exit_code == 4

    @pytest.mark.parametrize("look", [by_head, by_epochs, lambda client: client.head(1)])
    def test_a_front_end_that_is_behind_can_answer_that_it_is(
        self, directory: Directory, look: Look, pauses: Pauses
    ) -> None:
        store = MemoryStateStore()
        client_of(directory, store).lookup(ALICE)
        behind = cut_back(directory, 2)

        def handle(request: httpx.Request) -> httpx.Response:
            if int(request.url.params.get("since", 0)) > 2:
                return problem(503, "unavailable", "this front end is behind")
            return behind.handle(request)

        with pytest.raises(UnavailableError, match="behind") as refused:
            look(client_of(behind, store, handle, timeout=3))
        assert refused.value.exit_code == 7

    @WAYS
    @pytest.mark.parametrize("off", [60_000 + 60_000 + 1, -60_001])
    def test_a_head_that_is_old_or_of_the_future_is_undecided(
        self, directory: Directory, look: Look, off: int
    ) -> None:
        store = MemoryStateStore()
        now = directory.heads[-1].smh.head.timestamp + off
        with pytest.raises(CannotTellError, match=r"^freshness:") as refused:
            look(client_of(directory, store, now=lambda: now))
        assert refused.value.exit_code == 7
        client_of(directory, store, now=lambda: now).head(fresh=False)

    @WAYS
    def test_a_fork_is_caught(self, directory: Directory, look: Look) -> None:
        store = MemoryStateStore()
        client_of(directory, store).lookup(ALICE)
        fork = Directory()
        fork.put_user("alice")
        fork.put_user("bob")
        for _ in range(5):
            fork.advance()
        with pytest.raises(EquivocationError) as found:
            look(client_of(fork, store))
        convict(Evidence.decode(found.value.evidence or b""))


class TestHeadAnswer:
    @pytest.mark.parametrize("epoch", [None, 2])
    @pytest.mark.parametrize("inclusion", [[], [text(b"\1" * 32)] * 2], ids=["none", "two"])
    def test_a_head_has_to_stand_in_the_log(
        self, directory: Directory, epoch: int | None, inclusion: list[str]
    ) -> None:
        path = LATEST if epoch is None else f"/v1/heads/{epoch}"
        handler = changed(directory, path, lambda body: body.update(inclusion=inclusion))
        with pytest.raises(VerificationError, match=r"^map head:"):
            client_of(directory, handler=handler).head(epoch)

    @pytest.mark.parametrize("field", ["inclusion", "latest_checkpoint"])
    def test_an_answer_without_its_proof_is_malformed(self, directory: Directory, field: str) -> None:
        handler = changed(directory, LATEST, lambda body: body.pop(field))
        with pytest.raises(MalformedError, match=field):
            client_of(directory, handler=handler).head()

    def test_an_older_head_is_not_the_latest(self, directory: Directory) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path == LATEST:
                return directory.handle(httpx.Request("GET", "http://kt.test/v1/heads/2"))
            return directory.handle(request)

        with pytest.raises(VerificationError, match="is of epoch 2, not of epoch 3"):
            client_of(directory, handler=handle).head()

    def test_a_checkpoint_by_a_stranger_is_refused(self, directory: Directory) -> None:
        stranger = b.private_key("stranger")
        root = naive_log.root(directory.leaves(3))
        forged = b.checkpoint(heads_origin(b.ORIGIN), 3, root, stranger)
        handler = changed(directory, LATEST, lambda body: body.update(latest_checkpoint=forged))
        with pytest.raises(VerificationError, match=r"^checkpoint:"):
            client_of(directory, handler=handler).head()

    def test_a_server_that_does_not_prove_the_way_is_refused(self, directory: Directory) -> None:
        store = MemoryStateStore()
        client_of(directory, store).head()
        directory.advance()

        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/consistency":
                return httpx.Response(404, content=b"{}")
            return directory.handle(request)

        with pytest.raises(VerificationError, match="does not prove that its 4 heads follow"):
            client_of(directory, store, handle).head()

    def test_the_log_of_mutations_of_another_size_is_refused(self, directory: Directory) -> None:
        other = directory.mutations_checkpoint(1)
        handler = changed(directory, LATEST, lambda body: body.update(mutations_checkpoint=other))
        with pytest.raises(VerificationError, match=r"^map head:") as refused:
            client_of(directory, handler=handler).head()
        assert not isinstance(refused.value, EquivocationError)

    def test_another_log_of_mutations_than_the_heads_is_proven(self, directory: Directory) -> None:
        size = directory.heads[2].smh.head.log_size
        other = b.checkpoint(mutations_origin(b.ORIGIN), size)
        handler = changed(directory, LATEST, lambda body: body.update(mutations_checkpoint=other))
        with pytest.raises(EquivocationError, match=f"two different logs of {size} records") as found:
            client_of(directory, handler=handler).head()
        convict(Evidence.decode(found.value.evidence or b""))

    def test_two_checkpoints_of_one_size_in_one_answer_are_proven(self, directory: Directory) -> None:
        other = b.checkpoint(heads_origin(b.ORIGIN), 3)
        handler = changed(directory, LATEST, lambda body: body.update(heads_checkpoint=other))
        with pytest.raises(EquivocationError, match="two different logs of 3 leaves"):
            client_of(directory, handler=handler).head()


class TestOrder:
    """Heads that are validly signed and stand in one log, but whose order no honest signer makes."""

    def published(self, directory: Directory, change: dict[str, Any]) -> None:
        """Publish a fourth head, changed."""
        directory.advance()
        last = directory.heads[-1]
        last.smh = SignedMapHead.sign(replace(last.smh.head, **change), b.SIGNER)

    @WAYS
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"timestamp": b.START + 3 * INTERVAL}, "is not later than"),
            ({"queue_next": 1}, "has no more records than"),
            ({"map_size": 0}, "has fewer entries than"),
        ],
    )
    def test_what_must_grow_from_head_to_head_does(
        self, directory: Directory, look: Look, change: dict[str, Any], said: str
    ) -> None:
        store = MemoryStateStore()
        client_of(directory, store).lookup(ALICE)
        self.published(directory, change)
        with pytest.raises(EquivocationError, match=f"epoch 4 {said} the head of epoch 3") as found:
            look(client_of(directory, store))
        convict(Evidence.decode(found.value.evidence or b""))

    def test_a_past_head_is_compared_with_the_trusted_one(self, directory: Directory) -> None:
        self.published(directory, {"timestamp": b.START + 9 * INTERVAL})
        directory.advance()
        client = client_of(directory)
        client.head()
        with pytest.raises(EquivocationError, match="epoch 5 is not later than the head of epoch 4"):
            client.lookup(ALICE, 4)

    def test_past_heads_are_compared_with_each_other(self, directory: Directory) -> None:
        self.published(directory, {"timestamp": b.START + 3 * INTERVAL})
        directory.advance()
        with pytest.raises(EquivocationError, match="epoch 4 is not later than the head of epoch 3"):
            client_of(directory).heads(3)


class TestRotation:
    """The signer's key changes in epoch 4; the first head by the successor is that of epoch 5."""

    PIN = Pinned(b.ORIGIN, b.public(SUCCESSOR))

    @pytest.fixture
    def rotated(self, directory: Directory) -> Directory:
        directory.rotate(SUCCESSOR)
        directory.advance()
        directory.advance()
        return directory

    def by_the_retired_key(self, directory: Directory) -> Directory:
        """What a thief of the retired key publishes: the log goes on from epoch 4 under the old config."""
        stolen = cut_back(directory, 4)
        entries, head = directory.heads[3].entries, directory.heads[4].smh.head
        forged = replace(head, config_hash=directory.configs[0].config.hash)
        last = replace(directory.heads[4], smh=SignedMapHead.sign(forged, b.SIGNER), key=b.SIGNER)
        stolen.heads = [*stolen.heads, replace(last, entries=entries)]
        return stolen

    @WAYS
    def test_who_pins_the_successor_does_not_hear_the_retired_key(
        self, rotated: Directory, look: Look
    ) -> None:
        thief = self.by_the_retired_key(rotated)
        with pytest.raises(VerificationError, match=r"^(config|checkpoint):") as refused:
            look(client_of(thief, pinned=self.PIN))
        assert "replaced since" in refused.value.problem
        # The controls: who pins the old key cannot tell, and the honest directory is believed.
        look(client_of(thief, pinned=Pinned(b.ORIGIN, b.SIGNER_KEY)))
        look(client_of(rotated, pinned=self.PIN))

    @WAYS
    def test_a_pin_given_later_retires_the_key_for_the_state_there_is(
        self, rotated: Directory, look: Look
    ) -> None:
        store = MemoryStateStore()
        client_of(cut_back(rotated, 3), store).lookup(ALICE)
        thief = self.by_the_retired_key(rotated)
        with pytest.raises(VerificationError, match="replaced since"):
            look(client_of(thief, store, pinned=self.PIN))
        # From now on, whoever uses this state.
        with pytest.raises(VerificationError, match="replaced since"):
            look(client_of(thief, store))
        look(client_of(rotated, store))
        assert client_of(rotated, store).trusted().pinned == self.PIN

    def test_a_pin_on_an_older_key_of_the_chain_changes_nothing(self, rotated: Directory) -> None:
        store = MemoryStateStore()
        client_of(rotated, store, pinned=self.PIN).lookup(ALICE)
        before = store.load()
        client_of(rotated, store, pinned=Pinned(b.ORIGIN, b.SIGNER_KEY)).lookup(ALICE)
        assert store.load() == before

    def test_before_the_first_head_of_the_successor_there_is_nothing_to_believe(
        self, directory: Directory
    ) -> None:
        directory.rotate(SUCCESSOR)
        directory.advance()
        with pytest.raises(VerificationError, match="replaced since"):
            client_of(directory, pinned=self.PIN).lookup(ALICE)
        directory.advance()
        assert client_of(directory, pinned=self.PIN).lookup(ALICE).epoch == 5

    def test_older_epochs_are_proven_under_older_keys_inside_the_log(self, rotated: Directory) -> None:
        client = client_of(rotated, pinned=self.PIN)
        assert client.lookup(ALICE, 2).epoch == 2
        assert client.head(2).head.epoch == 2

    def test_a_checkpoint_of_the_successor_retires_the_old_key(self, rotated: Directory) -> None:
        """Seen beside a past epoch only: no head under the new config has been shown yet."""
        store = MemoryStateStore()
        client_of(rotated, store, pinned=Pinned(b.ORIGIN, b.SIGNER_KEY)).lookup(ALICE, 1)
        stored = store.load()
        assert stored is not None
        assert stored.in_force == 1

    def test_a_new_promise_is_shown_once(self, directory: Directory) -> None:
        store = MemoryStateStore()
        client_of(directory, store).lookup(ALICE)
        promise(directory, 90_000, b.SIGNER)
        directory.advance()
        directory.advance()
        line = "the directory now promises a head every 90.0 s"
        assert line in client_of(directory, store).head().proven.checks
        assert line not in client_of(directory, store).lookup(ALICE).checks


def promise(directory: Directory, interval: int, key: PrivateKey) -> None:
    """Change ``max_interval`` and nothing else, from the next epoch on."""
    current = directory.configs[-1].config
    config = replace(current, max_interval=interval, previous=current.hash)
    signed = SignedConfig.sign(config, [key])
    assert directory.decide(signed) is Verdict.CONFIG
    directory.configs.append(signed)
