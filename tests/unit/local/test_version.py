"""One version, in service/__init__.py, that every other place repeats."""

from __future__ import annotations

from pathlib import Path

import pytest

import service
from local import version
from local.paths import ROOT

CHART = """name: api
version: {0}
appVersion: "{0}"
kubeVersion: "1.31"
  image: registry.example.com/gameserver-api:{0}
  image: registry.example.com/gameserver-disk-driver:{0}
  image: registry.example.com/other:1.2.3
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout at 1.2.3."""
    files = {
        "service/__init__.py": '"""The API."""\n\n__version__ = "1.2.3"\n',
        "charts/api/Chart.yaml": CHART.format("1.2.3"),
        "charts/api/README.md.gotmpl": "helm install api . --set image.tag=1.2.3 \\\n",
        "docs/operations.md": "Needs Helm 4.1.4.\n\n    --set image.tag=1.2.3 \\\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_repository_has_one() -> None:
    """`make lint` asks for the same."""
    assert version.complaints() == []
    assert version.current() == service.__version__
    files = {str(mention.file) for mention in version.mentions()}
    assert {f"charts/{chart.name}/Chart.yaml" for chart in (ROOT / "charts").iterdir()} <= files


@pytest.mark.parametrize(
    ("file", "old", "complaint"),
    [
        ("charts/api/Chart.yaml", "\nversion: 1.2.3", "charts/api/Chart.yaml:2"),
        ("charts/api/Chart.yaml", 'appVersion: "1.2.3', "charts/api/Chart.yaml:3"),
        ("charts/api/Chart.yaml", "gameserver-api:1.2.3", "charts/api/Chart.yaml:5"),
        ("charts/api/Chart.yaml", "gameserver-disk-driver:1.2.3", "charts/api/Chart.yaml:6"),
        ("charts/api/README.md.gotmpl", "tag=1.2.3", "charts/api/README.md.gotmpl:1"),
        ("docs/operations.md", "tag=1.2.3", "docs/operations.md:3"),
    ],
)
def test_another_version_is_named_with_its_line(root: Path, file: str, old: str, complaint: str) -> None:
    """And what it should be."""
    assert version.complaints(root) == []
    text = (root / file).read_text()
    (root / file).write_text(text.replace(old, old.replace("1.2.3", "1.2.4")))
    assert version.complaints(root) == [f"{complaint}: the version is 1.2.3 (service/__init__.py), not 1.2.4"]


def test_a_bump_changes_all_places_and_nothing_else(root: Path) -> None:
    """Versions of other things stay."""
    changed = version.bump("2.0.0-rc.1", root)
    assert [str(file) for file in changed] == [
        "service/__init__.py",
        "charts/api/Chart.yaml",
        "charts/api/README.md.gotmpl",
        "docs/operations.md",
    ]
    assert version.current(root) == "2.0.0-rc.1"
    assert version.complaints(root) == []
    assert (root / "charts/api/Chart.yaml").read_text() == CHART.format("2.0.0-rc.1")
    assert "Helm 4.1.4" in (root / "docs/operations.md").read_text()
    assert version.bump("2.0.0-rc.1", root) == []


@pytest.mark.parametrize("text", ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3+build", "1.2.3 ", "1.2.3-"])
def test_what_is_no_version_is_refused(root: Path, text: str) -> None:
    """Nothing is written."""
    with pytest.raises(ValueError, match=r"such as 1\.2\.3"):
        version.bump(text, root)
    assert version.current(root) == "1.2.3"
    (root / "service/__init__.py").write_text(f'__version__ = "{text}"\n')
    with pytest.raises(ValueError, match="there is no line"):
        version.current(root)
