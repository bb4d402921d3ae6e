"""The node is frozen during an import: reading goes on, writing waits, nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from kt_es.formats.notes import encode_base64
from tests.builders import private_key
from tests.e2e.processes import Up, account, heads_of, import_accounts, log_at, until

pytestmark = pytest.mark.e2e

OWNER = private_key("owner of all")
ACCOUNTS = [f"frozen{number}" for number in range(60)]


def test_lookups_go_on_and_the_import_completes(directory: Up, tmp_path: Path) -> None:
    resident = account("resident")
    node = directory.pid("node")
    frozen = threading.Event()

    def freeze() -> None:
        os.kill(node, signal.SIGSTOP)
        frozen.set()

    with directory.client(tmp_path / "importer") as importer, ThreadPoolExecutor(1) as pool:
        importer.publish(resident.label, resident.profile, [OWNER])
        submission = importer.prepare("late@example.org", account("late").profile, [OWNER])
        importing = pool.submit(import_accounts, importer, ACCOUNTS, OWNER, at=20, then=freeze)
        try:
            assert frozen.wait(60)
            until(lambda: httpx.get(f"{directory.url}/readyz").status_code == 503, "not ready")
            not_ready = httpx.get(f"{directory.url}/readyz")
            assert not_ready.headers["content-type"] == "application/problem+json"
            assert not_ready.json()["reason"] == "not-ready"
            assert not_ready.json()["problems"]
            assert httpx.get(f"{directory.url}/healthz").status_code == 200
            assert httpx.get(f"{directory.url}/metrics").status_code == 200

            with directory.client(tmp_path / "reader") as reader:
                assert reader.lookup(resident.label).profile == resident.profile
                assert reader.lookup("nobody@example.org").absent
                assert len(reader.history(resident.label).versions) == 1

            refused = httpx.post(
                f"{directory.url}/v1/mutations",
                json={
                    "label": submission.label,
                    "mutation": encode_base64(submission.mutation.encode()),
                    "opening": encode_base64(submission.opening),
                    "profile": encode_base64(submission.profile),
                },
                timeout=30,
            )
            assert refused.status_code == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["reason"] == "unavailable"
            assert "log" in refused.json()["detail"]
            assert not importing.done()
        finally:
            os.kill(node, signal.SIGCONT)
        report = importing.result(120)
        assert (report.published, report.refused) == (len(ACCOUNTS), [])
        importer.submit(submission)
        assert importer.confirm(submission).entry == submission.mutation.entry

    assert directory.pid("node") == node
    until(lambda: httpx.get(f"{directory.url}/readyz").status_code == 200, "ready again")
    assert directory.audit()["entries"] == len(ACCOUNTS) + 2
    with log_at(directory.log_uri) as log:
        heads_of(log)
