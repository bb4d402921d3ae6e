"""The node's README names files, tests and constants that are there."""

from __future__ import annotations

import re
from pathlib import Path

import kt_es.node

NODE = Path(kt_es.node.__file__).parent
ROOT = NODE.parent.parent
README = (NODE / "README.md").read_text()


def test_every_file_that_it_names_is_there() -> None:
    files = set(re.findall(r"`([\w/]+(?:\.py|/))`", README)) | set(re.findall(r"tests/node/\w+\.py", README))
    assert len(files) > 20
    assert [name for name in sorted(files) if not (any(NODE.rglob(name)) or (ROOT / name).exists())] == []


def test_every_limit_stands_in_the_file_that_it_names() -> None:
    limits = README.partition("## Limits")[2].partition("## Tests")[0]
    rows = re.findall(r"^\| (`[A-Z].*?): .* \| (.*) \|$", limits, re.MULTILINE)
    assert len(rows) == 7
    for names, files in rows:
        code = "".join((NODE / file).read_text() for file in re.findall(r"`(\S+)`", files))
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^{name} = ", code, re.MULTILINE), name
