"""Whether a volume belongs to one node, and to which. Pure."""

from __future__ import annotations

from service.edges import Object

HOSTNAME = "kubernetes.io/hostname"


def only_node(spec: Object) -> str | None:
    """The one node that a volume's affinity allows; None where it allows several, or leaves it open which.

    That is the rule of the agents too (images/sftp/sftp_agent/objects.py).
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
