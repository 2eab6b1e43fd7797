"""Images as archives: the files in one, and a copy with other labels."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local import imagefile

LABELS = {"io.buildah.version": "1", "org.opencontainers.image.title": "api"}


def tar_of(files: Mapping[str, bytes], mode: int = 0o644) -> bytes:
    """An archive of these files, in this order."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), mode, 1
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def image(file: Path, *layers: Mapping[str, bytes], labels: Mapping[str, str] = LABELS) -> Path:
    """Write an image of these layers, the lowest first, as buildah does."""
    tars = [tar_of(layer) for layer in layers]
    names = [f"{hashlib.sha256(layer).hexdigest()}.tar" for layer in tars]
    config = {
        "created": "2026-11-26T12:00:00Z",
        "config": {"User": "1000:1000", "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{name.removesuffix('.tar')}" for name in names]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/api:key"], "Layers": names}]
    parts = dict(zip(names, tars, strict=True))
    parts |= {
        "config.json": json.dumps(config).encode(),
        "old/layer.tar": b"",
        "manifest.json": json.dumps(manifest).encode(),
    }
    file.write_bytes(tar_of(parts))
    return file


def files(archive: Path) -> dict[str, bytes]:
    return imagefile.files(archive, lambda path, content: True)


def test_upper_layers_replace_and_hide_files_of_lower_ones(tmp_path: Path) -> None:
    """A file, a folder, or all that a folder had."""
    lower = {"a": b"1", "b/c": b"2", "b/d": b"3", "e/f": b"4", "./g": b"5", "bc": b"6"}
    upper = {"a": b"7", "b/.wh.c": b"", ".wh.e": b""}
    assert files(image(tmp_path / "1", lower)) == {
        "a": b"1",
        "b/c": b"2",
        "b/d": b"3",
        "e/f": b"4",
        "g": b"5",
        "bc": b"6",
    }
    assert files(image(tmp_path / "2", lower, upper)) == {"a": b"7", "b/d": b"3", "g": b"5", "bc": b"6"}
    opaque: dict[str, bytes] = {"b/new": b"8", "b/.wh..wh..opq": b""}
    assert files(image(tmp_path / "3", lower, upper, opaque)) == {"a": b"7", "b/new": b"8", "g": b"5", "bc": b"6"}


def test_files_are_chosen_by_path_and_content(tmp_path: Path) -> None:
    """What was read to choose is not lost."""
    archive = image(tmp_path / "image.tar", {"a": b"yes, a", "b": b"no"})
    assert imagefile.files(archive, lambda path, content: content.read(3) == b"yes") == {"a": b"yes, a"}


def test_a_copy_has_the_same_layers_and_new_labels(tmp_path: Path) -> None:
    """And nothing of what the older format had; twice the same bytes."""
    archive = image(tmp_path / "image.tar", {"a": b"1"}, {"b": b"2"})
    labels = {"org.opencontainers.image.version": "1.2.3", "org.opencontainers.image.title": "gameserver-api"}
    copies = [tmp_path / "1.tar", tmp_path / "2.tar"]
    for copy in copies:
        imagefile.relabel(archive, copy, "api:1.2.3", labels, "2026-11-27T00:00:00Z", 1_795_000_000)
    assert copies[0].read_bytes() == copies[1].read_bytes()

    before, after = imagefile.config(archive), imagefile.config(copies[0])
    assert after["config"].pop("Labels") == {**LABELS, **labels}
    before["config"].pop("Labels")
    assert (after.pop("created"), before.pop("created")) == ("2026-11-27T00:00:00Z", "2026-11-26T12:00:00Z")
    assert after == before
    assert files(copies[0]) == {"a": b"1", "b": b"2"}
    with tarfile.open(copies[0]) as tar:
        members = {member.name: member for member in tar}
        manifest: Any = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert manifest[0]["RepoTags"] == ["api:1.2.3"]
    assert manifest[0]["Config"] == f"{imagefile.digest(copies[0]).removeprefix('sha256:')}.json"
    expected: Sequence[str] = [*manifest[0]["Layers"], manifest[0]["Config"], "manifest.json"]
    assert list(members) == expected
    assert {member.mtime for member in members.values()} == {1_795_000_000}
    assert imagefile.digest(copies[0]) != imagefile.digest(archive)


def test_an_image_without_labels_gets_some(tmp_path: Path) -> None:
    archive = image(tmp_path / "image.tar", {"a": b"1"}, labels=None)  # type: ignore[arg-type]
    imagefile.relabel(archive, tmp_path / "copy.tar", "a:1", {"x": "y"}, "2026-11-27T00:00:00Z", 0)
    assert imagefile.config(tmp_path / "copy.tar")["config"]["Labels"] == {"x": "y"}
