"""Openings on a server with other tenants: a node with TLS, users of other groups, and their default rights.

The front ends' own log notes at the moment of each append of an opening whether a stranger could read it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from kt_es.cli.main import cli
from kt_es.errors import AccessDeniedError
from kt_es.eventstore.esdb import EsdbLog, connect
from kt_es.eventstore.rights import DELETED, openings_acl, stream_acls
from kt_es.eventstore.streams import ANY, EventLog, NewEvent, StreamNames, content_event
from kt_es.formats.entries import Mutation
from kt_es.formats.profiles import OPENING, Opening
from kt_es.node.access.users import add
from kt_es.node.server import Node, NodeConfig
from kt_es.server.rights import PrivateStreams
from kt_es.server.sweeping import sweep_stream
from tests import builders as b
from tests.contracts.certificates import certify
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams
from tests.unit.test_server_submission import body_of

NAMES = StreamNames("people")
GROUPS = {
    "root": ["$admins"],
    "signer": ["$ops"],
    "fe1": ["frontend"],
    "fe2": ["frontend"],
    "monitor": [],
    "eve": ["tenant"],
}
EVERYTHING = dict.fromkeys(("$r", "$w", "$d", "$mr", "$mw"), "$all")
TENANT = {right: ["tenant"] for right in EVERYTHING}
BOTH = {right: ["tenant", "frontend"] for right in EVERYTHING}


@dataclass
class Server:
    """Clients of the node by user; closed at the end."""

    uris: dict[str, str]
    _logs: list[EsdbLog] = field(default_factory=list)

    def log(self, name: str) -> EsdbLog:
        self._logs.append(connect(self.uris[name]))
        return self._logs[-1]

    def close(self) -> None:
        for log in self._logs:
            log.close()

    def set_defaults(self, acl: Mapping[str, object]) -> bytes:
        data = json.dumps({"$userStreamAcl": acl}).encode()
        self.log("root").append("$settings", ANY, [content_event("$settings", "$settings", data)])
        return data

    def set_acl(self, stream: str, acl: Mapping[str, object]) -> None:
        root = self.log("root")
        held = root.metadata(stream)
        root.set_metadata(stream, {**held.values, "$acl": acl}, held.revision)

    def delete(self, stream: str) -> None:
        """A soft deletion as real servers do it: nothing but ``$tb`` is left of the metadata."""
        root = self.log("root")
        root._client.delete_stream(stream, current_version=root.last_revision(stream))
        root.set_metadata(stream, {"$tb": DELETED}, root.metadata(stream).revision)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = certify(tmp_path)
    for name, groups in GROUPS.items():
        add(tmp_path / "node", name, "pw", groups)
    config = NodeConfig(tmp_path / "node", port=0, tls_cert=made.certificate, tls_key=made.key)
    with Node(config) as node:
        uri = f"{node.address}?Tls=true&TlsCaFile={made.authority}"
        server = Server({name: f"esdb://{name}:pw@{uri}" for name in GROUPS})
        yield server
        server.close()


def init(server: Server, base: Path) -> Result:
    words = ["init", "--acl", "--data", str(base), "--log", server.uris["root"]]
    return CliRunner().invoke(cli, words)


def denials(log: EventLog, stream: str) -> set[str]:
    """The rights to a stream that ``log``'s user does not have."""
    calls: dict[str, Callable[[], object]] = {
        "$r": lambda: list(log.read(stream, 0, 1)),
        "$w": lambda: log.append(stream, ANY, [content_event(stream, "T", b"by a stranger")]),
        "$mr": lambda: log.metadata(stream),
        "$mw": lambda: log.set_metadata(stream, {}, log.metadata(stream).revision),
    }
    return {right for right, call in calls.items() if is_denied(call)}


def is_denied(call: Callable[[], object]) -> bool:
    try:
        call()
    except AccessDeniedError:
        return True
    return False


ALL_RIGHTS = {"$r", "$w", "$mr", "$mw"}


class Noting:
    """A front end's client that notes, at each append of an opening, which rights a stranger lacks.

    The append that brings a deleted stream back takes its metadata away, as on real servers.
    """

    def __init__(self, server: Server, user: str) -> None:
        self._log = server.log(user)
        self._root = server.log("root")
        self._eve = server.log("eve")
        self.missing_to_eve: list[set[str]] = []

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        deleted = self._root.metadata(stream).values.get("$tb") == DELETED
        self._log.append(stream, expected, events)
        if deleted:
            last = self._root.last_revision(stream)
            self._root.set_metadata(stream, {"$tb": last}, self._root.metadata(stream).revision)
        if events[0].type == OPENING:
            self.missing_to_eve.append(denials(self._eve, stream))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.fixture
