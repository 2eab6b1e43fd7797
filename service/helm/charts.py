"""What makes one chart another one."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from service.errors import StartupError
from service.servers.spec import same


@dataclass(frozen=True)
class ChartContent:
    """What a chart makes of values: its templates by name, and its own default values."""

    templates: Mapping[str, bytes]
    values: Mapping[str, Any]

    @classmethod
    def of_folder(cls, path: Path) -> Self:
        """The chart in a folder; raises StartupError if it is not one."""
        try:
            files = sorted(file for file in (path / "templates").rglob("*") if file.is_file())
            templates = {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
            return cls(templates, yaml.safe_load((path / "values.yaml").read_text()) or {})
        except (OSError, yaml.YAMLError) as error:
            raise StartupError(f"{path}: not a Helm chart ({error})") from error

    @classmethod
    def of_record(cls, chart: Mapping[str, Any]) -> Self:
        """The chart in helm's record of a release."""
        templates = {part["name"]: base64.b64decode(part["data"] or "") for part in chart.get("templates") or []}
        return cls(templates, chart.get("values") or {})

    def makes_the_same(self, other: ChartContent) -> bool:
        """Whether both make the same objects of the same values. Helm has one type of number."""
        return self.templates == other.templates and same(self.values, other.values)
