"""What the images are built from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from local import binaries, cache, images


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bool]:
    """What the Dockerfiles of the builds copy from their contexts, and whether the contexts have it."""
    sources: dict[str, bool] = {}

    def build(_reference: str, _name: str, context: Path, _archive: Path | None, target: str = "") -> None:
        dockerfile = (context / "Dockerfile").read_text()
        if target:
            # Up to the stage after the target: buildah looks at no more.
            dockerfile = re.split(rf"^FROM {target}\b", dockerfile, flags=re.MULTILINE)[0]
        for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", dockerfile, re.MULTILINE):
            sources.update({source: (context / source).exists() for source in line.split()})

    monkeypatch.setattr(images, "_build", build)
    monkeypatch.setattr(images, "_image", lambda _reference, _kind, _key, build: build(tmp_path))
    monkeypatch.setattr(cache, "built", lambda _kind, _key, build: build(tmp_path))
    return sources


@pytest.mark.parametrize("name", images._RECIPES)
def test_a_context_has_all_that_its_dockerfile_copies(
    name: str, copied: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the image's own folder, from elsewhere in the checkout, and what is compiled."""
    (tmp_path / "helm").touch()
    monkeypatch.setattr(binaries, "disk_driver", lambda: tmp_path / "disk-driver")
    (tmp_path / "disk-driver").touch()
    monkeypatch.setattr(binaries, "helm_daemon", lambda: tmp_path / "helm-daemon")
    (tmp_path / "helm-daemon").touch()
    images._project_image(name, images._RECIPES[name], tmp_path / "base" / "image.tar", tmp_path)
    assert copied
    assert [source for source, present in copied.items() if not present] == []


@pytest.mark.parametrize("name", [name for name, recipe in images._RECIPES.items() if recipe.binaries])
def test_the_packages_of_an_image_need_no_binary(name: str, copied: dict[str, bool], tmp_path: Path) -> None:
    """The stage that is built while the binaries are compiled copies only what is there by then."""
    images._packages_stage(name, images._RECIPES[name], tmp_path / "base" / "image.tar")
    assert copied == dict.fromkeys(images._RECIPES[name].packages, True)


def test_an_image_has_the_same_modes_under_every_umask(tmp_path: Path) -> None:
    """Its programs run as users of their own, and a checkout under umask 077 would let them read nothing."""
    for path, before in ((tmp_path / "code", 0o700), (tmp_path / "code/a.py", 0o600), (tmp_path / "code/run", 0o700)):
        if path.suffix or path.name == "run":
            path.touch()
        else:
            path.mkdir()
        path.chmod(before)
    (tmp_path / "link").symlink_to("nowhere")
    images.usual_modes(tmp_path)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "code").rglob("*")}
    assert modes == {"a.py": "0o644", "run": "0o755"}
    assert (tmp_path / "code").stat().st_mode & 0o777 == 0o755
