"""Parses the lines that sshd and its sessions log, and turns them into fields for the agent's log. Pure."""

from __future__ import annotations

import codecs
import re

from disk_agent.logs import Fields

_HEADER = re.compile(
    r"<\d+>(?:\w{3} +\d+ [\d:]{8} )?(?:\S+? )?(?P<program>[\w-]+)\[(?P<pid>\d+)\]: (?P<text>.*)", re.DOTALL
)
_CONNECTION = re.compile(r"Connection from (?P<client>\S+) port \d+ on .*")
_LOGIN = re.compile(
    r"(?P<outcome>Accepted|Failed) (?P<method>password|publickey|none) for (?P<unknown>invalid user )?(?P<user>\S*) "
    r"from (?P<client>\S+) port (?P<port>\d+)(?: ssh2)?(?:: (?P<key>.+))?"
)
_TOO_MANY = re.compile(
    r"(?:error: )?maximum authentication attempts exceeded for (?:invalid user )?(?P<user>\S*) "
    r"from (?P<client>\S+) port \d+ .*"
)
# Lines to drop. OpenSSH logs them at its level VERBOSE, which we need only for clients' addresses and refused keys.
_DROPPED = re.compile(
    r"(?:Postponed|Accepted key|Changed root directory|Starting session|Close session|Closing connection|Transferred"
    r"|User child is on pid|drop connection|Received disconnect from \S+ port \d+:11: ).*",
    re.DOTALL,
)
# User and client in any other line, if it has them.
_USER = re.compile(r"(?:^|[ :])(?:authenticating |invalid )?user (?P<user>\S+)")
_CLIENT = re.compile(r"(?:from|by|with|user \S*) (?P<client>[0-9a-fA-F.:]+) port \d+")
_PATH = r'"(?P<path>.*)"'
# Keyed by the first word for speed: a folder of small files logs thousands of lines a second.
_OPERATIONS = {
    operation: re.compile(rf"(?P<operation>{operation}) {rest}", re.DOTALL)
    for operations, rest in (
        ("open", rf"{_PATH} flags (?P<flags>\S+) mode (?P<mode>\d+)"),
        ("close", rf"{_PATH} bytes read (?P<bytes_read>\d+) written (?P<bytes_written>\d+)"),
        ("rename posix-rename symlink link hardlink", r'old "(?P<path>.*)" new "(?P<new_path>.*)"'),
        ("mkdir", rf"name {_PATH} mode (?P<mode>\d+)"),
        ("remove rmdir", rf"name {_PATH}"),
        ("set", rf"{_PATH} (?P<attribute>mode|size|owner|modtime|mtime) (?P<value>.+)"),
        ("opendir closedir statvfs", _PATH),
        ("fsync lsetstat copy-data copy", r'"?(?P<path>.+?)"?'),
    )
    for operation in operations.split()
}
# OpenSSH cuts its lines at this many characters, after writing each byte that is not ASCII as four characters.
MAX_LINE = 500
_CUT = re.compile(r'(?P<operation>[a-z-]+) (?:name |old )?"(?P<path>.*?)(?:" new "(?P<new_path>.*))?', re.DOTALL)
# OpenSSH writes this before the close of a transfer that broke off.
_FORCED = "forced "
_ESCAPE = re.compile(rb"\\(?:([0-7]{3})|([\\abfnrtv0s]))")
_NAMED_ESCAPES = {ord(name): value for name, value in zip("\\abfnrtv0s", b"\\\a\b\f\n\r\t\v\0 ", strict=True)}
_PARTIAL_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\[0-7]{0,2}$")
_SESSION = re.compile(r"session (?P<change>opened|closed) for local user (?P<user>\S+) from \[(?P<client>[^\]]*)\]")
# A customer may type it with a capital letter, copy a space along, or enter the whole address. sshd refuses that, but
# the log line should still name the server.
_SERVER_USER = re.compile(r"\s*server-([1-9][0-9]{0,18})(?:@[\w.:-]*)?\s*", re.ASCII | re.IGNORECASE)
# The user name of a login whose user does not exist; what follows it differs from line to line.
_UNKNOWN_USER = re.compile(r"(?<=nvalid user )(?:.*(?= from \S+ port \d)|.*(?= \S+ port \d)|.*)", re.DOTALL)
_NUMBERS = ("bytes_read", "bytes_written")
_PATHS = ("path", "new_path")


