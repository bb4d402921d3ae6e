"""``kt init --acl`` on a node with users: each process of a directory may do its part and no other's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from kt_es.cli.main import cli
from kt_es.errors import AccessDeniedError, KtError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.streams import ANY, EventLog, StreamNames, content_event
from kt_es.node.access.users import add
from kt_es.node.server import NodeConfig
from kt_es.server.privacy import PrivateStreams
from tests.contracts.certificates import certify
from tests.contracts.nodes import ServedNode

NAMES = StreamNames("people")
OPENINGS = NAMES.openings(b"\x01" * 32)
GROUPS = {"root": ["$admins"], "signer": ["$ops"], "fe1": ["frontend"], "monitor": [], "eve": []}


def denied(log: EventLog, stream: str, *, read: bool = False) -> bool:
    try:
        if read:
            list(log.read(stream, 0, 1))
        else:
            log.append(stream, ANY, [content_event(stream, "T", b"x")])
    except AccessDeniedError:
        return True
    return False


@pytest.fixture
def uris(tmp_path: Path) -> Iterator[dict[str, str]]:
    made = certify(tmp_path)
    for name, groups in GROUPS.items():
        add(tmp_path / "node", name, "pw", groups)
    config = NodeConfig(tmp_path / "node", port=0, tls_cert=made.certificate, tls_key=made.key)
    with ServedNode(config) as node:
        yield {
            name: f"esdb://{name}:pw@{node.address}?Tls=true&TlsCaFile={made.authority}" for name in GROUPS
        }


def init(uri: str, base: Path) -> None:
    words = ["-q", "init", "--acl", "--data", str(base), "--log", uri]
    CliRunner().invoke(cli, words, catch_exceptions=False)


def begin_openings(uri: str) -> None:
    """As a front end does before the first opening of an account."""
    log = connect(uri)
    PrivateStreams(lambda: log).protect(OPENINGS, None)
    log.close()


def test_each_process_writes_its_streams_alone(uris: dict[str, str], tmp_path: Path) -> None:
    for _ in range(2):
        init(uris["root"], tmp_path / "people")
    begin_openings(uris["fe1"])
    writers = {
        NAMES.queue: {"signer", "fe1"},
        NAMES.mutations: {"signer"},
        NAMES.heads: {"signer"},
        OPENINGS: {"fe1"},
        "$settings": set(),
        f"$${NAMES.heads}": set(),
        "$$$all": set(),
    }
    readers = {key: {"signer", "fe1", "monitor"} for key in (NAMES.queue, NAMES.mutations, NAMES.heads)}
    readers[OPENINGS] = {"fe1"}
    for name in ("signer", "fe1", "monitor", "eve"):
        log = connect(uris[name])
        for stream, allowed in writers.items():
            assert denied(log, stream) == (name not in allowed), (name, stream)
        for stream, allowed in readers.items():
            assert denied(log, stream, read=True) == (name not in allowed), (name, stream)
        log.close()


def test_the_signer_joins_its_group_and_the_front_end_follows_the_openings(
    uris: dict[str, str], tmp_path: Path
) -> None:
    init(uris["root"], tmp_path / "people")
    signer, frontend, eve = connect(uris["signer"]), connect(uris["fe1"]), connect(uris["eve"])
    place = signer.join_group(NAMES.queue, "signer")
    assert place is not None
    assert next(iter(place)).stream == NAMES.queue
    place.stop()
    PrivateStreams(lambda: frontend).protect(OPENINGS, None)
    frontend.append(OPENINGS, ANY, [content_event(OPENINGS, "T", b"x")])
    followed = frontend.subscribe_prefix(NAMES.openings_prefix)
    assert next(event.stream for event in followed if event.type) == OPENINGS
    followed.stop()
    for call in (eve.subscribe_prefix, eve.subscribe):
        with pytest.raises(AccessDeniedError):
            next(iter(call(NAMES.queue)))
    with pytest.raises(AccessDeniedError):
        eve.join_group(NAMES.queue, "signer")
    for log in (signer, frontend, eve):
        log.close()


def test_rights_are_an_administrators_to_set(uris: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(KtError, match="denies access"):
        init(uris["eve"], tmp_path / "people")
