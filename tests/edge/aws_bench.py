"""The provider `aws` at a moto server, for the tests of the contract."""

from __future__ import annotations

from typing import Any

from knarr.edge.providers.aws import Aws, AwsSettings
from knarr.edge.providers.contract import Target
from tests.edge.moto_server import Account
from tests.edge.test_providers import Bench


class AwsBench(Bench):
    account: Account

    def __init__(self, url: str) -> None:
        account = Account(url)
        nodes = [
            Target(f"n{number}", (f"10.0.0.{number}",), provider_id=f"aws:///eu-west-1a/{instance}")
            for number, instance in enumerate(account.instances)
        ]
        super().__init__(account, nodes)
        self._clients: dict[tuple[str, str], Any] = {}

    def provider(self) -> Aws:
        made = Aws(AwsSettings(endpoint_url=self.account.url), self.account.session)
        made._clients = self._clients  # boto3 takes 0.2 s to make one
        return made
