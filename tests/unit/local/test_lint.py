"""The docs' links and the shell programs, as `make lint` finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from local import lint
from local.paths import ROOT

PAGE = """# The page

## `make run`, the first step

## Twice

## Twice

<a id="here"></a>

```
# no heading
[no link](nowhere.md)
```
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(PAGE)
    (tmp_path / "LICENSE").touch()
    return tmp_path


@pytest.mark.parametrize(
    "link",
    [
        "[page](docs/page.md)",
        "[page](docs/page.md#the-page)",
        "[page](docs/page.md#make-run-the-first-step)",
        "[page](docs/page.md#twice-1)",
        "[page](docs/page.md#here)",
        "[page](/docs/page.md)",
        "[folder](docs)",
        '[licence](LICENSE "the licence")',
        "[top](#readme)",
        "[elsewhere](https://example.com/nowhere.md#nothing)",
        "[mail](mailto:a@example.com)",
        "[page]: docs/page.md",
        "`[code](nowhere.md)`",
    ],
)
def test_a_link_that_leads_somewhere_is_none_of_lints_business(root: Path, link: str) -> None:
    (root / "README.md").write_text(f"# Readme\n\n{link}\n")
    assert list(lint.broken_links(root)) == []


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("[page](docs/none.md)", "there is no docs/none.md"),
        ("[page](page.md)", "there is no page.md"),
        ("[page](/page.md)", "there is no /page.md"),
        ("[`page`](docs/page.md#none)", "docs/page.md has no heading #none"),
        ("[page](docs/page.md#twice-2)", "docs/page.md has no heading #twice-2"),
        ("[page](docs/page.md#no-heading)", "docs/page.md has no heading #no-heading"),
        ("[top](#top)", "README.md has no heading #top"),
        ("[![picture](none.svg)](docs/page.md)", "there is no none.svg"),
        ("[page]: none.md", "there is no none.md"),
    ],
)
def test_a_broken_link_is_named_with_its_line(root: Path, link: str, complaint: str) -> None:
    (root / "README.md").write_text(f"# Readme\n\n```\n[no link](nowhere)\n```\n\n{link}\n")
    assert list(lint.broken_links(root)) == [f"README.md:7: {complaint}"]


def test_shell_programs_are_known_by_their_first_line(tmp_path: Path) -> None:
    """Whatever their name; what is not the project's is left out."""
    for name, text in {
        "run": "#!/bin/sh\n",
        "start": "#!/usr/bin/env bash\n",
        "health": "#! /bin/bash\n",
        "other.py": "#!/usr/bin/env python3\n",
        "words": "Write #!/bin/sh first.\n",
        "node_modules/a": "#!/bin/sh\n",
        ".local/a": "#!/bin/sh\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [file.name for file in lint.shell_programs(tmp_path)] == ["health", "run", "start"]


def test_the_projects_are_found() -> None:
    programs = {str(file.relative_to(ROOT)) for file in lint.shell_programs(ROOT)}
    assert {".ci/run", "local/dev", "images/sftp/supervise", "images/minecraft/bin/start-minecraft"} <= programs
