"""``kt cosign``: ask witnesses to cosign the logs of a directory, or print what their operators need."""

from __future__ import annotations

import math
import ssl
from contextlib import closing
from pathlib import Path
from typing import Any

import certifi
import click

from kt_es.api.codec import decode_model
from kt_es.api.models import DirectoryBody
from kt_es.api.operations import DIRECTORY
from kt_es.cli.operators.processes import metrics_at
from kt_es.cli.options import Number, ca_option, data_option, log_option, metrics_option
from kt_es.cli.output import (
    Output,
    configure_logs,
    logs_of,
    output_of,
    running_up,
    settings_of,
    stop_on_signals,
)
from kt_es.client.transport import Transport
from kt_es.config.cosign import cosigners_of
from kt_es.config.settings import FILE_NAME, Settings
from kt_es.errors import ConfigError, VerificationError
from kt_es.formats.configs import verify_chain
from kt_es.formats.heads import heads_origin, mutations_origin
from kt_es.formats.notes import verifier_key
from kt_es.formats.proofs import decode_configs
from projections.cosigning.service import AskedWitness, CosignSettings, serve

DAY = 86_400
PATIENCE = 10.0


@click.command("cosign")
@log_option
@data_option
@metrics_option
@click.option("--server", help="URL of the front end that gives the proofs; default as in kt.toml.")
@click.option(
    "--policy",
    type=click.Path(path_type=Path, dir_okay=False),
    help="C2SP tlog-policy file with the witnesses, their keys and URLs; default as in kt.toml.",
)
@click.option(
    "--interval",
    type=Number(0.1, DAY),
    metavar="SECONDS",
    help="Time between two rounds; default as in kt.toml, 60.",
)
@ca_option
@click.option("--describe", is_flag=True, help="Print the lines that operators of witnesses need, and end.")
@click.pass_context
def cosign_command(
    context: click.Context,
    log: str | None,
    data: Path | None,
    metrics: str | None,
    server: str | None,
    policy: Path | None,
    interval: float | None,
    ca: Path | None,
    describe: bool,
) -> None:
    """Ask the witnesses of [cosign] in kt.toml to cosign both logs, at an interval, until stopped.

    What verifies is published for the front ends, which serve it at /v1/cosigned. With --describe it prints
    both logs as a C2SP tlog-list: the keys, how often witnesses are asked, and the contact.
    """

    def read() -> CosignSettings:
        settings = settings_of(context, log)
        table = settings.cosign
        return CosignSettings(
            settings.names,
            settings.log,
            _server_of(settings, server),
            data or settings.path(table.data),
            _witnesses(policy or (table.policy and settings.path(table.policy))),
            interval or table.interval,
            metrics_at(metrics or table.metrics),
            _ca_of(settings, ca),
        )

    settings = settings_of(context, log)
    verify = _trust(_ca_of(settings, ca))
    if describe:
        _describe(
            output_of(context),
            settings,
            Transport(_server_of(settings, server), verify=verify),
            interval or settings.cosign.interval,
        )
        return
    configure_logs("cosign", logs_of(context))
    serve(read(), verify, stop_on_signals(), read)


def _server_of(settings: Settings, given: str | None) -> str:
    scheme = "http" if settings.frontend.tls_cert is None else "https"
    default = f"{scheme}://{settings.frontend.listen}"
    return given or settings.cosign.server or str(running_up(settings.base).get("url") or default)


def _ca_of(settings: Settings, given: Path | None) -> Path | None:
    named = settings.cosign.ca
    return given or (named and settings.path(named))


def _witnesses(path: Path | None) -> tuple[AskedWitness, ...]:
    if path is None:
        raise ConfigError(
            "no witness is known: name a policy file with --policy, or as `policy` of [cosign] in kt.toml"
        )
    found = []
    for cosigner, key in cosigners_of(path):
        if cosigner.url is None:
            raise ConfigError(
                f"policy {path}: the witness {cosigner.name} has no URL; add its submission prefix"
            )
        found.append(AskedWitness(cosigner.name, key, cosigner.url))
    if not found:
        raise ConfigError(f"policy {path} has no witness; add a line 'witness NAME VKEY URL'")
    return tuple(found)


def _trust(ca: Path | None) -> ssl.SSLContext:
    """Return whom to trust for TLS: the usual authorities and ``ca``."""
    context = ssl.create_default_context(cafile=certifi.where())
    if ca is not None:
        try:
            context.load_verify_locations(cafile=str(ca))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"certificate {ca} cannot be used: {error}; name a PEM file with --ca, or as `ca` of [cosign]"
            ) from None
    return context


def _describe(output: Output, settings: Settings, frontend: Transport, interval: float) -> None:
    """Print both logs with the signer key in force.

    Raises ``ConfigError`` without a contact, and ``VerificationError`` for a foreign directory.
    """
    contact = settings.cosign.contact
    if not contact:
        raise ConfigError(
            "operators of witnesses need somebody to write to: add a line such as "
            f'contact = "ops (at) example.org" to [cosign] of {settings.base / FILE_NAME}'
        )
    with closing(frontend):
        answer = frontend.get(DIRECTORY.path, frontend.deadline(PATIENCE))
    chain = decode_configs(decode_model(DirectoryBody, answer.body).configs)
    configs = verify_chain(settings.origin, chain)
    if settings.pinned not in [config.signer_key for config in configs]:
        raise VerificationError(
            "config", f"{frontend.base_url} serves a directory of another key than kt.toml's"
        )
    key, *announced = [each.raw for each in configs[-1].signer_keys]
    rate = math.ceil(DAY / interval)
    logs: list[dict[str, Any]] = [
        {
            "vkey": verifier_key(origin, key).encode(),
            "origin": origin,
            "requests_per_day": rate,
            "contact": contact,
            "announced": [verifier_key(origin, each).encode() for each in announced],
        }
        for origin in (heads_origin(settings.origin), mutations_origin(settings.origin))
    ]
    lines = ["logs/v0"]
    for log in logs:
        lines += ["", f"# origin {log['origin']}"]
        lines += [f"# after the next rotation: vkey {vkey}" for vkey in log["announced"]]
        lines += [f"vkey {log['vkey']}", f"qpd {rate}", f"contact {contact}"]
    output.data({"logs": logs}, lines)
