"""The signer as a process: what holds from one signer to the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kt_es.eventstore.streams import StreamNames
from signer.loop import EpochLimits
from signer.service import SignerSettings, _CurrentLimits
from tests import builders as b
from tests.reference.signing import new_ledger, new_log, new_signer


def test_a_signer_that_is_being_made_gets_the_limits_that_were_read_meanwhile() -> None:
    started = SignerSettings(
        StreamNames("people"), b.ORIGIN, b.public(b.SIGNER), Path("data"), Path("keys"), EpochLimits()
    )
    again = replace(started, limits=EpochLimits(batch_limit=7))
    limits = _CurrentLimits(started, lambda: again)
    signer = new_signer(new_log(), new_ledger())
    assert limits.reload().changed == ("batch_limit",)
    assert limits.follow(signer).limits.batch_limit == 7
