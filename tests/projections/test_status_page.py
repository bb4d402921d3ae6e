"""The status page of a monitor: what it says, that it loads nothing, and the heads of each hour."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from kt_es.cli.addresses import free_address
from kt_es.errors import EquivocationError
from kt_es.evidence import convict
from kt_es.formats.evidence import Evidence
from kt_es.merkle.log import LogState
from projections.gossip import Neighbour
from projections.monitor import MonitorSettings, serve
from projections.status.board import Monitored
from projections.status.facts import Facts, Lag, Rules, Told, Verified
from projections.status.hours import HOUR, Hour, Hours
from projections.status.page import status_page
from projections.status.style import STYLE
from tests import builders as b
from tests.reference.forks import Turning, first_epochs, story
from tests.reference.shown import published
from tests.reference.signing import wait_until

NOW = 1_796_000_000_000
LOG = LogState(1, (bytes(32),))
VERIFIED = Verified(1_204_331, NOW - 12_000, LOG, LOG, 5_201_334)
RULES = Rules("e0e6cfe8c1670d7f", "email", 60_000, 30_000, 3)
BEGIN = NOW // HOUR * HOUR - 2 * HOUR
FACTS = Facts(
    origin="kt.example.org/people",
    vkey="kt.example.org/people/heads+01020304+AQ==",
    source="its event log",
    version="9.9",
    now=NOW,
    started=NOW - HOUR,
    with_queue=True,
    verified=VERIFIED,
    rules=RULES,
    lag=Lag(0, 0, 0.0, True),
    hours=[Hour(BEGIN, None), Hour(BEGIN + HOUR, 3600), Hour(BEGIN + 2 * HOUR, 0)],
)


class Document(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(facts: Facts) -> Document:
    document = Document(status_page(facts).body.decode())
    assert not document.open, "every element is closed"
    return document


class TestPage:
    @pytest.mark.parametrize(
        ("change", "headline", "sentence"),
        [
            ({}, "Verified", "up to epoch 1,204,331 is verified. The latest verified head was 12 s old"),
            ({"lag": Lag(3, 412, 5.0, True)}, "Catching up", "3 heads and 412 records wait since 5 s"),
            ({"lag": Lag(1, 1, 5.0, True)}, "Catching up", "1 head and 1 record wait since 5 s"),
            ({"lag": Lag(1204, 5412, 5.0, True)}, "Catching up", "1,204 heads and 5,412 records wait"),
            ({"lag": Lag(3, 4, 0.2, True)}, "Verified", "up to epoch 1,204,331"),
            ({"lag": Lag(reachable=False)}, "The source cannot be reached", "published since is not known"),
            ({"verified": None, "rules": None}, "Nothing is verified yet", "no head from its event log"),
            ({"alarms": [Told(NOW, "no head since epoch 5")]}, "Alarm", "no head since epoch 5"),
            ({"fault": "record 5: <b>", "alarms": [Told(NOW, "x")]}, "Something is wrong", "record 5: <b>"),
        ],
    )
    def test_the_most_severe_state_is_its_headline(
        self, change: dict[str, object], headline: str, sentence: str
    ) -> None:
        page = shown(replace(FACTS, **change))  # type: ignore[arg-type]
        state = page.text[page.text.index("people", page.text.index("Monitor of")) + len("people") :]
        assert state.strip().startswith(headline)
        assert sentence in page.text

    def test_says_until_when_by_which_rules_and_how_far_behind(self) -> None:
        text = shown(FACTS).text
        for words in (
            "2026-11-30 00:53:08 UTC, the time of the latest verified head",
            "5,201,334 in the map",
            "1 leaf, root AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "0 heads and 0 records",
            "e0e6cfe8c1670d7f, in config 3",
            "no item was left out",
            "by kt-es 9.9",
        ):
            assert words in text
        assert "Not compared here" in shown(replace(FACTS, with_queue=False)).text

    def test_loads_and_runs_nothing(self) -> None:
        facts = replace(
            FACTS, evidence=["heads-epoch-2.evidence"], told=[Told(NOW, "x")], alarms=[Told(NOW, "y")]
        )
        page = shown(facts)
        for tag, attributes in page.tags:
            assert tag not in {"script", "link", "img", "iframe", "form", "object", "base", "style"} or (
                tag == "style" and not attributes
            )
            assert not any(name.startswith("on") or name in {"style", "src"} for name in attributes)
            assert (attributes.get("href") or "/").startswith("/")
        assert "url(" not in status_page(facts).body.decode()

    def test_its_policy_allows_its_own_style_only(self) -> None:
        page = status_page(FACTS)
        style = re.search("<style>(.*)</style>", page.body.decode(), re.DOTALL)
        assert style is not None
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert policy.endswith(f"; style-src 'sha256-{digest}'")

    def test_words_from_outside_are_escaped(self) -> None:
        evil = "<script>alert(1)</script>\"'&"
        told = [Told(NOW, evil)]
        facts = replace(FACTS, origin=evil, vkey=evil, source=evil, fault=evil, alarms=told, told=told)
        body = status_page(facts).body.decode()
        assert "<script" not in body
        assert shown(facts).text.count(evil) >= 6

    def test_says_with_whom_it_compared(self) -> None:
        assert "Compared with others" not in shown(FACTS).text
        same = Neighbour("https://kt.example", NOW, 1_204_330)
        away = Neighbour("https://away.example", problem="does not <answer>")
        text = shown(replace(FACTS, neighbours=[same, away])).text
        assert "https://kt.examplethe same log of 1,204,330 heads at 2026-11-30 00:53:20 UTC" in text
        assert "https://away.examplenot yet; does not <answer>" in text

    def test_the_picture_is_svg_with_words(self) -> None:
        svg = re.search("<svg.*</svg>", status_page(FACTS).body.decode(), re.DOTALL)
        assert svg is not None
        picture = ElementTree.fromstring(svg[0])
        bars = {bar.get("class"): bar for bar in picture.iter("rect") if float(bar.get("height", 0)) > 0}
        assert set(bars) == {"bar", "unknown"}
        assert "has 0; the fewest are 0, the most are 3,600" in picture.findtext("desc", "")
        heights = [float(bar.get("height", 0)) for bar in picture.iter("rect") if bar.get("class") == "bar"]
        assert heights == [pytest.approx(160 * 3600 / 4000), 0]


class TestHours:
    @given(st.lists(st.integers(1, 3 * HOUR), max_size=60), st.integers(0, 20), st.integers(1, 6), st.data())
    def test_as_counted_one_by_one(
        self, steps: list[int], dropped: int, count: int, data: st.DataObject
    ) -> None:
        times = [sum(steps[: number + 1]) for number in range(len(steps))]
        oldest = min(1 + dropped, len(times)) or 1
        hours = Hours(lambda epoch: times[epoch - 1])
        # Asked again and again while the log grows, because it remembers what it found.
        asked = sorted(data.draw(st.lists(st.integers(oldest - 1, len(times)), min_size=1, max_size=4)))
        for at_least in asked:
            newest = max(at_least, oldest) if times else 0
            now = (times[newest - 1] if newest else 0) + data.draw(st.integers(0, HOUR))
            begin = now // HOUR * HOUR - (count - 1) * HOUR
            expected = []
            for start in range(begin, begin + count * HOUR, HOUR):
                heads = sum(start <= time < start + HOUR for time in times[oldest - 1 : newest])
                unknown = oldest > 1 and newest > 0 and start < times[oldest - 1]
                expected.append(Hour(start, None if unknown else heads))
            assert hours.last(count, now, oldest, newest) == expected

    def test_reads_few_heads_of_many(self) -> None:
        read: list[int] = []

        def timestamp_of(epoch: int) -> int:
            read.append(epoch)
            return epoch * 1000

        hours = Hours(timestamp_of)
        found = hours.last(48, 10_000_000_000, 1, 9_999_999)
        assert [hour.heads for hour in found[1:-1]] == [3600] * 46
        assert len(read) < 48 * 30
        read.clear()
        hours.last(48, 10_000_000_500, 1, 10_000_000)
        assert len(read) < 30


def _answers(client: httpx.Client) -> bool:
    """Ask for the page as early as anybody can. The clock of the monitor stands still meanwhile."""
    try:
        return client.get("/").is_success
    except httpx.ConnectError:
        return False


@contextmanager
def monitoring(log: Turning, data: Path, also: tuple[str, ...] = ()) -> Iterator[httpx.Client]:
    names, page = story().names, free_address()
    where = (page.host, page.port)
    settings = MonitorSettings(names, b.ORIGIN, b.SIGNER_KEY, "", data, metrics=where, also=also)
    stop = threading.Event()
    with capture_logs(), ThreadPoolExecutor(1) as pool:
        ended = pool.submit(serve, settings, stop, connect=lambda: log, now=lambda: b.START + 60_000)  # type: ignore[arg-type, return-value]
        try:
            with httpx.Client(base_url=f"http://{page}", trust_env=False) as client:
                wait_until(lambda: _answers(client), "the monitor serves")
                yield client
        finally:
            stop.set()
            if (error := ended.exception(30)) is not None and not isinstance(error, EquivocationError):
                raise error


def test_a_running_monitor_serves_its_page_and_nothing_else(tmp_path: Path) -> None:
    log = Turning(first_epochs(story("alice", "bob"), 2))
    with monitoring(log, tmp_path / "data") as client:
        wait_until(lambda: "up to epoch 2 is verified" in client.get("/").text, "both epochs are verified")
        page = client.get("/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert str(tmp_path) not in page.text
        assert b.ORIGIN in page.text
        assert client.head("/").text == ""
        assert client.head("/").headers["Content-Length"] != "0"
        assert client.post("/").status_code == 405
        assert client.get("/evidence").json() == {"evidence": []}
        assert "kt_monitor_epoch 2.0" in client.get("/metrics").text
        for path in (
            "/favicon.ico",
            "/evidence/",
            "/evidence/%2e%2e%2fmetrics",
            "/evidence/%2e%2e/x.evidence",
            "/x/y",
        ):
            assert client.get(path).status_code == 404


def test_long_names_of_others_break_where_the_page_shows_them() -> None:
    for selector in ("h1", "dt", "dd", "li", "code", ".state p"):
        rule = re.search(rf"^{re.escape(selector)}{{([^}}]*)}}", STYLE, re.MULTILINE)
        assert rule is not None
        assert "overflow-wrap:anywhere" in rule[1].split(";"), selector


@pytest.mark.parametrize(
    ("text", "public"),
    [
        (
            "the monitor is behind; kept in monitor/unproven/heads-2.checkpoint",
            "the monitor is behind; kept in the data directory/unproven/heads-2.checkpoint",
        ),
        ("/home/ann/saved.checkpoint cannot be read", "saved.checkpoint cannot be read"),
        ("https://kt.example.org/monitor/ is behind.", "https://kt.example.org/monitor/ is behind."),
    ],
)
def test_no_path_of_the_machine_is_public(text: str, public: str) -> None:
    also = ("https://kt.example.org", "/home/ann/saved.checkpoint")
    relative = Monitored(b.ORIGIN, b.SIGNER_KEY, "its tiles", Path("monitor"), with_queue=False, also=also)
    assert relative.public(text) == public
    absolute = replace(relative, data=Path("/srv/monitor"))
    assert absolute.public("/srv/monitor is full, /srv/monitor/x") == (
        "the data directory is full, the data directory/x"
    )


def test_the_page_shows_a_file_of_also_by_its_name(tmp_path: Path) -> None:
    saved = tmp_path / "ann" / "saved.checkpoint"
    saved.parent.mkdir()
    saved.write_bytes(published(story("alice", "bob"), 2)["heads"])
    log = Turning(first_epochs(story("alice", "bob"), 2))
    with monitoring(log, tmp_path / "data", also=(str(saved),)) as client:
        compared = "kt_monitor_compared_timestamp_seconds{"
        wait_until(lambda: compared in client.get("/metrics").text, "the file is compared")
        page = client.get("/").text
    assert "<dt>saved.checkpoint</dt>" in page
    assert str(tmp_path) not in page


def test_evidence_is_served_and_the_page_links_to_it(tmp_path: Path) -> None:
    first, second = story("alice", "bob"), story("alice", "carol")
    data = tmp_path / "data"
    log = Turning(first_epochs(first, 2))
    with monitoring(log, data) as client:
        wait_until(lambda: "up to epoch 2 is verified" in client.get("/").text, "both epochs are verified")
    with monitoring(Turning(first_epochs(second, 2)), data) as client:
        wait_until(lambda: "Something is wrong" in client.get("/").text, "the fork is found")
        page = client.get("/").text
        assert str(tmp_path) not in page
        link = next(
            attributes["href"]
            for tag, attributes in Document(page).tags
            if tag == "a" and "/evidence/" in (attributes.get("href") or "")
        )
        assert link == "/evidence/heads-epoch-2.evidence"
        served = client.get(link)
        assert served.headers["Content-Disposition"] == 'attachment; filename="heads-epoch-2.evidence"'
        assert "two different heads of epoch 2" in convict(Evidence.decode(served.content))
        (listed,) = client.get("/evidence").json()["evidence"]
        assert listed["sha256"] == hashlib.sha256(served.content).hexdigest()
        (data / "evidence" / "link-1.evidence").symlink_to("/etc/hostname")
        (data / "evidence" / "notes.txt").write_text("private")
        assert client.get("/evidence/link-1.evidence").status_code == 404
        assert client.get("/evidence/notes.txt").status_code == 404
