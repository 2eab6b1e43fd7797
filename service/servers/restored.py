"""A claim that a person or a tool restored, such as Velero: why it cannot be used, and what makes it a release's. Pure.

Such a claim has the right name, `server-<id>`, but perhaps none of the labels and annotations of the chart's claims.
Helm refuses to install over an object that no release owns, and the agents and the lists find claims by their label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.kube.quantity import bytes_of
from service.kube.types import Object
from service.servers.names import ID, release_name, server_name
from service.servers.volumes import SELECTED_NODE, selected_node

# https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes
_WRITABLE = {"ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"}
_MANAGED_BY = "app.kubernetes.io/managed-by"
_RELEASE, _RELEASE_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
# The name under which helm applies objects.
_HELM = "helm"


def is_taken_up(claim: Object, id: int) -> bool:
    """Whether the API erases this claim and lists its disk."""
    return bool((claim["metadata"].get("labels") or {}).get(ID) == str(id))


def taken_up(claim: Object, id: int, namespace: str) -> dict[str, Any]:
    """The metadata to merge into a claim, so that the release `server-<id>` in `namespace` owns it.

    Helm applies objects on the server's side, where a field has an owner. Whoever restored the claim owns its size, and
    Helm could then not make the disk larger: so nobody owns the fields of such a claim any more, and helm takes them.
    https://kubernetes.io/docs/reference/using-api/server-side-apply/#managed-fields

    The node that a scheduler once chose for such a claim (None removes it) may have another disk, or none.
    """
    metadata: dict[str, Any] = {
        "labels": {ID: str(id), _MANAGED_BY: "Helm"},
        "annotations": {_RELEASE: release_name(id), _RELEASE_NAMESPACE: namespace},
    }
    owners = claim["metadata"].get("managedFields") or []
    if not any(owner.get("manager") == _HELM and owner.get("operation") == "Apply" for owner in owners):
        # Those of the status stay. Without any owner of a field, Kubernetes would give all fields to one of its own,
        # `before-first-apply`, at helm's first write.
        kept = [owner for owner in owners if owner.get("subresource")]
        first = {
            "manager": _HELM,
            "operation": "Apply",
            "apiVersion": "v1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {f"f:{_MANAGED_BY}": {}}}},
        }
        metadata["managedFields"] = [*kept, first]
        if selected_node(claim) is not None:
            metadata["annotations"][SELECTED_NODE] = None
        # Nobody may have changed the owners meanwhile.
        metadata["resourceVersion"] = claim["metadata"].get("resourceVersion")
    return metadata


def obstacle(claim: Object, volume: Object | None, id: int, namespace: str) -> str | None:
    """Why no server can use the claim, and what to do about it; None if one can.

    Args:
        claim: The claim `server-<id>`, not being deleted.
        volume: The volume that the claim names, read only while the claim is not bound; None if it does not exist.
        id: The server's id.
        namespace: The namespace of the servers.
    """
    name, metadata, spec = server_name(id), claim["metadata"], claim.get("spec", {})
    owner = (metadata.get("annotations") or {}).get(_RELEASE)
    if owner not in (None, "", release_name(id)):
        command = f"kubectl -n {namespace} annotate pvc {name} {_RELEASE}-"
        return f"The claim {name} belongs to the Helm release {owner}. If that no longer needs it, run `{command}`."
    if owners := metadata.get("ownerReferences"):
        return (
            f"The claim {name} belongs to the {owners[0].get('kind')} {owners[0].get('name')}, and Kubernetes deletes "
            "it together with that. Remove its `ownerReferences`."
        )
    modes = spec.get("accessModes") or []
    if not _WRITABLE & set(modes):
        return (
            f"The claim {name} has the access mode {', '.join(modes)}, so a game could not write to its disk. Restore "
            "it with ReadWriteOnce."
        )
    if spec.get("volumeMode") == "Block":
        return f"The claim {name} is a raw device (`volumeMode: Block`). Restore it as a file system."
    phase = claim.get("status", {}).get("phase")
    if phase == "Lost":
        return (
            f"The volume of the claim {name}, {spec.get('volumeName')}, no longer exists. Restore the volume, or start "
            f"with an empty disk after `kubectl -n {namespace} delete pvc {name}`."
        )
    if phase == "Bound" or not spec.get("volumeName"):
        return None
    return _volume_obstacle(claim, volume, name, namespace)


def _volume_obstacle(claim: Object, volume: Object | None, name: str, namespace: str) -> str | None:
    """Why a claim cannot be bound to the volume that it names.

    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reserving-a-persistentvolume
    """
    wanted = claim["spec"]["volumeName"]
    if volume is None:
        return f"The claim {name} names the volume {wanted}, which does not exist. Restore the volume."
    if volume["metadata"].get("deletionTimestamp"):
        return f"The volume {wanted} of the claim {name} is being deleted. Restore both again."
    if difference := _difference(claim["spec"], volume.get("spec", {})):
        return f"The claim {name} does not match its volume {wanted}: {difference}. Write the claim again."
    holder: Mapping[str, Any] = volume.get("spec", {}).get("claimRef") or {}
    if not holder:
        return None
    if (holder.get("namespace"), holder.get("name")) != (namespace, name):
        return (
            f"The volume {wanted}, which the claim {name} names, belongs to the claim {holder.get('namespace')}/"
            f"{holder.get('name')}. If nothing needs that any more, set `claimRef` of the volume to this claim."
        )
    if holder.get("uid") not in (None, "", claim["metadata"].get("uid")):
        patch = '[{"op": "remove", "path": "/spec/claimRef/uid"}]'
        return (
            f"The volume {wanted} still belongs to an earlier claim {name}. "
            f"Run `kubectl patch pv {wanted} --type=json -p '{patch}'`."
        )
    return None


def _difference(claim: Mapping[str, Any], volume: Mapping[str, Any]) -> str | None:
    """What keeps Kubernetes from binding a claim to a volume, from the `spec` of both; None if nothing does."""
    classes = [each.get("storageClassName") or "" for each in (claim, volume)]
    if classes[0] != classes[1]:
        return f'its storage class is "{classes[0]}", and the volume\'s is "{classes[1]}"'
    if missing := set(claim.get("accessModes") or []) - set(volume.get("accessModes") or []):
        return f"the volume does not offer {', '.join(sorted(missing))}"
    requested = str(claim.get("resources", {}).get("requests", {}).get("storage", "0"))
    size = str(volume.get("capacity", {}).get("storage", requested))
    return f"it asks for {requested}, and the volume has {size}" if bytes_of(requested) > bytes_of(size) else None
