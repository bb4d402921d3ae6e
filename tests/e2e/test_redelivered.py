"""The queue's group goes back to its last checkpoint: the signer is given again what it has signed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kt_es.eventstore.driver import EventStoreDBClient, EventStoreDBClientException
from signer.service import GROUP
from tests.builders import private_key
from tests.e2e.processes import NAMES, Up, account, heads_of, log_at, records_of, stream_of, until

pytestmark = pytest.mark.e2e

OWNER = private_key("owner of all")
NEVER = 1_000_000  # events without a checkpoint
FIRST, LATER = 4, 2  # accounts


def updated(directory: Up) -> None:
    with EventStoreDBClient(directory.log_uri) as client:
        client.update_subscription_to_stream(GROUP, NAMES.queue, max_retry_count=7)


def node_killed(directory: Up) -> None:
    before = directory.pid("node")
    os.kill(before, signal.SIGKILL)
    directory.restarted("node", before)


@pytest.mark.parametrize("goes_back", [updated, node_killed])
def test_the_signer_passes_over_what_it_is_given_again(
    directory: Up, tmp_path: Path, goes_back: Callable[[Up], None]
) -> None:
    accounts = [account(f"{goes_back.__name__}{number}") for number in range(FIRST + LATER)]
    with EventStoreDBClient(directory.log_uri) as client:
        client.update_subscription_to_stream(
            GROUP, NAMES.queue, min_checkpoint_count=NEVER, max_checkpoint_count=NEVER
        )
    with directory.client(tmp_path / "owner") as owner:
        for one in accounts[:FIRST]:
            owner.publish(one.label, one.profile, [OWNER])
    with log_at(directory.log_uri) as log:
        signed, records = stream_of(log, NAMES.heads), records_of(log)
        queued = log.last_revision(NAMES.queue)

    goes_back(directory)

    def again() -> bool:
        try:
            with EventStoreDBClient(directory.log_uri) as client:
                info = client.get_subscription_info(GROUP, NAMES.queue)
        except EventStoreDBClientException:
            return False  # the node is being started again
        return info.total_items > FIRST and not info.total_in_flight_messages

    until(again, "the group delivers again, and the signer acknowledges")
    with directory.client(tmp_path / "owner") as owner:
        for one in accounts[FIRST:]:
            owner.publish(one.label, one.profile, [OWNER])
        for one in accounts:
            assert owner.lookup(one.label).profile == one.profile
    with log_at(directory.log_uri) as log:
        assert log.last_revision(NAMES.queue) > queued
        # Heads go on where they were, and nothing was signed twice.
        assert stream_of(log, NAMES.heads)[: len(signed)] == signed
        assert records_of(log)[: len(records)] == records
        assert len(heads_of(log)) > len(signed)
    assert directory.audit()["entries"] >= len(accounts)
