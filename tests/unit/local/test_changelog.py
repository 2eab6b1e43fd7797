"""CHANGELOG.md: what is unreleased, and its fold into a version."""

from __future__ import annotations

import datetime

import pytest

from local import changelog
from local.paths import ROOT

DAY = datetime.date(2026, 11, 26)
TOP = "# Changelog\n\nAll notable changes.\n\n"
NOTES = "### Added\n\n- One.\n  Two lines.\n\n### Fixed\n\n- Two.\n"
OLDER = "## 0.1.0 - 2026-01-31\n\n### Added\n\n- Zero.\n"


@pytest.mark.parametrize("older", ["", OLDER])
def test_what_is_unreleased_goes_under_the_version(older: str) -> None:
    """Above it is a new, empty heading; below it is what was released before, as it was."""
    text = f"{TOP}## Unreleased\n\n{NOTES}" + (f"\n{older}" if older else "")
    folded = changelog.fold(text, "0.2.0", DAY)
    assert folded == (f"{TOP}## Unreleased\n\n## 0.2.0 - 2026-11-26\n\n{NOTES}" + (f"\n{older}" if older else ""))
    assert changelog.unreleased(folded) == ""
    assert changelog.section(folded, "0.2.0") == NOTES
    assert changelog.versions(folded) == ["0.2.0"] + ["0.1.0"] * bool(older)


def test_headings_without_entries_are_left_out() -> None:
    text = f"{TOP}## Unreleased\n\nThe first.\n\n### Added\n\n### Changed\n\nThe API:\n\n- One.\n\n### Fixed\n"
    folded = changelog.fold(text, "0.2.0", DAY)
    assert changelog.section(folded, "0.2.0") == "The first.\n\n### Changed\n\nThe API:\n\n- One.\n"


def test_a_release_that_was_begun_is_not_folded_again() -> None:
    """Not even on another day."""
    folded = changelog.fold(f"{TOP}## Unreleased\n\n{NOTES}", "0.2.0", DAY)
    assert changelog.fold(folded, "0.2.0", DAY + datetime.timedelta(1)) == folded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{TOP}{OLDER}", "0 times, not once"),
        (f"{TOP}## Unreleased\n\n## Unreleased\n\n{NOTES}", "2 times, not once"),
        (f"{TOP}## Unreleased\n\n{OLDER}", "nothing under `## Unreleased` to release as 0.2.0"),
        (f"{TOP}## Unreleased\n\n### Added\n\n{OLDER}", "nothing under `## Unreleased`"),
        (f"{TOP}## Unreleased\n\n{NOTES}\n## 0.2.0 - 2026-11-01\n\n- One.\n", "a section for 0.2.0, and more"),
    ],
)
def test_what_cannot_be_folded_is_refused(text: str, message: str) -> None:
    with pytest.raises(changelog.Unfoldable, match=message):
        changelog.fold(text, "0.2.0", DAY)


def test_a_version_without_a_section_has_none() -> None:
    with pytest.raises(KeyError):
        changelog.section(f"{TOP}## Unreleased\n\n{NOTES}", "0.2.0")


def test_the_projects_own_can_be_read() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert changelog.unreleased(text) or changelog.versions(text)
