"""Options by which a monitor takes part among others: it compares, asks who vouches, and cosigns."""

from __future__ import annotations

from pathlib import Path

import click

from kt_es.cli.options import NEW_FOLDER, Number, also_option, options, policy_options
from kt_es.config.settings import Settings
from kt_es.errors import ConfigError
from projections.cosigning.monitoring import CosignerSettings

cosigner_options = options(
    click.option(
        "--cosigner",
        type=NEW_FOLDER,
        help="Cosign what was verified, with the key in this folder; default as in kt.toml.",
    ),
    click.option(
        "--cosigner-name", metavar="NAME", help="Key name of a new cosigner, such as monitor.example.org."
    ),
    click.option(
        "--cosigner-interval",
        type=Number(0.1, 86_400),
        metavar="SECONDS",
        help="Time between two cosignatures; default as in kt.toml, 60.",
    ),
    click.option(
        "--publish",
        metavar="URL",
        multiple=True,
        help="Hand cosigned checkpoints to this front end; default as in kt.toml. May be repeated.",
    ),
)
"""Whether and how a monitor cosigns: ``cosigner_of`` reads them."""

monitor_options = options(
    also_option,
    click.option(
        "--webhook",
        "webhooks",
        metavar="URL",
        multiple=True,
        help="Post evidence to URL until it is accepted; default as in kt.toml. May be given several times.",
    ),
    policy_options,
    cosigner_options,
)
"""What connects a monitor with others."""


def cosigner_of(
    settings: Settings,
    cosigner: Path | None,
    cosigner_name: str | None,
    cosigner_interval: float | None,
    publish: tuple[str, ...],
) -> CosignerSettings | None:
    """Return how the monitor cosigns, None if it does not. Raises ``ConfigError``."""
    table = settings.monitor
    folder = cosigner or (table.cosigner and settings.path(table.cosigner))
    if folder is None:
        if cosigner_name or cosigner_interval or publish:
            raise ConfigError("--publish and options of the cosigner need --cosigner: the folder of its key")
        return None
    return CosignerSettings(
        folder,
        cosigner_name or table.cosigner_name,
        cosigner_interval or table.cosigner_interval,
        publish or table.publish,
    )
