"""Heads per hour as an SVG picture inside a page. Its colours come from the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from projections.status.hours import HOUR, Hour

WIDTH, HEIGHT = 720, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 12, 28
_WORDS = 80  # the width that a time of day needs


def heads_picture(hours: Sequence[Hour], promised: int | None) -> str:
    """Return a bar for each hour, and a line at ``promised``, the least number of heads in a whole hour."""
    most = max([hour.heads or 0 for hour in hours] + [promised or 0, 1])
    top = _ceiling(most)
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    slot = width / max(1, len(hours))

    def y_of(heads: float) -> float:
        return _TOP + height * (1 - heads / top)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="heads-title heads-text">',
        '<title id="heads-title">Heads per hour</title>',
        f'<desc id="heads-text">{_spoken(hours)}</desc>',
    ]
    for value in (0, top // 2, top) if top % 2 == 0 else (0, top):
        y = y_of(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="side" x="{_LEFT - 6}" y="{y + 4:.1f}">{value:,}</text>')
    for number, hour in enumerate(hours):
        x = _LEFT + number * slot
        if hour.heads is None:
            parts.append(
                f'<rect class="unknown" x="{x:.1f}" y="{_TOP}" width="{slot:.1f}" height="{height}">'
                f"<title>{_clock(hour.start)}: not known here</title></rect>"
            )
            continue
        y = y_of(hour.heads)
        # A bar of an hour with few heads stays visible.
        tall = max(height + _TOP - y, 1.0 if hour.heads else 0.0)
        parts.append(
            f'<rect class="bar" x="{x + slot * 0.12:.1f}" y="{_TOP + height - tall:.1f}" '
            f'width="{slot * 0.76:.1f}" height="{tall:.1f}">'
            f"<title>{_clock(hour.start)}: {hour.heads:,}</title></rect>"
        )
    for number, hour in enumerate(hours):
        if hour.start // HOUR % 12 == 0:
            x = _LEFT + number * slot
            parts.append(
                f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" '
                f'y1="{_TOP + height}" y2="{_TOP + height + 5}"/>'
            )
            if x < WIDTH - _WORDS:
                words = f'<text x="{x + 3:.1f}" y="{HEIGHT - 8}">{_clock(hour.start)}</text>'
                parts.append(words)
    if promised is not None:
        y = y_of(promised)
        parts.append(f'<line class="promised" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    return "".join([*parts, "</svg>"])


def _ceiling(most: int) -> int:
    """Return the end of the scale: 1, 2, 3, 4, 6 or 8 times a power of ten, not below ``most``."""
    power = 1
    while True:
        for factor in (1, 2, 3, 4, 6, 8):
            if factor * power >= most:
                return factor * power
        power *= 10


def _clock(start: int) -> str:
    return datetime.fromtimestamp(start / 1000, UTC).strftime("%d %b %H:%M")


def _spoken(hours: Sequence[Hour]) -> str:
    known = [hour.heads for hour in hours if hour.heads is not None]
    if not known:
        return "No hour is known."
    return (
        f"{len(known)} hours up to now. The latest one, which is not over, has {known[-1]:,}; "
        f"the fewest are {min(known):,}, the most are {max(known):,}."
    )
