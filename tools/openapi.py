"""Makes the front end's OpenAPI document from the code. ``python -m tools.openapi`` writes it to docs/."""

from __future__ import annotations

import json
from pathlib import Path

from tests.reference.frontends import Front
from tests.reference.signed_streams import SignedStreams

FILE = Path(__file__).parents[1] / "docs/openapi.json"


def document() -> str:
    """Return the document. Its members are sorted, so that the same code gives the same bytes."""
    answer = Front(SignedStreams()).get("/openapi.json")
    return json.dumps(answer.json(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(document())
