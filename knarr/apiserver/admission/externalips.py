"""DenyServiceExternalIPs: nobody takes over addresses that are not the cluster's by naming them in a Service.

Whoever may write a Service could otherwise have traffic of other pods and of the nodes that is meant for any address
sent to pods of their own (CVE-2020-8554). Upstream has this plugin off by default; here it is on, and can be switched
off. What a Service has already it keeps, and may give up.
"""

from __future__ import annotations

from knarr.api.core.v1 import Service
from knarr.apiserver.admission import Attributes, Plugin

REFUSED = (
    "Use of external IPs is denied by admission control (CVE-2020-8554; an administrator can allow it by"
    " disableAdmissionPlugins: DenyServiceExternalIPs)"
)


class DenyServiceExternalIPs(Plugin):
    kinds = (Service,)
    operations = ("CREATE", "UPDATE")
    subresources = ("",)

    async def validate(self, attributes: Attributes) -> None:
        if not _external_ips(attributes.obj) <= _external_ips(attributes.old):
            raise attributes.refused(REFUSED)


def _external_ips(service: Service | None) -> set[str]:
    return set(service.spec.external_ips) if service and service.spec else set()
