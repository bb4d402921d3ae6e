"""The signer as a process: settings that are read again while it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kt_es.eventstore.streams import StreamNames
from signer.loop import EpochLimits
from signer.service import SignerSettings, _Limits
from tests import builders as b


def test_new_limits_are_in_force_at_once_and_other_settings_need_a_restart() -> None:
    started = SignerSettings(
        StreamNames("people"), b.ORIGIN, b.public(b.SIGNER), Path("data"), Path("keys"), EpochLimits()
    )
    again = replace(started, limits=EpochLimits(batch_limit=7), data=Path("other"))
    limits = _Limits(started, lambda: again)
    done = limits.reload()
    assert (done.changed, done.needs_restart) == (("batch_limit",), ("data",))
    assert limits.now.batch_limit == 7
    # The second time nothing is new, except for what still needs the restart.
    assert limits.reload().changed == ()
