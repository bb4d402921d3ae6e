"""``kt bench batch``: batch lookups beside single lookups of the same labels, at one front end.

The directory is made at once (``synthetic``), and the front end is a real process with a replica of its own.
Single and batch lookups run by turns, so that changes of the machine meet both. A label counts when its
answer has arrived, so a batch of 100 counts 100 times. Processor time is that of the front end alone, which
other programs on the machine change less than they change rates.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

from kt_es.api.operations import LOOKUP, LOOKUPS
from kt_es.cli.addresses import free_address
from kt_es.cli.operators.init import SIGNER_KEY, NewDirectory, begin_queue, write_directory
from kt_es.cli.output import Output
from kt_es.cli.supervisor import Supervisor
from kt_es.cli.trials import load, synthetic
from kt_es.cli.trials.asking import ask, until_ready
from kt_es.cli.trials.bench_node import processor_seconds, until_answered
from kt_es.cli.trials.bench_report import Row
from kt_es.cli.trials.synthetic import Sampled
from kt_es.client.client import Client
from kt_es.client.state import MemoryStateStore
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME, Settings
from kt_es.crypto.vrf import VrfPrivateKey
from kt_es.errors import KtError
from kt_es.eventstore.connecting import connect
from kt_es.eventstore.streams import Event
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import OPENING
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.process.files import read_key
from signer.keys import load_key

SAMPLE = 3_000
"""Labels that are looked up again and again."""
STRANGERS = 3_000
"""Labels without an entry, each looked up once: nobody has computed their VRF proofs before."""
SIZES = (10, 100, 1_000)
"""Labels in a batch."""
WANTED = 100
"""The batch whose rate has a limit, and ``TIMES`` is the limit: times the labels/s of single lookups."""
TIMES = 5.0
TURNS = 3
SECONDS = 4.0
VERIFIED = 200
"""Labels that the real client verifies, in batches and one by one."""
_INTERVAL = 30 * 86_400.0


def bench_batch(
    directory: Path,
    entries: int,
    *,
    sample: int = SAMPLE,
    strangers: int = STRANGERS,
    sizes: Sequence[int] = SIZES,
    seconds: float = SECONDS,
    turns: int = TURNS,
    note: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Measure batch lookups in the empty ``directory``, with ``entries`` in the map.

    Args:
        directory: Where the directory, its log and its front end have their data.
        entries: Entries in the map, those of the sample included.
        sample: Labels that are looked up.
        strangers: Absent labels that are looked up once by single lookups and once by batches of ``WANTED``.
        sizes: Labels in a batch, at most as many as are in the sample.
        seconds: How long each kind of lookup is repeated in each turn.
        turns: How often all kinds are measured.
        note: Gets a line for people after each step.
    """
    supervisor = Supervisor(Output().fail, lambda _: None)
    rates, costs = defaultdict[int, list[float]](list), defaultdict[int, list[float]](list)
    with ExitStack() as stack:
        stack.callback(supervisor.stop)
        served = _Served(supervisor, directory, entries, min(sample, entries))
        note("the directory is filled, and its front end is ready")
        # The first lookup of each label makes its VRF proof, which all later ones find.
        served.rate(1, None)
        for turn in range(turns):
            for size in (1, *sizes):
                rate, cost = served.rate(size, seconds)
                rates[size].append(rate)
                costs[size].append(cost)
                note(f"turn {turn + 1} of {turns}, {_of(size)}: {rate:,.0f} labels/s, {cost:,.0f} µs each")
        lengths = {size: served.bytes_of_label(size) for size in (1, *sizes)}
        new = {size: served.first_rate(size, strangers) for size in (1, WANTED)}
        served.verify()
    single = median(rates[1])
    limits = {WANTED: TIMES * single}
    rows = [Row.of(_of(size), "labels/s", rates[size], limits.get(size)) for size in rates]
    rows += [
        Row.of(f"{_of(size)}, beside single ones", "x", [rate / single for rate in rates[size]])
        for size in sizes
    ]
    rows += [Row.of(f"{_of(size)}, processor time", "µs/label", costs[size]) for size in costs]
    rows += [Row.of(f"{_of(size)}, answer", "bytes/label", [length]) for size, length in lengths.items()]
    rows += [Row.of(f"{_of(size)}, new labels", "labels/s", [rate]) for size, rate in new.items()]
    return [*rows, Row.of("entries", "entries", [float(entries)])]


def _of(size: int) -> str:
    return "single lookups" if size == 1 else f"batches of {size}"


