"""What `make lint` checks besides the linters for Python and YAML: the shell programs, the docs' links, the version."""

import fnmatch
import os
import re
import subprocess
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from local import binaries, paths, version

#: Folders with files that are not the project's. `.local` is large, and changes while the cluster runs.
_OTHERS = {".git", ".local", "node_modules", "build", "dist"}
_SHELL = re.compile(rb"#!\s*(/usr)?/bin/(env )?(ba|da)?sh\b")
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
#: The end of `[text](target)`, of `[text](target "title")` and of pictures.
_LINK = re.compile(r"\]\(\s*<?([^()\s<>]+(?:\([^()]*\))?)>?(?:\s+\"[^\"]*\")?\s*\)")
#: `[name]: target`
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?([^\s<>]+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")


def files(root: Path, pattern: str = "*") -> list[Path]:
    """The files of the project below `root` whose name matches, without those of packages and caches."""
    matches: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = set(subfolders) - _OTHERS
        matches += [Path(folder, name) for name in fnmatch.filter(names, pattern)]
    return sorted(file for file in matches if file.is_file() and not file.is_symlink())


def shell_programs(root: Path) -> list[Path]:
    """The files that a shell runs, by their first line."""
    programs = []
    for file in files(root):
        with file.open("rb") as opened:
            if _SHELL.match(opened.readline(64)):
                programs.append(file)
    return programs


def broken_links(root: Path) -> Iterator[str]:
    """A line for each link of a page (`*.md`) to a file of the project, or to a heading, that does not exist.

    Links to other hosts are not followed: `make lint` needs no network.
    """
    for page in files(root, "*.md"):
        text = page.read_text()
        prose = _CODE.sub(_blank, _FENCE.sub(_blank, text))
        for link in [*_LINK.finditer(prose), *_REFERENCE.finditer(prose)]:
            target = urllib.parse.urlsplit(link[1])
            if target.scheme or target.netloc:
                continue
            path = urllib.parse.unquote(target.path)
            file = (root / path.lstrip("/") if path.startswith("/") else page.parent / path) if path else page
            position = f"{page.relative_to(root)}:{prose.count(chr(10), 0, link.start()) + 1}"
            if not file.exists():
                yield f"{position}: there is no {path}"
            elif target.fragment and file.suffix == ".md" and target.fragment not in anchors(file):
                yield f"{position}: {path or page.name} has no heading #{target.fragment}"


@cache
def anchors(page: Path) -> frozenset[str]:
    """What a link may have after `#` for this page: the headings as GitHub names them, and `<a id="…">`."""
    text = _FENCE.sub("", page.read_text())
    seen: Counter[str] = Counter()
    names = set(_ANCHOR.findall(text))
    for heading in _HEADING.findall(text):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        names.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset(names)


def go_complaints() -> Iterator[str]:
    """A line for each Go file that gofmt would change, and what `go vet` says of helm-daemon."""
    go = binaries.go("helm-daemon")
    gofmt = str(Path(subprocess.check_output([go, "env", "GOROOT"], text=True).strip()) / "bin" / "gofmt")
    for module in ("disk-driver", "helm-daemon", "local/go"):
        listed = subprocess.run([gofmt, "-l", module], cwd=paths.ROOT, capture_output=True, text=True)
        yield from (f"{file}: gofmt would change it" for file in listed.stdout.split())
        yield from listed.stderr.splitlines()
    vetted = binaries.go_with_flags_of_a_build("helm-daemon", "vet")
    yield from () if vetted.returncode == 0 else vetted.stdout.splitlines()


def _blank(match: re.Match[str]) -> str:
    """Line breaks for the match, so that lines keep their numbers."""
    return "\n" * match[0].count("\n")


def main() -> int:
    """Print all complaints; 1 if there are any."""
    complaints = [*broken_links(paths.ROOT), *version.complaints(), *go_complaints()]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    programs = [file.relative_to(paths.ROOT) for file in shell_programs(paths.ROOT)]
    checked = subprocess.run(["shellcheck", *programs], cwd=paths.ROOT)
    return 1 if complaints or checked.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
