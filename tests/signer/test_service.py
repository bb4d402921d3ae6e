"""The signer as a process: settings that are read again while it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kt_es.eventstore.streams import StreamNames
from signer.keys import KeyRing
from signer.loop import EpochLimits, Signer
from signer.service import SignerSettings, _Reloading
from tests import builders as b
from tests.reference.signing import LIMITS, NAMES, decided, effects, new_ledger, new_log, submit


def test_new_limits_are_in_force_at_once_and_other_settings_need_a_restart() -> None:
    started = SignerSettings(
        StreamNames("people"), b.ORIGIN, b.public(b.SIGNER), Path("data"), Path("keys"), EpochLimits()
    )
    again = replace(started, limits=EpochLimits(batch_limit=7), data=Path("other"))
    reload = _Reloading(started, started.limits, lambda: again)
    done = reload()
    assert (done.changed, done.needs_restart) == (("batch_limit",), ("data",))
    assert reload.limits.batch_limit == 7
    # The second time nothing is new, except for what still needs the restart.
    assert reload().changed == ()


def test_a_signer_asks_for_its_limits_at_each_use() -> None:
    limits = [replace(LIMITS, batch_limit=6)]
    log = new_log(min_interval=300_000, max_interval=600_000)
    outside = effects(lambda: log)
    signer = Signer(log, NAMES, new_ledger(), KeyRing([b.SIGNER]), effects=outside, limits=lambda: limits[0])
    signer.recover()
    # Without any head before it, the epoch with the directory's first config ends at once.
    while decided(log) == 0:
        signer.is_behind = True
        signer.advance()
    submit(log, [b.mutation(f"user{number}") for number in range(5)])
    end = log.last_revision(NAMES.queue)
    signer.is_behind = True
    signer.advance()
    assert log.last_revision(NAMES.queue) == end
    limits[0] = replace(LIMITS, batch_limit=5)
    signer.advance()
    assert log.last_revision(NAMES.queue) == end + 1
