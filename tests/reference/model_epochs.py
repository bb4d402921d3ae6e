"""The decision in its plainest form: the steps of docs/DESIGN.md, section 4, and nothing else.

Values are what a person would say: a change is a dict with ``user``, ``version``, ``previous`` (what it
says it follows: another change's ``name`` or None), ``keys`` and ``signers`` (names of keys), ``name``
(its identity, in which signers have no part) and ``directory``; a marker has ``signer``, ``time`` and
``directory``; a config has ``name``, ``follows``, ``key`` (its first signer key), ``signers`` and
``fixed`` (what no config may change); an erasure has ``user``, ``signer`` and ``directory``. Everything
that is broken has ``broken`` and its verdict's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Thing = dict[str, Any]


@dataclass
class Directory:
    """One directory, epoch by epoch. ``decide`` takes one item after the other."""

    name: str
    config: Thing
    map: dict[str, Thing] = field(default_factory=dict)
    epoch: int = 0
    last_time: int = 0
    taken: dict[str, Thing] = field(default_factory=dict)
    coming_config: Thing | None = None

    def decide(self, kind: str, thing: Thing) -> str:
        # 1. not decodable, too large, unknown event type
        if kind == "broken":
            return str(thing["broken"])
        # 2. a marker, a config
        if kind == "marker":
            return self._marker(thing)
        if kind == "config":
            return self._config(thing)
        if kind == "erasure":
            return self._erasure(thing)
        return self._change(thing)

    def _erasure(self, erasure: Thing) -> str:
        now = self.map.get(erasure["user"])
        may = now is not None and erasure["signer"] in (*now["keys"], self.config["key"])
        return "erased" if may and erasure["directory"] == self.name else "foreign-erasure"

    def _marker(self, marker: Thing) -> str:
        if marker["signer"] != self.config["key"] or marker["directory"] != self.name:
            return "foreign-marker"
        if marker["time"] <= self.last_time:
            return "stale-marker"
        self.map.update(self.taken)
        self.taken = {}
        self.config = self.coming_config or self.config
        self.coming_config = None
        self.last_time = marker["time"]
        self.epoch += 1
        return "epoch"

    def _config(self, config: Thing) -> str:
        before = self.coming_config or self.config
        if config["follows"] != before["name"] or config["fixed"] != before["fixed"]:
            return "foreign-config"
        if before["key"] not in config["signers"] or config["key"] not in config["signers"]:
            return "foreign-config"
        self.coming_config = config
        return "config"

    def _change(self, change: Thing) -> str:
        now = self.map.get(change["user"])
        # 3. the entry equals the current one
        if now is not None and now["name"] == change["name"]:
            return "replay"
        # 4. version and previous
        wanted = (1, None) if now is None else (now["version"] + 1, now["name"])
        if (change["version"], change["previous"]) != wanted:
            return "stale"
        # 5. one signature by a new key, one by a current key, and none by anybody else
        old = set() if now is None else set(now["keys"])
        new, signers = set(change["keys"]), set(change["signers"])
        if change["directory"] != self.name or not signers <= old | new:
            return "unauthorized"
        if not signers & new or (now is not None and not signers & old):
            return "unauthorized"
        # 6. already accepted in this epoch
        earlier = self.taken.get(change["user"])
        if earlier is not None:
            return "duplicate" if earlier["name"] == change["name"] else "conflict"
        # 7.
        self.taken[change["user"]] = change
        return "accepted"
