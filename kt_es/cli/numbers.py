"""Options that are numbers with a fraction: seconds, and rates."""

from __future__ import annotations

import math
from typing import Any

import click

LARGEST = 1e9
"""Thirty years in seconds: clocks and timers of the system take what is added to that."""


class Number(click.FloatRange):
    """A range of numbers up to a thousand million. ``nan``, which is below and above nothing, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        converted = super().convert(value, param, ctx)
        if isinstance(converted, float):
            if math.isnan(converted):
                self.fail(f"{value!r} is not a number.", param, ctx)
            if converted > LARGEST:
                self.fail(f"{value!r} is more than {LARGEST:.0f}.", param, ctx)
        return converted
