"""What an alarm sets off, and what happens where that fails."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from kt_es.cli.owners.hooks import Alarms, Hooks
from kt_es.client.state import FileStateStore, MemoryStateStore
from tests.cli.owners.people import follow
from tests.cli.owners.watching.people import ALICE, ALICE_KEY, WatchingKt, Webhook, injected
from tests.reference.clients import client_of
from tests.reference.directory import Directory


def program(tmp_path: Path, text: str) -> str:
    """A command that runs a Python program."""
    path = tmp_path / "hook.py"
    path.write_text(text)
    return f"{sys.executable} {path}"


class TestHooks:
    def test_a_command_gets_the_document(self, kt: WatchingKt, directory: Directory, tmp_path: Path) -> None:
        injected(directory)
        told = tmp_path / "told"
        command = program(tmp_path, f"import sys; open({str(told)!r}, 'wb').write(sys.stdin.buffer.read())")
        ran = kt("watch", "--on-alarm", command, ALICE)
        assert ran.code == 6
        assert json.loads(told.read_bytes()) == json.loads(ran.out)["alarms"][0]

    def test_a_webhook_gets_the_document(
        self, kt: WatchingKt, directory: Directory, webhook: Webhook
    ) -> None:
        injected(directory)
        ran = kt("watch", "--webhook", webhook.url, ALICE)
        assert ran.code == 6
        assert webhook.received == json.loads(ran.out)["alarms"]

    def test_a_hook_that_fails_changes_nothing_but_a_line(
        self, kt: WatchingKt, directory: Directory, tmp_path: Path
    ) -> None:
        injected(directory)
        refusing = Webhook(500)
        command = program(tmp_path, "raise SystemExit(3)")
        ran = kt("watch", "--on-alarm", command, "--webhook", refusing.url, ALICE)
        refusing.close()
        assert ran.code == 6
        assert "ended with 3" in ran.err
        assert "the webhook answered with 500" in ran.err
        assert "secret-token" not in ran.err

    def test_a_hook_that_failed_is_tried_again_by_the_next_watch(
        self, kt: WatchingKt, directory: Directory, webhook: Webhook, tmp_path: Path
    ) -> None:
        kt("watch", "--once", ALICE)
        injected(directory)
        ran = tmp_path / "ran"
        command = program(tmp_path, f"open({str(ran)!r}, 'ab').write(b'1')")
        refusing = Webhook(503)
        kt("watch", "--once", "--on-alarm", command, "--webhook", refusing.url, ALICE)
        kt("watch", "--once", "--on-alarm", command, "--webhook", refusing.url, ALICE)
        follow(directory, ALICE_KEY)
        assert kt("watch", "--once", "--webhook", refusing.url, ALICE).code == 6
        refusing.close()
        last = kt("watch", "--once", "--on-alarm", command, "--webhook", webhook.url, ALICE)
        assert last.code == 6
        assert "told before, but not every hook took it" in last.err
        assert webhook.received == json.loads(last.out)["alarms"]
        assert {one["version"] for one in [*webhook.received, *refusing.received]} == {2}
        assert ran.read_bytes() == b"1"
        assert kt("watch", "--once", "--webhook", webhook.url, ALICE).code == 0
        assert len(webhook.received) == 1

    def test_an_alarm_outlives_a_crash_before_its_hooks_ran(self, directory: Directory) -> None:
        client = client_of(directory, MemoryStateStore())
        client.head()
        alarm = {"kind": "foreign-version", "label": ALICE, "sentence": "version 2 is not yours"}

        class CrashError(Exception):
            """The process ends here."""

        class Crashing(Hooks):
            def run(self, document: Any, names: Any) -> dict[str, str]:
                raise CrashError

        with pytest.raises(CrashError):
            Alarms(client, Crashing(webhook="http://x"), print).set_off(ALICE, alarm)
        taken: list[Any] = []

        class Taking(Hooks):
            def run(self, document: Any, names: Any) -> dict[str, str]:
                taken.append((document, names))
                return {}

        later = Alarms(client, Taking(webhook="http://x"), print)
        assert later.retry(ALICE) == alarm
        assert taken == [(alarm, ["webhook"])]
        assert later.retry(ALICE) is None

    def test_of_alarms_that_wait_each_gets_its_turn(self, directory: Directory) -> None:
        client = client_of(directory, MemoryStateStore())
        client.head()
        lines: list[str] = []
        alarms = Alarms(client, Hooks(("/bin/false",)), lines.append)
        for number in range(150):
            alarms.set_off(ALICE, {"kind": "foreign-version", "sentence": str(number)})
        tried = [alarms.retry(ALICE) for _ in range(101)]
        assert [one and one["sentence"] for one in tried] == [*map(str, range(50, 150)), "50"]
        assert set(lines) == {"the command /bin/false ended with 1"}

    def test_a_hook_that_comes_later_is_called_for_what_still_stands(
        self, kt: WatchingKt, directory: Directory, webhook: Webhook
    ) -> None:
        injected(directory)
        assert kt("watch", "--once", ALICE).code == 6
        assert webhook.received == []
        for _ in range(2):
            assert kt("watch", "--once", "--webhook", webhook.url, ALICE).code == 6
            assert [told["kind"] for told in webhook.received] == ["still-foreign"]
        # Another hook beside it: it is told, the first one is not told twice.
        other = Webhook(204)
        for _ in range(2):
            assert kt("watch", "--once", "--webhook", other.url, ALICE).code == 6
        other.close()
        assert (len(webhook.received), len(other.received)) == (1, 1)

    @pytest.mark.parametrize("data", [b"no JSON", b"[]", b'{"a": 1}'])
    def test_damaged_memory_of_the_hooks_is_named_and_they_run(
        self, kt: WatchingKt, directory: Directory, webhook: Webhook, data: bytes
    ) -> None:
        kt("watch", "--once", ALICE)
        FileStateStore(kt.home / "state" / "directory").remember("told", ALICE.encode(), data)
        injected(directory)
        ran = kt("watch", "--once", "--webhook", webhook.url, ALICE)
        assert (ran.code, len(webhook.received)) == (6, 1)
        assert f"the memory of the alarms of {ALICE} that its hooks accepted is damaged" in ran.err

    @pytest.mark.parametrize(
        "data", [b"no JSON", b"{}x", b"[1]", b"[[{}, []]]", b'[[{"kind": 1, "sentence": 2}, []]]']
    )
    def test_damaged_alarms_are_named_and_the_watch_goes_on(
        self, kt: WatchingKt, directory: Directory, data: bytes
    ) -> None:
        kt("watch", "--once", ALICE)
        FileStateStore(kt.home / "state" / "directory").remember("alarms", ALICE.encode(), data)
        injected(directory)
        ran = kt("watch", "--once", ALICE)
        assert ran.code == 6
        assert f"the memory of the alarms of {ALICE} that wait for a hook is damaged" in ran.err

    def test_a_webhook_that_is_away(self, webhook: Webhook) -> None:
        closed = Webhook(204)
        closed.close()
        (line,) = Hooks(webhook=closed.url).run({"label": ALICE}, ["webhook"]).values()
        assert line.startswith("the webhook cannot be reached")

    def test_a_command_is_bounded_in_time(self, tmp_path: Path) -> None:
        command = program(tmp_path, "import threading; threading.Event().wait()")
        (line,) = Hooks(tuple(command.split()), seconds=0.5).run({"label": ALICE}, ["on-alarm"]).values()
        assert "took longer" in line

    def test_a_webhook_is_bounded_in_time(self) -> None:
        asked = threading.Event()

        class Silent(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.wait(10)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Silent)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        hooks = Hooks(webhook=f"http://127.0.0.1:{server.server_port}/", seconds=0.3)
        (line,) = hooks.run({"label": ALICE}, ["webhook"]).values()
        asked.set()
        thread.join()
        server.server_close()
        assert line.startswith("the webhook")

    def test_a_desktop_without_notifications_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        (line,) = Hooks(desktop=True).run({"label": ALICE, "sentence": "x"}, ["desktop"]).values()
        assert "notify-send is not installed" in line

    @pytest.mark.parametrize(
        "options",
        [
            ("--on-alarm", ""),
            ("--on-alarm", "/nonexistent/program"),
            ("--on-alarm", "unclosed 'quote"),
            ("--webhook", "ftp://example.org"),
            ("--webhook", "example.org"),
            ("--webhook", "http://[::1"),
        ],
    )
    def test_a_hook_that_cannot_be_is_refused_before_the_watch_begins(
        self, kt: WatchingKt, options: tuple[str, str]
    ) -> None:
        assert kt("watch", *options, ALICE).code == 2
