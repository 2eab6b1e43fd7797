"""What the images are built from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from local import images


@pytest.mark.parametrize("name", images._RECIPES)
def test_a_context_has_all_that_its_dockerfile_copies(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the image's own folder, from elsewhere in the checkout, and what is compiled."""
    copied: dict[str, bool] = {}

    def look(_reference: str, _name: str, context: Path, _archive: Path) -> None:
        for line in re.findall(
            r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", (context / "Dockerfile").read_text(), re.MULTILINE
        ):
            copied.update({source: (context / source).exists() for source in line.split()})

    monkeypatch.setattr(images, "_build", look)
    monkeypatch.setattr(images, "_image", lambda _reference, _kind, _key, build: build(tmp_path))
    (tmp_path / "helm").touch()
    images._project_image(name, images._RECIPES[name], tmp_path / "base" / "image.tar", tmp_path)
    assert copied
    assert [source for source, there in copied.items() if not there] == []
