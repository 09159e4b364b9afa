"""Jobs: defaults, the selector that is made for them, each rule of what they may say and how they may change."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.types import copy
from tests.api.batch.made_jobs import UID, indexed, job, template
from tests.api.made import cells, container, made, plain, resource, shown

RULES = resource("Job").strategy
CODES = {"operator": "In", "values": [1]}
LABELS = ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name")


def born(spec: dict[str, Any], **metadata: Any) -> Any:
    """A Job as the server makes it."""
    obj = made("Job", metadata={"uid": UID, **metadata}, spec=spec)
    RULES.prepare_for_create(obj)
    return obj


def faults(spec: dict[str, Any], **metadata: Any) -> list[str]:
    obj = born(spec, **metadata)
    return shown((*RULES.validate(obj), *RULES.validate_create(obj)))


def changed(before: dict[str, Any], status: dict[str, Any] | None = None, **after: Any) -> list[str]:
    """What is wrong with a change of the spec; the generated labels stay."""
    old = born(before)
    if status:
        old.status = made("Job", spec=before, status=status).status
    new = made("Job", metadata={"uid": UID}, spec=plain(old)["spec"] | after)
    return shown((*RULES.validate(new), *RULES.validate_update(new, old)))


def test_defaults() -> None:
    spec = plain(made("Job", spec=job()))["spec"]
    assert {name: spec[name] for name in spec if name != "template"} == {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "manualSelector": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        ({"parallelism": 3}, "completions", None),
        ({"completions": 3}, "parallelism", 1),
        ({"backoffLimitPerIndex": 1}, "backoffLimit", 2**31 - 1),
        ({"podFailurePolicy": {"rules": []}}, "podReplacementPolicy", "Failed"),
    ],
)
def test_defaults_that_follow_from_others(spec: dict[str, Any], field: str, value: Any) -> None:
    assert plain(made("Job", spec=job(**spec)))["spec"].get(field) == value


def test_a_condition_counts_when_it_is_true() -> None:
    policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    spec = plain(made("Job", spec=job(podFailurePolicy=policy)))["spec"]
    assert spec["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"] == "True"


def test_its_pods_are_found_by_its_uid() -> None:
    obj = plain(born(job()))
    assert obj["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": UID}}
    labels = {label: UID if "uid" in label else "web" for label in LABELS}
    assert obj["spec"]["template"]["metadata"]["labels"] == labels
    assert obj["metadata"]["labels"] == labels
    assert faults(job()) == []


def test_its_own_labels_stay_apart() -> None:
    assert plain(born(job(), labels={"team": "a"}))["metadata"]["labels"] == {"team": "a"}


def test_another_generated_name_is_written_everywhere() -> None:
    obj = born(job())
    obj.metadata.name = "web-2"
    RULES.renamed(obj, "web")
    assert obj.spec.template.metadata.labels["job-name"] == obj.metadata.labels["job-name"] == "web-2"


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"parallelism": -1}, "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"),
        ({"completions": -1}, "spec.completions: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"activeDeadlineSeconds": -1},
            "spec.activeDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        ({"backoffLimit": -1}, "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"ttlSecondsAfterFinished": -1},
            "spec.ttlSecondsAfterFinished: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"completionMode": "Some"},
            'spec.completionMode: Unsupported value: "Some": supported values: "NonIndexed", "Indexed"',
        ),
        ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
        (
            {"successPolicy": {"rules": [{"succeededCount": 1}]}},
            'spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: requires indexed completion mode',
        ),
        (
            {"podReplacementPolicy": "Soon"},
            'spec.podReplacementPolicy: Unsupported value: "Soon": supported values: "Failed", "TerminatingOrFailed"',
        ),
        (
            {"podReplacementPolicy": "TerminatingOrFailed", "podFailurePolicy": {"rules": []}},
            'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"',
        ),
        ({"managedBy": ""}, "spec.managedBy: Required value"),
        (
            {"managedBy": "me"},
            'spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")',
        ),
        ({"managedBy": "acme.io/" + "x" * 60}, "spec.managedBy: Too long: may not be more than 63 bytes"),
        (
            {"managedBy": "acme.io/a b"},
            'spec.managedBy: Invalid value: "a b": Invalid path (regex used for validation is '
            "'[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
        ),
        (
            {"template": template(restartPolicy="Always")},
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        ),
        (
            {"template": template(restartPolicy="OnFailure"), "podFailurePolicy": {"rules": []}},
            'spec.template.spec.restartPolicy: Invalid value: "OnFailure": '
            'only "Never" is supported when podFailurePolicy is specified',
        ),
    ],
)
def test_what_it_may_not_say(spec: dict[str, Any], fault: str) -> None:
    assert faults(job(**spec)) == [fault]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (indexed(maxFailedIndexes=1), "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"),
        (
            job(completionMode="Indexed", parallelism=1),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            indexed(parallelism=100_001),
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion "
            "mode is Indexed",
        ),
        (
            indexed(backoffLimitPerIndex=1, maxFailedIndexes=6),
            "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions",
        ),
        (
            indexed(100_001, backoffLimitPerIndex=1),
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
        ),
        (
            indexed(100_001, backoffLimitPerIndex=1, maxFailedIndexes=10_001),
            "spec.maxFailedIndexes: Invalid value: 10001: must be less than or equal to 10000 when completions are "
            "above 100000 and used with backoff limit per index",
        ),
        (
            indexed(100_001, backoffLimitPerIndex=1, maxFailedIndexes=1, parallelism=10_001),
            "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are "
            "above 100000 and used with backoff limit per index",
        ),
    ],
)
def test_what_an_indexed_one_may_not_say(spec: dict[str, Any], fault: str) -> None:
    assert faults(spec) == [fault]


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (
            {"action": "", "onExitCodes": CODES},
            'action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]',
        ),
        (
            {"action": "Cry", "onExitCodes": CODES},
            'action: Unsupported value: "Cry": supported values: "Count", "FailIndex", "FailJob", "Ignore"',
        ),
        (
            {"action": "FailIndex", "onExitCodes": CODES},
            'action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set',
        ),
        (
            {"action": "Ignore", "onExitCodes": CODES | {"operator": ""}},
            'onExitCodes.operator: Required value: valid values: ["In" "NotIn"]',
        ),
        (
            {"action": "Ignore", "onExitCodes": CODES | {"operator": "Is"}},
            'onExitCodes.operator: Unsupported value: "Is": supported values: "In", "NotIn"',
        ),
        (
            {"action": "Ignore", "onExitCodes": CODES | {"containerName": "db"}},
            'onExitCodes.containerName: Invalid value: "db": '
            "must be one of the container or initContainer names in the pod template",
        ),
        (
            {"action": "Ignore", "onExitCodes": CODES | {"values": []}},
            "onExitCodes.values: Invalid value: []: at least one value is required",
        ),
        (
            {"action": "Ignore", "onExitCodes": CODES | {"values": [0]}},
            "onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
        ),
        (
            {"action": "Ignore", "onExitCodes": CODES | {"values": [2, 1]}},
            "onExitCodes.values: Invalid value: [2,1]: must be ordered",
        ),
        (
            {"action": "Ignore", "onExitCodes": CODES | {"values": [1, 1]}},
            "onExitCodes.values[1]: Duplicate value: 1",
        ),
        (
            {"action": "Ignore", "onExitCodes": CODES | {"values": list(range(1, 257))}},
            "onExitCodes.values: Too many: 256: must have at most 255 items",
        ),
        (
            {"action": "Ignore", "onPodConditions": [{"type": "Gone", "status": "Maybe"}]},
            'onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"',
        ),
        (
            {"action": "Ignore", "onPodConditions": [{"type": f"a{index}"} for index in range(21)]},
            "onPodConditions: Too many: 21: must have at most 20 items",
        ),
    ],
)
def test_what_a_rule_of_failures_may_not_say(rule: dict[str, Any], fault: str) -> None:
    assert faults(job(podFailurePolicy={"rules": [rule]})) == [f"spec.podFailurePolicy.rules[0].{fault}"]


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (
            {"action": "Ignore", "onExitCodes": CODES, "onPodConditions": [{"type": "Gone"}]},
            "specifying both OnExitCodes and OnPodConditions is not supported",
        ),
        ({"action": "Ignore"}, "specifying one of OnExitCodes and OnPodConditions is required"),
    ],
)
def test_a_rule_of_failures_is_about_one_thing(rule: dict[str, Any], fault: str) -> None:
    assert faults(job(podFailurePolicy={"rules": [rule]})) == [
        f"spec.podFailurePolicy.rules[0]: Invalid value: {fault}"
    ]


def test_rules_of_failures_are_limited() -> None:
    rules = [{"action": "Ignore", "onExitCodes": CODES}] * 21
    assert faults(job(podFailurePolicy={"rules": rules})) == [
        "spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items"
    ]


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ([], "rules: Required value: at least one rules must be specified when the successPolicy is specified"),
        ([{"succeededCount": 1}] * 21, "rules: Too many: 21: must have at most 20 items"),
        ([{}], "rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified"),
        (
            [{"succeededIndexes": "9"}],
            'rules[0].succeededIndexes: Invalid value: "9": error parsing succeededIndexes: too large index: "9"',
        ),
        (
            [{"succeededCount": -1}],
            "rules[0].succeededCount: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            [{"succeededCount": 6}],
            "rules[0].succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of "
            "specified completions)",
        ),
        (
            [{"succeededCount": 3, "succeededIndexes": "0-1"}],
            "rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the "
            "specified succeededIndexes field)",
        ),
    ],
)
def test_what_a_rule_of_success_may_not_say(rules: list[Any], fault: str) -> None:
    assert faults(indexed(successPolicy={"rules": rules})) == [f"spec.successPolicy.{fault}"]


def test_labels_of_another_job_are_refused() -> None:
    claimed = template() | {"metadata": {"labels": {"job-name": "other"}}}
    found = faults(job(template=claimed))
    assert len(found) == 1
    assert found[0].startswith("spec.template.metadata.labels[job-name]: Invalid value: {")
    assert found[0].endswith('}: must be "web"')


def test_a_selector_of_its_own_must_be_asked_for() -> None:
    own = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": template() | {"metadata": {"labels": {"app": "web"}}},
    }
    selector = f'{{"matchLabels":{{"app":"web","batch.kubernetes.io/controller-uid":"{UID}"}}}}'
    assert faults(own) == [f"spec.selector: Invalid value: {selector}: `selector` not auto-generated"]
    assert faults(own | {"manualSelector": True}) == []
    assert faults(job(manualSelector=True)) == ["spec.selector: Required value"]


def test_the_hosts_of_an_indexed_job_need_names() -> None:
    long = "x" * 62
    assert faults(indexed(100), name=long)[-1] == (
        f'metadata.name: Invalid value: "{long}": will not able to create pod with invalid DNS label: {long}-99'
    )


@pytest.mark.parametrize(
    "after", [{"parallelism": 3}, {"suspend": True}, {"backoffLimit": 9}, {"ttlSecondsAfterFinished": 5}]
)
def test_what_may_change(after: dict[str, Any]) -> None:
    assert changed(job(), **after) == []


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        (job(), {"completions": 2}, "spec.completions: Invalid value: 2: field is immutable"),
        (
            indexed(),
            {"completions": 3},
            "spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism",
        ),
        (job(), {"managedBy": "acme.io/x"}, 'spec.managedBy: Invalid value: "acme.io/x": field is immutable'),
        (
            indexed(),
            {"backoffLimitPerIndex": 1},
            "spec.backoffLimitPerIndex: Invalid value: 1: field is immutable",
        ),
        (
            indexed(),
            {"successPolicy": {"rules": [{"succeededCount": 1}]}},
            'spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: field is immutable',
        ),
        (
            job(),
            {"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "Failed"},
            'spec.podFailurePolicy: Invalid value: {"rules":[]}: field is immutable',
        ),
    ],
)
def test_what_may_not_change(before: dict[str, Any], after: dict[str, Any], fault: str) -> None:
    assert changed(before, **after) == [fault]


def test_an_indexed_job_grows_with_its_parallelism() -> None:
    assert changed(indexed(), completions=3, parallelism=3) == []


def retemplated(before: dict[str, Any], change: dict[str, Any], status: dict[str, Any] | None = None) -> list[str]:
    spec = plain(born(before))["spec"]["template"]
    spec = spec | {"spec": spec["spec"] | change}
    return [fault.partition(": ")[0] for fault in changed(before, status, template=spec)]


SUSPENDED = {"conditions": [{"type": "Suspended", "status": "True"}], "startTime": "2026-01-02T03:04:05Z"}


@pytest.mark.parametrize(
    ("change", "suspended"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, []),
        ({"tolerations": [{"key": "gpu", "operator": "Exists"}]}, []),
        ({"schedulingGates": [{"name": "example.com/wait"}]}, []),
        ({"containers": [container(resources={"requests": {"cpu": "1"}})]}, []),
        ({"containers": [container(image="nginx:2")]}, ["spec.template"]),
        ({"hostNetwork": True}, ["spec.template"]),
    ],
)
def test_the_template_changes_only_while_suspended(change: dict[str, Any], suspended: list[str]) -> None:
    assert retemplated(job(), change) == ["spec.template"]
    assert retemplated(job(suspend=True), change) == suspended
    assert retemplated(job(suspend=True), change, SUSPENDED) == suspended
    started = {"startTime": "2026-01-02T03:04:05Z"}
    assert retemplated(job(suspend=True), change, started) == ["spec.template"]


def test_its_selector_stays() -> None:
    old = born(job())
    new = copy(old)
    new.spec.selector.match_labels["app"] = "web"
    assert any(
        fault.startswith("spec.selector: ") and fault.endswith("field is immutable")
        for fault in shown(RULES.validate_update(new, old))
    )


def test_advice() -> None:
    many = indexed(100_001, parallelism=10_001)
    [advice] = RULES.warnings(born(many), None)
    assert advice.startswith("spec: In Indexed Jobs with a number of completions higher than 10^5")
    [advice] = RULES.warnings(born(job(), name="a.b"), None)
    assert advice.endswith("a DNS label is recommended: [must not contain dots]")
    assert list(RULES.warnings(born(job(), name="a.b"), born(job()))) == []


def test_it_is_selected_by_its_success() -> None:
    assert RULES.fields(born(job())) == {"status.successful": "0"}
    assert RULES.fields(made("Job", spec=job(), status={"succeeded": 3})) == {"status.successful": "3"}


@pytest.mark.parametrize(
    ("fields", "status", "completions"),
    [
        ({}, "Running", "0/1"),
        ({"status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}}, "Complete", "1/1"),
        ({"status": {"conditions": [{"type": "Failed", "status": "True"}]}}, "Failed", "0/1"),
        ({"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}, "Suspended", "0/1"),
        ({"status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}}, "FailureTarget", "0/1"),
        ({"status": {"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}}, "SuccessCriteriaMet", "0/1"),
        ({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}, "Terminating", "0/1"),
        ({"spec": job(parallelism=3), "status": {"succeeded": 2}}, "Running", "2/1 of 3"),
        ({"spec": job(parallelism=1)}, "Running", "0/1"),
    ],
)
def test_how_it_is_shown(fields: dict[str, Any], status: str, completions: str) -> None:
    row = cells("Job", 0, **({"spec": job()} | fields))
    assert (row["Status"], row["Completions"]) == (status, completions)


def test_how_long_it_took() -> None:
    times = {"startTime": "1970-01-01T00:00:10Z"}
    assert cells("Job", 40, spec=job())["Duration"] == ""
    assert cells("Job", 40, spec=job(), status=times)["Duration"] == "30s"
    done = times | {"completionTime": "1970-01-01T00:01:00Z"}
    assert cells("Job", 400, spec=job(), status=done)["Duration"] == "50s"


def test_all_its_columns() -> None:
    assert list(cells("Job", 0, wide=True, spec=job())) == [
        "Status",
        "Completions",
        "Duration",
        "Age",
        "Containers",
        "Images",
        "Selector",
    ]
