"""The shared store in real Cassandra, beyond the contract that all stores pass."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kt_es.errors import ConfigError, UnavailableError
from kt_es.ledger.cassandra_settings import CassandraSettings
from kt_es.ledger.cassandra_tables import PARTITIONS, Table
from kt_es.ledger.store import Change
from tests.reference.cassandra import ContactPoints, connected
from tests.reference.doors import refused_port
from tests.reference.shared import settings_at
from tests.reference.signing import wait_until
from tools.cassandra import Cluster

if TYPE_CHECKING:
    from kt_es.ledger.cassandra import CassandraStore

EMPTY: list[Change] = []


def index(number: int) -> bytes:
    return number.to_bytes(32)


def version(number: int) -> bytes:
    return number.to_bytes(8)


class TestReads:
    def test_any_version_of_many_entries_is_read(self, shared_store: CassandraStore) -> None:
        rows = {index(i) + version(v): b"%d.%d" % (i, v) for i in range(130) for v in range(1, 2 + i % 4)}
        shared_store.write([("entries", key, value) for key, value in rows.items()])
        keys = [index(i) + version(v) for i in range(132) for v in range(6)]
        for again in (False, True):
            found = shared_store.get_many("entries", keys, again=again)
            assert found == [rows.get(key) for key in keys]
        newest = [index(i) + version(1 + i % 4) for i in range(130)]
        assert shared_store.get_many("entries", newest) == [rows[key] for key in newest]

    def test_nodes_are_read_across_partitions(self, shared_store: CassandraStore) -> None:
        keys = [b"m\x00" + n.to_bytes(8) for n in range(700)]
        shared_store.write([("nodes", key, key) for key in keys])
        assert shared_store.get_many("nodes", [*keys, b"m\x01" + bytes(8)]) == [*keys, None]

    @pytest.mark.parametrize("family", [family for family in PARTITIONS if family != "about"])
    def test_every_family_has_a_table(self, shared_store: CassandraStore, family: str) -> None:
        keys = [bytes((n,)) * (PARTITIONS[family] or 5) + b"rest" for n in range(3)]
        shared_store.write([(family, key, key) for key in keys])
        assert shared_store.get_many(family, keys) == keys
        assert sorted(shared_store.scan(family)) == [(key, key) for key in keys]

    def test_a_scan_reads_no_more_than_its_steps(
        self, shared_store: CassandraStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from kt_es.ledger.cassandra import FIRST_ROWS, SCAN_ROWS
        from kt_es.ledger.cassandra_session import CassandraSession

        total = FIRST_ROWS + SCAN_ROWS + 1
        shared_store.write([("erasures", index(n % 3) + version(n), b"") for n in range(total)])
        fetched = []
        execute = CassandraSession.execute

        def counted(session: CassandraSession, *args: Any, **options: Any) -> Any:
            result = execute(session, *args, **options)
            fetched.append(len(result.rows))
            return result

        monkeypatch.setattr(CassandraSession, "execute", counted)
        assert next(shared_store.scan("erasures"), None) is not None
        assert fetched == [FIRST_ROWS]
        fetched.clear()
        assert len(list(shared_store.scan("erasures"))) == total
        assert fetched == [FIRST_ROWS, SCAN_ROWS, 1]

    def test_a_scan_without_order_is_refused(self, shared_store: CassandraStore) -> None:
        for options in ({"start": b"a"}, {"reverse": True}):
            with pytest.raises(ValueError, match="no order"):
                list(shared_store.scan("pages", **options))
        for family, prefix in (("pages", b"a"), ("entries", index(0)[1:])):
            with pytest.raises(ValueError, match="as long as the partition"):
                list(shared_store.scan(family, prefix))

    def test_a_key_shorter_than_its_partition_is_refused(self, shared_store: CassandraStore) -> None:
        with pytest.raises(ValueError, match="less than 8 bytes"):
            shared_store.get("states", b"short")


class TestWrites:
    def test_a_deleted_row_does_not_come_back(self, shared_store: CassandraStore) -> None:
        key = index(1) + version(1)
        for family in ("pages", "entries"):
            shared_store.write([(family, key, b"value")])
            shared_store.write([(family, key, None)])
            # What a delayed or repeated write does.
            shared_store.write([(family, key, b"value")])
            assert shared_store.get(family, key) is None
            assert list(shared_store.scan(family)) == []

    def test_clocks_do_not_matter(
        self, shared_store: CassandraStore, cassandra: ContactPoints, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client whose clock is a year ahead writes the same times as every other one."""
        from cassandra import timestamps

        clock = timestamps.time.time
        monkeypatch.setattr(timestamps.time, "time", lambda: clock() + 365 * 86400)
        shared_store.write([("pages", b"kept", b"value"), ("pages", b"gone", b"value")])
        monkeypatch.undo()
        shared_store.write([("pages", b"gone", None)])
        assert shared_store.get_many("pages", [b"kept", b"gone"]) == [b"value", None]
        table = shared_store.table("pages")
        with connected(cassandra.addresses, cassandra.port) as session:
            assert [row[0] for row in session.execute(f"SELECT WRITETIME(page) FROM {table.path}")] == [1]

    def test_in_about_the_largest_time_wins(self, shared_store: CassandraStore) -> None:
        values = [version(5) + b"five", version(9) + b"nine", version(7) + b"seven"]
        for value in values:
            shared_store.write([("about", b"row", value)])
        assert shared_store.get("about", b"row") == values[1]
        for wrong in (None, b"short"):
            with pytest.raises(ValueError, match="8 bytes of time"):
                shared_store.write([("about", b"row", wrong)])

    def test_many_threads_share_a_store(self, shared_store: CassandraStore) -> None:
        problems: list[BaseException] = []

        def work(number: int) -> None:
            try:
                keys = [b"%d/%d" % (number, n) for n in range(200)]
                shared_store.write([("pages", key, key) for key in keys])
                assert shared_store.get_many("pages", keys, again=True) == keys
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []

    def test_statements_leave_nothing_to_the_garbage_collector(
        self, shared_store: CassandraStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from kt_es.ledger.cassandra_session import CassandraSession

        sent: list[weakref.ref[Any]] = []
        send = CassandraSession._send

        def watched(session: CassandraSession, *args: Any, **options: Any) -> Any:
            future = send(session, *args, **options)
            sent.append(weakref.ref(future))
            return future

        monkeypatch.setattr(CassandraSession, "_send", watched)
        gc.disable()
        try:
            shared_store.write([("pages", b"%d" % n, bytes(20 << 10)) for n in range(9)])
            assert shared_store.get("pages", b"1") == bytes(20 << 10)
            assert len(list(shared_store.scan("pages"))) == 9
            assert len(sent) > 9
            wait_until(
                lambda: not any(future() for future in sent), "the driver has let go of the statements"
            )
        finally:
            gc.enable()


class TestReplicas:
    @pytest.fixture
    def lonely(self, shared_store: CassandraStore, cassandra: ContactPoints) -> Iterator[CassandraStore]:
        """A store with one replica of the three that its keyspace should have."""
        shared_store.write([("pages", b"old", b"value"), ("entries", index(1) + version(1), b"value")])
        keyspace = shared_store.table("pages").keyspace
        with connected(cassandra.addresses, cassandra.port) as session:

            def replicas(count: int) -> None:
                replication = f"{{'class': 'NetworkTopologyStrategy', 'datacenter1': {count}}}"
                session.execute(f"ALTER KEYSPACE {keyspace} WITH replication = {replication}")

            replicas(3)
            yield shared_store
            replicas(1)

    def test_one_replica_answers_reads_and_nothing_else(self, lonely: CassandraStore) -> None:
        too_few = r"too few replicas in the shared store at 127\..* are alive: 2 are needed, 1 alive"
        assert lonely.get("pages", b"old") == b"value"
        assert lonely.get_many("pages", [b"old", b"new"]) == [b"value", None]
        for call in (
            lambda: lonely.get_many("pages", [b"old"], again=True),
            lambda: lonely.get_many("entries", [index(n) + version(1) for n in range(3)], again=True),
            lambda: list(lonely.scan("pages")),
            lambda: list(lonely.scan("entries", index(1))),
            lambda: lonely.write([("pages", b"new", b"value")]),
            lambda: lonely.write([("pages", b"old", None)]),
        ):
            with pytest.raises(UnavailableError, match=too_few):
                call()


class TestSchema:
    def test_it_is_made_once(self, cassandra: ContactPoints, keyspace: str) -> None:
        from kt_es.ledger.cassandra_schema import create_schema

        settings = settings_at(cassandra, keyspace)
        schema = create_schema(settings, {"datacenter1": 1})
        assert schema.made == (keyspace, *(Table(family, keyspace).path for family in PARTITIONS))
        with connected(cassandra.addresses, cassandra.port) as session:
            session.execute(f"DROP TABLE {keyspace}.nodes")
        assert create_schema(settings).made == (f"{keyspace}.nodes",)
        again = create_schema(settings, 1)
        assert (again.made, again.replication) == ((), {"datacenter1": 1})
        with pytest.raises(
            ConfigError, match="exists with replicas datacenter1=1, not datacenter1=2: leave out"
        ):
            create_schema(settings, 2)

    def test_replicas_need_nodes(self, cassandra: ContactPoints, keyspace: str) -> None:
        from kt_es.ledger.cassandra_schema import create_schema

        settings = settings_at(cassandra, keyspace)
        with pytest.raises(
            ConfigError, match="3 replicas need 3 nodes, and the datacenter 'datacenter1' has 1"
        ):
            create_schema(settings)
        with pytest.raises(ConfigError, match="no datacenter 'dc9'; it has datacenter1"):
            create_schema(settings, {"dc9": 1})

    def test_a_store_belongs_to_one_directory(self, shared_store: CassandraStore) -> None:
        from kt_es.ledger.cassandra_schema import DIRECTORY, check_about, write_about

        with pytest.raises(ConfigError, match="belongs to no directory yet: run kt store init"):
            check_about(shared_store, "kt.example.org/people")
        assert write_about(shared_store, "kt.example.org/people")
        assert not write_about(shared_store, "kt.example.org/people")
        check_about(shared_store, "kt.example.org/people")
        for call in (check_about, write_about):
            with pytest.raises(
                ConfigError, match=r"belongs to kt\.example\.org/people, not to kt\.example\.org/x"
            ):
                call(shared_store, "kt.example.org/x")
        shared_store.write([("about", DIRECTORY, version(2) + b"\x82\x02\x80")])
        with pytest.raises(ConfigError, match="tables of version 2, and this program uses version 1"):
            check_about(shared_store, "kt.example.org/people")
        shared_store.write([("about", DIRECTORY, version(3) + b"\x01")])
        with pytest.raises(ConfigError, match="damaged: about: must be an array"):
            check_about(shared_store, "kt.example.org/people")


class TestOutage:
    def test_a_store_outlives_its_cluster(self, cassandra_installed: None, tmp_path: Path) -> None:
        from kt_es.ledger.cassandra import CassandraStore
        from kt_es.ledger.cassandra_schema import create_schema

        with Cluster(tmp_path) as cluster:
            settings = CassandraSettings(tuple(cluster.addresses), "kt", cluster.port)
            create_schema(settings, 1)
            with closing(CassandraStore.connect(settings)) as store:
                store.write([("pages", b"before", b"value")])
                cluster.nodes[0].kill()
                for _ in range(2):
                    with pytest.raises(UnavailableError, match="no node of the shared store at"):
                        store.get("pages", b"before")
                    with pytest.raises(UnavailableError, match="no node of the shared store at"):
                        store.write([("pages", b"during", b"value")])
                cluster.start()
                wait_until(lambda: is_there(store, b"before"), "the row is read again")
                store.write([("pages", b"after", b"value")])
                assert store.get("pages", b"after") == b"value"


def is_there(store: CassandraStore, key: bytes) -> bool:
    try:
        return store.get("pages", key) is not None
    except UnavailableError:
        return False


class TestErrors:
    def test_no_contact_point_answers(self, cassandra_installed: None) -> None:
        from kt_es.ledger.cassandra import CassandraStore

        with refused_port() as port:
            settings = CassandraSettings(("127.0.0.1",), "kt", port)
            problem = rf"store at 127\.0\.0\.1:{port} answers: .* refused"
            for _ in range(2):
                with pytest.raises(UnavailableError, match=problem):
                    CassandraStore.connect(settings)
        with pytest.raises(
            UnavailableError, match=r"no name of the shared store at no-such-host\.invalid:9042"
        ):
            CassandraStore.connect(CassandraSettings(("no-such-host.invalid",), "kt"))

    def test_one_contact_point_is_sufficient(self, shared_settings: CassandraSettings) -> None:
        from kt_es.ledger.cassandra import CassandraStore

        hosts = "127.255.255.254", *shared_settings.hosts
        with closing(CassandraStore.connect(dataclasses.replace(shared_settings, hosts=hosts))) as store:
            assert store.get("pages", b"absent") is None

    def test_a_keyspace_without_tables_is_named(self, cassandra: ContactPoints, keyspace: str) -> None:
        from kt_es.ledger.cassandra import CassandraStore
        from kt_es.ledger.cassandra_schema import check_about

        with closing(CassandraStore.connect(settings_at(cassandra, keyspace))) as store:
            for call in (
                lambda: store.get("pages", b"key"),
                lambda: list(store.scan("entries", index(0))),
                lambda: store.write([("pages", b"key", b"value")]),
                lambda: check_about(store, "kt.example.org/people"),
            ):
                with pytest.raises(
                    ConfigError, match=f"no tables in the keyspace {keyspace}: .*kt store init"
                ):
                    call()

    def test_a_table_that_vanishes_is_named(self, cassandra: ContactPoints, keyspace: str) -> None:
        from kt_es.ledger.cassandra import CassandraStore
        from kt_es.ledger.cassandra_schema import create_schema

        settings = settings_at(cassandra, keyspace)
        create_schema(settings, 1)
        with closing(CassandraStore.connect(settings)) as store:
            assert store.get("pages", b"key") is None
            with connected(cassandra.addresses, cassandra.port) as session:
                session.execute(f"DROP TABLE {keyspace}.pages")
            for _ in range(2):
                with pytest.raises(ConfigError, match="kt store init"):
                    store.get("pages", b"key")

    def test_a_datacenter_that_does_not_exist_is_named(self, shared_settings: CassandraSettings) -> None:
        from kt_es.ledger.cassandra import CassandraStore

        with pytest.raises(ConfigError, match="has no datacenter 'dc9', but datacenter1: name one of these"):
            CassandraStore.connect(dataclasses.replace(shared_settings, datacenter="dc9"))

    def test_tls_files_that_cannot_be_used_are_named(
        self, shared_settings: CassandraSettings, tmp_path: Path
    ) -> None:
        from kt_es.ledger.cassandra import CassandraStore

        empty = tmp_path / "ca.pem"
        for _ in range(2):
            with pytest.raises(ConfigError, match=rf"cannot be set up from {empty}"):
                CassandraStore.connect(dataclasses.replace(shared_settings, tls_ca=empty))
            empty.write_text("no certificate")

    def test_threads_end_with_the_store(self, shared_settings: CassandraSettings) -> None:
        from kt_es.ledger.cassandra import CassandraStore

        before = set(threading.enumerate())
        store = CassandraStore.connect(shared_settings)
        store.get("pages", b"key")
        store.close()
        for thread in set(threading.enumerate()) - before:
            thread.join(20)
            assert not thread.is_alive(), thread
