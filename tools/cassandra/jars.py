"""Java, and the jars of Cassandra: fetched once with Maven, and kept between runs."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.cassandra.errors import CassandraError, NotInstalledError

ROOT = Path(__file__).parents[2]
POM = Path(__file__).with_name("pom.xml")
FETCH_SECONDS = 600
JARS_VARIABLE = "KT_CASSANDRA_JARS"
"""Environment variable with the directory of the jars. Its default is below ``.cache`` of the repository."""

INSTALLED = Path("/usr/lib/jvm")

JAVA_VERSIONS = (11, 17)
"""The major versions of Java that Cassandra 5.0 supports."""

_VERSION = re.compile(r"<artifactId>cassandra-all</artifactId>\s*<version>([^<]+)</version>")
# What Maven says, with the reason, where no repository answers, now or at an attempt that it remembers.
_UNREACHED = re.compile(r"could not transfer|failed to transfer|offline mode", re.IGNORECASE)
_JAVA_VERSION = re.compile(r'version "(\d+)')


def version() -> str:
    """Return the version of Cassandra that ``pom.xml`` names."""
    found = _VERSION.search(POM.read_text())
    if found is None:
        raise CassandraError(f"{POM} names no version of cassandra-all")
    return found[1]


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its program and its major version."""

    path: Path
    version: int


def find_java() -> Java:
    """Return the first supported Java.

    ``JAVA_HOME`` comes first, then ``PATH``, then what is installed in ``/usr/lib/jvm``.

    Raises:
        NotInstalledError: There is no supported Java.
    """
    others: list[str] = []
    for java in _candidates():
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        found = _JAVA_VERSION.search(done.stderr)
        if done.returncode == 0 and found is not None:
            if int(found[1]) in JAVA_VERSIONS:
                return Java(java, int(found[1]))
            others.append(f"{java} is Java {found[1]}")
    reason = "; ".join(others) or "no Java was found"
    raise NotInstalledError(
        f"Cassandra {version()} needs Java 11 or 17, but {reason}: install it (on Debian: apt-get install "
        f"openjdk-17-jre-headless) or set JAVA_HOME"
    )


def _candidates() -> Iterator[Path]:
    home, on_path = os.environ.get("JAVA_HOME"), shutil.which("java")
    candidates = [Path(home) / "bin" / "java"] if home else []
    candidates += [Path(on_path)] if on_path else []
    candidates += sorted(INSTALLED.glob("*/bin/java"))
    return (java for java in candidates if os.access(java, os.X_OK))


def jars() -> Path:
    """Return the directory with the jars of Cassandra. The first call on a machine fetches them.

    Processes that call this function at the same time fetch the jars once. A directory under the final name
    is complete.

    Raises:
        NotInstalledError: The jars have to be fetched, and Maven is not installed or reaches no repository.
        CassandraError: Maven failed in another way.
    """
    named = os.environ.get(JARS_VARIABLE)
    target = Path(named).absolute() if named else ROOT / ".cache" / f"cassandra-{version()}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as folder:
                new = Path(folder) / "jars"
                _fetch(new)
                new.rename(target)
    return target


def _fetch(into: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NotInstalledError(
            f"the jars of Cassandra {version()} are fetched with Maven, but there is no mvn: install Maven "
            f"(on Debian: apt-get install maven) or set {JARS_VARIABLE} to a directory that has the jars"
        )
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={into}"]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NotInstalledError(
            f"Maven did not fetch Cassandra {version()} within {FETCH_SECONDS} s: try again, or set "
            f"{JARS_VARIABLE} to a directory that has the jars"
        ) from None
    if done.returncode != 0 or not into.is_dir():
        is_away = _UNREACHED.search(done.stdout) is not None
        raise (NotInstalledError if is_away else CassandraError)(
            f"Maven could not fetch Cassandra {version()} (exit code {done.returncode}); "
            f"it said:\n{done.stdout.strip()[-2000:]}"
        )
