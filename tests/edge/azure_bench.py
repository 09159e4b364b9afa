"""The provider `azure` at an emulated Resource Manager, for the tests of the contract."""

from __future__ import annotations

from typing import Any

from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.network import NetworkManagementClient

from knarr.edge.providers.azure import Azure, AzureSettings
from tests.edge.resource_manager import ResourceManager
from tests.edge.test_providers import Bench, targets

SETTINGS = AzureSettings(
    subscription="sub",
    resource_group="rg",
    location="westeurope",
    virtual_network="net",
    subnet="nodes",
    security_group="nodes-nsg",
)


class Anybody:
    """A credential that nobody asks for anything: the emulated server believes everyone."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        raise AssertionError("no token is needed")


class AzureBench(Bench):
    account: ResourceManager

    def __init__(self) -> None:
        super().__init__(ResourceManager(), targets())
        self.client = NetworkManagementClient(
            Anybody(),
            "sub",
            base_url=self.account.url,
            authentication_policy=SansIOHTTPPolicy(),
            retry_total=0,
        )

    def provider(self) -> Azure:
        return Azure(SETTINGS, self.client)
