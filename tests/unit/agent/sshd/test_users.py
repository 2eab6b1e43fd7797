"""The files with sshd's users and keys, and when sessions have to end."""

from __future__ import annotations

import pytest

from disk_agent.objects import Account
from disk_agent.sshd import users

HASH = "$6$salt$hash"
BOTH = Account("7", HASH, ("ssh-ed25519 A", "ssh-ed25519 B"))
NONE = Account("8", None, ())


def test_all_users_share_the_games_uid() -> None:
    assert users.passwd([BOTH, NONE], 1000, 1001) == (
        "server-7:x:1000:1001::/files:/usr/sbin/nologin\nserver-8:x:1000:1001::/files:/usr/sbin/nologin\n"
    )
    assert users.group(1001) == "game:x:1001:\n"


def test_an_account_without_a_password_accepts_keys_only() -> None:
    assert users.shadow([BOTH, NONE], frozenset()) == f"server-7:{HASH}:::::::\nserver-8:*:::::::\n"


def test_a_slowed_server_accepts_no_password() -> None:
    assert users.shadow([BOTH], frozenset({"7"})) == "server-7:*:::::::\n"


def test_keys_are_restricted() -> None:
    assert users.authorized_keys(BOTH) == "restrict ssh-ed25519 A\nrestrict ssh-ed25519 B\n"


@pytest.mark.parametrize(
    ("after", "removed"),
    [
        (BOTH, False),
        (Account("7", HASH, (*BOTH.keys, "ssh-ed25519 C")), False),
        (Account("7", HASH, BOTH.keys[:1]), True),
        (Account("7", "$6$salt$other", BOTH.keys), True),
        (Account("7", None, BOTH.keys), True),
    ],
)
def test_only_a_removed_credential_ends_sessions(after: Account, removed: bool) -> None:
    assert users.credential_removed(BOTH, after) is removed


def test_a_first_password_ends_no_session() -> None:
    assert not users.credential_removed(NONE, Account("8", HASH, ()))
