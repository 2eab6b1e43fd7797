"""The product's version: `service.__version__`, and every place that must name the same version."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local import paths

#: The format of https://semver.org, without build metadata, which an image's tag cannot contain.
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?")
_SOURCE = Path("service/__init__.py")
_SOURCE_LINE = re.compile(r'^(__version__ = ")([^"]+)(")$', re.MULTILINE)
#: By glob pattern, what names the version there: its second group.
_PLACES = {
    "charts/*/Chart.yaml": re.compile(
        r'^((?:version|appVersion): "?| +image: \S+/gameserver-[a-z-]+:)([^"\s]+)("?)$', re.MULTILINE
    ),
    "charts/*/README.md.gotmpl": re.compile(r"(--set image\.tag=)(\d[^\s`]*)()"),
    "docs/*.md": re.compile(r"(--set image\.tag=)(\d[^\s`]*)()"),
}


@dataclass(frozen=True)
class Mention:
    """A place that names a version."""

    file: Path
    line: int
    version: str


def current(root: Path = paths.ROOT) -> str:
    """The product's version.

    Raises:
        ValueError: service/__init__.py has none, or one that is not in semver.org's format.
    """
    line = _SOURCE_LINE.search((root / _SOURCE).read_text())
    if line is None or SEMVER.fullmatch(line[2]) is None:
        raise ValueError(f'{_SOURCE}: there is no line `__version__ = "MAJOR.MINOR.PATCH"`')
    return line[2]


def mentions(root: Path = paths.ROOT) -> Iterator[Mention]:
    """Every other place that names the product's version."""
    for pattern, line in _PLACES.items():
        for file in sorted(root.glob(pattern)):
            text = file.read_text()
            for match in line.finditer(text):
                yield Mention(file.relative_to(root), text.count("\n", 0, match.start()) + 1, match[2])


def complaints(root: Path = paths.ROOT) -> list[str]:
    """A line for each place that names another version; empty when all agree."""
    version = current(root)
    return [
        f"{mention.file}:{mention.line}: the version is {version} (service/__init__.py), not {mention.version}"
        for mention in mentions(root)
        if mention.version != version
    ]


def bump(version: str, root: Path = paths.ROOT) -> list[Path]:
    """Write `version` into service/__init__.py and every other place; returns the files that changed.

    Raises:
        ValueError: it is not a version in semver.org's format.
    """
    if SEMVER.fullmatch(version) is None:
        raise ValueError(f"{version!r} is not a version such as 1.2.3 or 1.2.3-rc.1 (https://semver.org)")
    changed = []
    for pattern, line in {str(_SOURCE): _SOURCE_LINE, **_PLACES}.items():
        for file in sorted(root.glob(pattern)):
            text = file.read_text()
            written = line.sub(rf"\g<1>{version}\g<3>", text)
            if written != text:
                file.write_text(written)
                changed.append(file.relative_to(root))
    return changed


if __name__ == "__main__":
    # `make bump VERSION=1.2.3`
    try:
        print(*bump(sys.argv[1]), sep="\n")
    except ValueError as error:
        sys.exit(str(error))
