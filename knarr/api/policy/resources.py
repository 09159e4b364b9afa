"""The kinds of the group policy, as they are served."""

from __future__ import annotations

from knarr.api.policy import budgets, v1
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.PodDisruptionBudget,
        "poddisruptionbudgets",
        short_names=("pdb",),
        subresources=("status",),
        strategy=budgets.PodDisruptionBudgetRules(),
        columns=budgets.POD_DISRUPTION_BUDGET_COLUMNS,
    ),
)
