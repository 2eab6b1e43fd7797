"""What the project installs: Debian's packages, and Python's in a folder of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from local import cache, paths, steps

_REQUIREMENTS = paths.ROOT / "requirements-dev.txt"
_CLIENTS = paths.ROOT / "tests" / "clients"
#: What Python's virtual environments and Go's downloads need.
_BASICS = ("ca-certificates", "python3-venv")


def ensure_debian() -> None:
    """Install the packages of local/debian-packages.txt that are missing.

    Raises:
        StepFailed: not root, not Debian, or apt failed.
    """
    packages = [
        line
        for line in (paths.ROOT / "local" / "debian-packages.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    if shutil.which("npm") is None:
        # The tests' Minecraft client; a Node from elsewhere does as well.
        packages += ["nodejs", "npm"]
    _install_debian(packages)


def ensure_debian_basics() -> None:
    """Install those of Debian's packages that `ensure_python` and `binaries.ensure` need, if they are missing.

    Raises:
        StepFailed: as for ensure_debian.
    """
    _install_debian(_BASICS)


def _install_debian(packages: Sequence[str]) -> None:
    """Install those of `packages` that are missing."""
    result = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
    )
    installed = {line.split()[0] for line in result.stdout.splitlines() if line.endswith(" installed")}
    missing = [package for package in packages if package not in installed]
    if not missing:
        return
    if os.geteuid() != 0:
        raise steps.StepFailed(f"run as root, or install first: {' '.join(missing)}")
    with steps.step(f"installing Debian packages: {' '.join(missing)}"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        # A kill in the middle of an earlier run leaves packages half configured.
        steps.run("dpkg-configure", ["dpkg", "--configure", "-a"], env=environment)
        steps.run("apt-update", ["apt-get", "update"], env=environment)
        steps.run(
            "apt-install",
            # Docker's own containerd.io conflicts with Debian's containerd: apt would remove it, and Docker with it.
            ["apt-get", "install", "-y", "--no-remove", "--no-install-recommends"]
            # A package may start a service or edit its files; neither is wanted here.
            + ["-o", "Dpkg::Options::=--force-confold", *missing],
            env=environment,
        )


def ensure_python() -> Path:
    """The virtual environment's folder, with requirements-dev.txt; `.local/venv` links to it."""
    key = cache.key_of(_REQUIREMENTS.read_text(), sys.version)

    def build(folder: Path) -> None:
        with steps.step("installing the Python packages"):
            # venv writes its own path into its scripts, so it is made where it will be.
            steps.run("venv", [sys.executable, "-m", "venv", folder])
            pip = [folder / "bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
            steps.run("pip-install", [*pip, "--require-hashes", "-r", _REQUIREMENTS])
        for script in (folder / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                data = script.read_bytes()
                final = str(paths.CACHE / "python" / key)
                script.write_bytes(data.replace(str(folder).encode(), final.encode()))

    folder = cache.built("python", key, build)
    paths.LOCAL.mkdir(exist_ok=True)
    link = paths.LOCAL / "venv"
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
    return folder


def unpacked(package: str) -> Path:
    """The folder with a Debian package's files, which is not installed: that could start its service."""

    def build(folder: Path) -> None:
        with steps.step(f"fetching Debian's {package}"):
            steps.run("apt-update", ["apt-get", "update"])
            steps.run("apt-download", ["apt-get", "download", package], cwd=folder)
            (archive,) = folder.glob("*.deb")
            steps.run("dpkg-deb", ["dpkg-deb", "-x", archive, folder])
            archive.unlink()

    return cache.built("debian", package, build)


def ensure_clients() -> None:
    """Install the test clients' npm packages into tests/clients, when their lock file changed."""
    lock = _CLIENTS / "package-lock.json"
    stamp = _CLIENTS / "node_modules" / ".made-from"
    key = cache.key_of(lock.read_text())
    if stamp.exists() and stamp.read_text() == key:
        return
    with steps.step("installing the test clients (npm)"):
        steps.run("npm-ci", ["npm", "ci", "--no-audit", "--no-fund"], cwd=_CLIENTS)
        stamp.write_text(key)
