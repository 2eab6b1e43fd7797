"""Which node a disk belongs to, as far as its claim or its volume says. Pure."""

from __future__ import annotations

from service.kube.types import Object

HOSTNAME = "kubernetes.io/hostname"
# Written by the scheduler, and for good once the disk is bound:
# https://kubernetes.io/docs/reference/labels-annotations-taints/#volume-kubernetes-io-selected-node
_SELECTED_NODE = "volume.kubernetes.io/selected-node"


def selected_node(claim: Object) -> str | None:
    """The node that the scheduler chose for a claim's disk; None where it chose none."""
    node: str | None = ((claim.get("metadata") or {}).get("annotations") or {}).get(_SELECTED_NODE)
    return node


def only_node(spec: Object) -> str | None:
    """The one node that a volume's affinity allows; None where it allows several, or leaves it open which.

    That is the rule of the agents too (agent/disk_agent/objects.py).
    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#node-affinity
    """
    named = set()
    for term in spec.get("nodeAffinity", {}).get("required", {}).get("nodeSelectorTerms", []):
        names = [
            tuple(requirement.get("values", []))
            for requirement in term.get("matchExpressions", []) + term.get("matchFields", [])
            if requirement["key"] in (HOSTNAME, "metadata.name") and requirement["operator"] == "In"
        ]
        named.add(names[0] if names else ())
    only: tuple[str, ...] = named.pop() if len(named) == 1 else ()
    return only[0] if len(only) == 1 else None
