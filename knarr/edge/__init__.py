"""The edge of a cluster: how traffic from outside comes to its Services."""
