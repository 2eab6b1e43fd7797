"""What both kinds of accounts for files do: the API's own tests' fake, and Secrets of a Kubernetes in memory.

That Secrets and agents do to a real cluster what they should is in tests/cluster/files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from service.errors import FileAccessNotInstalled
from service.files.accounts import Account, SecretAccounts
from service.kube.client import path
from service.operations.interfaces import Accounts
from service.settings import Settings
from tests.support.fakes import FINGERPRINT, FakeAccounts
from tests.support.memory_kube import MemoryKube

NAMESPACE = "gameserver-sftp"
KEY = "ssh-ed25519 AAAA"


@dataclass
class Files:
    """The edge, and what only an operator can do: uninstall the chart, and with it the rights that it gives."""

    accounts: Accounts
    uninstall: Callable[[], None]


@pytest.fixture(params=["fake", "real"])
def files(request: pytest.FixtureRequest) -> Files:
    """Each test that asks for these runs against both kinds."""
    if request.param == "fake":
        fake = FakeAccounts()
        return Files(fake, lambda: setattr(fake, "installed", False))
    kube = MemoryKube()
    kube.objects[path("apps/v1", NAMESPACE, "daemonsets")] = {"items": [{}]}
    kube.objects[path("v1", NAMESPACE, "configmaps", "sftp-host-key")] = {"data": {"fingerprints": f"{FINGERPRINT}\n"}}

    def refuse(method: str, path: str) -> None:
        raise FileAccessNotInstalled

    return Files(
        SecretAccounts(replace(Settings(), sftp_namespace=NAMESPACE), kube), lambda: setattr(kube, "before", refuse)
    )


def test_without_an_account_there_are_no_credentials(files: Files) -> None:
    """That is how a server begins."""
    assert files.accounts.account(1) == Account()


def test_a_change_is_read_again(files: Files) -> None:
    """It starts from what is there, and gives what it has written."""
    both = Account("$7$hash", (KEY,))
    assert files.accounts.change(1, lambda _: both) == both
    less = files.accounts.change(1, lambda account: replace(account, password_hash=None))
    assert less == files.accounts.account(1) == Account(None, (KEY,))


def test_a_change_of_nothing_gives_what_is_there(files: Files) -> None:
    """With an account and without one."""
    assert files.accounts.change(1, lambda account: account) == Account()
    both = files.accounts.change(1, lambda _: Account("$7$hash", (KEY,)))
    assert files.accounts.change(1, lambda account: account) == both


def test_each_server_has_its_own(files: Files) -> None:
    """What is changed or removed of one is not of another."""
    files.accounts.change(1, lambda _: Account("$7$one"))
    files.accounts.change(11, lambda _: Account("$7$eleven"))
    files.accounts.remove(1)
    assert (files.accounts.account(1), files.accounts.account(11)) == (Account(), Account("$7$eleven"))


def test_removing_twice_is_removing_once(files: Files) -> None:
    """A server that never had one is no error either."""
    files.accounts.remove(1)
    files.accounts.change(1, lambda _: Account("$7$hash"))
    files.accounts.remove(1)
    files.accounts.remove(1)
    assert files.accounts.account(1) == Account()


def test_the_host_keys_are_those_that_the_chart_publishes(files: Files) -> None:
    """As fingerprints."""
    assert files.accounts.host_keys() == [FINGERPRINT]


def test_a_disk_without_a_volume_may_still_become_a_nodes_own(files: Files) -> None:
    """It is not refused for what it is not yet."""
    assert files.accounts.node_local({"spec": {}})


def test_without_the_chart_all_say_so_but_remove(files: Files) -> None:
    """A delete of a server goes through where nobody installed access to files."""
    files.accounts.change(1, lambda _: Account("$7$hash"))
    files.uninstall()
    for call in (
        files.accounts.host_keys,
        lambda: files.accounts.account(1),
        lambda: files.accounts.change(1, lambda account: account),
        lambda: files.accounts.node_local({"spec": {"volumeName": "volume"}}),
    ):
        with pytest.raises(FileAccessNotInstalled):
            call()
    files.accounts.remove(1)
