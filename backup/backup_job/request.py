"""The request of a Job, strictly read: a key that a command does not know, or a value of another form, is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from backup_job.errors import JobFailed
from backup_job.places import Places

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SNAPSHOT = re.compile(r"[0-9a-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[?[0-9A-Fa-f:]{2,45}\]?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]{0,260}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FOLDER = re.compile(r"[A-Za-z0-9_.+-]+(?:/[A-Za-z0-9_.+-]+)*")
_REGION = re.compile(r"[A-Za-z0-9-]{1,63}")
#: The repository that names all others. No server's.
CATALOGUE = "catalogue"
_TREES = ("/world", "/source")
_BESIDES = ("beside", "scratch")
_PATHS_MOST = 100
_NAMES_MOST = 1000


@dataclass(frozen=True)
class Store:
    """Where the operator keeps backups.

    Attributes:
        kind: `s3`, `sftp` or `folder`.
        endpoint, bucket, prefix, region: of an S3 store; `endpoint` as in `https://s3.example.com`.
        host, port, user, path: of an SFTP store; `path` without a leading slash is below the user's home.
    """

    kind: str
    endpoint: str = ""
    bucket: str = ""
    prefix: str = ""
    region: str = ""
    host: str = ""
    port: int = 22
    user: str = ""
    path: str = ""


@dataclass(frozen=True)
class Request:
    """What a command is to do. What a command does not use has its default.

    Attributes:
        command: Its word, as in `lay-out`.
        store: The store.
        api: The address of the API, as in `http://api.gameserver-system.svc`.
        uid: The server's uid: the name of its repository.
        about: What the catalogue says of the server: id, customer, game.
        backup: The backup's id.
        settings: The values of the server's release.
        source: Where the tree to read is: `/world` or `/source`; empty for a backup in the store.
        first_pass: Whether a second pass follows, so that this snapshot is forgotten later.
        snapshot, snapshots: restic's ids, of 64 characters.
        backups: Backups, by their ids, whose snapshots nobody knows: those of Jobs that were killed.
        erase: Whether all that the store has of the server goes.
        paths: Which files and folders; all if empty. Relative, without `..`.
        absent: Whether paths that the backup does not have go: an undo brings back that they were not there.
        operation, before, operations: Operations, by their ids.
        to: Where a world is laid out: `beside` or `scratch`.
        origin: From where it is placed (`from` in the request): `beside` or `scratch`.
        places: Where things are in the pod.
    """

    command: str
    store: Store | None = None
    api: str = ""
    uid: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    backup: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    first_pass: bool = False
    snapshot: str = ""
    snapshots: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()
    erase: bool = False
    paths: tuple[str, ...] = ()
    absent: bool = False
    operation: str = ""
    before: str = ""
    operations: tuple[str, ...] = ()
    to: str = ""
    origin: str = ""
    places: Places = field(default_factory=Places)

    def tree(self) -> PurePosixPath:
        """The folder that `source` names."""
        return PurePosixPath(self.places.source if self.source == "/source" else self.places.world)


def parse(command: str, text: str, places: Places) -> Request:
    """The request for a command.

    Raises:
        JobFailed: `bad-request`: the command is unknown, or the request is not one for it.
    """
    if command not in _COMMANDS:
        raise _bad(f"there is no command {command[:40]!r}")
    required, optional = _COMMANDS[command]
    try:
        values = json.loads(text)
    except ValueError:
        raise _bad("it is not JSON") from None
    if not isinstance(values, dict):
        raise _bad("it is not a JSON object")
    if missing := required - values.keys():
        raise _bad(f"{command} needs {', '.join(sorted(missing))}")
    if unknown := values.keys() - required - optional:
        raise _bad(f"{command} does not know {', '.join(sorted(unknown))[:200]}")
    read: dict[str, Any] = {_FIELDS.get(str(key), str(key)): _READERS[key](key, value) for key, value in values.items()}
    if read.get("uid") == CATALOGUE:
        raise _bad("uid must be a server's")
    in_store = {"store", "uid", "snapshot"} <= values.keys()
    if command in ("lay-out", "inspect") and not in_store and "source" not in values:
        raise _bad(f"{command} needs a source, or store, uid and snapshot")
    return Request(command=command, places=places, **read)


def _bad(why: str) -> JobFailed:
    return JobFailed("bad-request", f"The request cannot be read: {why}.")


def _text(pattern: re.Pattern[str]) -> Callable[[str, Any], str]:
    def read(key: str, value: Any) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _bad(f"{key} has not the form it must have")
        return value

    return read


def _one_of(*words: str) -> Callable[[str, Any], str]:
    def read(key: str, value: Any) -> str:
        if value not in words:
            raise _bad(f"{key} must be one of {', '.join(words)}")
        return str(value)

    return read


def _list(one: Callable[[str, Any], str], most: int) -> Callable[[str, Any], tuple[str, ...]]:
    def read(key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise _bad(f"{key} must be a list of at most {most}")
        return tuple(one(key, item) for item in value)

    return read


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _bad(f"{key} must be true or false")
    return value


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad(f"{key} must be an object")
    return value


def _path(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value or len(value.encode(errors="surrogatepass")) > 4096:
        raise _bad(f"{key} must be paths")
    parts = value.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _bad(f"{key} must be relative paths, without . and ..")
    if parts[0] == ".gameserver":
        raise _bad(f"{key} must not be in the product's own folder")
    return value


def _port(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise _bad(f"{key} must be a port")
    return value


def _folder(key: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 500:
        raise _bad(f"{key} must be a path")
    if value and (not _FOLDER.fullmatch(value.removeprefix("/")) or ".." in value.split("/")):
        raise _bad(f"{key} must be a path of letters, digits and ._+-")
    return value


_STORES: dict[str, dict[str, Callable[[str, Any], Any]]] = {
    "s3": {
        "endpoint": _text(_ENDPOINT),
        "bucket": _text(_BUCKET),
        "prefix": _folder,
        "region": _text(_REGION),
    },
    "sftp": {"host": _text(_HOST), "port": _port, "user": _text(_USER), "path": _folder},
    "folder": {},
}
#: What a store may leave out.
_STORE_DEFAULTS = {"prefix", "region", "port"}


def _store(key: str, value: Any) -> Store:
    if not isinstance(value, dict) or value.get("kind") not in _STORES:
        raise _bad(f"{key} must be of kind s3, sftp or folder")
    readers = _STORES[value["kind"]]
    given = {name: item for name, item in value.items() if name != "kind" and item not in ("", None)}
    if missing := readers.keys() - _STORE_DEFAULTS - given.keys():
        raise _bad(f"{key} needs {', '.join(sorted(missing))}")
    if unknown := given.keys() - readers.keys():
        raise _bad(f"{key} does not know {', '.join(sorted(unknown))[:200]}")
    return Store(kind=value["kind"], **{name: readers[name](f"{key}.{name}", item) for name, item in given.items()})


_name = _text(_NAME)
_id = _text(_SNAPSHOT)

_READERS: dict[str, Callable[[str, Any], Any]] = {
    "store": _store,
    "api": _text(_ENDPOINT),
    "uid": _name,
    "about": _mapping,
    "backup": _name,
    "settings": _mapping,
    "source": _one_of(*_TREES),
    "first_pass": _flag,
    "snapshot": _id,
    "snapshots": _list(_id, _NAMES_MOST),
    "backups": _list(_name, _NAMES_MOST),
    "erase": _flag,
    "paths": _list(_path, _PATHS_MOST),
    "absent": _flag,
    "operation": _name,
    "before": _name,
    "operations": _list(_name, _NAMES_MOST),
    "to": _one_of(*_BESIDES),
    "from": _one_of(*_BESIDES),
}
#: Fields whose name in the request is a word of Python.
_FIELDS = {"from": "origin"}

_WHICH = frozenset({"store", "uid"})
#: What each command must be told, and what it may be told.
_COMMANDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "catalogue": (frozenset({"store"}), frozenset()),
    "init": (_WHICH | {"about"}, frozenset()),
    "backup": (_WHICH | {"backup", "settings", "source"}, frozenset({"first_pass"})),
    "forget": (_WHICH | {"snapshots"}, frozenset({"backups", "erase"})),
    "settings": (_WHICH | {"snapshot"}, frozenset()),
    "recover": (frozenset({"store", "api"}), frozenset()),
    "inspect": (frozenset(), frozenset({"store", "uid", "snapshot", "source", "paths"})),
    "lay-out": (
        frozenset({"operation", "to"}),
        frozenset({"store", "uid", "snapshot", "source", "paths", "absent"}),
    ),
    "place": (
        frozenset({"operation", "from"}),
        frozenset({"store", "uid", "snapshot", "source", "paths", "absent"}),
    ),
    "undo": (frozenset({"operation", "before"}), frozenset()),
    "clean": (frozenset({"operations"}), frozenset()),
    "prove": (_WHICH | {"snapshot"}, frozenset()),
}
