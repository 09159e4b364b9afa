"""Who can give a Service a load balancer: a file a provider, each by the contract of `contract.py`.

To add one: a file with a class that keeps the contract, a line in `provider_of`
of `knarr/cli/balancing.py`, and its name in the parameters of `tests/edge/test_providers.py`.
"""
