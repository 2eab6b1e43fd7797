"""What restic 0.14's words mean. They were seen with folders, versitygw, and SFTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from backup_job.places import Places
from backup_job.restic import _meaning

LOCATION = "Is there a repository at the following location?"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["Fatal: wrong password or no key found"], "wrong-key"),
        (["Fatal: unable to open config file: stat /store/u/config: no such file or directory", LOCATION], "missing"),
        (["Fatal: unable to open config file: Stat: The specified key does not exist.", LOCATION], "missing"),
        (["Fatal: unable to open config file: Lstat: file does not exist", LOCATION], "missing"),
        (
            [
                "Fatal: unable to open config file: Stat: The request signature we calculated does not match the "
                "signature you provided. Check your key and signing method.",
                LOCATION,
            ],
            "store-refused",
        ),
        (["Fatal: unable to open config file: Stat: Access Denied.", LOCATION], "store-refused"),
        (["Fatal: unable to open config file: Stat: 418 I'm a teapot", LOCATION], "restic-failed"),
        (
            [
                "Fatal: unable to open config file: Stat: Get: dial tcp 127.0.0.1:1: connect: connection refused",
                LOCATION,
            ],
            "store-unreachable",
        ),
        (["Fatal: unable to create lock in backend: repository is already locked by PID 1 on x by root"], "locked"),
        (["Save(<data/ab>) failed: write /store/u/data/ab: no space left on device"], "store-full"),
        (["Fatal: write /tmp/restic-temp-pack-1: no space left on device"], "disk-full"),
        (["Fatal: write /world/.gameserver/restore-1/new/x: no space left on device"], "disk-full"),
        (["Fatal: restore: mkdir /proc/self/fd/5/world/a: file name too long"], "path-too-long"),
        (["Fatal: packs from index missing in repo"], "repository-damaged"),
        (["Fatal: repository contains errors"], "repository-damaged"),
        (
            ["Fatal: config or key 12ab is damaged: ciphertext verification failed"],
            "repository-damaged",
        ),
        (['Ignoring "0123": no matching ID found for prefix "0123"'], "snapshot-missing"),
        ([], "restic-failed"),
    ],
)
def test_restics_words(words: list[str], code: str) -> None:
    """Only what says that there is no repository makes one be made."""
    assert _meaning(words, Places(Path("/"))) == ("repository-missing" if code == "missing" else code)
