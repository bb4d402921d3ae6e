"""``kt up`` asks the witnesses that kt.toml names, and runs on whatever becomes of that."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from kt_es.formats.cosignatures import CosignerKey, read_cosigned
from tests.e2e.processes import SHORT, Stranger, Up, running_up, until
from tests.e2e.test_witnesses import NOWHERE, OWN, OwnWitness

pytestmark = pytest.mark.e2e


def begun(data: Path, someone: Stranger, policy: str) -> Path:
    """A new directory whose kt.toml names a policy file with this text."""
    someone.kt("init", "--data", data, "--patience", "0", "--log", NOWHERE, *SHORT, code=7)
    (data / "policy").write_text(policy)
    settings = data / "kt.toml"
    text = settings.read_text().replace(NOWHERE, "esdb://127.0.0.1:2113?Tls=false")
    settings.write_text(f'{text}\n[cosign]\npolicy = "policy"\ncontact = "ops"\ninterval = 0.2\n')
    return settings


def test_the_witnesses_of_the_policy_cosign(tmp_path: Path) -> None:
    someone, logs = Stranger(tmp_path / "home"), tmp_path / "logs"
    logs.write_text("logs/v0\n")
    with ExitStack() as stack:
        own = OwnWitness(tmp_path / "witness", "--logs", logs)
        stack.callback(lambda: own.stop(signal.SIGKILL))
        (vkey,), url = own.serving["vkeys"], own.serving["url"]
        settings = begun(tmp_path / "data", someone, f"witness own {vkey} {url}\nquorum own\n")
        up = stack.enter_context(running_up(tmp_path / "data"))
        up.wait_for_line("it does not know the log; give its operator the lines of kt cosign --describe")
        assert set(up.state["processes"]) == {"node", "signer", "frontend", "monitor", "cosign"}
        logs.write_text(someone.kt("-c", settings, "cosign", "--describe").out)
        own.process.send_signal(signal.SIGHUP)

        def cosigners() -> set[str]:
            answer = httpx.get(f"{up.url}/v1/cosigned", trust_env=False).json()
            known = [CosignerKey.parse(vkey)]
            return {name for note in answer.get("heads", ()) for name in read_cosigned(note, known).names}

        until(lambda: cosigners() == {OWN}, "the front end shows the cosignature")


def test_a_policy_that_cannot_be_asked_ends_nothing_else(tmp_path: Path) -> None:
    begun(tmp_path / "data", Stranger(tmp_path / "home"), "quorum none\n")
    with ExitStack() as stack:
        up = Up(tmp_path / "data", *SHORT)
        stack.callback(lambda: up.stop(signal.SIGKILL))
        up.wait().wait_for_line("cosign ended with exit code 2: it is not started again")
        assert "has no witness; add a line" in up.spoken
        assert httpx.get(f"{up.url}/readyz", trust_env=False).json() == {"status": "ready"}
        # As after any process that refused.
        assert up.stop() == 2
