"""DefaultTolerationSeconds: a pod stays 300 s on a node that is not ready or silent, unless it says otherwise."""

from __future__ import annotations

from knarr.api.core.v1 import Pod, Toleration
from knarr.apiserver.admission import Attributes, Plugin

TOLERATED_S = 300
TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class DefaultTolerationSeconds(Plugin):
    kinds = (Pod,)
    operations = ("CREATE",)
    subresources = ("",)

    async def mutate(self, attributes: Attributes) -> None:
        pod: Pod = attributes.obj
        if pod.spec is None:
            return
        for taint in TAINTS:
            if not any(_covers(toleration, taint) for toleration in pod.spec.tolerations):
                pod.spec.tolerations.append(
                    Toleration(key=taint, operator="Exists", effect="NoExecute", toleration_seconds=TOLERATED_S)
                )


def _covers(toleration: Toleration, taint: str) -> bool:
    return toleration.key in (taint, None, "") and toleration.effect in ("NoExecute", None, "")