def streams(server: Server) -> SignedStreams:
    """A directory with one account, and the rights that ``kt init --acl`` sets."""
    for stream, acl in stream_acls(NAMES, signer_truncates=False).items():
        server.set_acl(stream, acl)
    made = SignedStreams(server.log("root"))
    made.put_user("alice")
    made.epoch()
    return made


def front_of(streams: SignedStreams, connect_log: Callable[[], Any]) -> Front:
    return Front(streams, connect=connect_log)


def submit(running: Front, made: Mutation, wait: float = 0) -> Any:
    return running.post("/v1/mutations", body_of("bob", made, wait=wait))


@pytest.mark.parametrize("defaults", [EVERYTHING, BOTH], ids=["everything", "both"])
def test_no_opening_is_ever_seen_by_a_stranger(
    server: Server, streams: SignedStreams, defaults: Mapping[str, object]
) -> None:
    server.set_defaults(defaults)
    client = Noting(server, "fe1")
    eve = server.log("eve")
    first = b.mutation("bob")
    stream = NAMES.openings(first.entry.index)
    # What she writes before takes nothing from the front end.
    eve.append(stream, ANY, [content_event(stream, "T", b"first")])
    with front(streams, made=front_of(streams, lambda: client)) as running, streams.signing():
        assert submit(running, first, 30).json()["verdict"] == "accepted"
        assert denials(eve, stream) == ALL_RIGHTS
        server.delete(stream)
        # No look at all rights here: a write of hers would bring the stream back.
        assert not is_denied(lambda: list(eve.read(stream, 0, 1)))
        second = b.next_mutation("bob", first)
        assert submit(running, second, 30).json()["verdict"] == "accepted"
        assert denials(eve, stream) == ALL_RIGHTS
        assert running.directory.lookup(b.label_of("bob")).profile == b.profile("bob", 2)
        assert running.errors == []
    assert client.missing_to_eve == [ALL_RIGHTS] * 2


def test_a_stream_that_the_stranger_has_taken_gets_no_opening(server: Server, streams: SignedStreams) -> None:
    server.set_defaults(EVERYTHING)
    bob, carol = b.mutation("bob"), b.mutation("carol")
    stream = NAMES.openings(bob.entry.index)
    server.log("eve").set_metadata(stream, {"$acl": {right: ["eve"] for right in EVERYTHING}}, -1)
    with front(streams, made=front_of(streams, lambda: server.log("fe1"))) as running:
        answer = submit(running, bob)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert f"the right $mr to {stream} is missing" in answer.json()["detail"]
        assert list(server.log("root").read(stream)) == []
        assert running.get("/readyz").status_code == 200
        assert stream in running.get("/readyz").json()["submissions"]
        # The other accounts go on.
        assert running.post("/v1/mutations", body_of("carol", carol)).status_code == 202
        server.set_acl(stream, EVERYTHING)
        until(lambda: "submissions" not in running.get("/readyz").json())
        assert submit(running, bob).status_code == 202
        assert denials(server.log("eve"), stream) == ALL_RIGHTS


def test_default_rights_that_leave_front_ends_out(server: Server, streams: SignedStreams) -> None:
    server.set_defaults(TENANT)
    first = b.mutation("bob")
    stream = NAMES.openings(first.entry.index)
    with front(streams, made=front_of(streams, lambda: server.log("fe1"))) as running:
        assert f"the right $mr to {stream} is missing" in submit(running, first).json()["detail"]
        assert list(server.log("root").read(stream)) == []
        server.set_defaults(BOTH)
        until(lambda: "submissions" not in running.get("/readyz").json())
        assert submit(running, first).status_code == 202


def without_front_ends(stream: str, right: str) -> dict[str, list[str]]:
    acl = stream_acls(NAMES, signer_truncates=False)[stream]
    return {**acl, right: [name for name in acl[right] if name != "frontend"]}


