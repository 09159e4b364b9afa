"""The kinds of the group autoscaling, as they are served: v2 is kept, v1 is another view of it."""

from __future__ import annotations

from knarr.api.autoscaling import autoscalers, columns, conversion, v1, v2
from knarr.api.resources import Conversion, served

RESOURCES = (
    served(
        v2.HorizontalPodAutoscaler,
        "horizontalpodautoscalers",
        short_names=("hpa",),
        categories=("all",),
        subresources=("status",),
        strategy=autoscalers.HorizontalPodAutoscalerRules(),
        columns=columns.COLUMNS,
    ),
    served(
        v1.HorizontalPodAutoscaler,
        "horizontalpodautoscalers",
        short_names=("hpa",),
        categories=("all",),
        subresources=("status",),
        conversion=Conversion(v2.HorizontalPodAutoscaler, conversion.to_v2, conversion.to_v1),
        columns=columns.V1_COLUMNS,
    ),
)
