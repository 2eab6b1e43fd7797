"""The program of a backup's Job, run as its pod runs it, with the volumes in folders below one root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backup_job.places import Places
from local.paths import ROOT

#: root without the rights that let it read whatever its modes are: as a game's user with its own files.
AS_GAME = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


@dataclass
class Pod:
    """A pod's volumes, for one Job after another.

    Attributes:
        root: The folder that stands for `/`.
        store: The store of each request.
        secrets: What must not be seen in an argument or a variable.
    """

    root: Path
    store: Mapping[str, Any] = field(default_factory=lambda: {"kind": "folder"})
    secrets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in ("world", "source", "scratch", "cache", "tmp", "dev", "run/gameserver/store", "store"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.key("the server's own key")
        self.recovery("the operator's recovery key")

    @property
    def places(self) -> Places:
        """Where things are."""
        return Places(self.root)

    @property
    def world(self) -> Path:
        """The server's disk."""
        return self.places.world

    def copy_store(self, store: Path) -> None:
        """Have what another folder store has."""
        shutil.copytree(store, self.places.repositories, dirs_exist_ok=True)

    def key(self, password: str) -> None:
        """Give the Job another key of the server."""
        self._secret(self.places.password, password)

    def recovery(self, password: str) -> None:
        """Give the Job another recovery key."""
        self._secret(self.places.recovery, password)

    def credentials(self, files: Mapping[str, str]) -> None:
        """Give the Job the store's credentials."""
        for name, content in files.items():
            self._secret(self.places.store / name, content)

    def _secret(self, file: Path, content: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o600)
        self.secrets.append(content.strip())

    def start(self, command: str, request: Mapping[str, Any], by: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a command. Its process leads a group, which ends with it as a container does.

        Args:
            command: The command's word.
            request: Its request, without the store.
            by: A command that runs it, such as AS_GAME.
        """
        self.places.request.parent.mkdir(parents=True, exist_ok=True)
        needs_store = command not in ("place", "undo", "clean") and "store" not in request
        text = json.dumps({**({"store": dict(self.store)} if needs_store else {}), **request})
        self.places.request.write_text(text)
        self.places.termination.unlink(missing_ok=True)
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(
                [*by, sys.executable, "-m", "backup_job", command, "--root", str(self.root)],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "backup"), "PYTHONUTF8": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def answer(self, process: subprocess.Popen[bytes], seconds: float = 300) -> dict[str, Any]:
        """What a command says at its end."""
        process.wait(seconds)
        answer: dict[str, Any] = json.loads(self.places.termination.read_text())
        assert process.returncode == (0 if answer["ok"] else 1), self.log()
        return answer

    def run(self, command: str, request: Mapping[str, Any], by: Sequence[str] = ()) -> dict[str, Any]:
        """Run a command; its answer."""
        return self.answer(self.start(command, request, by))

    def done(self, command: str, request: Mapping[str, Any], by: Sequence[str] = ()) -> dict[str, Any]:
        """The answer of a command that does what it is to do."""
        answer = self.run(command, request, by)
        assert answer.pop("ok"), f"{answer}\n{self.log()}"
        return answer

    def log(self) -> str:
        """What the commands have written."""
        return (self.root / "log").read_text(errors="replace")

    def restic(self, *arguments: str, name: str = "server-uid", key: Path | None = None) -> str:
        """What restic itself says of a repository in a folder store."""
        return subprocess.run(
            ["restic", "--no-cache", "-r", str(self.places.repositories / name)]
            + ["--password-file", str(key or self.places.password), *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
