"""What clients get, through a real Envoy."""

from __future__ import annotations

from tests.edge.ingress.lab import lab
from tests.edge.ingress.objects import ingress


async def test_hosts_and_paths_lead_to_their_services() -> None:
    async with lab() as edge:
        await edge.backend("web")
        await edge.backend("api")
        paths = [("shop.example", "Prefix", "/", "web"), ("shop.example", "Prefix", "/api", "api")]
        await edge.create(ingress("shop", paths))
        await edge.applied()
        assert (await edge.get("shop.example", "/")).backend == "web"
        assert (await edge.get("shop.example", "/api/orders")).backend == "api"
        assert (await edge.get("shop.example", "/apiary")).backend == "web"
        other = await edge.get("other.example", "/")
        assert (other.status, other.text) == (404, "404 page not found\n")