def test_the_right_to_write_the_queue_is_lost_and_returns(server: Server, streams: SignedStreams) -> None:
    first = b.mutation("bob")
    with (
        capture_logs() as said,
        front(streams, made=front_of(streams, lambda: server.log("fe1"))) as running,
    ):
        server.set_acl(NAMES.queue, without_front_ends(NAMES.queue, "$w"))
        last = streams.log.last_revision(NAMES.queue)
        for _ in range(3):
            answer = submit(running, first)
            assert answer.status_code == 503
            assert f"the right $w to {NAMES.queue} is missing" in answer.json()["detail"]
        ready = running.get("/readyz")
        assert ready.status_code == 200
        assert f"the right $w to {NAMES.queue} is missing" in ready.json()["submissions"]
        assert running.directory.lookup(b.label_of("alice")).profile == b.profile("alice")
        server.set_acl(NAMES.queue, stream_acls(NAMES, signer_truncates=False)[NAMES.queue])
        until(lambda: "submissions" not in running.get("/readyz").json())
        # Asking for the right has written nothing.
        assert streams.log.last_revision(NAMES.queue) == last
        assert submit(running, first).status_code == 202
        assert running.errors == []
    events = [(line["event"], line["stream"], line["right"]) for line in said if "right" in line]
    assert events == [("a right is missing", NAMES.queue, "$w"), ("a right is back", NAMES.queue, "$w")]


@pytest.mark.parametrize("stream", [NAMES.queue, NAMES.heads, NAMES.mutations, "$all"])
def test_the_right_to_read_is_lost_and_returns(server: Server, streams: SignedStreams, stream: str) -> None:
    made = front_of(streams, lambda: server.log("fe1"))
    with front(streams, made=made):
        pass
    server.set_acl(stream, without_front_ends(stream, "$r"))
    # Started anew over the same store: an open subscription goes on until it ends.
    streams.put_user("carol")
    again = Front(streams, made.store, connect=lambda: server.log("fe1"))
    with front(streams, made=again, wait=False) as running:
        sentence = f"the right $r to {stream} is missing"
        # ``$all`` and the queue are not needed for a new epoch, nor the mutations before there is one.
        if stream == NAMES.mutations:
            streams.epoch()
        until(lambda: sentence in running.get("/readyz").text)
        assert running.get("/readyz").status_code == 503
        assert running.directory.lookup(b.label_of("alice")).profile == b.profile("alice")
        server.set_acl(stream, stream_acls(NAMES, signer_truncates=False)[stream])
        until(lambda: running.get("/readyz").status_code == 200)
        until(running.caught_up)
        assert running.errors == []
        assert submit(running, b.mutation("bob")).status_code == 202


def test_front_ends_take_erased_openings_out_and_the_stream_stays_private(server: Server) -> None:
    """With the rights of the streams' ACL alone; both do it at the same time."""
    server.set_defaults(EVERYTHING)
    logs = [server.log(name) for name in ("fe1", "fe2")]
    stream = NAMES.openings(bytes(32))
    PrivateStreams(logs[0]).protect(stream, None)
    hashes = [bytes([n]) * 32 for n in range(4)]
    for entry_hash in hashes:
        made = Opening(entry_hash, entry_hash[:16], b"profile")
        logs[0].append(stream, ANY, [content_event(stream, OPENING, made.encode())])
    barrier = threading.Barrier(2)

    def sweep(log: EsdbLog) -> None:
        barrier.wait(30)
        sweep_stream(log, stream, {hashes[0], hashes[2]})

    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(sweep, log) for log in logs]:
            ended.result(60)
    there = [Opening.decode(event.data) for event in logs[1].read(stream) if event.type == OPENING]
    assert {one.entry_hash for one in there} == {hashes[1], hashes[3]}
    assert server.log("root").metadata(stream).values["$acl"] == openings_acl()
    assert denials(server.log("eve"), stream) == ALL_RIGHTS


def test_two_front_ends_begin_a_stream_at_once(server: Server) -> None:
    server.set_defaults(EVERYTHING)
    both = [PrivateStreams(server.log(name)) for name in ("fe1", "fe2")]
    names = [NAMES.openings(bytes([n]) * 32) for n in range(12)]
    barrier = threading.Barrier(2)

    def protect(private: PrivateStreams) -> None:
        for name in names:
            barrier.wait(30)
            private.protect(name, None)

    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(protect, private) for private in both]:
            ended.result(60)
    root = server.log("root")
    for name in names:
        held = root.metadata(name)
        assert (held.values, held.revision) == ({"$acl": openings_acl()}, 0)


