"""The plugins of the scheduler, one aspect a file.

To add one: a file with a `Plugin` (or `Spanning`, `Step`, `Outside`), and a line in ALL. Each point asks them in this
order, which is upstream's (filters: the cheap and telling ones first).
"""

from __future__ import annotations

from knarr.scheduler.framework import Aspect
from knarr.scheduler.plugins.balance import Balance
from knarr.scheduler.plugins.default_binder import DefaultBinder
from knarr.scheduler.plugins.image_locality import ImageLocality
from knarr.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from knarr.scheduler.plugins.node_affinity import NodeAffinity
from knarr.scheduler.plugins.node_name import NodeName
from knarr.scheduler.plugins.node_ports import NodePorts
from knarr.scheduler.plugins.node_unschedulable import NodeUnschedulable
from knarr.scheduler.plugins.node_volume_limits import NodeVolumeLimits
from knarr.scheduler.plugins.priority_sort import PrioritySort
from knarr.scheduler.plugins.resources_fit import ResourcesFit
from knarr.scheduler.plugins.scheduling_gates import SchedulingGates
from knarr.scheduler.plugins.taint_toleration import TaintToleration
from knarr.scheduler.plugins.topology_spread import TopologySpread
from knarr.scheduler.plugins.volume_binding import VolumeBinding
from knarr.scheduler.plugins.volume_restrictions import VolumeRestrictions
from knarr.scheduler.plugins.volume_zone import VolumeZone

ALL: tuple[type[Aspect], ...] = (
    SchedulingGates,
    PrioritySort,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    ResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    TopologySpread,
    InterPodAffinity,
    Balance,
    ImageLocality,
    DefaultBinder,
)
