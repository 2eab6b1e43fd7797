"""The golden manifests: what each chart renders from each of its ci files.

`python -m tests.charts.golden` writes them to `manifests/`. They show a review what a change of a template changes in
the manifests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from local.paths import ROOT
from tests.charts.rendering import CI_FILES, Manifest, case, chart_of, render

FOLDER = Path(__file__).parent / "manifests"


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def path(file: Path) -> Path:
    """The file with the golden manifests of a ci file."""
    return FOLDER / f"{case(file)}.yaml"


def manifests(file: Path) -> dict[str, Manifest]:
    """What the chart renders now. The password, which is random, is replaced by a fixed text."""
    rendered = render(chart_of(file), {}, file)
    for manifest in rendered.values():
        if manifest["kind"] == "Secret" and "password" in manifest.get("data", {}):
            manifest["data"]["password"] = "another each time"
    return rendered


def read(file: Path) -> dict[str, Any]:
    """The golden manifests of a ci file."""
    return yaml.safe_load(path(file).read_text())  # type: ignore[no-any-return]


def main() -> None:
    """Write all golden manifests."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for file in CI_FILES:
        text = yaml.dump(manifests(file), Dumper=_Dumper, width=110, sort_keys=False, allow_unicode=True)
        path(file).write_text(f"# yamllint disable-file\n# charts/{file.relative_to(ROOT / 'charts')}\n{text}")


if __name__ == "__main__":
    main()
