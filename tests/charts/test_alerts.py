"""The alert rules of the chart gameserver-api, run by Prometheus' own promtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from local import packages
from local.paths import ROOT

RULES = ROOT / "charts" / "api" / "rules" / "alerts.yaml"
CASES = sorted((Path(__file__).parent / "alerts").glob("*.yaml"))
ALERTS = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]

pytestmark = pytest.mark.tools


def promtool(*arguments: str | Path) -> str:
    """Run promtool; returns its output, and fails with its complaints."""
    tool = packages.unpacked("prometheus") / "usr" / "bin" / "promtool"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules() -> None:
    """As Prometheus would when it loads them."""
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_alerts_fire_when_they_should(case: Path, tmp_path: Path) -> None:
    """And not otherwise. The expected annotations are those of the rules, so the cases need not repeat them."""
    rules = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    test = yaml.safe_load(case.read_text())
    for each in test["tests"]:
        for expected in each["alert_rule_test"]:
            for alert in expected["exp_alerts"]:
                alert.setdefault("exp_annotations", rules[expected["alertname"]]["annotations"])
    shutil.copy(RULES, tmp_path / "alerts.yaml")
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", tmp_path / "case.yaml")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_seen_to_fire(alert: str) -> None:
    """At least one case expects it."""
    cases = [each for case in CASES for each in yaml.safe_load(case.read_text())["tests"]]
    expected = [expected for case in cases for expected in case["alert_rule_test"] if expected["exp_alerts"]]
    assert alert in {each["alertname"] for each in expected}
