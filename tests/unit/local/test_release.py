"""`make release`: what it refuses, and what it makes; in a checkout of the test's own."""

from __future__ import annotations

import datetime
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from local import imagefile, release
from local.images import Image
from local.paths import ROOT
from tests.unit.local.test_imagefile import image, tar_of

DAY = datetime.date(2026, 11, 26)
COMMIT = release.Commit("f" * 40, datetime.datetime(2026, 11, 26, 12, tzinfo=datetime.UTC))
CHANGELOG = "# Changelog\n\n## Unreleased\n\n### Added\n\n- One.\n"
#: Packages a chart as helm does: with the times of now.
HELM = """#!/bin/sh
set -eu
[ "$1 $3 $4 $5 $6 $7" = "package --version 1.2.3 --app-version 1.2.3 --destination" ]
mkdir -p "$8"
tar -czf "$8/gameserver-$(basename "$2")-1.2.3.tgz" -C "$(dirname "$2")" "$(basename "$2")"
"""


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed checkout at 1.2.3."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ada@example.com")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    root = tmp_path / "checkout"
    files = {
        "service/__init__.py": '__version__ = "1.2.3"\n',
        "charts/api/Chart.yaml": "name: api\nversion: 1.2.3\nappVersion: 1.2.3\n",
        "CHANGELOG.md": CHANGELOG,
        ".gitignore": "/dist/\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "feat: one")
    return root


def test_the_first_run_folds_the_changelog_and_commits_it(root: Path) -> None:
    """The second finds it so, also a day later, and commits nothing."""
    number, commit = release.prepare(root, DAY)
    assert number == "1.2.3"
    assert commit.revision == git(root, "rev-parse", "HEAD")
    assert git(root, "log", "--format=%s") == "chore(release): 1.2.3\nfeat: one"
    assert git(root, "status", "--porcelain") == ""
    assert "## Unreleased\n\n## 1.2.3 - 2026-11-26\n\n### Added\n\n- One.\n" in (root / "CHANGELOG.md").read_text()
    assert release.prepare(root, DAY + datetime.timedelta(1)) == (number, commit)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("CHANGELOG.md", None, "there is no CHANGELOG.md"),
        ("CHANGELOG.md", "# Changelog\n", "0 times, not once"),
        ("CHANGELOG.md", "# Changelog\n\n## Unreleased\n", "nothing under `## Unreleased`"),
        ("charts/api/Chart.yaml", "version: 1.2.4\n", r"Chart.yaml:1: the version is 1\.2\.3 .*, not 1\.2\.4"),
        ("service/__init__.py", '__version__ = "next"\n', "there is no line"),
    ],
)
def test_what_is_not_ready_is_refused(root: Path, file: str, text: str | None, message: str) -> None:
    """And nothing is committed."""
    if text is None:
        (root / file).unlink()
    else:
        (root / file).write_text(text)
    git(root, "commit", "--quiet", "-a", "-m", "feat: two")
    with pytest.raises(release.Refused, match=message):
        release.prepare(root, DAY)
    assert git(root, "log", "-1", "--format=%s") == "feat: two"
    assert git(root, "status", "--porcelain") == ""


@pytest.mark.parametrize("file", ["new.txt", "CHANGELOG.md"])
def test_a_dirty_tree_is_refused(root: Path, file: str) -> None:
    """A changed file, and one that git does not know."""
    with (root / file).open("a") as opened:
        opened.write("- Two.\n")
    with pytest.raises(release.Refused, match=f"(?s)has changes.*{file}"):
        release.prepare(root, DAY)
    assert git(root, "log", "--format=%s") == "feat: one"


def test_a_released_version_is_refused(root: Path) -> None:
    release.prepare(root, DAY)
    git(root, "tag", "v1.2.3")
    with pytest.raises(release.Refused, match=r"the tag v1\.2\.3 exists"):
        release.prepare(root, DAY)


def test_a_commit_that_fails_leaves_the_changelog_as_it_was(root: Path) -> None:
    """Here a hook refuses it."""
    hook = root / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(release.Refused, match="git commit failed: no"):
        release.prepare(root, DAY)
    assert (root / "CHANGELOG.md").read_text() == CHANGELOG


def test_everything_is_in_one_folder_with_checksums(root: Path, tmp_path: Path) -> None:
    """Charts, images, SBOMs and notes; a second build gives the same bytes."""
    number, _ = release.prepare(root, DAY)
    built = tmp_path / "bin"
    built.mkdir()
    (built / "helm").write_text(HELM)
    (built / "helm").chmod(0o755)
    archive = image(tmp_path / "image.tar", {"etc/passwd": b""})
    project = {"gameserver-api": Image("localhost/gameserver-api:key", archive)}
    sums = []
    for _ in range(2):
        folder = release.build(root, built, project, number, COMMIT)
        sums.append((folder / "SHA256SUMS").read_text())
        # What helm packages has other times now.
        (root / "charts/api/Chart.yaml").touch()
    assert sums[0] == sums[1]
    assert folder == root / "dist/1.2.3"
    assert sorted(file.name for file in folder.iterdir()) == [
        "RELEASE_NOTES.md",
        "SHA256SUMS",
        "gameserver-api-1.2.3.cdx.json",
        "gameserver-api-1.2.3.tar",
        "gameserver-api-1.2.3.tgz",
    ]
    files = sorted(file for file in folder.iterdir() if file.name != "SHA256SUMS")
    assert sums[0] == "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    assert (folder / "RELEASE_NOTES.md").read_text() == "### Added\n\n- One.\n"
    assert (
        imagefile.config(folder / "gameserver-api-1.2.3.tar")["config"]["Labels"].items()
        >= {
            "org.opencontainers.image.title": "api",
            "org.opencontainers.image.version": "1.2.3",
            "org.opencontainers.image.revision": "f" * 40,
            "org.opencontainers.image.created": "2026-11-26T12:00:00Z",
        }.items()
    )
    with tarfile.open(folder / "gameserver-api-1.2.3.tgz") as tar:
        assert "api/Chart.yaml" in tar.getnames()
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(COMMIT.epoch, 0, "")}
    steps = release.next_steps(folder, number)
    assert steps.splitlines() == [
        "  git tag --annotate v1.2.3 --message 'v1.2.3' && git push origin HEAD v1.2.3",
        "  helm push dist/1.2.3/gameserver-api-1.2.3.tgz oci://$REGISTRY/charts",
        "  skopeo copy docker-archive:dist/1.2.3/gameserver-api-1.2.3.tar docker://$REGISTRY/gameserver-api:1.2.3",
    ]


@pytest.mark.parametrize("file", sorted((ROOT / "images").glob("*/Dockerfile")), ids=lambda file: file.parent.name)
def test_each_dockerfile_gives_the_labels_that_never_change(file: Path) -> None:
    """See https://github.com/opencontainers/image-spec/blob/main/annotations.md."""
    last_stage = file.read_text().rpartition("\nFROM ")[2]
    for label in ("title", "description", "licenses", "source"):
        assert last_stage.count(f'org.opencontainers.image.{label}="') == 1
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in last_stage


def test_a_chart_keeps_its_files() -> None:
    """Only times and owners change."""
    files = {"api/Chart.yaml": b"name: api\n", "api/values.yaml": b"{}\n"}
    package = release._reproducible(tar_of(files), COMMIT.epoch)
    with tarfile.open(fileobj=io.BytesIO(package)) as tar:
        assert {member.name: tar.extractfile(member).read() for member in tar} == files  # type: ignore[union-attr]
