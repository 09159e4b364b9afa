"""The kinds of the group batch, as they are served."""

from __future__ import annotations

from knarr.api.batch import cronjobs, jobs, v1
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.CronJob,
        "cronjobs",
        short_names=("cj",),
        categories=("all",),
        subresources=("status",),
        strategy=cronjobs.CronJobRules(),
        columns=cronjobs.CRON_JOB_COLUMNS,
    ),
    served(
        v1.Job,
        "jobs",
        categories=("all",),
        subresources=("status",),
        strategy=jobs.JobRules(),
        columns=jobs.JOB_COLUMNS,
    ),
)