@pytest.mark.parametrize("defaults", [EVERYTHING, BOTH], ids=["everything", "both"])
def test_init_leaves_the_defaults_of_others_alone(
    server: Server, tmp_path: Path, defaults: Mapping[str, object]
) -> None:
    before = server.set_defaults(defaults)
    assert init(server, tmp_path / "people").exit_code == 0
    event = server.log("root").last_event("$settings")
    assert event is not None
    assert (event.revision, event.data) == (0, before)


def test_init_does_not_make_defaults(server: Server, tmp_path: Path) -> None:
    assert init(server, tmp_path / "people").exit_code == 0
    assert server.log("root").last_event("$settings") is None


def test_init_fails_where_the_defaults_leave_front_ends_out(server: Server, tmp_path: Path) -> None:
    before = server.set_defaults(TENANT)
    result = init(server, tmp_path / "people")
    assert result.exit_code == 1
    for right in ("$w", "$mr", "$mw"):
        assert f"{NAMES.openings_prefix}*: {right} is granted to tenant, not frontend" in result.output
    root = server.log("root")
    event = root.last_event("$settings")
    assert event is not None
    assert event.data == before
    assert root.last_revision(NAMES.queue) == -1
    server.set_defaults(BOTH)
    assert init(server, tmp_path / "people").exit_code == 0
    assert root.last_revision(NAMES.queue) == 0


def test_init_fails_where_a_right_is_not_as_it_was_set(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = EsdbLog.set_metadata

    def careless(log: EsdbLog, stream: str, values: Mapping[str, Any], expected: int) -> None:
        """A server, or somebody else, that changes one right behind the back of ``kt init``."""
        put(log, stream, values, expected)
        if stream == NAMES.heads:
            put(log, stream, {"$acl": {**values["$acl"], "$w": ["eve"]}}, expected + 1)

    monkeypatch.setattr(EsdbLog, "set_metadata", careless)
    result = init(server, tmp_path / "people")
    assert result.exit_code == 1
    assert f"{NAMES.heads}: $w is granted to eve, not to signer" in result.output


def test_init_makes_openings_of_before_private(server: Server, tmp_path: Path) -> None:
    server.set_defaults(EVERYTHING)
    root, eve = server.log("root"), server.log("eve")
    old, gone = (NAMES.openings(bytes([n]) * 32) for n in (1, 2))
    for stream in (old, gone):
        root.append(stream, ANY, [content_event(stream, OPENING, b"x")])
    server.delete(gone)
    assert "$r" not in denials(eve, old)
    eve.set_metadata(old, {"$maxCount": 100}, root.metadata(old).revision)
    assert init(server, tmp_path / "people").exit_code == 0
    assert denials(eve, old) == ALL_RIGHTS
    assert root.metadata(old).values["$maxCount"] == 100
    assert root.metadata(gone).values == {"$tb": DELETED}


def status(server: Server, base: Path, user: str) -> tuple[dict[str, Any], str]:
    words = ["-c", str(base / "kt.toml"), "--json", "status", "--log", server.uris[user]]
    # The node in this process logs to standard output otherwise.
    with capture_logs():
        result = CliRunner().invoke(cli, words)
        shown = CliRunner().invoke(cli, [word for word in words if word != "--json"])
    return json.loads(result.stdout), shown.stdout


def test_status_tells_the_rights(server: Server, tmp_path: Path) -> None:
    base = tmp_path / "people"
    init(server, base)
    server.set_defaults(TENANT)
    document, shown = status(server, base, "root")
    assert document["rights"] == {
        "problems": [],
        "openings_readers": ["frontend"],
        "default_readers": ["tenant"],
    }
    assert "as kt init --acl sets them" in shown
    assert "streams without an ACL are read by: tenant" in shown
    server.set_acl(
        NAMES.heads,
        {**openings_acl(), "$r": ["signer", "frontend", "monitor"], "$mr": ["$all"], "$mw": ["$admins"]},
    )
    document, shown = status(server, base, "monitor")
    # It may read neither the metadata of $all nor the defaults.
    assert document["rights"] is None
    assert "the right $mr to $all is missing" in document["unknown"]["rights"]
    document, shown = status(server, base, "fe1")
    assert document["rights"]["default_readers"] is None
    assert "the right $r to $settings is missing" in document["unknown"]["default_rights"]
    assert document["rights"]["problems"] == [
        f"{NAMES.heads}: $w is granted to frontend, not to signer",
        f"{NAMES.heads}: $mr is granted to $all, not to signer, frontend, monitor",
    ]
    assert f"not as kt init --acl sets them: {NAMES.heads}: $w" in shown
