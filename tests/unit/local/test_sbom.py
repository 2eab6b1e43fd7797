"""What is in an image: packages of four kinds, and the document that lists them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from local import sbom
from local.sbom import Package
from tests.unit.local.test_imagefile import image

DPKG = b"""Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7
Description: GNU Bourne Again SHell
 Bash is an sh-compatible command language interpreter.

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2024a-0+deb12u1
"""
PYTHON = b"Metadata-Version: 2.4\nName: Flask_Smorest\nVersion: 0.46.0\nLicense-Expression: MIT\n\nText.\n"
METADATA = (
    "path\thelm.sh/helm/v4/cmd/helm\nmod\texample.com/local\t(devel)\t\ndep\thelm.sh/helm/v4\tv4.1.4\th1:abc=\n"
    "dep\tk8s.io/kubernetes\tv0.0.0\n=>\tk8s.io/kubernetes\tv1.35.4\th1:def=\nbuild\t-trimpath=true\n"
)
CREATED = datetime.datetime(2026, 11, 26, 12, 0, tzinfo=datetime.UTC)


def go_binary(flags: int = 2) -> bytes:
    """As Go's linker writes what a binary is made of; see debug/buildinfo."""
    text = b"0" * 16 + METADATA.encode() + b"1" * 16
    length = bytes([len(text) & 0x7F | 0x80, len(text) >> 7])
    header = b"\xff Go buildinf:" + bytes([8, flags])
    return b"\x7fELF" + b"\0" * 60 + header.ljust(32, b"\0") + b"\x08go1.26.1" + length + text + b"\0" * 10


FILES = {
    "var/lib/dpkg/status": DPKG,
    "app/venv/lib/python3.11/site-packages/flask_smorest-0.46.0.dist-info/METADATA": PYTHON,
    "usr/lib/python3/dist-packages/debian-1.dist-info/METADATA": b"Name: debian\nVersion: 1\n",
    "app/node_modules/flying-squid/package.json": b'{"name": "flying-squid", "version": "1.11.0", "license": "MIT"}',
    "app/node_modules/@types/node/package.json": b'{"name": "@types/node", "version": "22.1.0"}',
    "app/node_modules/a/node_modules/b/package.json": b'{"name": "b", "version": "2.0.0", "license": {"type": "MIT"}}',
    "app/node_modules/a/package.json": b'{"type": "module"}',
    "app/node_modules/a/test/package.json": b'{"name": "fixture", "version": "9"}',
    "usr/share/nodejs/node_modules/debian/package.json": b'{"name": "debian", "version": "1"}',
    "usr/local/bin/helm": go_binary(),
    "usr/bin/bash": b"\x7fELF bash",
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
}
PACKAGES = [
    Package("deb", "bash", "5.2.15-2+b7", architecture="amd64"),
    Package("deb", "tzdata", "2024a-0+deb12u1", architecture="all"),
    Package("golang", "helm.sh/helm/v4", "v4.1.4"),
    Package("golang", "k8s.io/kubernetes", "v1.35.4"),
    Package("golang", "stdlib", "1.26.1"),
    Package("npm", "@types/node", "22.1.0"),
    Package("npm", "b", "2.0.0"),
    Package("npm", "flying-squid", "1.11.0"),
    Package("pypi", "flask-smorest", "0.46.0"),
]


def test_packages_of_all_kinds_are_found(tmp_path: Path) -> None:
    """A replaced module counts as its replacement, Debian's Python and Node packages as Debian's; fixtures do not."""
    assert sbom.packages(image(tmp_path / "image.tar", FILES)) == PACKAGES


def test_licences_are_those_that_the_packages_name(tmp_path: Path) -> None:
    packages = {package.name: package.license for package in sbom.packages(image(tmp_path / "image.tar", FILES))}
    assert {name: text for name, text in packages.items() if text} == {"flask-smorest": "MIT", "flying-squid": "MIT"}


def test_what_an_upper_layer_removes_is_not_in_it(tmp_path: Path) -> None:
    packages = sbom.packages(
        image(tmp_path / "image.tar", FILES, {"app/.wh.node_modules": b"", "usr/local/bin/.wh.helm": b""})
    )
    assert {package.kind for package in packages} == {"deb", "pypi"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("usr/local/bin/old", go_binary(flags=0)),
        ("app/x.dist-info/METADATA", b"Name: x\n"),
        ("app/node_modules/x/package.json", b"{"),
    ],
)
def test_what_cannot_be_read_is_not_passed_over(tmp_path: Path, name: str, content: bytes) -> None:
    """A list that looks whole must be whole."""
    with pytest.raises(ValueError):  # noqa: PT011
        sbom.packages(image(tmp_path / "image.tar", {name: content}))


def test_the_document_is_cyclonedx() -> None:
    """By CycloneDX's own schema; the same image gives the same text."""
    text = sbom.cyclonedx("gameserver-api", "1.2.3", "sha256:abc", PACKAGES, CREATED)
    assert text == sbom.cyclonedx("gameserver-api", "1.2.3", "sha256:abc", list(PACKAGES), CREATED)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    root = document["metadata"]["component"]
    assert (root["type"], root["name"], root["version"]) == ("container", "gameserver-api", "1.2.3")
    assert document["metadata"]["timestamp"] == "2026-11-26T12:00:00+00:00"
    assert sorted(component["purl"] for component in document["components"]) == [
        "pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64",
        "pkg:deb/debian/tzdata@2024a-0%2Bdeb12u1?arch=all",
        "pkg:golang/helm.sh/helm/v4@v4.1.4",
        "pkg:golang/k8s.io/kubernetes@v1.35.4",
        "pkg:golang/stdlib@1.26.1",
        "pkg:npm/%40types/node@22.1.0",
        "pkg:npm/b@2.0.0",
        "pkg:npm/flying-squid@1.11.0",
        "pkg:pypi/flask-smorest@0.46.0",
    ]
    (depends,) = [entry["dependsOn"] for entry in document["dependencies"] if entry["ref"] == root["bom-ref"]]
    assert len(depends) == len(PACKAGES)


def test_another_image_has_another_serial_number() -> None:
    numbers = {
        json.loads(sbom.cyclonedx("a", "1.0.0", digest, [], CREATED))["serialNumber"]
        for digest in ("sha256:1", "sha256:2")
    }
    assert len(numbers) == 2
