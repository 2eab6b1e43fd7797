"""CHANGELOG.md in the format of https://keepachangelog.com/en/1.1.0/: its unreleased entries, and how to fold them."""

import datetime
import re

_UNRELEASED = "## Unreleased"
#: A version's heading: `## 1.2.3 - 2026-01-31`.
_RELEASED = re.compile(r"^## (\d\S*) - \d{4}-\d{2}-\d{2}$", re.MULTILINE)


class Unfoldable(Exception):
    """The changelog cannot be folded into this version; the message says why."""


def versions(text: str) -> list[str]:
    """The versions that have a section, the newest first."""
    return _RELEASED.findall(text)


def unreleased(text: str) -> str:
    """The text under `## Unreleased`, without headings that have no entry; empty if there is none.

    Raises:
        Unfoldable: there is no such heading, or more than one.
    """
    if (count := re.findall(r"^## .*$", text, re.MULTILINE).count(_UNRELEASED)) != 1:
        raise Unfoldable(f"CHANGELOG.md has the heading `{_UNRELEASED}` {count} times, not once")
    body = re.split(r"^## .*$", _split(text)[1], maxsplit=1, flags=re.MULTILINE)[0]
    parts = [part.strip("\n") for part in re.split(r"^(?=### )", body, flags=re.MULTILINE)]
    return "\n".join(f"{part}\n" for part in parts if part and not re.fullmatch(r"### .*", part))


def section(text: str, version: str) -> str:
    """The text under the version's heading.

    Raises:
        KeyError: the version has no section.
    """
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        if heading.startswith(f"{version} - "):
            return body.strip("\n") + "\n"
    raise KeyError(version)


def fold(text: str, version: str, date: datetime.date) -> str:
    """The changelog with everything unreleased under `## <version> - <date>`, and `## Unreleased` empty above it.

    A changelog that has the version's section already, and nothing unreleased, stays as it is: its release was
    begun earlier.

    Raises:
        Unfoldable: nothing is unreleased, or the version has a section and more is unreleased.
    """
    entries = unreleased(text)
    if version in versions(text):
        if entries:
            raise Unfoldable(
                f"CHANGELOG.md has a section for {version}, and more under `{_UNRELEASED}`: bump the version"
            )
        return text
    if not entries:
        raise Unfoldable(f"CHANGELOG.md has nothing under `{_UNRELEASED}` to release as {version}")
    before, after = _split(text)
    older = re.search(r"^## ", after, re.MULTILINE)
    rest = f"\n{after[older.start() :]}" if older else ""
    return f"{before}{_UNRELEASED}\n\n## {version} - {date.isoformat()}\n\n{entries}{rest}"


def _split(text: str) -> list[str]:
    """The text before and after the heading `## Unreleased`, which is there once."""
    return re.split(rf"^{_UNRELEASED}$\n?", text, flags=re.MULTILINE)
