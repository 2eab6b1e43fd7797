"""The charts describe themselves on a hub in the same way, and are built in the same way."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
import yaml

from local.paths import ROOT
from tests.charts.rendering import CHARTS, CI_FILES, RELEASES, chart_of, pods, render

NAMES = {
    "api": "gameserver-api",
    "disk-driver": "gameserver-disk-driver",
    "gameserver": "gameserver",
    "sftp-daemonset": "gameserver-sftp",
}
"""Folder → the chart's name."""
HELPERS = {"name", "fullname", "chart", "selectorLabels", "podLabels", "labels", "image"}

each_chart = pytest.mark.parametrize("chart", RELEASES)


def metadata(chart: str) -> dict[str, Any]:
    """The chart's Chart.yaml."""
    content: dict[str, Any] = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    return content


def test_the_charts_differ_only_in_what_they_are() -> None:
    """They have the same publisher, version and supported Kubernetes."""
    own = {"name", "description", "keywords", "annotations"}
    shared = [{key: value for key, value in metadata(chart).items() if key not in own} for chart in RELEASES]
    assert [other for other in shared if other != shared[0]] == []
    assert {chart: metadata(chart)["name"] for chart in RELEASES} == NAMES
    assert len({metadata(chart)["description"] for chart in RELEASES}) == len(RELEASES)


@each_chart
def test_a_hub_gets_everything_it_asks_for(chart: str) -> None:
    """https://artifacthub.io/docs/topics/annotations/helm/."""
    annotations = metadata(chart)["annotations"]
    keys = ("category", "license", "prerelease", "images", "links", "changes")
    assert list(annotations) == [f"artifacthub.io/{key}" for key in keys]
    for key in ("images", "links", "changes"):
        assert yaml.safe_load(annotations[f"artifacthub.io/{key}"])


@each_chart
def test_the_images_named_to_a_hub_are_those_that_run(chart: str) -> None:
    """With the chart's defaults, in every pod."""
    named = yaml.safe_load(metadata(chart)["annotations"]["artifacthub.io/images"])
    file = next(file for file in CI_FILES if chart_of(file) == chart and file.name == "default-values.yaml")
    run = {container["image"] for spec in pods(render(chart, {}, file)).values() for container in spec["containers"]}
    assert {image["image"] for image in named} == run


def test_the_icon_is_the_projects() -> None:
    """It is embedded, so that a hub does not have to fetch it."""
    icon = "".join(line.strip() for line in (ROOT / "docs" / "icon.svg").read_text().splitlines())
    kind, _, encoded = metadata("api")["icon"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(encoded).decode() == icon


@each_chart
def test_a_charts_helpers_carry_its_name(chart: str) -> None:
    """In a release, all charts share one set of helper names, subcharts included."""
    text = "".join(file.read_text() for file in (CHARTS / chart / "templates").rglob("*.*"))
    defined = re.findall(r'define "([^"]*)"', text)
    assert {name.partition(".")[0] for name in defined} == {NAMES[chart]}
    assert {name.partition(".")[2] for name in defined} >= HELPERS


@each_chart
def test_a_chart_has_the_same_files(chart: str) -> None:
    """And its package the same without ci/ and the README's template."""
    folder = CHARTS / chart
    files = ("README.md", "README.md.gotmpl", "values.yaml", "values.schema.json", "templates/NOTES.txt")
    assert [name for name in files if not (folder / name).is_file()] == []
    assert (folder / ".helmignore").read_text() == (CHARTS / "api" / ".helmignore").read_text()


@each_chart
def test_a_template_makes_one_object(chart: str) -> None:
    """A file is named after the object in it."""
    for file in (CHARTS / chart / "templates").rglob("*.yaml"):
        assert len(re.findall(r"^kind: ", file.read_text(), re.MULTILINE)) == 1, file
