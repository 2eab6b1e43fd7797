"""The files in which sshd finds its users and their keys, as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from disk_agent.objects import Account

# shadow(5): no password has this hash. A leading "!" would close the account for keys too.
NO_PASSWORD = "*"  # noqa: S105


def passwd(accounts: Iterable[Account], uid: int, gid: int) -> str:
    """One user a server. All share the game's uid, so that the game can use what they upload.

    No login shell is ever started: sshd runs internal-sftp in its own process.
    """
    return "".join(f"server-{account.server}:x:{uid}:{gid}::/files:/usr/sbin/nologin\n" for account in accounts)


def group(gid: int) -> str:
    """The game's group, without members."""
    return f"game:x:{gid}:\n"


def shadow(accounts: Iterable[Account], slowed: frozenset[str]) -> str:
    """Password hashes. A server in slowed takes no password for now: somebody has been guessing."""
    return "".join(
        f"server-{account.server}:"
        f"{NO_PASSWORD if account.server in slowed else account.password_hash or NO_PASSWORD}:::::::\n"
        for account in accounts
    )


def authorized_keys(account: Account) -> str:
    """The account's keys, each `restrict`ed once more than sshd's own settings do."""
    return "".join(f"restrict {key}\n" for key in account.keys)


def something_taken(before: Account, after: Account) -> bool:
    """Whether a credential that worked before works no longer; then the sessions that used it must end."""
    password_taken = before.password_hash is not None and before.password_hash != after.password_hash
    return password_taken or not set(before.keys) <= set(after.keys)
