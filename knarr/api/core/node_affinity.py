"""Whether a node is one that a pod wants: nodeSelector and required node affinity (upstream's component-helpers)."""

from __future__ import annotations

from knarr.api.core.v1 import Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec


def matches(spec: PodSpec, node: Node) -> bool:
    """nodeSelector and required affinity must both hold; of the affinity's terms, one."""
    if not spec.node_selector.items() <= node.metadata.labels.items():
        return False
    affinity = spec.affinity and spec.affinity.node_affinity
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    return required is None or any(term_matches(term, node) for term in required.node_selector_terms)


def term_matches(term: NodeSelectorTerm, node: Node) -> bool:
    """All its expressions must hold; an empty term matches nothing."""
    if not term.match_expressions and not term.match_fields:
        return False
    return all(_holds(one, node.metadata.labels.get(one.key)) for one in term.match_expressions) and all(
        _holds(one, node.metadata.name if one.key == "metadata.name" else None) for one in term.match_fields
    )


def _holds(requirement: NodeSelectorRequirement, value: str | None) -> bool:
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" if value is not None and requirement.values:
            try:
                left, right = int(value), int(requirement.values[0])
            except ValueError:
                return False
            return left > right if requirement.operator == "Gt" else left < right
    return False
