"""Container images, built from the Dockerfiles in `images/` on a Debian made by mmdebstrap.

Every image is kept as an archive in the cache, keyed by what it was made from; the key is its tag,
so that a changed image is a changed Deployment.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from local import binaries, cache, nodes, paths, steps

BASE = "localhost/debian:bookworm-slim"
_DEBIAN = "bookworm"
_BASE_KEY = f"debian-{_DEBIAN}-2"
#: As Debian's own image has it: otherwise each `apt-get install` leaves 75 MB of caches in its layer.
#: https://github.com/debuerreotype/debuerreotype/blob/master/scripts/debuerreotype-minimizing-config
_NO_APT_CACHES = [
    '--aptopt=Dir::Cache::pkgcache ""',
    '--aptopt=Dir::Cache::srcpkgcache ""',
    '--aptopt=DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; }',
]


@dataclass(frozen=True)
class Image:
    """An image: its full name with tag, and its archive in the cache."""

    name: str
    archive: Path


@dataclass(frozen=True)
class _Recipe:
    """What an image is built from: its folder, more of the repository, compiled binaries.

    The Dockerfile of one with binaries has a stage `runtime` without them, which needs only `packages` of the
    repository's files: it is built while the binaries are compiled.
    """

    folder: str
    files: tuple[str, ...] = ()
    binaries: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


_RECIPES = {
    "gameserver-api": _Recipe(
        "api", ("requirements.txt", "service", "charts/gameserver"), ("helm", "helm-daemon"), ("requirements.txt",)
    ),
    "gameserver-sftp": _Recipe("sftp", ("agent",)),
    "gameserver-backup": _Recipe("backup", ("backup",)),
    "gameserver-disk-driver": _Recipe("disk-driver", binaries=("disk-driver",)),
    "minecraft": _Recipe("minecraft"),
    "minetest": _Recipe("minetest"),
    "teeworlds": _Recipe("teeworlds"),
}


def project(built: Path) -> dict[str, Image]:
    """The project's own images by name, built if the cache has none from these files.

    Args:
        built: the folder of the compiled binaries.
    """
    base = _base()
    return {name: _project_image(name, recipe, base, built) for name, recipe in _RECIPES.items()}


def without_binaries() -> None:
    """Build the base image, and of the project's images all that needs no compiled binary."""
    base = _base()
    for name, recipe in _RECIPES.items():
        if recipe.binaries:
            _packages_stage(name, recipe, base)
        else:
            _project_image(name, recipe, base, None)


def control_plane(built: Path) -> list[Image]:
    """The images that only the control plane's node needs, by the names that kubeadm expects."""
    version = binaries.kubernetes_version()
    scratch = {
        f"kube-apiserver:{version}": ("kube-apiserver", "/usr/local/bin/kube-apiserver"),
        f"kube-controller-manager:{version}": (
            "kube-controller-manager",
            "/usr/local/bin/kube-controller-manager",
        ),
        f"kube-scheduler:{version}": ("kube-scheduler", "/usr/local/bin/kube-scheduler"),
        "etcd:3.6.6-0": ("server", "/usr/local/bin/etcd"),
    }
    return [
        _binary_image(reference, _from_scratch(binary, target), built / binary)
        for reference, (binary, target) in scratch.items()
    ]


def every_node(built: Path) -> list[Image]:
    """The images that each node needs to join: kube-proxy, pause, and the shell of the storage provisioner."""
    base = _base()
    pause = 'FROM scratch\nCOPY catatonit /pause\nENTRYPOINT ["/pause", "-P"]\n'
    # kube-proxy uses nftables, and iptables in clusters that were made before it did.
    proxy = (
        f"FROM {BASE}\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends iptables nftables conntrack kmod"
        " && rm -rf /var/lib/apt/lists/*\n"
        "COPY kube-proxy /usr/local/bin/kube-proxy\n"
    )
    return [
        _binary_image("pause:3.10.1", pause, Path("/usr/bin/catatonit")),
        _binary_image(f"kube-proxy:{binaries.kubernetes_version()}", proxy, built / "kube-proxy", base),
        Image(BASE, base),
    ]


def addons() -> list[Image]:
    """The images of CoreDNS, of the storage provisioner, of what the disk driver needs beside it, and of the store."""
    return [
        store(),
        _addon_image("local-path-provisioner:v0.0.30", binaries.local_path_provisioner()),
        _addon_image("coredns:v1.14.3", binaries.coredns()),
        *(_csi_image(f"{name}:{version}", binary) for name, (version, binary) in binaries.csi().items()),
    ]


