"""A front end over a shared store that is away, also at its start, or that lacks rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest
import structlog.testing

from kt_es.errors import ConfigError, StoreAwayError, UnavailableError
from kt_es.ledger.cassandra_settings import CassandraSettings
from kt_es.ledger.connecting import ConnectingStore
from kt_es.ledger.store import Store
from kt_es.ledger.stores import Sharing, open_store
from kt_es.server import health, store_watch
from tests import builders as b
from tests.reference.doors import refused_port
from tests.reference.frontends import Front, front, submission, until
from tests.reference.sharing import Replicas, SharedStreams, store_of

USERS = ("anna", "bert", "cora", "dirk", "elsa")


@pytest.fixture
def streams() -> SharedStreams:
    """A directory with one epoch, in which alice has published."""
    streams = SharedStreams()
    streams.put_user("alice")
    streams.epoch()
    return streams


@pytest.fixture
def filled() -> SharedStreams:
    """A directory with five epochs, in each of which another account has published."""
    streams = SharedStreams()
    for user in USERS:
        streams.put_user(user)
        streams.epoch()
    return streams


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_watch, "PROBE_INTERVAL", 0.01)
    monkeypatch.setattr(health, "ROWS_PATIENCE", 0.0)


class Lacking(Replicas):
    """The same store as ``replicas``, in which the states of epochs from ``lost`` on are missing."""

    def __init__(self, replicas: Replicas) -> None:
        super().__init__()
        self.majority = replicas.majority
        self.lost = 1 << 40

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        rows = super().get_many(family, keys, again=again)
        if family != "states":
            return rows
        return [
            row if int.from_bytes(key[:8]) < self.lost else None for key, row in zip(keys, rows, strict=True)
        ]


def reasons(running: Front) -> list[str]:
    answer = running.get("/readyz")
    return [] if answer.status_code == 200 else answer.json()["reasons"]


def looked_up(running: Front, user: str = "alice") -> int:
    return running.post("/v1/lookup", {"label": b.label_of(user)}).status_code


def refused(running: Front) -> float:
    """How many requests the front end has refused because of rows, by its metrics."""
    page = running.get("/metrics").text
    (line,) = (line for line in page.splitlines() if line.startswith("kt_store_rows_refused_total "))
    return float(line.split()[1])


def is_away(running: Front) -> bool:
    return 'kt_not_ready{reason="store-away"} 1.0' in running.get("/metrics").text


def test_nobody_has_to_look_up_anything_to_see_that_the_store_goes_and_returns(
    streams: SharedStreams,
) -> None:
    with front(streams, store_of(streams.replicas)) as running, structlog.testing.capture_logs() as lines:
        until(lambda: reasons(running) == [])
        assert not is_away(running)
        streams.replicas.away = True
        until(lambda: reasons(running) == ["store-away"])
        assert is_away(running)
        (problem,) = running.get("/readyz").json()["problems"]
        assert problem.startswith("the shared store cannot be used (keyspace kt_people, for ")
        assert "look at its nodes" in problem
        streams.replicas.away = False
        until(lambda: reasons(running) == [])
        assert not is_away(running)
    events = [line["event"] for line in lines if line.get("part") == "store"]
    assert events == ["the shared store cannot be used", "the shared store can be used again"]


def test_rows_that_the_next_epoch_lacks_are_named_and_lookups_go_on(streams: SharedStreams) -> None:
    lacking = Lacking(streams.replicas)
    with front(streams, store_of(lacking)) as running:
        until(lambda: reasons(running) == [])
        lacking.lost = 2
        streams.put_user("bob")
        streams.epoch()
        until(lambda: reasons(running) == ["store-rows"])
        (problem,) = running.get("/readyz").json()["problems"]
        assert problem.startswith("no epoch after 1 is taken for ")
        assert "has no good state of epoch 2: it is missing" in problem
        assert looked_up(running) == 200
        lacking.lost = 3
        until(lambda: reasons(running) == [])
        assert running.caught_up()


def flipped(rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {key: bytes([row[0] ^ 1]) + row[1:-1] + bytes([row[-1] ^ 1]) for key, row in rows.items()}


class TestRows:
    """Rows that are wrong in all replicas, of a front end that has answered nothing yet."""

    @pytest.mark.parametrize(
        ("family", "problem"),
        [
            ("nodes", "the log of heads has wrong nodes"),
            ("pages", "map page root of version 5 is damaged"),
            (
                "entries",
                "8 accounts were taken at random, and a page or an entry of each is missing or wrong",
            ),
        ],
    )
    def test_nobody_has_to_look_up_anything_to_see_that_all_rows_of_a_kind_are_wrong(
        self, filled: SharedStreams, family: str, problem: str
    ) -> None:
        good = filled.replicas.rows(family)
        with front(filled, store_of(filled.replicas)) as running:
            until(lambda: reasons(running) == [])
            filled.replicas.majority.write([(family, *row) for row in flipped(good).items()])
            # A probe that is under way has perhaps read some of the good rows, and names another problem.
            until(lambda: problem in running.get("/readyz").text)
            assert reasons(running) == ["store-rows"]
            assert 'kt_not_ready{reason="store-rows"} 1.0' in running.get("/metrics").text
            (sentence,) = running.get("/readyz").json()["problems"]
            assert sentence.startswith("lookups of what is not in memory fail for ")
            filled.replicas.majority.write([(family, *row) for row in good.items()])
            until(lambda: reasons(running) == [])

    def test_a_wrong_row_of_one_account_is_counted_and_keeps_the_front_end_in_service(
        self, filled: SharedStreams
    ) -> None:
        entries = filled.replicas.rows("entries")
        index = b.mutation(USERS[0]).entry.index
        wrong = flipped({key: row for key, row in entries.items() if key.startswith(index)})
        filled.replicas.majority.write([("entries", *row) for row in wrong.items()])
        with front(filled, store_of(filled.replicas)) as running:
            probed = len(filled.replicas.asked)
            assert refused(running) == 0
            assert [looked_up(running, user) for user in USERS] == [503, 200, 200, 200, 200]
            until(lambda: len(filled.replicas.asked) > probed + 100)
            assert reasons(running) == []
            answer = running.post("/v1/lookup", {"label": b.label_of(USERS[0])})
            assert answer.json()["detail"] == "rows of the shared store are missing or wrong; try again later"
            assert refused(running) == 2

    def test_a_bound_of_pruning_above_the_newest_epoch_is_a_wrong_row(self, filled: SharedStreams) -> None:
        with front(filled, store_of(filled.replicas)) as running:
            until(lambda: reasons(running) == [])
            filled.replicas.majority.write([("about", b"oldest", (100).to_bytes(8))])
            until(lambda: reasons(running) == ["store-rows"])
            (sentence,) = running.get("/readyz").json()["problems"]
            assert "keeps the maps from epoch 100 on, and the latest epoch here is 5" in sentence
            filled.epoch()
            until(running.caught_up)
            assert looked_up(running, USERS[0]) == 503
            # The row is no proof that others are wrong: a front end that is behind sees the same.
            assert refused(running) == 0
            # Lookups use the bound that was read with the epoch, until there is another epoch.
            filled.replicas.majority.write([("about", b"oldest", (1).to_bytes(8))])
            until(lambda: "latest epoch here is 6" in str(running.get("/readyz").json()))
            filled.epoch()
            until(lambda: reasons(running) == [])
            assert looked_up(running, USERS[0]) == 200


class TestStart:
    @pytest.fixture
    def refused(self) -> list[ConfigError]:
        """What the store says once it answers; nothing if all is well."""
        return []

    @pytest.fixture
    def early(self, streams: SharedStreams, refused: list[ConfigError]) -> Iterator[Front]:
        """A front end that started while the store was away."""

        def connect() -> Store:
            if streams.replicas.away:
                raise UnavailableError("no node of the shared store answers")
            for error in refused:
                raise error
            return streams.replicas

        streams.replicas.away = True
        made = Front(streams, store_of(ConnectingStore(connect)))
        with front(streams, made=made, wait=False) as running:
            yield running

    def test_a_front_end_answers_and_becomes_ready_when_the_store_is_there(
        self, streams: SharedStreams, early: Front
    ) -> None:
        until(lambda: reasons(early) == ["no-epoch", "store-away"])
        assert early.get("/healthz").status_code == 200
        refused = early.post("/v1/lookup", {"label": b.label_of("alice")})
        assert (refused.status_code, refused.json()["reason"]) == (503, "unavailable")
        said = [refused.json()["detail"], early.post("/v1/mutations", submission("zoe")).json()["detail"]]
        for detail in said:
            why = "this front end has no epoch yet: the shared store cannot be used (keyspace kt_people"
            assert detail.startswith(why)
            assert "go on" not in detail
        assert "go on" not in early.get("/readyz").text
        streams.replicas.away = False
        until(lambda: reasons(early) == [])
        assert looked_up(early) == 200

    def test_rows_that_are_wrong_at_the_start_are_told_at_once(
        self, streams: SharedStreams, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "ROWS_PATIENCE", 3600.0)
        pages = streams.replicas.rows("pages")
        streams.replicas.majority.write([("pages", key, None) for key in pages])
        with front(streams, store_of(streams.replicas), wait=False) as running:
            until(lambda: reasons(running) == ["no-epoch", "store-rows"])
            problem = running.get("/readyz").json()["problems"][1]
            assert problem.startswith("no epoch is taken for ")
            assert "map page root of version 1 is missing" in problem
            assert "go on" not in problem
            detail = running.post("/v1/lookup", {"label": b.label_of("alice")}).json()["detail"]
            assert detail.startswith("this front end has no epoch yet: no epoch is taken for ")
            streams.replicas.majority.write([("pages", *row) for row in pages.items()])
            until(lambda: reasons(running) == [])

    def test_a_front_end_of_a_directory_without_a_head_waits_for_it(self) -> None:
        streams = SharedStreams()
        with front(streams, store_of(streams.replicas)) as running:
            detail = running.post("/v1/lookup", {"label": b.label_of("alice")}).json()["detail"]
            assert detail == "this front end has no epoch yet: it waits for the newest head"

    def test_a_store_that_cannot_be_used_ends_it(
        self, streams: SharedStreams, early: Front, refused: list[ConfigError]
    ) -> None:
        until(lambda: reasons(early) == ["no-epoch", "store-away"])
        refused.append(ConfigError("the shared store belongs to another directory"))
        streams.replicas.away = False
        until(lambda: bool(early.errors))
        assert early.errors[0] is refused[0]

    def test_only_who_answers_opens_a_store_that_is_away(self) -> None:
        pytest.importorskip("cassandra", reason="the extra shared is not installed")
        with refused_port() as port:
            sharing = Sharing(CassandraSettings(("127.0.0.1",), "kt_people", port), b.ORIGIN, 1 << 20)
            with pytest.raises(StoreAwayError, match="no node of the shared store"):
                open_store(None, sharing)
            with closing(open_store(None, sharing, answers=True)) as store:
                for _ in range(2):
                    with pytest.raises(StoreAwayError, match="no node of the shared store"):
                        store.get("pages", b"key")
        with pytest.raises(ValueError, match="the shared store is closed"):
            store.get("pages", b"key")
