"""Who can give a Service a load balancer: a file a provider, each by the contract of `contract.py`.

docs/load-balancers.md says what is to be done to add one.
"""
