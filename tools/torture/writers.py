"""Writers and watchers that never pause: users over HTTP, rogues that append to the queue, and watchers."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import httpx

from kt_es.client.changes import Submission
from kt_es.client.client import Client
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import KtError, MalformedError, RefusedError, UnavailableError, VerificationError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.esdb import EsdbLog
from kt_es.eventstore.streams import ANY, NewEvent
from kt_es.formats.entries import Mutation, ProfileKey
from kt_es.formats.heads import HeadEvent, SignedMapHead
from kt_es.formats.notes import decode_base64
from kt_es.formats.queue import CONFIG, EPOCH_MARKER, MUTATIONS, encode_mutations
from tests import builders as b
from tools.torture.directory import TortureDirectory
from tools.torture.seen import Seen

OWNER = b.private_key("owner of all")
SUBMIT_SECONDS = 5.0
REFUSALS = ("stale", "conflict", "replay")


class Crew:
    """The threads of the writers and watchers. A thread that ends before ``stop`` is a problem."""

    def __init__(self, directory: TortureDirectory, seen: Seen, seed: str) -> None:
        self._directory = directory
        self._seen = seen
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        labels: list[str] = []
        for number in range(3):
            writer = HttpWriter(directory, seen, random.Random(f"{seed} user {number}"), str(number), labels)
            self._add(f"user {number}", writer.run)
        for number in range(2):
            rogue = QueueWriter(directory, seen, random.Random(f"{seed} rogue {number}"), str(number))
            self._add(f"rogue {number}", rogue.run)
        self._add("front end watcher", FrontEndWatcher(directory, seen, random.Random(f"{seed} watcher")).run)
        self._add("log watcher", lambda stop: watch_log(directory, seen, stop))

    def _add(self, name: str, run: Callable[[threading.Event], None]) -> None:
        def work() -> None:
            try:
                run(self._stop)
            except Exception as error:  # an unnoticed end of a thread would look like a quiet writer
                self._seen.problem(f"{name}: {type(error).__name__}: {error}")

        self._threads.append(threading.Thread(target=work, name=name, daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask all threads to stop, and wait for their end."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            if thread.is_alive():
                self._seen.problem(f"{thread.name} does not stop")


class HttpWriter:
    """Registers and changes users, its own and those of other writers, and retries as the client does."""

    def __init__(
        self, directory: TortureDirectory, seen: Seen, choose: random.Random, name: str, labels: list[str]
    ) -> None:
        self._directory = directory
        self._seen = seen
        self._choose = choose
        self._name = name
        self._labels = labels  # shared by all writers, so that they conflict on purpose

    def run(self, stop: threading.Event) -> None:
        number = 0
        with self._directory.client(SUBMIT_SECONDS) as client:
            while not stop.wait(self._choose.uniform(0.02, 0.1)):
                number += 1
                label = f"user-{self._name}-{number}@example.org"
                if self._labels and self._choose.random() < 0.5:
                    label = self._choose.choice(self._labels[-40:])
                self._change(client, label, number, stop)

    def _change(self, client: Client, label: str, number: int, stop: threading.Event) -> None:
        profile = [ProfileKey("laptop", "raw", f"{self._name} {number}".encode())]
        submission = self._prepared(client, label, profile, [OWNER])
        if submission is None:
            return
        copies = 2 if self._choose.random() < 0.1 else 1
        for _ in range(copies):
            if not self._submitted(client, submission, stop):
                return
        self._labels.append(label)

    def _prepared(
        self, client: Client, label: str, profile: Sequence[ProfileKey], keys: Sequence[PrivateKey]
    ) -> Submission | None:
        try:
            submission = client.prepare(label, profile, keys)
        except UnavailableError:
            self._seen.count("lookups unavailable")
            return None
        except VerificationError as error:
            # A front end that lost its disk shows older heads until it has caught up. A client refuses them.
            if error.step != "rollback":
                raise
            self._seen.count("lookups refused as a rollback")
            return None
        return submission

    def _submitted(self, client: Client, submission: Submission, stop: threading.Event) -> bool:
        """Send the same bytes until they are acknowledged or refused."""
        wait = self._choose.choice((0.0, 0.0, 2.0))
        while True:
            try:
                receipt = client.submit(submission, wait=wait)
            except UnavailableError:
                self._seen.count("submissions tried again")
                if stop.is_set():
                    return False
            except RefusedError as error:
                if error.reason not in REFUSALS:
                    raise
                self._seen.count(f"submissions refused: {error.reason}")
                return False
            else:
                self._seen.receipt(submission.mutation.encode(), receipt.verdict)
                return True


class QueueWriter:
    """Appends directly to the queue: valid entries, repetitions, contradictions and garbage."""

    def __init__(self, directory: TortureDirectory, seen: Seen, choose: random.Random, name: str) -> None:
        self._directory = directory
        self._seen = seen
        self._choose = choose
        self._name = name
        self._origin = directory.settings.origin
        self._queue = directory.settings.names.queue
        self._number = 0
        self._known: list[tuple[str, Mutation]] = []
        self._log: EsdbLog | None = None

    def run(self, stop: threading.Event) -> None:
        draws = (
            self._new_users,
            self._new_users,
            self._successor,
            self._again,
            self._contradiction,
            self._garbage,
            self._control,
        )
        try:
            while not stop.wait(self._choose.uniform(0.05, 0.3)):
                self._append(*self._choose.choice(draws)(), stop)
        finally:
            self._disconnect()

    def _append(self, kind: str, data: bytes, stop: threading.Event) -> None:
        """Append one event under one id, again and again until an answer arrives."""
        event = NewEvent(kind, data, uuid.UUID(int=self._choose.getrandbits(128), version=4))
        while not stop.is_set():
            try:
                if self._log is None:
                    self._log = connect(self._directory.writers_uri)
                self._log.append(self._queue, ANY, [event])
            except UnavailableError:
                self._seen.count("appends to the queue tried again")
                self._disconnect()
                stop.wait(0.3)
            else:
                self._seen.appended(event.id)
                return

    def _disconnect(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    # --- the appended events: type and data -------------------------------------------------------

    def _mutation(
        self, user: str, version: int = 1, previous: bytes | None = None, **more: bytes
    ) -> Mutation:
        made = b.mutation(user, version, previous, origin=self._origin, commits_to=more.get("commits_to"))
        self._known = [*self._known[-50:], (user, made)]
        return made

    def _user(self) -> str:
        self._number += 1
        return f"rogue-{self._name}-{self._number}"

    def _new_users(self) -> tuple[str, bytes]:
        count = self._choose.choice((1, 3, 20))
        return MUTATIONS, encode_mutations([self._mutation(self._user()).encode() for _ in range(count)])

    def _successor(self) -> tuple[str, bytes]:
        if not self._known:
            return self._new_users()
        user, before = self._choose.choice(self._known)
        made = self._mutation(user, before.entry.version + 1, before.entry_hash)
        return MUTATIONS, encode_mutations([made.encode()])

    def _again(self) -> tuple[str, bytes]:
        if not self._known:
            return self._new_users()
        old = [self._choose.choice(self._known)[1].encode() for _ in range(self._choose.choice((1, 5)))]
        return MUTATIONS, encode_mutations(old + old[:1])

    def _contradiction(self) -> tuple[str, bytes]:
        user = self._user()
        first, second = self._mutation(user), self._mutation(user, commits_to=self._choose.randbytes(32))
        return MUTATIONS, encode_mutations([first.encode(), second.encode(), first.encode()])

    def _garbage(self) -> tuple[str, bytes]:
        good = self._mutation(self._user())
        (signature,) = good.signatures
        value = bytes([signature.value[0] ^ 1]) + signature.value[1:]
        forged = replace(good, signatures=(replace(signature, value=value),)).encode()
        bad = [self._choose.randbytes(40), b"", forged, good.encode()[:-1], bytes(17_000)]
        return self._choose.choice(
            (
                (MUTATIONS, encode_mutations(bad)),
                (MUTATIONS, self._choose.randbytes(100)),
                (MUTATIONS, bytes(300_000)),
                ("Strange", self._choose.randbytes(30)),
            )
        )

    def _control(self) -> tuple[str, bytes]:
        mallory = b.private_key("mallory")
        foreign = b.config(self._origin, signer_keys=[mallory])
        later = self._choose.randrange(2**40, 2**41)
        return self._choose.choice(
            (
                (EPOCH_MARKER, b.marker(later, key=mallory, origin=self._origin).encode()),
                (EPOCH_MARKER, self._choose.randbytes(20)),
                (CONFIG, b.signed_config(foreign, [mallory]).encode()),
            )
        )


class FrontEndWatcher:
    """Watches the heads that the front end shows: the latest, past ones, and those of verified lookups."""

    def __init__(self, directory: TortureDirectory, seen: Seen, choose: random.Random) -> None:
        self._directory = directory
        self._seen = seen
        self._choose = choose
        self._latest = 0

    def run(self, stop: threading.Event) -> None:
        with httpx.Client(base_url=self._directory.url, timeout=5) as http:
            while not stop.wait(0.2):
                # A killed or frozen process does not answer. Only a wrong answer is a problem.
                with suppress(httpx.HTTPError):
                    self._look(http, "latest")
                    if self._latest:
                        self._look(http, str(self._choose.randint(1, self._latest)))

    def _look(self, http: httpx.Client, which: str) -> None:
        answer = http.get(f"/v1/heads/{which}")
        if answer.status_code != httpx.codes.OK:
            return
        body = answer.json()
        smh = decode_base64(body["smh"], "smh")
        epoch = SignedMapHead.decode(smh).head.epoch
        if epoch != body["epoch"] or which not in ("latest", str(epoch)):
            raise MalformedError("head", f"is of epoch {epoch}, not of {which}")
        self._latest = max(self._latest, epoch)
        self._seen.head(epoch, smh, "the front end")


def watch_log(directory: TortureDirectory, seen: Seen, stop: threading.Event) -> None:
    """Read the end of the log of map heads over and over, to find a head that is removed later."""
    heads = directory.settings.names.heads
    log: EsdbLog | None = None
    while not stop.wait(0.3):
        try:
            log = connect(directory.log_uri) if log is None else log
            event = log.last_event(heads)
        except KtError as error:
            if not isinstance(error, UnavailableError):
                raise
            if log is not None:
                log.close()
                log = None
            continue
        if event is not None:
            seen.head(event.revision + 1, HeadEvent.decode(event.data).smh_bytes, "the log")
    if log is not None:
        log.close()
