"""The provider `gcp` at an emulated Compute Engine, for the tests of the contract."""

from __future__ import annotations

from typing import Any

from google.auth.credentials import AnonymousCredentials

from knarr.edge.providers.contract import Target
from knarr.edge.providers.gcp import Gcp, GcpSettings
from tests.edge.compute_engine import ComputeEngine
from tests.edge.test_providers import Bench


class GcpBench(Bench):
    account: ComputeEngine

    def __init__(self) -> None:
        nodes = [
            Target(f"n{number}", provider_id=f"gce://shop/europe-west1-{zone}/n{number}")
            for number, zone in enumerate("bbc")
        ]
        super().__init__(ComputeEngine(), nodes)
        self._clients: dict[str, Any] = {}

    def provider(self) -> Gcp:
        settings = GcpSettings(project="shop", region="europe-west1", endpoint=self.account.url)
        made = Gcp(settings, AnonymousCredentials())
        made._clients = self._clients
        return made
