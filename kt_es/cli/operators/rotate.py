"""``kt signer rotate``: give the directory another signer key, while its signers run.

1. Make a new key beside the old one. A config announces it. The operator copies it to the standbys.
2. A config makes it the signer key. The old and the new key sign that config. Signers find the new key in
   their folder.
3. When the new key has signed a head, move the old key into ``retired``.

The configs and the folder of keys show which step is next. So the command can be repeated after an
interruption.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import click

from kt_es.cli.operators.configuring import Operated, change_options, operated, wait_for
from kt_es.cli.owners.signing import confirm
from kt_es.client.trusted import Pinned
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.errors import ConfigError
from kt_es.formats.configs import MAX_SIGNER_KEYS, Config, SignedConfig
from kt_es.formats.entries import PublicKey
from kt_es.formats.heads import MapHead
from kt_es.process.files import create_file, sync_directory
from kt_es.process.space import unwritable
from signer.changes import following, sign_change
from signer.keys import load_keys

RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class _Keys:
    """The folder of the signer's keys, compared with the chain of configs."""

    folder: Path
    files: dict[Path, PublicKey]
    private: dict[PublicKey, PrivateKey]

    @classmethod
    def load(cls, folder: Path) -> _Keys:
        loaded = load_keys(folder)
        publics = {path: PublicKey(key.algorithm, key.public) for path, key in loaded.items()}
        return cls(folder, publics, {publics[path]: key for path, key in loaded.items()})

    def of(self, public: PublicKey, what: str) -> PrivateKey:
        key = self.private.get(public)
        if key is None:
            raise ConfigError(f"{self.folder} does not have {what} {public.id.hex()}: copy it there")
        return key

    def retired(self, config: Config, chain: tuple[SignedConfig, ...]) -> list[Path]:
        """Return the files of former signer keys that ``config`` does not name any more."""
        former = {signed.config.signer_key for signed in chain} - set(config.signer_keys)
        return [path for path, public in self.files.items() if public in former]

    def unused(self, chain: tuple[SignedConfig, ...]) -> list[PublicKey]:
        """Return keys that no config has named. An interrupted rotation or a person has left them."""
        named = {key for signed in chain for key in signed.config.signer_keys}
        return [public for public in dict.fromkeys(self.files.values()) if public not in named]

    def path_of(self, public: PublicKey) -> Path:
        return next(path for path, key in self.files.items() if key == public)


@click.command("rotate")
@click.option(
    "--announce",
    is_flag=True,
    help="Only make and announce the new key, so that it can be copied to the other signers first.",
)
@click.option("--retire", is_flag=True, help="Only put away keys that sign no more, on a standby's machine.")
@change_options
@click.pass_context
def rotate_command(
    context: click.Context,
    announce: bool,
    retire: bool,
    log: str | None,
    data: Path | None,
    timeout: float | None,
    yes: bool,
    patience: float,
) -> None:
    """Give the directory a new signer key: make and announce it, sign with it, and put the old one away.

    With signers on several machines: rotate --announce, copy the new key to all of them, and rotate; last,
    rotate --retire on the other machines. After an interruption run it again: it does what is still missing.
    Users who know the old key stay with the directory.
    """
    if announce and retire:
        raise click.UsageError("give either --announce or --retire")
    above = {} if context.parent is None else context.parent.params
    with operated(context, log or above.get("log"), data or above.get("data"), patience) as it:
        folder = it.settings.path(it.settings.signer.keys)
        chain = it.changes.chain()
        before, keys = chain[-1].config, _Keys.load(folder)
        if retire or keys.retired(before, chain):
            _finish(it, keys, chain, wait_for(it, before, timeout, before))
            return
        keys.of(before.signer_key, "the signer key in force")
        before, new, head = _announced(it, keys, timeout, yes)
        if announce:
            it.output.note(f"  copy {_Keys.load(folder).path_of(new)} to the keys of every signer")
            it.output.note("  then run `kt signer rotate`")
            _print(it, head, new, [])
            return
        _change_over(it, _Keys.load(folder), before, new, timeout, yes)


