"""docs/architecture.md shows the layers as they are held, and names every module."""

import ast
import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from local.paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def _section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def _named(section: str) -> list[str]:
    """The modules that a section's table names: paths below its package."""
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(.+?)`", row)]


@pytest.mark.parametrize(
    ("package", "heading"),
    [
        ("service", "The layers"),
        ("agent/disk_agent", "Files"),
        ("backup/backup_job", "The Jobs of backups"),
    ],
)
def test_every_module_is_named_once(package: str, heading: str) -> None:
    """A new one wants a line there; one that is gone takes its line away."""
    folder = ROOT / package
    modules = [str(file.relative_to(folder)) for file in folder.rglob("*.py") if file.name != "__init__.py"]
    assert sorted(_named(_section(heading))) == sorted(modules)


def test_the_picture_shows_the_layers_that_lint_holds() -> None:
    """They are the contract `layers` in setup.cfg, from the top down."""
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    layers = settings["importlinter:contract:layers"]["layers"].strip()
    assert _section("The layers").split("```")[1].strip() == layers


@pytest.mark.parametrize("file", sorted((ROOT / "service").rglob("__init__.py")), ids=lambda file: file.parent.name)
def test_each_package_says_what_it_is_for(file: Path) -> None:
    """In its docstring."""
    assert ast.get_docstring(ast.parse(file.read_text()))
