"""Runs restic 0.14: the one place that knows its arguments, its output and its complaints.

Secrets are files; arguments and environment name their paths alone.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backup_job.errors import JobFailed
from backup_job.places import Places
from backup_job.request import Store

#: Seconds until a store that does not answer at all is given up. In these restic reads the repository's index too.
FIRST_CONTACT = 120.0
#: Seconds until one is given up that fails from the beginning, which is so early.
_AWAY = 15.0
_EARLY = 40.0
#: Seconds of failing requests in a row until a store is given up. restic itself would go on for 15 minutes.
PATIENCE = 120.0
#: restic waits at most 60 s between two tries; after more than this without a complaint the store is back.
_BACK = 90.0
#: Seconds for which a command is tried again while another one holds the lock. restic 0.14 has no `--retry-lock`.
LOCKED = 60.0
_LOCKED_PAUSE = 1.0
#: Seconds that restic has to remove its lock when it is ended. The pod has ten in all.
_TIDY = 7.0
_UNREADABLE_MOST = 10
#: The store answers, and a file of it is shorter than it was. A store that dies leaves other words at the next try.
_CUT_SHORT = re.compile(
    r"Load\(<data/\w+>, \d+, \d+\) .*: (?:ReadFull: )?(?:unexpected )?EOF$|range is not satisfiable"
)
_RETRY = re.compile(r"returned error, retrying after")
_log = logging.getLogger("backup_job")

#: What restic's complaints mean, in this order: the first that matches counts. Only the store's own words are here;
#: a customer's names come with JSON messages, which are read apart.
_MEANINGS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("wrong-key", re.compile(r"wrong password or no key found|an empty password is not")),
    ("locked", re.compile(r"repository is already locked|unable to create lock in backend: .*already locked")),
    (
        "store-full",
        re.compile(
            r"no space left on device|disk quota exceeded|StorageFull|InsufficientStorage|QuotaExceeded|EntityTooLarge"
            r"|Insufficient Storage|write error: no space|not enough space",
            re.IGNORECASE,
        ),
    ),
    (
        "store-refused",
        re.compile(
            r"Access ?Denied|access ?key|signature|Permission denied \(|Host key verification failed"
            r"|No ED25519 host key|AuthorizationHeaderMalformed|403 Forbidden|UNPROTECTED PRIVATE KEY|Load key"
            r"|certificate|: permission denied",
            re.IGNORECASE,
        ),
    ),
    (
        "store-unreachable",
        re.compile(
            r"connection refused|no such host|i/o timeout|network is unreachable|no route to host|server misbehaving"
            r"|connection reset|timed out|context deadline exceeded|unable to start the sftp session|could not resolve"
            r"|service ?unavailable|slow ?down|bad gateway|internal ?error|connection closed|broken pipe"
            r"|ssh: |subprocess ssh exited|unexpected EOF|: EOF\b|TLS handshake|transport endpoint|stale file handle"
            r"|input/output error",
            re.IGNORECASE,
        ),
    ),
    (
        "snapshot-missing",
        re.compile(r"no matching ID found|no snapshots? (?:found|matched)|could not find snap"),
    ),
    (
        "repository-missing",
        # Only what says so: a store that refuses its credentials has no repository to show either.
        re.compile(r"unable to open config file: .*(?:no such file or directory|does not exist)"),
    ),
    ("path-too-long", re.compile(r": file name too long$", re.MULTILINE)),
    (
        "repository-damaged",
        re.compile(
            r"ciphertext verification failed|does not match|not found in (?:index|repository)|invalid data returned"
            r"|contains errors|damaged|missing (?:from the repository|in repo)"
            r"|hash mismatch|load(?:ing)? .*index|unexpected pack|pack .* does not exist"
            r"|wrong (?:length|hash|data)|no such file or directory|key does not exist|unsupported repository version"
            r"|is too short|truncated|invalid (?:header|length)|failed to load|not contained in|decrypt",
            re.IGNORECASE,
        ),
    ),
)

_SENTENCES = {
    "wrong-key": "The key does not open the repository.",
    "locked": "Another command holds the repository's lock.",
    "disk-full": "A disk of the Job is full.",
    "store-full": "The store is full.",
    "store-refused": "The store refuses the operator's credentials.",
    "store-unreachable": "The store does not answer.",
    "snapshot-missing": "There is no such snapshot in the repository.",
    "repository-missing": "There is no repository in the store.",
    "path-too-long": "A path in the backup is too long to be restored. Other paths can be restored by their names.",
    "repository-damaged": "The repository is damaged.",
    "restic-failed": "restic failed; the Job's log has its words.",
}


@dataclass(frozen=True)
class Repository:
    """A repository, and what restic needs to reach it.

    Attributes:
        location: As restic writes it, as in `s3:https://host/bucket/uid`.
        password: The file of the password that opens it.
        options: restic's global options for its store.
        environment: Paths of files with credentials.
        places: Where things are in the pod.
    """

    location: str
    password: Path
    options: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    places: Places


@dataclass
class Finished:
    """What a run of restic left.

    Attributes:
        status: Its exit code.
        output: The lines of its standard output, without those that `each` took.
        unreadable: How many files and folders could not be read.
        paths: Up to ten of them, as restic names them.
    """

    status: int = 0
    output: list[str] = field(default_factory=list)
    unreadable: int = 0
    paths: list[str] = field(default_factory=list)

    def json(self) -> Any:
        """The output as one JSON value; None if it is empty."""
        text = "\n".join(self.output)
        return json.loads(text) if text.strip() else None


def repository(store: Store, name: str, places: Places, password: Path | None = None) -> Repository:
    """The repository `name` (a server's uid) of a store, opened with the server's key or with `password`."""
    key = password or places.password
    credentials = places.store
    if store.kind == "s3":
        folder = "/".join(part for part in (store.bucket, store.prefix.strip("/"), name) if part)
        options: list[str] = []
        if store.region:
            options += ["-o", f"s3.region={store.region}"]
        if (credentials / "ca.crt").exists():
            options += ["--cacert", str(credentials / "ca.crt")]
        environment = (("AWS_SHARED_CREDENTIALS_FILE", str(credentials / "credentials")),)
        return Repository(f"s3:{store.endpoint}/{folder}", key, tuple(options), environment, places)
    if store.kind == "sftp":
        # The command names host and user, so the location's host is a mere word.
        location = f"sftp:store:{store.path.rstrip('/')}/{name}"
        return Repository(location, key, ("-o", f"sftp.command={_ssh(store, credentials)}"), (), places)
    return Repository(str(places.repositories / name), key, (), (), places)


def _ssh(store: Store, credentials: Path) -> str:
    settings = [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={credentials / 'known_hosts'}",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=4",
    ]
    options = " ".join(f"-o {setting}" for setting in settings)
    host = store.host.strip("[]")
    return f"ssh -F none -p {store.port} -l {store.user} -i {credentials / 'id_ed25519'} {options} {host} -s sftp"


def run(
    repository: Repository,
    *arguments: str,
    folder: Path | None = None,
    opened: int | None = None,
    each: Callable[[str], None] | None = None,
    accepted: Sequence[int] = (0,),
    limit: float | None = None,
) -> Finished:
    """Run one command of restic, with JSON as its output.

    A lock that is in its way is waited for, and removed if it is a dead command's: restic knows that of one of this
    host whose process is gone, and of one that nobody renewed for 30 minutes.

    Args:
        repository: Which repository.
        arguments: restic's command and its arguments.
        folder: The folder that it runs in.
        opened: A folder that is open in it too: `/proc/self/fd/<number>` is a path to it that nobody can change.
        each: Is given each line of the output; otherwise they are kept, so they have to be few.
        accepted: Exit codes that are no failure. 3 says that a backup could not read everything.
        limit: Seconds after which it is ended, as `store-unreachable`, if it has had no output by then.

    Raises:
        JobFailed: It ended with another code.
    """
    until = time.monotonic() + LOCKED
    while True:
        try:
            return _run(repository, arguments, folder, opened, each, accepted, limit)
        except JobFailed as failed:
            if failed.code != "locked" or time.monotonic() > until:
                raise
        _run(repository, ("unlock",), None, None, None, (0,), limit)
        time.sleep(_LOCKED_PAUSE)


def _run(
    repository: Repository,
    arguments: Sequence[str],
    folder: Path | None,
    opened: int | None,
    each: Callable[[str], None] | None,
    accepted: Sequence[int],
    limit: float | None,
) -> Finished:
    places = repository.places
    command = ["restic", "--json", "--repo", repository.location, "--password-file", str(repository.password)]
    command += ["--cache-dir", str(places.cache)] if places.cache.is_dir() else ["--no-cache"]
    command += [*repository.options, *arguments]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(places.temporary),
        "TMPDIR": str(places.temporary),
        "LANG": "C.UTF-8",
        # A line of progress every ten seconds.
        "RESTIC_PROGRESS_FPS": "0.1",
        **dict(repository.environment),
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=() if opened is None else (opened,),
        # Names in what it says may be of any bytes.
        encoding="utf-8",
        errors="backslashreplace",
    )
    finished = Finished()
    complaints = _Complaints(process, finished, places)
    timer = threading.Timer(limit, complaints.give_up, ["store-unreachable"]) if limit else None
    assert process.stdout is not None
    try:
        complaints.start()
        if timer:
            timer.start()
        for line in process.stdout:
            if timer:
                timer.cancel()
            if each:
                each(line)
            else:
                finished.output.append(line.rstrip("\n"))
        finished.status = process.wait()
        complaints.join()
    finally:
        if timer:
            timer.cancel()
        _end(process)
        process.stdout.close()
    if complaints.given_up or finished.status not in accepted:
        raise complaints.failure()
    return finished


class _Complaints(threading.Thread):
    """Reads restic's standard error: files that it could not read, tries that failed, and why it ended."""

    def __init__(self, process: subprocess.Popen[str], finished: Finished, places: Places) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._finished = finished
        self._places = places
        self._began = time.monotonic()
        self._lines: deque[str] = deque(maxlen=40)
        self._named: set[str] = set()
        self._failing_since = self._failed_at = 0.0
        self.given_up = ""

    def run(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                if line.startswith("{") and self._read_message(line):
                    continue
                self._lines.append(line.rstrip("\n")[:1000])
                _log.info("restic: %s", line.rstrip("\n")[:1000])
                if _RETRY.search(line):
                    self._retried(line)

    def _read_message(self, line: str) -> bool:
        try:
            message = json.loads(line)
        except ValueError:
            return False
        # `scan` counts what `archival` then reads; it complains of the same folders.
        if message.get("message_type") == "error" and message.get("during") != "scan":
            self._unreadable(str(message.get("item", "")))
        return True

    def _unreadable(self, path: str) -> None:
        self._finished.unreadable += 1
        if len(self._finished.paths) < _UNREADABLE_MOST:
            self._finished.paths.append(path)

    def _retried(self, line: str) -> None:
        now = time.monotonic()
        if now - self._failed_at > _BACK:
            self._failing_since = now
        self._failed_at = now
        meaning = _meaning([line], self._places)
        # These do not get better by trying again.
        if meaning in ("store-full", "disk-full", "store-refused"):
            self.give_up(meaning)
        elif now - self._failing_since > (_AWAY if self._failing_since - self._began < _EARLY else PATIENCE):
            damaged = _CUT_SHORT.search(line) is not None
            reason = meaning if meaning != "restic-failed" else "store-unreachable"
            self.give_up("repository-damaged" if damaged else reason)

    def give_up(self, code: str) -> None:
        """End restic, for this reason."""
        self.given_up = self.given_up or code
        _end(self._process)

    def failure(self) -> JobFailed:
        """Why it failed."""
        code = self.given_up or _meaning(self._lines, self._places)
        return JobFailed(code, _SENTENCES[code])


def _meaning(lines: Sequence[str] | deque[str], places: Places) -> str:
    text = "\n".join(lines)
    # A folder that is passed on to restic is open in it.
    disks = (places.temporary, places.cache, places.world, places.scratch, "/proc/self/fd")
    ours = "|".join(re.escape(str(disk)) for disk in disks)
    if re.search(rf"(?<!\S)(?:{ours})/[^:]*: (?:no space left on device|disk quota exceeded)", text):
        return "disk-full"
    return next((code for code, pattern in _MEANINGS if pattern.search(text)), "restic-failed")


def _end(process: subprocess.Popen[str]) -> None:
    """End restic: on SIGINT it removes its lock; it has a few seconds for that."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_TIDY)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Snapshot:
    """A snapshot in a repository.

    Attributes:
        id: restic's id, of 64 characters.
        time: When it was made, as restic writes it (RFC 3339).
        tags: Such as `backup=b-…`.
        host: The server's uid.
    """

    id: str
    time: str
    tags: tuple[str, ...]
    host: str


def snapshots(repository: Repository, *filters: str) -> list[Snapshot]:
    """The repository's snapshots, the oldest first. To be asked first of a store: one that is away is soon given up.

    Without a lock: it reads a list, and what is removed meanwhile is of no harm to it.
    """
    arguments = ("snapshots", "--no-lock", *filters)
    listed = run(repository, *arguments, limit=FIRST_CONTACT).json() or []
    read = [
        Snapshot(item["id"], item["time"], tuple(item.get("tags") or ()), item.get("hostname", "")) for item in listed
    ]
    return sorted(read, key=lambda snapshot: snapshot.time)


@dataclass(frozen=True)
class Node:
    """A file or folder in a snapshot.

    Attributes:
        path: From the world's folder, as `as_listed` has it; `.` is the world's folder itself.
        kind: `file`, `dir`, `symlink`, `fifo`, `socket`, `dev` or `chardev`.
        size: Bytes, of a file.
        mode: Permissions, without the special ones.
    """

    path: str
    kind: str
    size: int
    mode: int = 0


def listing(repository: Repository, snapshot: str, each: Callable[[Node], None]) -> None:
    """Give `each` what of the world is in a snapshot, a folder before what is in it.

    Raises:
        JobFailed: `snapshot-missing`, or what a store or a repository can have.
    """
    found = False

    def read(line: str) -> None:
        nonlocal found
        value = json.loads(line)
        if value.get("struct_type") == "snapshot":
            found = True
            return
        # `/world` or `/source`: the disk was mounted there when it was read; `/tmp` has our own files.
        _, top, *rest = value["path"].split("/")
        if top in TREES:
            each(Node("/".join(rest) or ".", value["type"], value.get("size", 0), value["mode"] & 0o777))

    run(repository, "ls", snapshot, each=read, limit=FIRST_CONTACT)
    # `restic ls` of an unknown snapshot says so, and ends with 0.
    if not found:
        raise JobFailed("snapshot-missing", _SENTENCES["snapshot-missing"])


#: The folders that a backup reads the world from: the first one of its paths in a snapshot.
TREES = ("world", "source")


def as_listed(path: str) -> str:
    """A path of a disk (with surrogates for bytes that are not UTF-8) as restic's JSON has it.

    Go's encoder writes U+FFFD for each such byte, so two names can become one: compare how often each occurs.
    """
    return "".join("\ufffd" if "\udc80" <= letter <= "\udcff" else letter for letter in path)
