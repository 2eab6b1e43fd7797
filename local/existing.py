"""`CLUSTER=current`: the kubeconfig's current context in place of the local cluster."""

import json
import os
import shlex
from pathlib import Path

from local import images, paths, steps


def kubeconfig() -> Path:
    """The kubeconfig in use: the first of `KUBECONFIG`, else the user's own."""
    named = os.environ.get("KUBECONFIG", "").split(":")[0]
    return Path(named).resolve() if named else Path.home() / ".kube" / "config"


def node_address() -> str:
    """An address of the first node at which node ports answer; an external one when it has one."""
    listed = steps.output([paths.BIN / "kubectl", f"--kubeconfig={kubeconfig()}", "get", "nodes", "-o", "json"])
    addresses = json.loads(listed)["items"][0]["status"]["addresses"]
    by_type = {address["type"]: address["address"] for address in reversed(addresses)}
    return str(by_type.get("ExternalIP") or by_type["InternalIP"])


def deliver(built: dict[str, images.Image]) -> dict[str, images.Image]:
    """Bring the images to the cluster; returns them under the names that the cluster pulls.

    `IMAGE_LOAD` is a command that takes an archive's path (`kind load image-archive`,
    `k3d image import`); `IMAGE_REGISTRY` a registry, with a path if wanted, that buildah is
    logged in to.

    Raises:
        StepFailed: neither is set, or the command failed.
    """
    load, registry = os.environ.get("IMAGE_LOAD"), os.environ.get("IMAGE_REGISTRY")
    if not load and not registry:
        raise steps.StepFailed(
            "CLUSTER=current needs to know how images get there: set IMAGE_LOAD to a command that "
            "takes an archive (as in IMAGE_LOAD='kind load image-archive'), or IMAGE_REGISTRY to a "
            "registry that buildah is logged in to"
        )
    if load:
        for image in built.values():
            with steps.step(f"loading {image.name}"):
                steps.run("image-load", [*shlex.split(load), image.archive])
        return built
    renamed = {}
    for name, image in built.items():
        target = f"{registry}/{image.name.removeprefix('localhost/')}"
        with steps.step(f"pushing {target}"):
            images.push(image, target)
        renamed[name] = images.Image(target, image.archive)
    return renamed
