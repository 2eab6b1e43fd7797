"""What an upgrade of an installed release must keep, as the charts rendered it at commit EARLIER.

`python -m tests.charts.installed` writes it to `installed/` from that commit. Change EARLIER only to add a release that
operators have installed: a new difference means that an upgrade replaces objects or is refused by Kubernetes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.charts.rendering import RELEASES, Manifest, at, render
from tests.support.history import chart_at

EARLIER = "3a5c1c3ad337b44d50be8f8047b471210e7d9064"
"""The last commit at which the charts were named api, gameserver and sftp-daemonset."""
FOLDER = Path(__file__).parent / "installed"

TOKENS = {"tokens": {"existingSecret": "api-tokens"}}
OVERRIDES: list[tuple[str, dict[str, Any]]] = [
    ("name-override", {"nameOverride": "shop"}),
    ("fullname-override", {"fullnameOverride": "hosting"}),
    ("both-overrides", {"nameOverride": "shop", "fullnameOverride": "hosting"}),
]
#: Chart that EARLIER has → (case, values) in addition to the chart's own ci files of that time.
CASES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "api": [(case, {**TOKENS, **values}) for case, values in [*OVERRIDES, ("other-release", {})]],
    "gameserver": [],
    "sftp-daemonset": [*OVERRIDES, ("other-release", {})],
}
OTHER_RELEASE = "hosting"
"""The release's name in the case "other-release": it does not contain the chart's name."""

_FIXED = {
    # Kubernetes refuses to change these:
    # https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#label-selector-updates
    # https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#statefulset-components
    # https://kubernetes.io/docs/reference/access-authn-authz/rbac/#clusterrolebinding-example
    "selector": "spec.selector",
    "serviceName": "spec.serviceName",
    "podManagementPolicy": "spec.podManagementPolicy",
    "volumeClaimTemplates": "spec.volumeClaimTemplates",
    "roleRef": "roleRef",
    # These give the pods their identity.
    "podLabels": "spec.template.metadata.labels",
    "serviceAccountName": "spec.template.spec.serviceAccountName",
    "subjects": "subjects",
    # These find the pods.
    "podSelector": "spec.podSelector",
    "scaleTargetRef": "spec.scaleTargetRef",
}


def facts(manifests: dict[str, Manifest]) -> dict[str, dict[str, Any]]:
    """What an upgrade must keep of each object, by "Kind/namespace/name"."""
    return {_key(manifest): _facts(manifest) for manifest in manifests.values()}


def _key(manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return f"{manifest['kind']}/{metadata.get('namespace', '')}/{metadata['name']}"


def _facts(manifest: Manifest) -> dict[str, Any]:
    kept = {name: at(manifest, path) for name, path in _FIXED.items()}
    kept["name"] = manifest["metadata"]["labels"]["app.kubernetes.io/name"]
    return {name: value for name, value in kept.items() if value is not None}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def read(chart: str) -> dict[str, Any]:
    """`defaults`: the chart's values.yaml at EARLIER; `releases`: case → `release`, `values` and `facts`."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{chart}.yaml").read_text())
    return content


def _earlier(chart: str, folder: Path) -> dict[str, Any]:
    path = chart_at(EARLIER, chart, folder)
    cases = [
        (file.name.removesuffix("-values.yaml"), yaml.safe_load(file.read_text()))
        for file in sorted((path / "ci").glob("*-values.yaml"))
    ]
    releases = {}
    for case, values in cases + CASES[chart]:
        release = OTHER_RELEASE if case == "other-release" else RELEASES[chart][0]
        manifests = render(chart, values, release=release, folder=path)
        releases[case] = {"release": release, "values": values, "facts": facts(manifests)}
    return {"defaults": yaml.safe_load((path / "values.yaml").read_text()), "releases": releases}


def main() -> None:
    """Write all files of `installed/`."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for chart in CASES:
            text = yaml.dump(
                _earlier(chart, Path(folder)), Dumper=_Dumper, default_flow_style=None, width=110, sort_keys=False
            )
            header = f"# yamllint disable-file\n# charts/{chart} at commit {EARLIER}\n"
            (FOLDER / f"{chart}.yaml").write_text(f"{header}{text}")


if __name__ == "__main__":
    main()
