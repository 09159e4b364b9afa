"""Whose an Ingress is: ours when its class is, and everything else is left alone."""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeVar

from knarr.api.networking.ingresses import CLASS_ANNOTATION, INGRESS_CONTROLLER
from knarr.api.networking.v1 import Ingress, IngressClass
from knarr.client.informer import Informers

T_co = TypeVar("T_co", covariant=True)


class Lookup(Protocol[T_co]):
    """Objects by name, with the namespace before it where they have one: an informer, or a dict."""

    def get(self, key: str, /) -> T_co | None: ...


def is_ours(ingress: Ingress, classes: Lookup[IngressClass]) -> bool:
    """By spec.ingressClassName, else by the annotation that was before it."""
    name = ingress.spec.ingress_class_name if ingress.spec else None
    name = name or ingress.metadata.annotations.get(CLASS_ANNOTATION)
    found = classes.get(name) if name else None
    return found is not None and found.spec is not None and found.spec.controller == INGRESS_CONTROLLER


async def first(informers: Informers) -> None:
    """Wait until there is an Ingress of ours."""
    ingresses, classes = informers.of(Ingress), informers.of(IngressClass)
    changed = asyncio.Event()
    ingresses.add_handler(lambda old, new: changed.set())
    classes.add_handler(lambda old, new: changed.set())
    await ingresses.synced.wait()
    await classes.synced.wait()
    while not any(is_ours(each, classes) for each in ingresses.all()):
        changed.clear()
        await changed.wait()
