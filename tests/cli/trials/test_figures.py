"""Figures of ``kt bench all``: their table and their picture; and the hashes that an update needs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.cli.trials.alone import necessary_hashes
from kt_es.cli.trials.figures import AKD_PUBLISH, LIMITS, Figure, document, table
from kt_es.cli.trials.picture import PANELS, draw
from kt_es.crypto.hashes import sha256
from kt_es.errors import ConfigError
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable
from kt_es.ledger.tables import FAMILIES
from kt_es.merkle.map import EMPTY_ROOT, Map

SIGNER = Figure(
    "signer",
    "mutations",
    "mutations/s",
    100_000,
    (4_000.0, 5_000.0, 3_000.0),
    {LIMITS["ed25519"]: (20_000.0, 16_000.0, 10_000.0), AKD_PUBLISH: (8_000.0,) * 3},
    1.25,
)


def test_a_line_has_median_spread_load_and_each_limit_with_the_share() -> None:
    _, _, line, more = table([SIGNER])
    words = ["signer", "mutations", "100,000", "4,000", "mutations/s", "3,000", "5,000", "1.2"]
    assert line.split()[: len(words)] == words
    assert line.endswith("Ed25519 alone, all processors 16,000, share 0.25")
    assert more.strip() == "AKD in memory 8,000, share 0.50"
    assert line.index("Ed25519") == more.index("AKD")


def test_the_document_has_every_turn() -> None:
    (found,) = document([SIGNER])["figures"]
    assert found["runs"] == (4_000.0, 5_000.0, 3_000.0)
    assert found["value"] == 4_000.0
    assert found["shares"] == {LIMITS["ed25519"]: 0.25, AKD_PUBLISH: 0.5}
    assert found["load"] == 1.25


def figures(sizes: tuple[int, ...]) -> list[Figure]:
    """Make figures for each panel."""
    return [
        Figure(part, name, "s/s" if panel.is_logarithmic else "MB", size, (float(size), size + 50.0))
        for panel in PANELS
        for part, name in panel.figures
        for size in sizes
    ]


@pytest.mark.parametrize("sizes", [(500,), (2_500, 100_000, 10_000_000)])
def test_axes_lines_and_limits_have_their_words(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, the optional group plot, is not installed")
    picture = tmp_path / "picture.svg"
    drawn = [one for one in figures(sizes) if (one.part, one.name) != ("signer", "mutations")]
    draw([*drawn, SIGNER], picture)
    # Texts are drawn as outlines, and each has its words in a comment.
    words = picture.read_text()
    for panel in PANELS:
        assert f"<!-- {panel.unit} -->" in words
        assert f"<!-- {panel.title} -->" in words
        assert all(f"<!-- {legend} -->" in words for legend, _ in panel.figures.values())
    assert words.count("<!-- entries -->") == len(PANELS)
    assert f"<!-- limit: {LIMITS['ed25519']} -->" in words
    assert f"<!-- {AKD_PUBLISH} -->" in words
    ticks = {500: "500", 2_500: "2.5 k", 100_000: "100 k", 10_000_000: "10 M"}
    assert all(f"<!-- {ticks[size]} -->" in words for size in (*sizes, SIGNER.entries))


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, the optional group plot, is not installed")
    (tmp_path / "picture.png").mkdir()
    with pytest.raises(ConfigError, match=r"picture\.png cannot be written"):
        draw(figures((1_000,)), tmp_path / "picture.png")


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 1 << 30))
def test_the_necessary_hashes_are_the_leaves_and_the_distinct_nodes_above_them(
    entries: int, updates: int, seed: int
) -> None:
    chance = random.Random(seed)
    indices = [sha256(b"%d %d" % (seed, number)) for number in range(entries)]
    store = MemoryStore(FAMILIES)
    tree = Map(PageTable(store))
    root, pages = tree.apply(EMPTY_ROOT, 1, [(index, sha256(index)) for index in indices])
    store.write(PageTable(store).put(1, pages))
    chosen = sorted(chance.sample(indices, min(updates, entries)))
    nodes = {
        format(int.from_bytes(index), "0256b")[:depth]
        for index in chosen
        for depth in range(len(tree.prove(root, index).siblings))
    }
    assert necessary_hashes(tree, root, chosen) * len(chosen) == pytest.approx(len(chosen) + len(nodes))
