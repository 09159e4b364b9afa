"""What users do in a run: each story makes a workload, changes it at random times, and knows how it must end.

A story draws all its choices from a source of chance of its own, so that it does the same whatever the weather. `play`
does it; `wrong` tells what is not yet as declared: after the faults have stopped it must come to answer nothing.
"""

from __future__ import annotations

from tests.simulate.stories.access import AggregationStory, ServingStory, TokenStory
from tests.simulate.stories.jobs import EndingStory, JobStory
from tests.simulate.stories.limits import BudgetStory, CrowdStory, PriorityStory, QuotaStory
from tests.simulate.stories.nodes import NodeStory
from tests.simulate.stories.owners import NamespaceStory, OwnersStory
from tests.simulate.stories.scaling import AutoscalerStory, RollbackStory
from tests.simulate.stories.schedules import CronJobStory
from tests.simulate.stories.services import ServiceStory
from tests.simulate.stories.story import Story
from tests.simulate.stories.volumes import KeeperStory, VolumeStory
from tests.simulate.stories.workloads import ControllerStory, DaemonSetStory, DeploymentStory, StatefulSetStory

STORIES: tuple[type[Story], ...] = (
    DeploymentStory,
    DeploymentStory,
    StatefulSetStory,
    StatefulSetStory,
    DaemonSetStory,
    JobStory,
    JobStory,
    CronJobStory,
    EndingStory,
    PriorityStory,
    ControllerStory,
    AggregationStory,
    NodeStory,
    ServiceStory,
    VolumeStory,
    KeeperStory,
    AutoscalerStory,
    RollbackStory,
    BudgetStory,
    QuotaStory,
    OwnersStory,
    OwnersStory,
    CrowdStory,
    NamespaceStory,
    TokenStory,
    ServingStory,
)
"""Those that are in here twice are played twice as often."""
