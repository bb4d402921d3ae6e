"""Figures of real processes: their pages for Prometheus, and ``kt status`` with and without a kt.toml."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kt_es.cli.addresses import free_address
from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.eventstore.streams import ANY, StreamNames, content_event
from kt_es.formats.queue import Record, Verdict, decode_records, encode_records
from tests.e2e.processes import NAMES, ORIGIN, SHORT, Running, Stranger, Up, log_at, running_up, until

pytestmark = pytest.mark.e2e

ANY_PORT = "127.0.0.1:0"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running directory whose signer and monitor serve figures, as its kt.toml says."""
    data = tmp_path_factory.mktemp("figures") / "data"
    made = write_directory(data, NewDirectory("people", ORIGIN, "esdb://localhost", "email", 0.2, 5.0))
    text = (made.base / "kt.toml").read_text()
    for process in ("signer", "monitor"):
        where = free_address()
        text = text.replace(f"[{process}]\n", f'[{process}]\nmetrics = "{where}"\n')
    (made.base / "kt.toml").write_text(text)
    with running_up(data, *SHORT) as up:
        yield up


def status(directory: Up) -> tuple[str, ...]:
    return ("-c", str(directory.settings), "status", "--log", directory.log_uri)


def test_status_shows_the_metrics_of_every_process(directory: Up, stranger: Stranger, tmp_path: Path) -> None:
    (tmp_path / "id.raw").write_bytes(b"some key")
    stranger.kt("keys", "generate")
    stranger.kt("put", "quiet.person@example.org", "--key", tmp_path / "id.raw", "--type", "raw")
    someone = Stranger(tmp_path / "someone")
    asked = ("--json", *status(directory))
    until(
        lambda: someone.kt(*asked).document["monitor"]["verdicts"].get("accepted") == 1,
        "verified by the monitor",
    )
    document = someone.kt(*asked).document
    assert document["unknown"] == {}
    assert document["promised"] == {"interval": 5, "merge_delay": 5}
    signer, monitor, frontend = (document[name] for name in ("signer", "monitor", "frontend"))
    assert signer["active"]
    assert signer["verdicts"]["accepted"] == 1
    # Undecided when it was answered, on a busy machine.
    assert frontend["verdicts"].keys() <= {"accepted", "queued"}
    assert set(signer["phases"]) == {"collect", "records", "head", "commit", "acknowledge"}
    assert signer["merge_delay"]["last"] > 0
    assert not monitor["alarm"]
    assert monitor["lag"].keys() == {"heads", "records", "seconds"}
    assert frontend["lag"].keys() == {"heads", "records", "seconds"}
    assert document["restarts"].keys() == {"node", "signer", "frontend", "monitor"}
    said = someone.kt(*status(directory)).out
    for words in ("merge delay of at most 5 s", "over the promise", "no alarm", "accepted 1"):
        assert words in said
    assert "not known" not in said
    assert "quiet.person" not in said + json.dumps(document)


def test_status_counts_restarts(directory: Up, stranger: Stranger) -> None:
    def restarts() -> int:
        return int(stranger.kt("--json", *status(directory)).document["restarts"]["monitor"])

    before, pid = restarts(), directory.pid("monitor")
    os.kill(pid, signal.SIGKILL)
    directory.restarted("monitor", pid)
    assert restarts() == before + 1


def test_status_by_a_front_end_alone_names_what_it_cannot_know(directory: Up, stranger: Stranger) -> None:
    document = stranger.kt("--json", "status").document
    assert (document["origin"], document["head"]["origin"]) == (ORIGIN, ORIGIN)
    assert document["promised"]["merge_delay"] == 5
    assert document["frontend"]["log_reachable"]
    assert (
        document["signer"] is document["monitor"] is document["restarts"] is document["queue_waiting"] is None
    )
    assert document["unknown"].keys() == {"log", "signer", "monitor", "restarts"}
    assert "not known: signer: " in stranger.kt("status").out


def test_the_page_of_another_process_is_not_believed(directory: Up, stranger: Stranger) -> None:
    frontend = directory.url.removeprefix("http://")
    document = stranger.kt("--json", *status(directory), "--monitor", frontend).document
    assert document["monitor"] is None
    assert "kt_monitor_alarm" in document["unknown"]["monitor"]


def test_a_monitor_of_a_false_log_shows_its_alarm_and_ends_with_its_code(
    directory: Up, tmp_path: Path
) -> None:
    others = StreamNames("others")
    with log_at(directory.log_uri) as log:
        for source, stream in ((NAMES.mutations, others.mutations), (NAMES.heads, others.heads)):
            for event in list(log.read(source)):
                data = refused(event.data) if source == NAMES.mutations else event.data
                log.append(stream, ANY, [content_event(stream, event.type, data)])
    settings = tmp_path / "kt.toml"
    settings.write_text(
        directory.settings.read_text().replace('directory = "people"', 'directory = "others"')
    )
    options = ("--log", directory.log_uri, "--metrics", ANY_PORT)
    monitor = Running(tmp_path / "monitor.log", "-c", settings, "monitor", *options)
    try:
        url = json.loads(monitor.wait_for_line('"metrics"'))["url"]
        assert "must be" in json.loads(monitor.wait_for_line('"alarm"'))["problem"]
        assert "kt_monitor_alarm 1.0" in httpx.get(url).text
        document = (
            Stranger(tmp_path / "home")
            .kt(
                *(
                    "--json",
                    *status(directory),
                    "--monitor",
                    url.removeprefix("http://").removesuffix("/metrics"),
                )
            )
            .document
        )
        assert document["monitor"]["alarm"]
    finally:
        code = monitor.stop(signal.SIGTERM)
    assert code == 4


def refused(data: bytes) -> bytes:
    """A records event whose first record says that its item was not taken."""
    first, encoded = decode_records(data)
    record = Record.decode(encoded[0])
    return encode_records(first, [Record(first, record.item, Verdict.STALE).encode(), *encoded[1:]])