def event(line: str, server: str | None) -> Fields | None:
    """Parse a syslog line.

    Args:
        line: The line as sshd sent it.
        server: The id of the server whose chroot the line came from; None for a line of sshd's own.

    Returns:
        The fields to log, at least `level`, `event` and `server`; None if the line is of no use.
    """
    header = _HEADER.fullmatch(line.rstrip("\n\0"))
    if header is None:
        return {"level": "info", "event": "sshd", "server": _number(server), "text": line}
    common: Fields = {"level": "info", "server": _number(server), "session": int(header["pid"])}
    if server is not None and (fields := _of_session(header["text"])):
        return {**common, **fields}
    if header["text"] == "sent status No such file" or _DROPPED.fullmatch(header["text"]):
        # "No such file" is the answer to a client that checks whether a file exists.
        return None
    if server is not None:
        return {**common, "event": "sshd", "text": header["text"]}
    # People sometimes type their password in place of the user name.
    return _of_sshd(_UNKNOWN_USER.sub(_server_user_only, header["text"]), common)


def _of_sshd(text: str, common: Fields) -> Fields | None:
    if connection := _CONNECTION.fullmatch(text):
        return {**common, "event": "connection", "client": connection["client"]}
    if login := _LOGIN.fullmatch(text):
        if login["method"] == "none":  # A client asks which methods are available.
            return None
        fields: Fields = {name: login[name] for name in ("user", "method", "client", "key") if login[name]}
        outcome = "login" if login["outcome"] == "Accepted" else "login refused"
        return {**common, "event": outcome, **fields, "server": _server(login["user"])}
    if too_many := _TOO_MANY.fullmatch(text):
        fields = {name: too_many[name] for name in ("user", "client") if too_many[name]}
        reason = {"reason": "too many tries", "text": text}
        return {**common, "event": "login refused", **fields, **reason, "server": _server(too_many["user"])}
    user, client = _USER.search(text), _CLIENT.search(text)
    address = {"client": client["client"]} if client else {}
    return {**common, "event": "sshd", **address, "text": text, "server": _server(user["user"]) if user else None}


def _of_session(text: str) -> Fields | None:
    message = text.removeprefix(_FORCED)
    operation = _OPERATIONS.get(message.partition(" ")[0])
    match = operation.fullmatch(message) if operation else None
    cut = operation is not None and match is None and len(text) >= MAX_LINE
    if cut:
        match = _CUT.fullmatch(message)
    if match is not None:
        fields: Fields = {"event": "file", **match.groupdict()}
        for name in _NUMBERS:
            if name in fields:
                fields[name] = int(fields[name])
        if "\\" in message:
            fields |= {name: unescaped(fields[name], cut=cut) for name in _PATHS if fields.get(name)}
        if fields.get("new_path", "") is None:
            del fields["new_path"]
        return {**fields, **({"broken_off": True} if message != text else {}), **({"cut": True} if cut else {})}
    if session := _SESSION.match(text):
        return {"event": f"session {session['change']}", "client": session["client"]}
    if text.startswith("sent status ") and not text.endswith("No such file"):
        return {"event": "file refused", "status": text.removeprefix("sent status ")}
    return None


def unescaped(name: str, *, cut: bool = False) -> str:
    """Decode a file's name as OpenSSH logs it: strnvis(3) with VIS_CSTYLE and VIS_OCTAL.

    If the name was cut, an incomplete character at its end is left out. Bytes that are not UTF-8 become `\\xff`.
    """
    whole = (_PARTIAL_ESCAPE.sub(r"\1", name) if cut else name).encode()
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 255 if match[1] else _NAMED_ESCAPES[match[2][0]]]), whole)
    return codecs.getincrementaldecoder("utf-8")("backslashreplace").decode(raw, final=not cut)


def _server(user: str) -> int | None:
    match = _SERVER_USER.fullmatch(user)
    return int(match[1]) if match else None


def _server_user_only(user: re.Match[str]) -> str:
    """The user name, without spaces around it, if it is a server's, else ""."""
    return user[0].strip() if _SERVER_USER.fullmatch(user[0]) else ""


def _number(server: str | None) -> int | None:
    return int(server) if server else None
