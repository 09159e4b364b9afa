"""DefaultIngressClass: an Ingress that names no class gets the one that is marked as default."""

from __future__ import annotations

from knarr.api.default_class import default_class
from knarr.api.networking.ingresses import CLASS_ANNOTATION, DEFAULT_INGRESS_CLASS
from knarr.api.networking.v1 import Ingress, IngressClass, IngressSpec
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Index


class DefaultIngressClass(Plugin):
    kinds = (Ingress,)
    operations = ("CREATE",)
    subresources = ("",)

    def __init__(self, classes: Index[IngressClass]) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes) -> None:
        ingress: Ingress = attributes.obj
        spec = ingress.spec = ingress.spec or IngressSpec()
        if spec.ingress_class_name is not None or CLASS_ANNOTATION in ingress.metadata.annotations:
            return
        spec.ingress_class_name = default_class(await self._classes.all(), DEFAULT_INGRESS_CLASS)
