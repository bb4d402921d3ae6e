"""A batch whose front end or node is killed in the middle: sent again, each of its mutations counts once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kt_es.client.changes import Submission, build_submission
from kt_es.client.client import Client
from kt_es.client.publishing import Receipt
from kt_es.formats.entries import Mutation
from kt_es.formats.queue import MUTATIONS, ItemKind, Verdict, decode_mutations
from tests.builders import private_key
from tests.e2e.processes import NAMES, Up, account, import_accounts, log_at, records_of, stream_of, until

pytestmark = pytest.mark.e2e

OWNER = private_key("owner of all")
COUNT = 200


def made(client: Client, names: list[str]) -> list[Submission]:
    """A first version for each name, in one batch of lookups."""
    wanted = [account(name) for name in names]
    found = client.lookup_many([one.label for one in wanted], profile=False)
    return [
        build_submission(before, one.profile, [OWNER], os.urandom(16))
        for before, one in zip(found, wanted, strict=True)
    ]


@pytest.mark.parametrize("part", ["frontend", "node"])
def test_each_mutation_counts_once(directory: Up, tmp_path: Path, part: str) -> None:
    names = [f"{part}{number}" for number in range(COUNT)]
    with directory.client(tmp_path / "client") as client:
        batch = made(client, names)
        first = NAMES.openings(batch[0].mutation.entry.index)
        victim = directory.pid(part)
        with ThreadPoolExecutor(1) as pool, log_at(directory.log_uri) as log:
            sending = pool.submit(client.submit_many, batch, timeout=120)
            # The openings are on their way into the log, the mutations are not acknowledged yet, mostly.
            until(lambda: log.last_revision(first) >= 0, "an opening is in the log")
            os.kill(victim, signal.SIGKILL)
            outcomes = sending.result()
        directory.restarted(part, victim)
        assert [type(outcome) for outcome in outcomes] == [Receipt] * COUNT
        again = client.submit_many(batch, wait=30, timeout=120)
        assert {outcome.verdict for outcome in again if isinstance(outcome, Receipt)} == {"accepted"}
        for submission in batch:
            lookup = client.confirm(submission, timeout=60)
            assert lookup.mutation == submission.mutation
    with log_at(directory.log_uri) as log:
        verdicts = Counter(
            (Mutation.decode(record.item.content).entry_hash, record.verdict)
            for record in records_of(log)
            if record.item.kind is ItemKind.MUTATION and isinstance(record.item.content, bytes)
        )
    for submission in batch:
        entry_hash = submission.mutation.entry_hash
        assert verdicts[entry_hash, Verdict.ACCEPTED] == 1
        assert {verdict for key, verdict in verdicts if key == entry_hash} <= {
            Verdict.ACCEPTED,
            Verdict.DUPLICATE,
            Verdict.REPLAY,
        }
    assert "conflict" not in directory.audit()["verdicts"]


def test_the_import_sends_batches(directory: Up, tmp_path: Path) -> None:
    """Its requests are few, and the events of the queue are full."""
    names = [f"imported{number}" for number in range(COUNT)]
    with directory.client(tmp_path / "client") as client:
        report = import_accounts(client, names, OWNER, at=COUNT, then=lambda: None)
        assert (report.published, report.refused) == (COUNT, [])
        again = import_accounts(client, names, OWNER, at=COUNT, then=lambda: None)
        assert (again.published, again.unchanged) == (0, COUNT)
    with log_at(directory.log_uri) as log:
        sizes = [
            len(decode_mutations(data)) for kind, data in stream_of(log, NAMES.queue) if kind == MUTATIONS
        ]
    assert max(sizes) > COUNT // 4
