"""``kt watch``: check every epoch of the owner's accounts, for as long as it runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kt_es.cli.options import Number, Reach, reach_options
from kt_es.cli.output import Output, at, configure_logs, failure, logs_of, output_of, stop_on_signals
from kt_es.cli.owners.hooks import Alarms, Document, Hooks, hook_options
from kt_es.cli.owners.keys import keys_option, mine_option, read_mine
from kt_es.cli.people.others import Others, others_options
from kt_es.cli.saving import write_private
from kt_es.client.changes import Mine
from kt_es.client.client import Client
from kt_es.client.watching import Change, Watcher
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError, EquivocationError, KtError, VerificationError, WatchAlarmError
from kt_es.formats.evidence import armored
from kt_es.formats.labels import normalize_label
from kt_es.process.log_filters import without_password

# Exit codes, the gravest first: contradiction, foreign version, not verified, no quorum, unknown, usage, and
# other failures.
GRAVEST = (5, 6, 4, 8, 7, 2, 1)

# Number of alarms and failures that are kept for the end. It is limited, because a watch may run for years.
_REMEMBERED = 1_000


@click.command("watch")
@click.argument("labels", nargs=-1, required=True)
@click.option("--interval", type=Number(0.1), default=30.0, show_default=True, help="Seconds between checks.")
@click.option("--once", is_flag=True, help="Check once and end.")
@click.option("--from-now", is_flag=True, help="At the first watch begin with the present version.")
@click.option("--keep-watching", is_flag=True, help="Go on after an alarm.")
@hook_options
@mine_option
@keys_option
@others_options
@reach_options
@click.pass_context
def watch_command(
    context: click.Context,
    /,
    labels: tuple[str, ...],
    interval: float,
    once: bool,
    from_now: bool,
    keep_watching: bool,
    on_alarm: str | None,
    webhook: str | None,
    desktop: bool,
    mine: tuple[str, ...],
    keys: Path,
    also: tuple[str, ...],
    watchers: bool,
    **reach: Any,
) -> None:
    """Watch your LABELS: check each epoch since the last check, and alarm on any version that is not yours.

    A version is yours if all its authorized keys are yours and one of them signed it. The first watch checks
    the complete history, and every epoch from the first version on. A version that is not yours, or a proven
    contradiction, ends the watch after all labels have been checked. Outages and answers that do not verify
    are reported, and the watch goes on. Each watch reports a version that is not yours and still stands. Each
    hook runs once for it, and again only if it failed.

    Exit codes: 5 contradiction proven, 6 a version is not yours, 4 an answer did not verify, 8 no quorum,
    7 cannot tell, 1 an answer could not be read.
    """
    logs = logs_of(context)
    configure_logs("watch", logs if logs == "json" else "problems")
    yours = read_mine(keys, mine)
    if not yours.held and not yours.declared:
        raise ConfigError(
            f"there is no signing key in {keys} to know your changes by: name its directory with --keys, or "
            "declare your keys with --mine KEYID"
        )
    hooks = Hooks.of(on_alarm, webhook, desktop)
    stop = stop_on_signals()
    options = Reach(**reach)
    output = output_of(context)
    with options.client() as client:
        _check_labels(output, client, labels)
        watch = Watch(output, client, yours, hooks, options.state / "alarms", from_now=from_now)
        others = Others(output, client, also, watchers)
        while not stop.is_set():
            for where, error in others.look():
                # The evidence is saved by now, so every label is going to raise the alarm.
                watch.fail(where, error, str(error))
            watch.round(tuple(dict.fromkeys(labels)), stop)
            if once or (watch.alarmed and not keep_watching):
                break
            stop.wait(interval)
    document: Document = {"labels": list(labels), "alarms": list(watch.alarms)}
    gravest = watch.gravest(once) or others.late
    if gravest is not None:
        document["error"] = failure(gravest.exit_code, without_password(str(gravest)), gravest)
    output.data(document, [])
    if gravest is not None:
        raise gravest


def _check_labels(output: Output, client: Client, labels: Sequence[str]) -> None:
    """Refuse labels that the directory cannot have, before an unattended watch fails on them for ever."""
    try:
        trusted = client.trusted()
    except KtError:
        return  # Each check reports the failure again.
    if client.on_first_use:
        output.note(f"  directory key pinned on first use: {trusted.pinned.vkey}")
    for label in labels:
        normalize_label(label, trusted.configs[0].config.label_policy)


class Watch:
    """The state of a running watch. ``alarms`` are the documents of what was reported."""

    def __init__(
        self, output: Output, client: Client, mine: Mine, hooks: Hooks, proofs: Path, *, from_now: bool
    ) -> None:
        self.alarms: deque[Document] = deque(maxlen=_REMEMBERED)
        self.alarmed = False
        self._output = output
        self._client = client
        self._hooks = Alarms(client, hooks, output.fail)
        self._proofs = proofs
        self._watcher = Watcher(client, mine, self._report, from_now=from_now)
        # By exit code and label, so that no number of failures takes more memory.
        self._failed: dict[tuple[int, str], KtError] = {}
        self._reported: dict[str, str] = {}
        self._checked: set[str] = set()
        # A change that could not be stored as seen is reported again, but its hooks run only once.
        self._reported_changes: deque[bytes] = deque(maxlen=_REMEMBERED)

    def round(self, labels: Sequence[str], stop: threading.Event) -> None:
        """Check all labels up to the latest epoch, in turns: no label keeps another one waiting."""
        for label in labels:
            self._retry(label)
        behind = list(labels)
        while behind and not stop.is_set():
            behind = [label for label in behind if not stop.is_set() and self._look(label)]

    def gravest(self, once: bool) -> KtError | None:
        """Return the gravest alarm, for the end of the watch; with ``once`` also a failure to check."""
        codes = GRAVEST if once else (5, 6, 4)
        found = (error for code in codes for (failed, _), error in self._failed.items() if failed == code)
        return next(found, None)

    def _look(self, label: str) -> bool:
        try:
            turn = self._watcher.look(label)
        except VerificationError as error:
            self._fail_verification(label, error)
        except KtError as error:
            self.fail(label, error, f"cannot look now: {error}")
        except Exception as error:  # noqa: BLE001 (no answer of a server ends an unattended watch)
            problem = KtError(f"internal error, please report it: {type(error).__name__}: {error}")
            self.fail(label, problem, str(problem))
        else:
            self._reported.pop(label, None)
            if not turn.behind and label not in self._checked:
                self._checked.add(label)
                self._output.ok(f"{label}: every epoch up to epoch {turn.epoch} is checked")
            return turn.behind
        return False

    def _retry(self, label: str) -> None:
        """Deliver a waiting alarm again. It counts as an alarm of this watch."""
        try:
            document = self._hooks.retry(label)
        except KtError as error:
            self.fail(label, error, str(error))
            return
        if document is not None and document not in self.alarms:
            self.alarms.append(document)
            alarm = _error(label, document)
            self.alarmed |= alarm.exit_code in (5, 6)
            self.fail(label, alarm, f"told before, but not every hook took it: {document['sentence']}")

    def fail(self, label: str, error: KtError, line: str) -> None:
        self._failed[error.exit_code, label] = error
        self._output.fail(f"{label}: {line}")

    def _fail_verification(self, label: str, error: VerificationError) -> None:
        """Report an answer that does not verify, or a proven contradiction."""
        proven = isinstance(error, EquivocationError)
        self.alarmed |= proven
        self.fail(label, error, str(error))
        evidence = error.evidence if isinstance(error, EquivocationError) else None
        saved = error.saved if isinstance(error, EquivocationError) and evidence is not None else None
        # The next answer describes the same contradiction in other words.
        case = str(error) if evidence is None else sha256(evidence).hex()
        if self._reported.get(label) == case:
            return
        if saved is not None:
            self._output.note(f"  the evidence is in {saved}; `kt verify` confirms it")
        elif evidence is not None:
            self._output.note(
                "  the evidence is in no file yet: save these lines in one, `kt verify` reads them:"
            )
            for line in armored(evidence).splitlines():
                self._output.note(line)
        self._alarm(
            {
                "kind": "contradiction" if proven else "verification-failed",
                "label": label,
                "sentence": str(error),
                "exit_code": error.exit_code,
                "evidence": None if saved is None else str(saved),
            }
        )
        self._reported[label] = case

    def _report(self, change: Change) -> None:
        if change.entry_hash in self._reported_changes:
            return
        number, when = change.entry.version, at(change.timestamp)
        signers = ", ".join(key.id.hex() for key in change.signers)
        since = "still stands in" if change.again else "since"
        line = f"version {number}  {since} epoch {change.epoch}, {when}  signed by {signers}"
        if change.mine:
            self._output.ok(f"{change.label}: {line}: yours")
        else:
            self.alarmed = True
            why = "not yours" if change.authorized else "not yours, and not authorized by the keys before it"
            sentence = f"{line}: {why}"
            self.fail(change.label, _not_yours(change.label, number), sentence)
            document = {**_document(change), "sentence": sentence}
            # The configured hooks may have changed since the first report.
            self._alarm(document if change.again else {**document, "proof": self._saved(change)})
        self._reported_changes.append(change.entry_hash)

    def _alarm(self, document: Document) -> None:
        self.alarms.append(document)
        self._hooks.set_off(document["label"], document)

    def _saved(self, change: Change) -> str | None:
        """Save the signed proof of a foreign version; None if that fails, which does not stop the alarm."""
        try:
            lookup = self._client.lookup(change.label, change.epoch)
            path = self._proofs / f"{lookup.index.hex()[:16]}-epoch-{change.epoch}.proof"
            write_private(path, lookup.proof.encode())
        except EquivocationError as error:
            self._fail_verification(change.label, error)
            return None
        except KtError as error:
            self._output.fail(f"the proof of version {change.entry.version} is not saved: {error}")
            return None
        self._output.note(f"  the signed proof is in {path}; `kt verify` shows it")
        return str(path)


def _error(label: str, document: Document) -> KtError:
    """Return the error of an alarm that an earlier watch reported."""
    if document["kind"] in {"foreign-version", "still-foreign"}:
        return _not_yours(label, document.get("version"))
    if document["kind"] == "contradiction":
        error = EquivocationError("watch", document["sentence"])
        error.saved = Path(document["evidence"]) if document.get("evidence") else None
        return error
    return VerificationError("watch", document["sentence"])


def _not_yours(label: str, number: object) -> WatchAlarmError:
    return WatchAlarmError(
        f"{label}: version {number} is not yours: tell the operator and whoever uses your keys"
    )


def _document(change: Change) -> Document:
    return {
        "kind": "still-foreign" if change.again else "foreign-version",
        "label": change.label,
        "exit_code": WatchAlarmError.exit_code,
        "version": change.entry.version,
        "epoch": change.epoch,
        "timestamp": change.timestamp,
        "entry": change.entry_hash.hex(),
        "signed_by": [key.id.hex() for key in change.signers],
        "authorized_keys": [key.id.hex() for key in change.entry.authorized_keys],
        "authorized": change.authorized,
    }