class _Served:
    """A directory with its log and one front end as processes, and a sample of its labels."""

    def __init__(self, supervisor: Supervisor, base: Path, entries: int, sample: int) -> None:
        new = NewDirectory("bench", "localhost/bench", "", "text", 1.0, _INTERVAL)
        self._settings: Settings = write_directory(base, new)
        self._config = str(base / FILE_NAME)
        self._where = free_address()
        node = free_address()
        uri = f"esdb://{node}?Tls=false"
        common = ("-q", "-c", self._config)
        supervisor.start("node", (*common, "node", "--data", str(base / "node"), "--listen", str(node)))
        until_answered(uri, lambda log: begin_queue(self._settings, log, new))
        self._sample = self._fill(uri, entries, sample)
        arguments = ("frontend", "--log", uri, "--listen", str(self._where))
        self._front_end = supervisor.start("frontend", (*common, *arguments))
        until_ready(self._front_end.process, self._where)
        self._strangers = 0

    def _fill(self, uri: str, entries: int, count: int) -> list[Sampled]:
        settings = self._settings
        vrf = read_key(settings.path(settings.frontend.vrf_key), "the VRF key", VrfPrivateKey.from_pem)
        sample = synthetic.sample_labels(settings.origin, vrf, count)
        data = settings.path(settings.frontend.data)
        with closing(connect(uri)) as log, closing(RocksStore.open(data, FAMILIES)) as store:
            root = synthetic.fill([store], sample, entries, lambda _: None)
            config = SignedConfig.decode(next(iter(log.read(settings.names.queue, 0, 1))).data)
            event = synthetic.commit_epoch(
                [store], settings, config, root, load_key(settings.path(SIGNER_KEY))
            )
            table = OpeningTable(store)
            for one in sample:
                index = one.mutation.entry.index
                stream = settings.names.openings(index)
                table.add(index, Event(stream, 0, OPENING, one.opening.encode(), uuid.uuid4()))
            store.compact()
            synthetic.publish_epoch(log, settings.names, event)
        return sample

    def rate(self, size: int, seconds: float | None) -> tuple[float, float]:
        """Look the sample up, ``size`` labels at a time, for ``seconds`` or else once, without profiles.

        Return the labels/s, and the processor time of the front end for each label in µs; nan if the system
        does not report it.
        """
        return self._measured([one.label for one in self._sample], size, seconds)

    def first_rate(self, size: int, count: int) -> float:
        """Return the labels/s of lookups of ``count`` labels that nobody has looked up before."""
        labels = [f"stranger {self._strangers + number}" for number in range(count)]
        self._strangers += count
        return self._measured(labels, size, None)[0]

    def _measured(self, labels: Sequence[str], size: int, seconds: float | None) -> tuple[float, float]:
        pid = self._front_end.process.pid
        before = processor_seconds(pid)
        measured = load.measure(self._where, _path(size), _bodies(labels, size), seconds)
        after = processor_seconds(pid)
        used = float("nan") if before is None or after is None else after - before
        return measured.rate * size, used / (measured.answers * size) * 1e6

    def bytes_of_label(self, size: int) -> float:
        """Return the bytes of an answer's body for each label, without profiles."""
        (body, *_) = _bodies([one.label for one in self._sample], size)
        status, answer = ask(self._where, "POST", _path(size), body)
        if status != 200:
            raise KtError(f"a front end answered a lookup of {size} labels with status {status}")
        return len(answer) / size

    def verify(self) -> None:
        """Look some labels up with the real client, which verifies everything, all at once."""
        pinned = Pinned(self._settings.origin, self._settings.pinned)
        wanted = self._sample[:VERIFIED]
        with Client(f"http://{self._where}", MemoryStateStore(), pinned=pinned) as client:
            found = client.lookup_many([one.label for one in wanted])
        for one, lookup in zip(wanted, found, strict=True):
            if lookup.mutation != one.mutation or not lookup.profile:
                raise KtError(f"a front end answered a batch with another entry at {one.label!r}")


def _path(size: int) -> str:
    return LOOKUP.path if size == 1 else LOOKUPS.path


def _bodies(labels: Sequence[str], size: int) -> list[bytes]:
    """Return the requests about ``labels``, ``size`` in each; what is left over is left out."""
    if size == 1:
        return [json.dumps({"label": label, "profile": False}).encode() for label in labels]
    parts = [labels[first : first + size] for first in range(0, len(labels) - size + 1, size)]
    return [json.dumps({"labels": part, "profile": False}).encode() for part in parts]
