"""What is in an image (an SBOM, https://cyclonedx.org): Debian's, Python's and npm's packages, and Go's modules."""

import datetime
import email.parser
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from local import imagefile

_DPKG = "var/lib/dpkg/status"
_PYTHON = re.compile(r".*\.dist-info/METADATA")
_NPM = re.compile(r"(?:.*/)?node_modules/(?:@[^/]+/)?[^/@.][^/]*/package\.json")
#: Python's and Node's packages that Debian's packages bring are listed as those.
_DEBIANS = re.compile(r"usr/(lib/python3|lib/node_modules|lib/nodejs|share/nodejs|share/node_modules)/.*")
_ELF = b"\x7fELF"
#: https://pkg.go.dev/debug/buildinfo; the strings come inline since Go 1.18 if bit 2 of the byte at 15 is set.
_GO = b"\xff Go buildinf:"


@dataclass(frozen=True, order=True)
class Package:
    """One package: its kind as package URLs have it (`deb`, `pypi`, `npm`, `golang`), name and version."""

    kind: str
    name: str
    version: str
    license: str = field(default="", compare=False)
    architecture: str = ""

    def url(self) -> PackageURL:
        """Its package URL (https://github.com/package-url/purl-spec)."""
        qualifiers = {"arch": self.architecture} if self.architecture else None
        if self.kind == "deb":
            return PackageURL("deb", "debian", self.name, self.version, qualifiers)
        namespace, _, name = self.name.rpartition("/")
        return PackageURL(self.kind, namespace or None, name, self.version, qualifiers)


def packages(archive: Path) -> list[Package]:
    """The packages in an image's archive, in order, each once.

    Raises:
        ValueError: a package's own metadata cannot be read.
    """
    listed: set[Package] = set()
    for path, content in imagefile.files(archive, _names_packages).items():
        if path == _DPKG:
            listed |= set(_debian(content.decode()))
        elif _PYTHON.fullmatch(path):
            listed.add(_python(content.decode()))
        elif _NPM.fullmatch(path):
            listed |= set(_npm(content.decode()))
        else:
            listed |= set(_go(content))
    return sorted(listed)


def cyclonedx(image: str, version: str, digest: str, packages: list[Package], created: datetime.datetime) -> str:
    """The SBOM of an image as CycloneDX 1.6 in JSON; the same arguments give the same text.

    Args:
        image: the image's name, without a tag.
        version: its tag.
        digest: the digest of its configuration (`sha256:…`), which names what it is made of.
        packages: what is in it.
        created: when its source was committed.
    """
    licenses = LicenseFactory()
    root = Component(type=ComponentType.CONTAINER, name=image, version=version, bom_ref=f"{image}@{digest}")
    components = []
    for package in packages:
        url = package.url()
        components.append(
            Component(
                type=ComponentType.LIBRARY,
                name=package.name,
                version=package.version,
                purl=url,
                bom_ref=url.to_string(),
                licenses=[licenses.make_from_string(package.license)] if package.license else None,
            )
        )
    bom = Bom(components=components, serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"{image}:{version}@{digest}"))
    bom.metadata.component = root
    bom.metadata.timestamp = created
    bom.register_dependency(root, components)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _names_packages(path: str, content: IO[bytes]) -> bool:
    """Whether a file names packages that are in the image."""
    if path == _DPKG:
        return True
    if _DEBIANS.fullmatch(path):
        return False
    if _PYTHON.fullmatch(path) or _NPM.fullmatch(path):
        return True
    return content.read(len(_ELF)) == _ELF and _GO in content.read()


def _debian(status: str) -> Iterator[Package]:
    for paragraph in status.strip().split("\n\n"):
        fields = email.parser.HeaderParser().parsestr(paragraph)
        if fields["Status"] == "install ok installed":
            yield Package("deb", fields["Package"], fields["Version"], architecture=fields["Architecture"])


def _python(metadata: str) -> Package:
    fields = email.parser.HeaderParser().parsestr(metadata)
    if not fields["Name"] or not fields["Version"]:
        raise ValueError("a Python package has no name or version")
    name = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
    return Package("pypi", name, fields["Version"], fields["License-Expression"] or "")


def _npm(text: str) -> Iterator[Package]:
    metadata = json.loads(text)
    # A folder's package.json may only say how its files are to be read.
    if "name" in metadata and "version" in metadata:
        license = metadata.get("license")
        yield Package("npm", metadata["name"], metadata["version"], license if isinstance(license, str) else "")


def _go(binary: bytes) -> Iterator[Package]:
    """The modules that a Go binary is made of, and Go's standard library."""
    start = binary.index(_GO)
    if not binary[start + 15] & 2:
        raise ValueError("a Go binary was built with a Go before 1.18 and does not name its modules")
    go, rest = _string(binary, start + 32)
    modules, _ = _string(binary, rest)
    yield Package("golang", "stdlib", go.decode().removeprefix("go").split(" ")[0])
    # The text has marks of 16 bytes around it.
    lines = [line.split("\t") for line in modules[16:-16].decode().splitlines()]
    for line, following in zip(lines, [*lines[1:], [""]], strict=True):
        if line[0] in ("mod", "dep", "=>") and following[0] != "=>" and line[2] != "(devel)":
            yield Package("golang", line[1], line[2])


def _string(data: bytes, start: int) -> tuple[bytes, int]:
    """The string after its length (a varint), and where it ends."""
    length = shift = 0
    while True:
        byte = data[start]
        start += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return data[start : start + length], start + length
        shift += 7
