"""`helm upgrade` from an earlier chart keeps the objects, their selectors and the labels of their pods."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from service.servers.names import SCHEDULES, SERVER
from tests.charts import installed
from tests.charts.rendering import CHARTS, CI_FILES, Manifest, case, chart_of, merged, render

RELEASES_OF = [(chart, name) for chart in installed.CASES for name in installed.read(chart)["releases"]]
each_release = pytest.mark.parametrize(("chart", "name"), RELEASES_OF, ids=[f"{c}-{n}" for c, n in RELEASES_OF])


def copied(chart: str, folder: Path) -> Path:
    """A copy of today's chart in `folder`, to be changed."""
    return Path(shutil.copytree(CHARTS / chart, folder / chart))


def kept(chart: str, manifests: dict[str, Manifest], name: str) -> bool:
    """Whether `manifests` keep the facts of the release; fails with the difference if not."""
    now, then = installed.facts(manifests), installed.read(chart)["releases"][name]["facts"]
    assert {key: now.get(key) for key in then} == then
    return True


@each_release
def test_an_upgrade_keeps_the_objects(chart: str, name: str) -> None:
    """With the release's values given again, including overrides of names."""
    release = installed.read(chart)["releases"][name]
    assert kept(chart, render(chart, release["values"], release=release["release"]), name)


@each_release
def test_an_upgrade_with_reuse_values_keeps_the_objects(chart: str, name: str, tmp_path: Path) -> None:
    """`--reuse-values` replaces the chart's values.yaml with the release's values, including the old defaults.

    So the templates get neither new values nor new defaults: https://helm.sh/docs/helm/helm_upgrade/.
    """
    earlier = installed.read(chart)
    release = earlier["releases"][name]
    folder = copied(chart, tmp_path)
    (folder / "values.yaml").write_text(json.dumps(merged(earlier["defaults"], release["values"])))
    assert kept(chart, render(chart, release["values"], release=release["release"], folder=folder), name)


def test_an_earlier_charts_release_takes_schedules_and_its_pod_stays(tmp_path: Path) -> None:
    """`--reuse-values` with that chart's defaults, which know no schedules. Only the annotation is new."""
    earlier = installed.read("gameserver")
    nightly = {
        "cron": "H 4 * * *",
        "timezone": "Europe/Berlin",
        "steps": [{"restart": {}}],
        "by": {"token": "shop", "since": "2026-06-01T00:00:00Z", "scopes": ["server:power"]},
    }
    folder = copied("gameserver", tmp_path)
    for release in earlier["releases"].values():
        manifests = []
        for more in ({}, {"schedules": {"nightly": nightly}}):
            values = merged(release["values"], more)
            (folder / "values.yaml").write_text(json.dumps(merged(earlier["defaults"], values)))
            rendered = render("gameserver", values, release=release["release"], folder=folder)
            manifests.append(rendered[f"StatefulSet/{release['release']}"])
        without, with_schedules = manifests
        assert json.loads(with_schedules["metadata"]["annotations"].pop(SCHEDULES)) == {"nightly": nightly}
        assert with_schedules == without


def test_an_earlier_charts_release_can_be_suspended_and_stays_so(tmp_path: Path) -> None:
    """`--reuse-values` with that chart's defaults, which know no suspension: the values alone decide."""
    earlier = installed.read("gameserver")
    suspended = {"server": {"suspended": {"reason": "Overdue.", "since": "2026-11-27T03:00:00Z"}}}
    folder = copied("gameserver", tmp_path)
    for name, release in earlier["releases"].items():
        for more in ({}, suspended):
            values = merged(release["values"], more)
            (folder / "values.yaml").write_text(json.dumps(merged(earlier["defaults"], values)))
            manifests = render("gameserver", values, release=release["release"], folder=folder)
            record = json.loads(manifests[f"StatefulSet/{release['release']}"]["metadata"]["annotations"][SERVER])
            assert record.get("suspended") == more.get("server", {}).get("suspended"), name
            files = manifests.get(f"Service/{release['release']}-sftp")
            if files:
                written = files["metadata"].get("annotations") or {}
                assert written.get("gameserver/suspended") == ("true" if more else None), name


def test_an_earlier_charts_release_does_not_run_while_its_world_is_restored(tmp_path: Path) -> None:
    """`helm upgrade --reuse-values --set replicas=1` by hand too: the chart lets no game run under a restore."""
    earlier, operation = installed.read("gameserver"), f"op-{'4' * 26}"
    folder = copied("gameserver", tmp_path)
    for name, release in earlier["releases"].items():
        for restoring in ({}, {"restoring": operation}):
            values = merged(release["values"], {"replicas": 1, "server": restoring})
            (folder / "values.yaml").write_text(json.dumps(merged(earlier["defaults"], values)))
            manifests = render("gameserver", values, release=release["release"], folder=folder)
            statefulset = manifests[f"StatefulSet/{release['release']}"]
            assert statefulset["spec"]["replicas"] == (0 if restoring else 1), name
            record = json.loads(statefulset["metadata"]["annotations"][SERVER])
            assert record.get("restoring") == restoring.get("restoring"), name


@pytest.mark.parametrize("file", CI_FILES, ids=case)
def test_nothing_but_one_label_has_the_charts_name(file: Path, tmp_path: Path) -> None:
    """A chart with another name renders the same objects except for `helm.sh/chart`, which no pod has."""
    chart = chart_of(file)
    folder = copied(chart, tmp_path)
    metadata = yaml.safe_load((folder / "Chart.yaml").read_text())
    (folder / "Chart.yaml").write_text(yaml.safe_dump({**metadata, "name": "renamed"}))
    assert _without_chart(render(chart, {}, file, folder=folder)) == _without_chart(render(chart, {}, file))


def _without_chart(manifests: dict[str, Manifest]) -> dict[str, Manifest]:
    for manifest in manifests.values():
        manifest["metadata"]["labels"].pop("helm.sh/chart", None)
        if "password" in manifest.get("data", {}):
            manifest["data"]["password"] = "another each time"
    return manifests