def store() -> Image:
    """The image of the S3 server that keeps the local cluster's backups."""
    return _addon_image("versitygw:v1.8.0", binaries.s3())


def metrics_server() -> Image:
    """The image of metrics-server."""
    return _addon_image("metrics-server:v0.9.0", binaries.metrics_server())


def _addon_image(reference: str, binary: Path) -> Image:
    return _binary_image(reference, _from_scratch(binary.name, f"/usr/local/bin/{binary.name}"), binary)


def _csi_image(reference: str, binary: Path) -> Image:
    """As the official images have it: the chart of the disk driver gives these programs their flags alone."""
    entrypoint = f'ENTRYPOINT ["/usr/local/bin/{binary.name}"]\n'
    return _binary_image(reference, _from_scratch(binary.name, f"/usr/local/bin/{binary.name}") + entrypoint, binary)


def _from_scratch(binary: str, target: str) -> str:
    return f"FROM scratch\nCOPY {binary} {target}\nENV PATH=/usr/local/bin\n"


def load(node: nodes.Node, images: Sequence[Image]) -> None:
    """Import into the node's containerd those of `images` that it hasn't got."""
    listed = steps.output(nodes.enter(node, ["ctr", "-n", "k8s.io", "images", "ls", "-q"]))
    present = set(listed.split())
    for image in images:
        if image.name not in present:
            command = ["ctr", "-n", "k8s.io", "images", "import", image.archive]
            # A log for each image: two jobs may import into the same node.
            name = image.name.rpartition("/")[2].partition(":")[0]
            steps.run(f"import-{node.name}-{name}", nodes.enter(node, command))


def push(image: Image, target: str) -> None:
    """Push the image to a registry under the name `target`."""
    script = """
        set -eu
        runroot=$(mktemp -d)
        buildah() { command buildah --root "$STORAGE" --runroot "$runroot" "$@"; }
        id=$(buildah pull -q "docker-archive:$ARCHIVE")
        buildah push "$id" "docker://$TARGET"
        buildah rmi "$id"
        rm -rf "$runroot"
    """
    _in_storage("push", script, {"ARCHIVE": str(image.archive), "TARGET": target})


def _project_image(name: str, recipe: _Recipe, base: Path, built: Path | None) -> Image:
    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary)
        key = _copy_into(context, recipe.folder, recipe.files)
        files = [_binary(name, built) for name in recipe.binaries]
        # The binaries are named by their folder, whose name is a key already.
        key = cache.key_of(key, base.parent.name, *([file.parent.name for file in files] or [""]))
        reference = f"localhost/{name}:{key}"

        def build(archive: Path) -> None:
            for file in files:
                (context / "bin").mkdir(exist_ok=True)
                shutil.copy2(file, context / "bin" / file.name)
            _build(reference, name, context, archive)

        return _image(reference, f"image-{name}", key, build)


def _binary(name: str, built: Path | None) -> Path:
    """A compiled binary: the project's own, or one of the folder `built`."""
    if name == "disk-driver":
        return binaries.disk_driver()
    if name == "helm-daemon":
        return binaries.helm_daemon()
    assert built is not None
    return built / name


def _packages_stage(name: str, recipe: _Recipe, base: Path) -> None:
    """Build the stage `runtime` of the image into buildah's storage, where the image's own build finds its layers."""
    with tempfile.TemporaryDirectory() as temporary:
        context = Path(temporary)
        key = cache.key_of(_copy_into(context, recipe.folder, recipe.packages), base.parent.name)

        def build(_folder: Path) -> None:
            with steps.step(f"installing the packages of the image localhost/{name}"):
                _build(f"localhost/{name}-runtime:{key}", f"{name}-runtime", context, None, target="runtime")

        cache.built("images", f"runtime-{name}-{key}", build)


def _copy_into(context: Path, folder: str, files: Sequence[str]) -> str:
    """Copy an image's folder and more files of the repository into the context of its build; returns their key."""
    ignore = shutil.ignore_patterns("__pycache__", "node_modules", "*.pyc", ".*_cache")
    shutil.copytree(paths.ROOT / "images" / folder, context, dirs_exist_ok=True, ignore=ignore)
    for path in files:
        source, target = paths.ROOT / path, context / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore)
        else:
            shutil.copy2(source, target)
    return cache.key_of_files(context, [path for path in context.rglob("*") if path.is_file()])


