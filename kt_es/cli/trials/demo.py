"""``kt demo``: publish, look up and audit real keys through real processes, and catch three lies."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import certifi
import click
import httpx

from kt_es.cli.auditors.audit import ledger_of, run_audit
from kt_es.cli.operators.init import NewDirectory, write_directory
from kt_es.cli.options import FILE, NEW_FOLDER, event_log
from kt_es.cli.output import STATE_FILE, Output, output_of
from kt_es.cli.owners.importing import publish_plan, read_plan, show_summary
from kt_es.cli.shared import make_store, required_sharing
from kt_es.cli.trials.tampering import tamper
from kt_es.client.client import Client
from kt_es.client.state import FileStateStore
from kt_es.client.trusted import Pinned
from kt_es.config.settings import FILE_NAME, Settings, load_settings
from kt_es.config.tables import NodeTable
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.errors import KtError
from kt_es.formats.entries import PublicKey
from kt_es.importers.accounts import ImportPlan

START_SECONDS = 60.0

LOGS_FILE = "processes.log"
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-keyring.gpg")


@click.command("demo")
@click.option(
    "--keyring",
    type=FILE,
    help="An OpenPGP keyring; default Debian's where it is installed, else certifi's root certificates.",
)
@click.option("--data", type=NEW_FOLDER, help="Keep everything here.")
@click.option("--lookups", type=click.IntRange(1), default=200, show_default=True, help="How many lookups.")
@click.option(
    "--absences", type=click.IntRange(0), default=50, show_default=True, help="How many lookups of nobody."
)
@click.option("--jobs", type=click.IntRange(1, 64), default=8, show_default=True, help="Requests at a time.")
@click.option(
    "--shared", metavar="ADDRESS", help="Keep the map in this shared store, cassandra://HOST:PORT/KEYSPACE."
)
@click.option("--seed", type=int, help="Seed of the random choices; default a random one, which is printed.")
@click.pass_context
def demo_command(
    context: click.Context,
    /,
    keyring: Path | None,
    data: Path | None,
    lookups: int,
    absences: int,
    jobs: int,
    shared: str | None,
    seed: int | None,
) -> None:
    """Run the whole system on this machine with real keys, and verify it end to end."""
    output = output_of(context)
    seed = secrets.randbits(32) if seed is None else seed
    kind, file = _source(keyring)
    output.note(f"kt demo on {file.name} (seed {seed})")
    policy = "email" if kind == "openpgp" else "text"
    plan = read_plan(kind, file, policy)
    with ExitStack() as stack:
        base = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kt-demo-")))
        if shared is not None:
            share(base, policy, shared)
            output.ok(f"the map is in {shared}; front ends have no copy of it")
        url, log_uri = stack.enter_context(running(base, policy, output))
        settings = load_settings(base / FILE_NAME).model_copy(update={"log": log_uri})
        pinned = Pinned(settings.origin, settings.pinned)
        client = Client(url, FileStateStore(base / "client"), pinned=pinned, timeout=60.0)
        choose = random.Random(seed)  # noqa: S311 - for choosing, not hiding
        demo = Demo(output, settings, url, plan, choose, stack.enter_context(client))
        demo.run(lookups, absences, jobs)
    shown = ("accounts", "seconds", "epochs", "caught")
    output.data({name: getattr(demo, name) for name in shown}, demo.summary())


def _source(keyring: Path | None) -> tuple[str, Path]:
    if keyring is not None:
        return "openpgp", keyring
    if os.access(DEBIAN_KEYRING, os.R_OK) and importlib.util.find_spec("pysequoia") is not None:
        return "openpgp", DEBIAN_KEYRING
    return "pem", Path(certifi.where())


def share(base: Path, policy: str, shared: str) -> None:
    """Make a directory in ``base`` whose map is in the store ``shared``, and the tables of the store."""
    if not (base / FILE_NAME).exists():
        # As ``kt up`` makes it.
        log = f"esdb://{NodeTable().listen}?Tls=false"
        write_directory(base, NewDirectory("people", "localhost/people", log, policy, 1.0, 60.0))
        with (base / FILE_NAME).open("a") as file:
            file.write(f'\n[store]\nshared = "{shared}"\n')
    make_store(required_sharing(load_settings(base / FILE_NAME)))


@contextmanager
def running(base: Path, policy: str, output: Output) -> Iterator[tuple[str, str]]:
    """Run ``kt up`` on free ports as a process; yield the front end's URL and the connection string."""
    base.mkdir(parents=True, exist_ok=True)
    logs = os.open(base / LOGS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(logs, "ab") as file:  # closed here, because the process has its own copy
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own arguments
            [
                *(sys.executable, "-m", "kt_es.cli.main", "up", "-v", "--data", str(base)),
                *("--label-policy", policy, "--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
    try:
        yield _reached(process, base, output)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _reached(process: subprocess.Popen[bytes], base: Path, output: Output) -> tuple[str, str]:
    """Wait until the front end of ``kt up`` answers, and return the addresses that it chose."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            state = json.loads((base / STATE_FILE).read_text())
            answer = httpx.get(f"{state['url']}/readyz", timeout=2, trust_env=False)
            ready = answer.status_code == httpx.codes.OK
        except (OSError, ValueError, httpx.HTTPError):
            ready = False
        if ready:
            for name, pid in state["processes"].items():
                output.ok(f"{name} runs as process {pid}")
            return state["url"], state["log"]
        threading.Event().wait(0.1)
    raise KtError(f"`kt up` in {base} did not start: see {base / LOGS_FILE}")


@dataclass(slots=True)
class Demo:
    """The steps of the demo over one running directory, and what they did. A mistake raises ``KtError``.

    ``seconds`` has the duration of each step.
    """

    output: Output
    settings: Settings
    url: str
    plan: ImportPlan
    choose: random.Random
    client: Client
    owner: PrivateKey = field(default_factory=lambda: PrivateKey.from_seed(ED25519, os.urandom(32)))
    accounts: int = 0
    profile_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    lookups: int = 0
    absences: int = 0
    epochs: int = 0
    records: int = 0
    caught: int = 0

    def run(self, lookups: int, absences: int, jobs: int) -> None:
        steps = {
            "import": lambda: self._import(jobs),
            "lookups": lambda: self._look_up(lookups),
            "absences": lambda: self._look_for_nobody(absences),
            "rotation": self._rotate,
            "audit": self._audit,
            "lies": self._lie,
        }
        for name, step in steps.items():
            started = time.monotonic()
            step()
            self.seconds[name] = round(time.monotonic() - started, 2)

    def _import(self, jobs: int) -> None:
        plan = self.plan
        report = publish_plan(self.output, self.client, plan, [self.owner], jobs=jobs, patience=600.0)
        show_summary(self.output, plan, report)
        if report.published != len(plan.accounts):
            raise KtError(
                f"{report.published} of {len(plan.accounts)} accounts were published: see the reasons above"
            )
        self.accounts = report.published
        self.profile_bytes = sum(len(key.data) for account in plan.accounts for key in account.keys)
        self.output.ok(f"{report.published} submissions decided, each proven in a signed map head")

    def _look_up(self, count: int) -> None:
        for account in self.choose.choices(self.plan.accounts, k=count):
            lookup = self.client.lookup(account.label)
            if lookup.profile != account.keys:
                raise KtError(f"a lookup of {account.label} gave other keys than were published: report this")
        self.lookups = count
        self.output.ok(f"{count} random lookups: verified, and the keys are those of the file")

    def _look_for_nobody(self, count: int) -> None:
        for _ in range(count):
            lookup = self.client.lookup(f"nobody-{self.choose.getrandbits(64):x}@absent.example")
            if not lookup.absent:
                raise KtError(f"{lookup.label} was found, who does not exist: report this")
        self.absences = count
        self.output.ok(f"{count} absences proven")

    def _rotate(self) -> None:
        account = self.choose.choice(self.plan.accounts)
        successor = PrivateKey.from_seed(ED25519, os.urandom(32))
        public = PublicKey(ED25519, successor.public)
        self.client.publish(account.label, account.keys, [self.owner, successor], [public])
        history = self.client.history(account.label)
        if [version.entry.authorized_keys for version in history.versions][1:] != [(public,)]:
            raise KtError(f"the history of {account.label} is not the one that was made: report this")
        self.output.ok(
            f"one key rotation: {len(history.versions)} versions, the second since epoch "
            f"{history.versions[-1].epoch}, signed by the old and the new key"
        )

    def _audit(self) -> None:
        head = self.client.head().head
        with (
            event_log(self.settings.log, self.output, START_SECONDS) as log,
            ledger_of(self.settings, None) as ledger,
        ):
            report = run_audit(self.output, self.settings, log, ledger, queue=True)
            same = self.client.head(ledger.committed.epoch).head
            if ledger.committed.epoch < head.epoch or same.map_root != ledger.committed.root.hash:
                problem = f"the audit's map root is not {same.map_root.hex()}, which the front end serves"
                raise KtError(f"{problem}: report this")
        self.epochs, self.records = report.epochs, report.records
        self.output.ok(f"the audit's map root is the one served: {same.map_root.hex()}")

    def _lie(self) -> None:
        label = self.choose.choice(self.plan.accounts).label
        with event_log(self.settings.log, self.output, START_SECONDS) as log:
            for what, error in tamper(self.url, self.settings, log, label, self.choose):
                self.output.ok(f"changed {what}, caught: {error}")
                self.caught += 1

    def summary(self) -> list[str]:
        seconds, plan = self.seconds, self.plan
        rate = self.accounts / seconds["import"]
        return [
            f"keys read          {plan.keys}, {len(plan.skipped)} names skipped",
            f"accounts           {self.accounts}, {self.profile_bytes / 1e6:.1f} MB of profiles",
            f"import             {seconds['import']:.1f} s, {rate:.0f} accounts/s, submitted and verified",
            f"lookups            {self.lookups} in {seconds['lookups']:.1f} s, "
            f"{self.absences} absences in {seconds['absences']:.1f} s",
            f"audit              {self.epochs} epochs, {self.records} records in {seconds['audit']:.1f} s",
            f"lies caught        {self.caught} of 3",
            f"in all             {sum(seconds.values()):.1f} s",
        ]
