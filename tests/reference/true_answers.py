"""A directory over a shared store with a bit of everything, and its true answers to every kind of request."""

from collections.abc import Iterator
from typing import Any

from kt_es.api.tiles import TILE_MEDIA
from kt_es.eventstore.streams import content_event
from kt_es.formats.queue import CONFIG
from tests import builders as b
from tests.reference.frontends import Front, front
from tests.reference.memory_log import MemoryLog
from tests.reference.sharing import Replicas, SharedStreams, store_of

USERS = [f"user{number}" for number in range(40)]
ALICE, BOB, DORA = map(b.label_of, ("alice", "bob", "dora"))
NEWEST = 5


def build() -> SharedStreams:
    """Alice has a version in each of the epochs 1 to 3, dora one in 1, and one with another key in 2.

    An opening of bob is erased, a config is replaced.
    """
    streams = SharedStreams()
    bob = streams.put_user("bob")
    streams.put(*map(b.mutation, USERS))
    alice, dora = streams.put_user("alice"), streams.put_user("dora")
    streams.epoch()
    alice = streams.put_user("alice", alice)
    keys = [b.private_key("new key of dora")]
    dora = b.next_mutation("dora", dora, keys=keys, signed_by=[b.private_key("dora"), *keys])
    streams.opening("dora", dora)
    streams.put(dora)
    streams.epoch()
    streams.put_user("alice", alice)
    streams.erase(bob)
    streams.epoch()
    successor = b.config(min_interval=2_000, previous=b.signed_config().config.hash)
    streams.queue(CONFIG, b.signed_config(successor).encode())
    streams.epoch()
    streams.put(b.next_mutation(USERS[0], b.mutation(USERS[0])))
    streams.epoch()
    return streams


ORIGINAL = build()


def copied() -> tuple[MemoryLog, Replicas]:
    log, replicas = MemoryLog(), Replicas()
    for event in ORIGINAL.log._all:  # type: ignore[attr-defined]
        log.append(event.stream, event.revision - 1, [content_event(event.stream, event.type, event.data)])
    for family in ORIGINAL.replicas.majority._families:
        replicas.write([(family, key, value) for key, value in ORIGINAL.replicas.rows(family).items()])
    return log, replicas


class Copy(SharedStreams):
    """The directory of ``build`` again, with rows and a log of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.log, self.replicas = copied()
        self.ledger = ORIGINAL.ledger


def running(replicas: Replicas) -> Front:
    streams = Copy()
    streams.replicas = replicas
    return Front(streams, store_of(replicas))


REQUESTS: list[tuple[str, str, object]] = [
    *(("POST", "/v1/lookup", {"label": ALICE, "epoch": epoch}) for epoch in range(1, NEWEST + 1)),
    ("POST", "/v1/lookup", {"label": ALICE, "since": 2}),
    ("POST", "/v1/lookup", {"label": BOB}),
    ("POST", "/v1/lookup", {"label": BOB, "epoch": 2}),
    ("POST", "/v1/lookup", {"label": "nobody@example.org"}),
    ("POST", "/v1/lookups", {"labels": [ALICE, "nobody@example.org", BOB, DORA]}),
    ("POST", "/v1/lookups", {"labels": [BOB, ALICE], "epoch": 2}),
    ("POST", "/v1/history", {"label": ALICE}),
    ("POST", "/v1/history", {"label": ALICE, "after": 1}),
    ("POST", "/v1/range", {"label": ALICE, "first": 1, "last": NEWEST}),
    ("POST", "/v1/lookup", {"label": DORA}),
    ("POST", "/v1/history", {"label": DORA}),
    ("POST", "/v1/history", {"label": DORA, "after": 1}),
    ("POST", "/v1/range", {"label": DORA, "first": 1, "last": NEWEST}),
    ("GET", "/v1/directory", None),
    *(("GET", f"/v1/heads/{epoch}", None) for epoch in range(1, NEWEST + 1)),
    ("GET", f"/v1/consistency?log=heads&from=2&to={NEWEST}", None),
    ("GET", f"/v1/consistency?log=heads&from=1&to={NEWEST - 1}", None),
    *(
        ("GET", f"/{log}/tile/{part}/000.p/4", None)
        for log in ("heads", "mutations")
        for part in ("0", "entries")
    ),
    ("GET", f"/v1/consistency?log=mutations&from=3&to={ORIGINAL.ledger.committed.log.size}", None),
    ("GET", "/v1/consistency?log=mutations&from=2&to=41", None),
]


def answers(made: Front) -> Iterator[tuple[int, Any]]:
    for method, path, body in REQUESTS:
        answer = made.get(path) if method == "GET" else made.post(path, body)
        is_json = answer.headers["content-type"] != TILE_MEDIA
        yield answer.status_code, answer.json() if is_json else answer.content


def true_answers() -> list[tuple[int, Any]]:
    made = running(copied()[1])
    with front(made.streams, made=made):
        return list(answers(made))


TRUTH = true_answers()
