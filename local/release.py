"""`make release`: charts, images, what is in them, and checksums, in `dist/<version>/`; nothing is tagged or pushed.

The first run for a version folds `## Unreleased` of CHANGELOG.md into the version's section and commits that as
`chore(release): <version>`; everything is built from that commit. A later run, after a step failed, finds the section
and builds again, until the version has a tag.
"""

import datetime
import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local import binaries, cache, changelog, imagefile, images, paths, sbom, steps, version

_CHANGELOG = "CHANGELOG.md"


class Refused(Exception):
    """This checkout cannot be released; the message says what to do."""


@dataclass(frozen=True)
class Commit:
    """What is released: the commit, and when it was made, in UTC."""

    revision: str
    time: datetime.datetime

    @property
    def epoch(self) -> int:
        """Seconds since 1970."""
        return int(self.time.timestamp())

    @property
    def created(self) -> str:
        """RFC 3339."""
        return self.time.strftime("%Y-%m-%dT%H:%M:%SZ")


def prepare(root: Path, today: datetime.date) -> tuple[str, Commit]:
    """The version and the commit to release, after folding the changelog if it isn't yet.

    Raises:
        Refused: a file is changed or new, places name different versions, the version is tagged, or the changelog has
            nothing for it.
    """
    if changes := _git(root, "status", "--porcelain"):
        raise Refused(f"commit or stash first: the working tree has changes\n{changes}")
    try:
        number, complaints = version.current(root), version.complaints(root)
    except ValueError as error:
        raise Refused(str(error)) from error
    if complaints:
        raise Refused("\n".join([*complaints, "`make bump VERSION=…` writes one version everywhere"]))
    if _git(root, "tag", "--list", f"v{number}"):
        raise Refused(f"{number} is released: the tag v{number} exists; `make bump VERSION=…` writes another version")
    file = root / _CHANGELOG
    if not file.exists():
        raise Refused(f"there is no {_CHANGELOG}")
    text = file.read_text()
    try:
        folded = changelog.fold(text, number, today)
    except changelog.Unfoldable as error:
        raise Refused(str(error)) from error
    if folded != text:
        file.write_text(folded)
        try:
            _git(root, "commit", "--quiet", "-m", f"chore(release): {number}", "--", _CHANGELOG)
        except Refused:
            file.write_text(text)
            raise
    revision, seconds = _git(root, "log", "-1", "--format=%H %ct").split()
    return number, Commit(revision, datetime.datetime.fromtimestamp(int(seconds), datetime.UTC))


def package_chart(helm: Path, chart: Path, number: str, commit: Commit, folder: Path) -> Path:
    """Package a chart with this version and appVersion into `folder`; the same chart and commit give the same bytes."""
    stamps = ["--version", number, "--app-version", number]
    steps.run(f"package-{chart.name}", [helm, "package", chart, *stamps, "--destination", folder / ".charts"])
    (package,) = (folder / ".charts").iterdir()
    target = folder / package.name
    target.write_bytes(_reproducible(package.read_bytes(), commit.epoch))
    shutil.rmtree(folder / ".charts")
    return target


def label_image(image: images.Image, name: str, number: str, commit: Commit, folder: Path) -> Path:
    """Write the image into `folder` under its released name and labels, and an SBOM next to it; returns the image.

    The Dockerfile gives the labels that never change (title, description, licenses, source).
    """
    labels = {
        "org.opencontainers.image.version": number,
        "org.opencontainers.image.revision": commit.revision,
        "org.opencontainers.image.created": commit.created,
    }
    target = folder / f"{name}-{number}.tar"
    imagefile.relabel(image.archive, target, f"{name}:{number}", labels, commit.created, commit.epoch)
    document = sbom.cyclonedx(name, number, imagefile.digest(target), sbom.packages(target), commit.time)
    (folder / f"{name}-{number}.cdx.json").write_text(document)
    return target


def checksums(folder: Path) -> None:
    """Write SHA256SUMS over the folder's files, for `sha256sum --check`."""
    lines = []
    for file in sorted(file for file in folder.iterdir() if file.name != "SHA256SUMS"):
        with file.open("rb") as content:
            lines.append(f"{hashlib.file_digest(content, 'sha256').hexdigest()}  {file.name}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


def build(root: Path, built: Path, project: Mapping[str, images.Image], number: str, commit: Commit) -> Path:
    """Everything that is released, in `dist/<version>/`; the folder gets its name once it is whole.

    Args:
        root: the checkout.
        built: the folder of compiled binaries, for `helm`.
        project: the project's images by name.
        number: the version.
        commit: what it is built from.
    """
    folder = root / "dist" / number
    unfinished = folder.with_name(f".{number}")
    for old in (folder, unfinished):
        shutil.rmtree(old, ignore_errors=True)
    unfinished.mkdir(parents=True)
    with steps.step("packaging the charts"):
        for chart in sorted(file.parent for file in root.glob("charts/*/Chart.yaml")):
            package_chart(built / "helm", chart, number, commit, unfinished)
    for name, image in project.items():
        with steps.step(f"labelling the image {name}:{number}, and listing what is in it"):
            label_image(image, name, number, commit, unfinished)
    text = (root / _CHANGELOG).read_text()
    (unfinished / "RELEASE_NOTES.md").write_text(changelog.section(text, number))
    checksums(unfinished)
    return unfinished.rename(folder)


def next_steps(folder: Path, number: str) -> str:
    """The commands that publish what `build` made; `REGISTRY` is the publisher's."""
    shown = folder.relative_to(folder.parent.parent)
    lines = [f"git tag --annotate v{number} --message 'v{number}' && git push origin HEAD v{number}"]
    lines += [f"helm push {shown / chart.name} oci://$REGISTRY/charts" for chart in sorted(folder.glob("*.tgz"))]
    for archive in sorted(folder.glob("*.tar")):
        name = archive.name.removesuffix(f"-{number}.tar")
        lines.append(f"skopeo copy docker-archive:{shown / archive.name} docker://$REGISTRY/{name}:{number}")
    return "".join(f"  {line}\n" for line in lines)


def _reproducible(package: bytes, epoch: int) -> bytes:
    """A chart's package without what differs from run to run: times and owners."""
    target = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(package)) as source,
        gzip.GzipFile(fileobj=target, mode="wb", mtime=epoch) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as copy,
    ):
        for member in source:
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            copy.addfile(member, source.extractfile(member))
    return target.getvalue()


def _git(root: Path, *arguments: str) -> str:
    """What git prints.

    Raises:
        Refused: git failed.
    """
    result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if result.returncode != 0:
        raise Refused(f"git {arguments[0]} failed: {(result.stderr or result.stdout).strip()}")
    return result.stdout.strip()


def main() -> int:
    """Release this checkout; 1, with a message, if it cannot be."""
    try:
        number, commit = prepare(paths.ROOT, datetime.datetime.now(datetime.UTC).date())
        with cache.lock("local"):
            built = binaries.ensure()
            project = images.project(built)
            folder = build(paths.ROOT, built, project, number, commit)
    except (Refused, steps.StepFailed) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"\n{number} is in {folder}. To publish it:\n\n{next_steps(folder, number)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
