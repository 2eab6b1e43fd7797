"""The files in which sshd looks up its users and their keys, as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from disk_agent.objects import Account

# shadow(5): no password has this hash. A leading "!" would close the account for keys too.
NO_PASSWORD = "*"  # noqa: S105


def passwd(accounts: Iterable[Account], uid: int, gid: int) -> str:
    """passwd(5), with one user per server. All have the game's uid, so that the game can use what they upload.

    No login shell is ever started: sshd runs internal-sftp in its own process.
    """
    return "".join(f"server-{account.server}:x:{uid}:{gid}::/files:/usr/sbin/nologin\n" for account in accounts)


def group(gid: int) -> str:
    """group(5), with the game's group and no members."""
    return f"game:x:{gid}:\n"


def shadow(accounts: Iterable[Account], slowed: frozenset[str]) -> str:
    """shadow(5), with the password hashes. The servers in `slowed` accept no password for now."""
    return "".join(
        f"server-{account.server}:"
        f"{NO_PASSWORD if account.server in slowed else account.password_hash or NO_PASSWORD}:::::::\n"
        for account in accounts
    )


def authorized_keys(account: Account) -> str:
    """The account's keys, each marked `restrict` in addition to sshd's own settings."""
    return "".join(f"restrict {key}\n" for key in account.keys)


def credential_removed(before: Account, after: Account) -> bool:
    """Whether a credential of `before` no longer works in `after`; if so, the sessions that used it must end."""
    password_removed = before.password_hash is not None and before.password_hash != after.password_hash
    return password_removed or not set(before.keys) <= set(after.keys)
