"""CronJobs: defaults, each rule of what they may say, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.batch.made_jobs import job, template
from tests.api.made import cells, faults, made, plain, resource, update_faults


def cron(**spec: Any) -> dict[str, Any]:
    return {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job()}, **spec}


def test_defaults() -> None:
    spec = plain(made("CronJob", spec=cron()))["spec"]
    assert spec["jobTemplate"]["metadata"] == {}
    assert spec["jobTemplate"]["spec"].keys() == {"template"}
    assert {name: spec[name] for name in spec if name != "jobTemplate"} == {
        "schedule": "*/5 * * * *",
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    }


TIME_ZONE_ELSEWHERE = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"schedule": ""}, "schedule: Required value"),
        (
            {"schedule": "* * * *"},
            'schedule: Invalid value: "* * * *": expected exactly 5 fields, found 4: [* * * *]',
        ),
        (
            {"schedule": "TZ=UTC 0 * * * *"},
            f'schedule: Invalid value: "TZ=UTC 0 * * * *": {TIME_ZONE_ELSEWHERE}',
        ),
        (
            {"schedule": "CRON_TZ=UTC 0 * * * *"},
            f'schedule: Invalid value: "CRON_TZ=UTC 0 * * * *": {TIME_ZONE_ELSEWHERE}',
        ),
        ({"timeZone": ""}, 'timeZone: Invalid value: "": timeZone must be nil or non-empty string'),
        ({"timeZone": "Moon/Tycho"}, 'timeZone: Invalid value: "Moon/Tycho": unknown time zone Moon/Tycho'),
        ({"timeZone": "../etc"}, 'timeZone: Invalid value: "../etc": unknown time zone ../etc'),
        (
            {"timeZone": "Local"},
            'timeZone: Invalid value: "Local": '
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ),
        (
            {"startingDeadlineSeconds": -1},
            "startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"successfulJobsHistoryLimit": -1},
            "successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"failedJobsHistoryLimit": -1},
            "failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"concurrencyPolicy": "Maybe"},
            'concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace"',
        ),
        (
            {"jobTemplate": {"spec": job(template=template(restartPolicy="Always"))}},
            'jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        ),
        (
            {"jobTemplate": {"spec": job(selector={"matchLabels": {"a": "b"}})}},
            'jobTemplate.spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: `selector` will be auto-generated',
        ),
        (
            {"jobTemplate": {"spec": job(manualSelector=True)}},
            'jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"',
        ),
    ],
)
def test_what_it_may_not_say(spec: dict[str, Any], fault: str) -> None:
    assert faults("CronJob", spec=cron(**spec)) == [f"spec.{fault}"]


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5"])
def test_time_zones(zone: str) -> None:
    assert faults("CronJob", spec=cron(timeZone=zone)) == []


def test_its_name_leaves_room_for_those_of_its_jobs() -> None:
    assert faults("CronJob", metadata={"name": "x" * 52}, spec=cron()) == []
    assert faults("CronJob", metadata={"name": "x" * 53}, spec=cron()) == [
        f'metadata.name: Invalid value: "{"x" * 53}": must be no more than 52 characters'
    ]


def test_a_zone_that_was_in_the_schedule_may_stay() -> None:
    old = {"spec": cron(schedule="TZ=UTC 0 * * * *")}
    assert update_faults("CronJob", old, {"spec": cron(schedule="TZ=UTC 5 * * * *")}) == []
    assert update_faults("CronJob", old, {"spec": cron(schedule="TZ=UTC 5 * * * *", timeZone="UTC")}) == [
        'spec.schedule: Invalid value: "TZ=UTC 5 * * * *": cannot use both timeZone field and TZ or CRON_TZ in schedule'
    ]


def test_advice() -> None:
    rules = resource("CronJob").strategy
    old = made("CronJob", spec=cron(schedule="TZ=UTC 0 * * * *"))
    [advice] = rules.warnings(old, old)
    assert advice.startswith("CRON_TZ or TZ used in spec.schedule is not officially supported, see https://")


def test_how_it_is_shown() -> None:
    status = {"active": [{"name": "a"}], "lastScheduleTime": "1970-01-01T00:00:10Z"}
    assert cells("CronJob", 40, wide=True, spec=cron(timeZone="UTC"), status=status) == {
        "Schedule": "*/5 * * * *",
        "Timezone": "UTC",
        "Suspend": "False",
        "Active": 1,
        "Last Schedule": "30s",
        "Age": "<unknown>",
        "Containers": "web",
        "Images": "nginx:1.25",
        "Selector": "<none>",
    }
    row = cells("CronJob", 40, spec=cron(suspend=True))
    assert (row["Timezone"], row["Suspend"], row["Last Schedule"]) == ("<none>", "True", "<none>")
