"""Images as archives (`docker save`'s format): the files in one, and a copy of one under another name with labels.

The format: https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

_WHITEOUT = ".wh."
#: Everything that a lower layer has in this folder is hidden.
_OPAQUE = ".wh..wh..opq"


def config(archive: Path) -> dict[str, Any]:
    """The image's configuration: `config` with its labels, user and command, `rootfs`, `history`."""
    with tarfile.open(archive) as tar:
        return json.loads(_member(tar, _manifest(tar)["Config"]).read())  # type: ignore[no-any-return]


def digest(archive: Path) -> str:
    """The digest of the image's configuration, `sha256:…`: it changes with every layer and label."""
    with tarfile.open(archive) as tar:
        return f"sha256:{hashlib.sha256(_member(tar, _manifest(tar)['Config']).read()).hexdigest()}"


def files(archive: Path, chosen: Callable[[str, IO[bytes]], bool]) -> dict[str, bytes]:
    """The files of an image's root file system that `chosen(path, content)` takes: path to content.

    `path` has no leading slash. `content` is at its beginning, and may be read; links are not followed.
    """
    contents: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for layer in _manifest(tar)["Layers"]:
            with tarfile.open(fileobj=_member(tar, layer)) as layer_tar:
                # A layer's whiteouts hide what lower layers have, not what it has itself.
                added: dict[str, bytes] = {}
                for member in layer_tar:
                    path = PurePosixPath(member.name.removeprefix("./").lstrip("/"))
                    if path.name == _OPAQUE:
                        _remove_below(contents, f"{path.parent}/")
                    elif path.name.startswith(_WHITEOUT):
                        hidden = str(path.with_name(path.name.removeprefix(_WHITEOUT)))
                        contents.pop(hidden, None)
                        _remove_below(contents, f"{hidden}/")
                    else:
                        contents.pop(str(path), None)
                        if (
                            member.isfile()
                            and (content := layer_tar.extractfile(member))
                            and chosen(str(path), content)
                        ):
                            content.seek(0)
                            added[str(path)] = content.read()
                contents |= added
    return contents


def relabel(archive: Path, target: Path, name: str, labels: Mapping[str, str], created: str, epoch: int) -> None:
    """Write a copy of `archive` with the same layers, other labels and another name.

    Args:
        archive: the image, as `buildah push docker-archive:` writes it.
        target: the file to write. The same arguments give the same bytes.
        name: the image's name with its tag.
        labels: what is added to the image's labels.
        created: RFC 3339, when the image's source was committed.
        epoch: the same as seconds since 1970: the time of the files in the archive.
    """
    with tarfile.open(archive) as source, target.open("wb") as file, tarfile.open(fileobj=file, mode="w") as copy:
        manifest = _manifest(source)
        settings = json.loads(_member(source, manifest["Config"]).read())
        settings["created"] = created
        settings["config"]["Labels"] = {**(settings["config"].get("Labels") or {}), **labels}
        encoded = json.dumps(settings, separators=(",", ":"), sort_keys=True).encode()
        config_name = f"{hashlib.sha256(encoded).hexdigest()}.json"
        for layer in dict.fromkeys(manifest["Layers"]):
            _add(copy, layer, _member(source, layer), source.getmember(layer).size, epoch)
        _add(copy, config_name, io.BytesIO(encoded), len(encoded), epoch)
        listed = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": manifest["Layers"]}]).encode()
        _add(copy, "manifest.json", io.BytesIO(listed), len(listed), epoch)


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    (manifest,) = json.loads(_member(tar, "manifest.json").read())
    return manifest  # type: ignore[no-any-return]


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    content = tar.extractfile(name)
    assert content is not None, f"{name} is a file"
    return content


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int, epoch: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, epoch, 0o644
    tar.addfile(member, content)


def _remove_below(contents: dict[str, bytes], prefix: str) -> None:
    for path in [path for path in contents if path.startswith(prefix)]:
        del contents[path]
