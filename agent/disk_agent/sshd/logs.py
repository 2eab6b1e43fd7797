"""What sshd and its sessions say, line by line, as fields for the log. Pure."""

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
# What OpenSSH says at its level VERBOSE, of which only the clients' addresses and the refused keys are wanted.
_NOT_WANTED = re.compile(
    r"(?:Postponed|Accepted key|Changed root directory|Starting session|Close session|Closing connection|Transferred"
    r"|User child is on pid|drop connection|Received disconnect from \S+ port \d+:11: ).*",
    re.DOTALL,
)
# User and client of any other line, where it has them.
_USER = re.compile(r"(?:^|[ :])(?:authenticating |invalid )?user (?P<user>\S+)")
_CLIENT = re.compile(r"(?:from|by|with|user \S*) (?P<client>[0-9a-fA-F.:]+) port \d+")
_PATH = r'"(?P<path>.*)"'
# By the first word, as a folder of small files brings thousands of lines a second.
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
# OpenSSH cuts what it logs at so many characters, after it has written each byte that is not ASCII as four.
CUT = 500
_CUT = re.compile(r'(?P<operation>[a-z-]+) (?:name |old )?"(?P<path>.*?)(?:" new "(?P<new_path>.*))?', re.DOTALL)
# What OpenSSH writes before the close of a transfer that broke off.
_FORCED = "forced "
_ESCAPE = re.compile(rb"\\(?:([0-7]{3})|([\\abfnrtv0s]))")
_NAMED = {ord(name): value for name, value in zip("\\abfnrtv0s", b"\\\a\b\f\n\r\t\v\0 ", strict=True)}
_HALF_AN_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\[0-7]{0,2}$")
_SESSION = re.compile(r"session (?P<change>opened|closed) for local user (?P<user>\S+) from \[(?P<client>[^\]]*)\]")
# A customer may have written it with a capital letter. sshd refuses that; the operator finds it by the server.
_SERVER_USER = re.compile(r"server-([1-9][0-9]{0,18})", re.ASCII | re.IGNORECASE)
# The user of a login that nobody has; what follows it differs from line to line.
_NOBODY = re.compile(r"(?<=nvalid user )(?:.*(?= from \S+ port \d)|.*(?= \S+ port \d)|.*)", re.DOTALL)
_NUMBERS = ("bytes_read", "bytes_written")
_PATHS = ("path", "new_path")


def event(said: str, server: str | None) -> Fields | None:
    """A syslog line as fields; None for one that nobody needs. Pure.

    server is the one whose chroot the line came from, None for a line of sshd's own.
    """
    header = _HEADER.fullmatch(said.rstrip("\n\0"))
    if header is None:
        return {"level": "info", "event": "sshd", "server": _number(server), "text": said}
    common: Fields = {"level": "info", "server": _number(server), "session": int(header["pid"])}
    if server is not None and (fields := _of_session(header["text"])):
        return {**common, **fields}
    if header["text"] == "sent status No such file" or _NOT_WANTED.fullmatch(header["text"]):
        # The first is a client asking whether there is one.
        return None
    if server is not None:
        return {**common, "event": "sshd", "text": header["text"]}
    # A password is easily typed where the user's name belongs.
    return _of_sshd(_NOBODY.sub(_harmless, header["text"]), common)


def _of_sshd(text: str, common: Fields) -> Fields | None:
    if connection := _CONNECTION.fullmatch(text):
        return {**common, "event": "connection", "client": connection["client"]}
    if login := _LOGIN.fullmatch(text):
        if login["method"] == "none":  # how a client asks which methods there are
            return None
        fields: Fields = {name: login[name] for name in ("user", "method", "client", "key") if login[name]}
        outcome = "login" if login["outcome"] == "Accepted" else "login refused"
        return {**common, "event": outcome, **fields, "server": _server(login["user"])}
    if too_many := _TOO_MANY.fullmatch(text):
        fields = {name: too_many[name] for name in ("user", "client") if too_many[name]}
        why = {"reason": "too many tries", "text": text}
        return {**common, "event": "login refused", **fields, **why, "server": _server(too_many["user"])}
    user, client = _USER.search(text), _CLIENT.search(text)
    where = {"client": client["client"]} if client else {}
    return {**common, "event": "sshd", **where, "text": text, "server": _server(user["user"]) if user else None}


def _of_session(text: str) -> Fields | None:
    said = text.removeprefix(_FORCED)
    operation = _OPERATIONS.get(said.partition(" ")[0])
    found = operation.fullmatch(said) if operation else None
    cut = operation is not None and found is None and len(text) >= CUT
    if cut:
        found = _CUT.fullmatch(said)
    if found is not None:
        fields: Fields = {"event": "file", **found.groupdict()}
        for name in _NUMBERS:
            if name in fields:
                fields[name] = int(fields[name])
        if "\\" in said:
            fields |= {name: unescaped(fields[name], cut=cut) for name in _PATHS if fields.get(name)}
        if fields.get("new_path", "") is None:
            del fields["new_path"]
        return {**fields, **({"broken_off": True} if said != text else {}), **({"cut": True} if cut else {})}
    if session := _SESSION.match(text):
        return {"event": f"session {session['change']}", "client": session["client"]}
    if text.startswith("sent status ") and not text.endswith("No such file"):
        return {"event": "file refused", "status": text.removeprefix("sent status ")}
    return None


def unescaped(name: str, *, cut: bool = False) -> str:
    """A file's name as it is, from how OpenSSH writes it: strnvis(3) with VIS_CSTYLE and VIS_OCTAL.

    Of a name that was cut, what stands for half a letter is left out. What is no UTF-8 is written as `\\xff`.
    """
    known = (_HALF_AN_ESCAPE.sub(r"\1", name) if cut else name).encode()
    raw = _ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 255 if found[1] else _NAMED[found[2][0]]]), known)
    return codecs.getincrementaldecoder("utf-8")("backslashreplace").decode(raw, final=not cut)


def _server(user: str) -> int | None:
    found = _SERVER_USER.fullmatch(user)
    return int(found[1]) if found else None


def _harmless(user: re.Match[str]) -> str:
    return user[0] if _SERVER_USER.fullmatch(user[0]) else ""


def _number(server: str | None) -> int | None:
    return int(server) if server else None
