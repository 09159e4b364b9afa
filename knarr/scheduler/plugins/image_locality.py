"""Nodes that have the pod's large images already are liked better."""

from __future__ import annotations

from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import SCORE_MAX, Plugin

IMAGE_MIN_BYTES = 23 * 1024 * 1024
"""Smaller images are fetched so soon that it doesn't matter."""
IMAGE_MAX_BYTES = 1000 * 1024 * 1024
"""Of one container; larger ones count as this."""


class ImageLocality(Plugin):
    name = "ImageLocality"
    weight = 1
    filters = False

    def prepare_score(self, pod: PodInfo) -> tuple[frozenset[str], int]:
        assert pod.pod.spec is not None
        spec = pod.pod.spec
        containers = [*spec.containers, *spec.init_containers]
        names = frozenset(_normalized(container.image) for container in containers if container.image)
        return names, max(1, len(containers))

    def score(self, prepared: tuple[frozenset[str], int], node: NodeInfo) -> float:
        names, containers = prepared
        assert node.node is not None
        images = node.node.status.images if node.node.status else []
        there = sum(image.size_bytes or 0 for image in images if not names.isdisjoint(image.names))
        highest = IMAGE_MAX_BYTES * containers
        clamped = min(max(there, IMAGE_MIN_BYTES), highest)
        return SCORE_MAX * (clamped - IMAGE_MIN_BYTES) // (highest - IMAGE_MIN_BYTES)


def _normalized(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
