"""knarr: a container orchestrator that speaks the Kubernetes API (v1.36)."""

__version__ = "0.1.0"

KUBERNETES_VERSION = "v1.36.0"
