"""``--policy`` and ``--monitors``: whose cosignatures a command needs, and who has vouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kt_es.cli.output import Output, at
from kt_es.client.client import Client
from kt_es.client.vouching import Policies, Voucher, read_policy
from kt_es.errors import ConfigError


def read_policies(policy: Path | None, monitors: Path | None, age: float) -> Policies:
    """Return the policies in these files. Raises ``ConfigError``, which names the file and the line."""
    context = click.get_current_context(silent=True)
    if policy is None and monitors is None and context is not None:
        if context.get_parameter_source("policy_age") is ParameterSource.COMMANDLINE:
            raise ConfigError(
                "--policy-age is about a policy, and there is none: give --policy or --monitors as well, or "
                "leave it out"
            )
        return Policies(age=age)
    witnesses, others = (None if path is None else read_policy(path) for path in (policy, monitors))
    return Policies(witnesses, others, age)


def show_vouched(output: Output, client: Client) -> dict[str, Any]:
    """Print who vouched for the last answer of ``client``, and return the members for ``--json``."""
    vouched = client.vouching.last
    if vouched is None:
        return {}
    for quorum in vouched.quorums:
        names = [_voucher(one) for one in vouched.vouchers if one.kind == quorum.kind]
        if not quorum.epoch:
            output.note(
                f"  the policy of {quorum.kind} needs nobody; vouched: {', '.join(names) or 'nobody'}"
            )
            continue
        output.ok(
            f"{quorum.kind}: quorum {quorum.name} vouches up to epoch {quorum.epoch}: {', '.join(names)}"
        )
        if quorum.epoch < vouched.epoch:
            newer = (vouched.timestamp - quorum.timestamp) / 1000
            output.note(
                f"  epoch {vouched.epoch} is {newer:.0f} s newer: the same log, and no quorum of "
                f"{quorum.kind} vouches for it yet"
            )
    return {
        "vouched": {
            "epoch": vouched.epoch,
            "quorums": [
                {"kind": one.kind, "quorum": one.name, "epoch": one.epoch, "timestamp": one.timestamp}
                for one in vouched.quorums
            ],
            "vouchers": [
                {"kind": one.kind, "name": one.name, "epoch": one.epoch, "time": one.time}
                for one in vouched.vouchers
            ],
        }
    }


def _voucher(one: Voucher) -> str:
    return f"{one.name} (epoch {one.epoch}, {at(one.time * 1000)})"