def _binary_image(reference: str, dockerfile: str, binary: Path, base: Path | None = None) -> Image:
    key = cache.key_of(reference, dockerfile, binary.parent.name, str(binary.stat().st_size), str(base or ""))
    name = reference.split(":")[0]

    def build(archive: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            context = Path(temporary)
            (context / "Dockerfile").write_text(dockerfile)
            shutil.copy2(binary, context / binary.name)
            _build(f"localhost/{reference}", name, context, archive)

    return _image(f"localhost/{reference}", f"image-{name}", key, build)


def _image(reference: str, kind: str, key: str, build: Callable[[Path], None]) -> Image:
    def build_into(folder: Path) -> None:
        with steps.step(f"building the image {reference}"):
            build(folder / "image.tar")

    folder = cache.built("images", f"{kind}-{key}", build_into)
    return Image(reference, folder / "image.tar")


def _base() -> Path:
    """The archive of the Debian that the images are based on; building it also puts it into buildah's storage."""

    def build(folder: Path) -> None:
        with steps.step(f"making a Debian {_DEBIAN} base image"):
            tree = folder / "debian.tar"
            steps.run(
                "debian-base",
                ["mmdebstrap", "--variant=minbase", "--include=ca-certificates"]
                + [
                    "--dpkgopt=path-exclude=/usr/share/doc/*",
                    "--dpkgopt=path-exclude=/usr/share/man/*",
                ]
                + ["--dpkgopt=path-exclude=/usr/share/locale/*"]
                + ['--aptopt=Acquire::Languages "none"', *_NO_APT_CACHES, _DEBIAN, tree],
            )
            with tempfile.TemporaryDirectory() as temporary:
                context = Path(temporary)
                shutil.move(tree, context / "debian.tar")
                (context / "Dockerfile").write_text("FROM scratch\nADD debian.tar /\n")
                _build(BASE, "debian-base", context, folder / "image.tar")

    return cache.built("images", _BASE_KEY, build) / "image.tar"


def usual_modes(folder: Path) -> None:
    """Give all files the modes that git knows, whatever the umask was when the checkout was made or they were compiled.

    Programs in the images run as users of their own, and have to read what is copied from here.
    """
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _build(reference: str, name: str, context: Path, archive: Path | None, target: str = "") -> None:
    """Build `context`, or its stage `target`, as `reference`, and write its archive if there is a path for one."""
    usual_modes(context)
    script = """
        set -eu
        runroot=$(mktemp -d)
        buildah() { command buildah --root "$STORAGE" --runroot "$runroot" "$@"; }
        have() { buildah inspect --type image "$1" >/dev/null 2>&1; }
        if [ "$REFERENCE" != "$BASE" ] && ! have "$BASE"; then
            buildah pull "docker-archive:$BASE_ARCHIVE"
        fi
        buildah build --network host --pull=never --layers --force-rm \
            -v /etc/ssl/certs:/etc/ssl/certs:ro -v /etc/resolv.conf:/etc/resolv.conf:ro \
            --build-arg BASE="$BASE" ${TARGET:+--target "$TARGET"} -t "$REFERENCE" "$CONTEXT"
        if [ -n "$ARCHIVE" ]; then
            buildah push "$REFERENCE" "docker-archive:$ARCHIVE:$REFERENCE"
        fi
        # The newest first; what an older one shares with these two stays.
        for old in $(buildah images -q --filter "reference=${REFERENCE%:*}" | tail -n +3); do
            buildah rmi -f "$old"
        done
        rm -rf "$runroot"
    """
    names = {
        "REFERENCE": reference,
        "BASE": BASE,
        "BASE_ARCHIVE": str(paths.CACHE / "images" / _BASE_KEY / "image.tar"),
        "CONTEXT": str(context),
        "ARCHIVE": str(archive or ""),
        "TARGET": target,
    }
    _in_storage(f"build-{name}", script, names)


def _in_storage(log: str, script: str, names: dict[str, str]) -> None:
    """Run a shell script with buildah's storage in the cache.

    It runs in a mount namespace of its own: the storage driver leaves a mount behind.
    """
    storage = paths.CACHE / "buildah"
    storage.mkdir(parents=True, exist_ok=True)
    settings = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay", "STORAGE": str(storage)}
    with cache.lock("buildah"):
        steps.run(
            log,
            ["unshare", "-m", "sh", "-c", script],
            env={**os.environ, **settings, **names},
        )
