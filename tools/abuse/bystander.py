"""Another client. It looks accounts up on one connection, many times a second, and measures the time."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from dataclasses import dataclass, field

from tests import builders as b
from tools.abuse.stage import USERS, Stage

# This address is in another network than the attackers.
SOURCE = "127.9.9.9"
PAUSE = 0.03


@dataclass(slots=True)
class Seen:
    """The seconds of each answered lookup, and the failures of the others."""

    seconds: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def quantile(self, part: float) -> float:
        """Return a quantile of the times, in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000 if ordered else float("inf")


class Bystander:
    """Looks accounts up while its context is active. ``seen`` is complete afterwards."""

    def __init__(self, stage: Stage) -> None:
        self.seen = Seen()
        self._stage = stage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        made = self._connection()
        number = 0
        while not self._stop.wait(PAUSE):
            number += 1
            # Every tenth lookup uses a new connection, because new connections have to work too.
            if number % 10 == 0:
                made.close()
            self._look_up(made, b.label_of(f"user{number % USERS}"))
        made.close()

    def _connection(self) -> http.client.HTTPConnection:
        port, source = self._stage.port, (SOURCE, 0)
        if self._stage.authority is None:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=source)
        trusting = ssl.create_default_context(cafile=self._stage.authority)
        return http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=20, source_address=source, context=trusting
        )

    def _look_up(self, made: http.client.HTTPConnection, label: str) -> None:
        began = time.monotonic()
        try:
            made.request(
                "POST", "/v1/lookup", json.dumps({"label": label}), {"content-type": "application/json"}
            )
            response = made.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            made.close()
            self.seen.refused.append(type(error).__name__)
            return
        if response.status != 200 or not json.loads(body)["profile"]:
            self.seen.refused.append(str(response.status))
            return
        self.seen.seconds.append(time.monotonic() - began)
