"""What an import would do, does, and leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es.errors import MalformedError
from kt_es.formats.entries import ProfileKey
from kt_es.importers.accounts import combined
from kt_es.importers.packets import SIGNATURE, armored, packet_at
from tests.cli.owners.people import CASES, RITA, Kt


def parts_of(data: bytes) -> list[bytes]:
    """The packets of a certificate, each whole."""
    parts, offset = [], 0
    while offset < len(data) and (packet := packet_at(data, offset)) is not None:
        parts.append(data[packet.start : packet.end])
        offset = packet.end
    return parts


class TestImport:
    """A second import adds to an account, or says that it replaces."""

    def write(self, kt: Kt, name: str) -> str:
        path = kt.home / name
        path.write_bytes((CASES / name).read_bytes())
        return str(path)

    def keys(self, kt: Kt) -> list[str]:
        return [key["type"] for key in kt("get", RITA)[1]["keys"]]

    def test_a_second_import_adds(self, kt: Kt) -> None:
        code, document, err = kt("import", "openpgp", self.write(kt, "r1.asc"))
        assert code == 0, err
        code, document, err = kt("import", "ssh", self.write(kt, "r1_signers"))
        assert (code, document["published"], document["extended"], document["replaced"]) == (0, 1, 1, 0)
        assert f"{RITA}: ssh SHA256:" in err
        assert err.index(f"{RITA}: ssh SHA256:") < len(err)
        assert self.keys(kt) == ["openpgp", "ssh"]
        for kind, name in (("openpgp", "r1.asc"), ("ssh", "r1_signers")):
            document = kt("import", kind, str(kt.home / name))[1]
            assert (document["published"], document["unchanged"]) == (0, 1)

    def test_it_replaces_where_it_announces_it(self, kt: Kt) -> None:
        kt("import", "openpgp", self.write(kt, "r1.asc"))
        signers = self.write(kt, "r1_signers")
        code, document, err = kt("import", "--dry-run", "--replace", "ssh", signers)
        assert (code, document["published"]) == (0, 0)
        (planned,) = document["planned"]
        assert (planned["label"], planned["action"]) == (RITA, "replaced")
        assert [key["type"] for key in planned["keys"]] == ["ssh"]
        assert [key["type"] for key in planned["lost"]] == ["openpgp"]
        assert "lose those marked -" in err
        assert self.keys(kt) == ["openpgp"]
        assert kt("import", "--replace", "ssh", signers)[1]["replaced"] == 1
        assert self.keys(kt) == ["ssh"]

    def test_an_old_copy_that_replaces_takes_nothing_back(self, kt: Kt) -> None:
        """A revocation stands in a copy of the certificate: the copy that lacks it is no newer one."""
        whole = next(block.packets or b"" for block in armored((CASES / "r1.asc").read_bytes()))
        packet = packet_at(whole, 0)
        assert packet is not None
        # With one more signature behind its primary key, as a revocation stands there.
        signature = next(part for part in parts_of(whole) if packet_at(part, 0).tag == SIGNATURE)  # type: ignore[union-attr]
        newer, older = kt.home / "newer.gpg", kt.home / "older.gpg"
        newer.write_bytes(whole[: packet.end] + signature + whole[packet.end :])
        older.write_bytes(whole)
        assert kt("import", "openpgp", str(newer))[0] == 0
        before = kt("get", RITA)[1]["keys"]
        code, document, err = kt("import", "--replace", "openpgp", str(older))
        assert (code, document["unchanged"], document["published"]) == (0, 1, 0), err
        assert kt("get", RITA)[1]["keys"] == before

    @pytest.mark.parametrize("option", ["--key", "--add"])
    def test_an_old_copy_that_is_put_takes_nothing_back(self, kt: Kt, option: str) -> None:
        whole = next(block.packets or b"" for block in armored((CASES / "r1.asc").read_bytes()))
        first, *rest = parts_of(whole)
        signature = next(part for part in rest if packet_at(part, 0).tag == SIGNATURE)  # type: ignore[union-attr]
        (kt.home / "newer.gpg").write_bytes(first + signature + b"".join(rest))
        (kt.home / "older.gpg").write_bytes(whole)
        assert kt("put", "--type", "openpgp", "--key", str(kt.home / "newer.gpg"), RITA)[0] == 0
        (before,) = kt("get", RITA)[1]["keys"]
        code, _, err = kt("put", "--type", "openpgp", option, str(kt.home / "older.gpg"), RITA)
        assert code == 0, err
        assert "what only the published copy has stays" in err
        (after,) = kt("get", RITA)[1]["keys"]
        assert {**after, "name": before["name"]} == before

    def test_a_dry_run_lists_accounts_and_skipped_lines(self, kt: Kt) -> None:
        signers = self.write(kt, "r1_signers")
        line = Path(signers).read_text()
        key = line.split(" ", 1)[1].strip()
        added = f'{line}x@example.org valid-before="20200101" {key}\nbob@example.org {key}\nrubbish\n'
        Path(signers).write_text(added)
        code, document, err = kt("import", "--dry-run", "ssh", signers)
        assert code == 0
        assert [(one["label"], one["action"]) for one in document["planned"]] == [
            (RITA, "new"),
            ("bob@example.org", "new"),
        ]
        number = len(line.splitlines())
        assert document["skipped_parts"] == [
            {"what": f"line {number + 1}", "reason": "has expired"},
            {"what": f"line {number + 3}", "reason": "is no SSH public key"},
        ]
        assert f"skipped line {number + 1}: has expired" in err
        assert kt("get", RITA)[1]["absent"]
        kt("import", "ssh", signers)
        again = kt("import", "--dry-run", "ssh", signers)[1]["planned"]
        assert [one["action"] for one in again] == ["unchanged", "unchanged"]

    def test_an_old_copy_takes_no_revocation_back(self) -> None:
        parts = [b"\xc6\x0a\x04" + bytes(4) + b"\x1b" + bytes(4), b"\xc2\x01r", b"\xcd\x01u", b"\xc2\x01s"]
        revoked, old = b"".join(parts), b"".join([parts[0], *parts[2:], b"\xc2\x01t"])
        present = ProfileKey("mine", "openpgp", revoked)
        (both,) = combined([present], [ProfileKey("F", "openpgp", old)])
        assert (both.name, both.data) == ("mine", revoked + b"\xc2\x01t")
        assert combined([both], [present]) == (both,)

    def test_what_does_not_fit_is_refused(self) -> None:
        half = [ProfileKey(name, "raw", name.encode() * (300 * 1024)) for name in "ab"]
        with pytest.raises(MalformedError, match="exceed"):
            combined(half[:1], half[1:])
        many = [ProfileKey(str(number), "raw", b"%d" % number) for number in range(257)]
        with pytest.raises(MalformedError, match="256 keys"):
            combined(many[:1], many[1:])
        assert combined(many[:5], many[:9]) == tuple(many[:9])

    def test_several_certificates_in_one_key_are_left_alone(self) -> None:
        first = b"\xc6\x0a\x04" + bytes(4) + b"\x1b" + bytes(4)
        second = b"\xc6\x0a\x04" + bytes(4) + b"\x1b" + bytes(3) + b"\x01"
        ring = ProfileKey("ring", "openpgp", first + second)
        one = ProfileKey("one", "openpgp", first)
        assert combined([ring], [one]) == (ring, one)