def _announced(
    it: Operated, keys: _Keys, timeout: float | None, yes: bool
) -> tuple[Config, PublicKey, MapHead]:
    """Announce a new key. Return the config that announces it, the key, and a head under that config."""
    chain = it.changes.chain()
    before = chain[-1].config
    for public in before.signer_keys[1:]:
        if public in keys.private:
            it.output.note(f"  {public.id.hex()} is announced already: {keys.path_of(public)}")
            return before, public, wait_for(it, before, timeout, before)
    if len(before.signer_keys) == MAX_SIGNER_KEYS:
        raise ConfigError(
            f"the config has {MAX_SIGNER_KEYS} signer keys already, and none but the first is here: copy an "
            f"announced key to {keys.folder}"
        )
    unused = keys.unused(chain)
    if len(unused) > 1:
        files = ", ".join(str(keys.path_of(public)) for public in unused)
        raise ConfigError(f"several keys could be the next signer key: {files}; leave one of them there")
    new = unused[0] if unused else _make_key(it, keys.folder)
    config = following(before, signer_keys=(*before.signer_keys, new))
    signer = before.signer_key.id.hex()
    it.output.note(f"  the announcement of the signer key {new.id.hex()}, signed by {signer}:")
    it.output.note(f"    = signer key {signer}")
    it.output.note(f"    + announced key {new.id.hex()}")
    confirm(yes)
    it.changes.submit(sign_change(config, [keys.private[before.signer_key]]))
    head = wait_for(it, config, timeout, before)
    it.output.ok(f"announced: epoch {head.epoch} names the new key")
    return config, new, head


def _make_key(it: Operated, folder: Path) -> PublicKey:
    """Make a new key in ``folder``. It is durable before any config names it."""
    key = PrivateKey.from_seed(ED25519, os.urandom(32))
    public = PublicKey(key.algorithm, key.public)
    path = folder / f"signer-{public.id.hex()}.pem"
    try:
        create_file(path, key.to_pem())
    except OSError as error:
        raise unwritable(path, error) from None
    it.output.ok(f"made {path}; keep a copy: without it the directory is frozen once it signs")
    return public


def _change_over(
    it: Operated, keys: _Keys, before: Config, new: PublicKey, timeout: float | None, yes: bool
) -> None:
    old = before.signer_key
    others = tuple(key for key in before.signer_keys if key not in (old, new))
    config = following(before, signer_keys=(new, *others))
    it.output.note(f"  the change to the signer key {new.id.hex()}, signed by {old.id.hex()} and by itself:")
    it.output.note(f"    - signer key {old.id.hex()}")
    it.output.note(f"    + signer key {new.id.hex()}")
    confirm(yes)
    it.changes.submit(sign_change(config, [keys.of(old, "the signer key"), keys.of(new, "the new key")]))
    head = wait_for(it, config, timeout, before)
    _finish(it, keys, it.changes.chain(), head)


def _finish(it: Operated, keys: _Keys, chain: tuple[SignedConfig, ...], head: MapHead) -> None:
    """Move former signer keys into ``retired``. The present one has signed ``head``."""
    config = chain[-1].config
    keys.of(config.signer_key, "the signer key in force")
    moved = []
    for path in keys.retired(config, chain):
        target = path.parent / RETIRED / path.name
        try:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            # Several keys may have had this name, one after the other.
            while os.path.lexists(target):
                target = target.with_name(f"former-{target.name}")
            path.rename(target)
            sync_directory(target.parent)
            sync_directory(path.parent)
        except OSError as error:
            problem = f"{path} cannot be moved to {target.parent}: {error.strerror}"
            raise ConfigError(f"{problem}; mend that, and run kt signer rotate again") from None
        it.output.ok(f"put away the old key: {target}")
        moved.append(str(target))
    it.output.ok(f"the signer key is {config.signer_key.id.hex()}: it has signed epoch {head.epoch}")
    _print(it, head, config.signer_key, moved)


def _print(it: Operated, head: MapHead, key: PublicKey, moved: list[str]) -> None:
    config = it.changes.chain()[-1].config
    vkey = Pinned(config.origin, key).vkey
    document = {
        "origin": config.origin,
        "signer_key": config.signer_key.id.hex(),
        "announced": [announced.id.hex() for announced in config.signer_keys[1:]],
        "key": vkey,
        "epoch": head.epoch,
        "retired": moved,
    }
    it.output.data(document, [vkey])
