"""``kt put --add``, ``--remove`` and ``kt revoke`` change some of what stands."""

from __future__ import annotations

import pytest

from tests import builders as b
from tests.cli.owners.people import ALICE, KEY, LAPTOP, PHONE, STRANGER, Kt, client_of, follow, ids, standing
from tests.reference.directory import Directory


class TestEdit:
    """``kt put --add`` and ``--remove``."""

    def keys(self, directory: Directory) -> dict[str, bytes]:
        found = client_of(directory).lookup(ALICE).profile
        return {key.name: key.data for key in found or ()}

    def test_added_keys_stand_beside_the_published_ones(self, kt: Kt, directory: Directory) -> None:
        code, document, err = kt("put", "--add", str(kt.file), ALICE)
        assert code == 0, err
        assert self.keys(directory) == {"laptop": b"alice 1", "new.raw": b"new"}
        assert document["signed"]["keys"] == {"added": ["new.raw"], "kept": ["laptop"], "removed": []}
        assert "= key raw laptop, 7 bytes" in err

    def test_a_namesake_is_replaced(self, kt: Kt, directory: Directory) -> None:
        kt("put", "--add", str(kt.file), ALICE)
        kt.file.write_bytes(b"newer")
        assert kt("put", "--add", str(kt.file), "--remove", "laptop", ALICE)[0] == 0
        assert self.keys(directory) == {"new.raw": b"newer"}
        assert standing(directory).entry.version == 3

    def test_repeated_it_signs_nothing(self, kt: Kt, directory: Directory) -> None:
        for _ in range(2):
            code, document, err = kt("put", "--add", str(kt.file), "--remove", "laptop", ALICE)
            assert code == 0, err
        assert document["signed"] is None
        assert document["stands"]
        assert "version 2 of alice@example.org is like that already" in err
        assert standing(directory).entry.version == 2

    def test_a_name_that_never_was_published_is_refused(self, kt: Kt, directory: Directory) -> None:
        code, document, err = kt("put", "--remove", "laptob", ALICE)
        assert code == 1
        assert "has no key called laptob; its keys are called: laptop" in err
        assert document["error"]["kind"] == "failure"
        assert standing(directory).entry.version == 1

    def test_a_new_account_can_be_begun_by_adding(self, kt: Kt, directory: Directory) -> None:
        assert kt("put", "--add", str(kt.file), "bob@example.org")[0] == 0
        assert standing(directory, "bob").entry.version == 1

    @pytest.mark.parametrize(
        "words",
        [
            ("--key", "FILE", "--remove", "laptop"),
            ("--add", "FILE", "--remove", "new.raw"),
            ("--yes", "--key="),
        ],
    )
    def test_wrong_usage(self, kt: Kt, words: tuple[str, ...], directory: Directory) -> None:
        code, _, _ = kt("put", *(str(kt.file) if word == "FILE" else word for word in words), ALICE)
        assert code == 2
        assert standing(directory).entry.version == 1


class TestRevoke:
    def test_a_lost_key_goes_and_everything_else_stays(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        code, document, err = kt("revoke", ALICE, *ids(PHONE))
        assert code == 0, err
        assert standing(directory).entry.authorized_keys == (b.public(KEY),)
        assert document["signed"]["authorized_keys"] == {"added": [], "kept": ids(KEY), "removed": ids(PHONE)}
        assert document["signed"]["keys"]["removed"] == document["signed"]["keys"]["added"] == []
        assert f"- authorized to sign the next version: {ids(PHONE)[0]}" in err

    def test_the_revoked_key_signs_no_version_where_another_one_can(
        self, kt: Kt, directory: Directory
    ) -> None:
        kt.keys.add("phone", PHONE)
        follow(directory, KEY, PHONE)
        _, document, _ = kt("revoke", ALICE, "default")
        assert document["signed"]["signed_by"] == ids(PHONE)
        assert standing(directory).entry.authorized_keys == (b.public(PHONE),)

    def test_repeated_it_signs_nothing(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        for _ in range(2):
            code, document, _ = kt("revoke", ALICE, *ids(PHONE))
            assert code == 0
        assert document["signed"] is None
        assert standing(directory).entry.version == 3

    def test_the_only_key_needs_a_replacement(self, kt: Kt, directory: Directory) -> None:
        code, _, err = kt("revoke", ALICE, "default")
        assert code == 1
        assert "--replace-with NAME" in err
        kt.keys.add("laptop", LAPTOP)
        code, _, err = kt("revoke", ALICE, "default", "--replace-with", "laptop")
        assert code == 0, err
        assert standing(directory).entry.authorized_keys == (b.public(LAPTOP),)

    def test_a_replacement_comes_beside_the_keys_that_stay(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        kt.keys.add("laptop", LAPTOP)
        code, _, err = kt("revoke", ALICE, "default", "--replace-with", "laptop")
        assert code == 0, err
        assert standing(directory).entry.authorized_keys == (b.public(PHONE), b.public(LAPTOP))
        code, _, err = kt("revoke", ALICE, "default", "--replace-with", "laptop")
        assert "is like that already" in err

    def test_a_stranger_that_stays_is_not_vouched_for(self, kt: Kt, directory: Directory) -> None:
        follow(directory, KEY, PHONE)
        follow(directory, KEY, PHONE, STRANGER, signed_by=PHONE)
        code, _, err = kt("revoke", ALICE, *ids(PHONE))
        assert code == 1
        assert ids(STRANGER)[0] in err
        assert standing(directory).entry.version == 3
        assert kt("revoke", ALICE, *ids(PHONE, STRANGER))[0] == 0
        assert standing(directory).entry.authorized_keys == (b.public(KEY),)

    def test_a_key_that_never_was_is_refused(self, kt: Kt, directory: Directory) -> None:
        code, _, err = kt("revoke", ALICE, *ids(STRANGER))
        assert code == 1
        assert f"{ids(STRANGER)[0]} never was an authorized key" in err
        assert kt("revoke", ALICE, "nonsense")[0] == 2
        assert kt("revoke", b.label_of("bob"), *ids(KEY))[0] == 1
