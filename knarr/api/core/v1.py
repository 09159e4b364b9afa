"""The types of the API group core, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.meta.v1 import Condition, LabelSelector, ObjectMeta
from knarr.api.types import Int32, Int64, IntOrString, Merge, MicroTime, Quantity, Struct, Time, always, named


class AWSElasticBlockStoreVolumeSource(Struct):
    fs_type: str | None = None
    partition: Int32 | None = None
    read_only: bool | None = None
    volume_id: str = always("", name="volumeID")


class Affinity(Struct):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAntiAffinity | None = None


class AppArmorProfile(Struct):
    localhost_profile: str | None = None
    type: str = always("")


class AttachedVolume(Struct):
    device_path: str = always("")
    name: str = always("")


class AzureDiskVolumeSource(Struct):
    caching_mode: str | None = None
    disk_name: str = always("")
    disk_uri: str = always("", name="diskURI")
    fs_type: str | None = None
    kind: str | None = None
    read_only: bool | None = None


class AzureFilePersistentVolumeSource(Struct):
    read_only: bool | None = None
    secret_name: str = always("")
    secret_namespace: str | None = None
    share_name: str = always("")


class AzureFileVolumeSource(Struct):
    read_only: bool | None = None
    secret_name: str = always("")
    share_name: str = always("")


class ObjectReference(Struct):
    atomic = True

    api_version: str | None = None
    field_path: str | None = None
    kind: str | None = None
    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None
    uid: str | None = None


class Binding(Struct):
    api_version: str = always("v1")
    kind: str = always("Binding")
    metadata: ObjectMeta = always(ObjectMeta)
    target: ObjectReference = always(ObjectReference)


class CSIPersistentVolumeSource(Struct):
    controller_expand_secret_ref: SecretReference | None = None
    controller_publish_secret_ref: SecretReference | None = None
    driver: str = always("")
    fs_type: str | None = None
    node_expand_secret_ref: SecretReference | None = None
    node_publish_secret_ref: SecretReference | None = None
    node_stage_secret_ref: SecretReference | None = None
    read_only: bool | None = None
    volume_attributes: dict[str, str] = {}
    volume_handle: str = always("")


class CSIVolumeSource(Struct):
    driver: str = always("")
    fs_type: str | None = None
    node_publish_secret_ref: LocalObjectReference | None = None
    read_only: bool | None = None
    volume_attributes: dict[str, str] = {}


class Capabilities(Struct):
    add: list[str] = []
    drop: list[str] = []


class CephFSPersistentVolumeSource(Struct):
    monitors: list[str] = always([])
    path: str | None = None
    read_only: bool | None = None
    secret_file: str | None = None
    secret_ref: SecretReference | None = None
    user: str | None = None


class CephFSVolumeSource(Struct):
    monitors: list[str] = always([])
    path: str | None = None
    read_only: bool | None = None
    secret_file: str | None = None
    secret_ref: LocalObjectReference | None = None
    user: str | None = None


class CinderPersistentVolumeSource(Struct):
    fs_type: str | None = None
    read_only: bool | None = None
    secret_ref: SecretReference | None = None
    volume_id: str = always("", name="volumeID")


class CinderVolumeSource(Struct):
    fs_type: str | None = None
    read_only: bool | None = None
    secret_ref: LocalObjectReference | None = None
    volume_id: str = always("", name="volumeID")


class ClientIPConfig(Struct):
    timeout_seconds: Int32 | None = None


class ClusterTrustBundleProjection(Struct):
    label_selector: LabelSelector | None = None
    name: str | None = None
    optional: bool | None = None
    path: str = always("")
    signer_name: str | None = None


class ComponentCondition(Struct):
    error: str | None = None
    message: str | None = None
    status: str = always("")
    type: str = always("")


class ComponentStatus(Struct):
    api_version: str = always("v1")
    kind: str = always("ComponentStatus")
    metadata: ObjectMeta = always(ObjectMeta)
    conditions: Annotated[
        list[ComponentCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []


class ConfigMap(Struct):
    api_version: str = always("v1")
    kind: str = always("ConfigMap")
    metadata: ObjectMeta = always(ObjectMeta)
    binary_data: dict[str, bytes] = {}
    data: dict[str, str] = {}
    immutable: bool | None = None


class ConfigMapEnvSource(Struct):
    name: str | None = None
    optional: bool | None = None


class ConfigMapKeySelector(Struct):
    atomic = True

    key: str = always("")
    name: str | None = None
    optional: bool | None = None


class ConfigMapNodeConfigSource(Struct):
    kubelet_config_key: str = always("")
    name: str = always("")
    namespace: str = always("")
    resource_version: str | None = None
    uid: str | None = None


class ConfigMapProjection(Struct):
    items: list[KeyToPath] = []
    name: str | None = None
    optional: bool | None = None


class ConfigMapVolumeSource(Struct):
    default_mode: Int32 | None = None
    items: list[KeyToPath] = []
    name: str | None = None
    optional: bool | None = None


class Container(Struct):
    args: list[str] = []
    command: list[str] = []
    env: Annotated[list[EnvVar], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))] = []
    env_from: list[EnvFromSource] = []
    image: str | None = None
    image_pull_policy: str | None = None
    lifecycle: Lifecycle | None = None
    liveness_probe: Probe | None = None
    name: str = always("")
    ports: Annotated[
        list[ContainerPort],
        Merge("map", keys=("containerPort", "protocol"), patch_key="containerPort", strategy=("merge",)),
    ] = []
    readiness_probe: Probe | None = None
    resize_policy: list[ContainerResizePolicy] = []
    resources: ResourceRequirements | None = None
    restart_policy: str | None = None
    restart_policy_rules: list[ContainerRestartRule] = []
    security_context: SecurityContext | None = None
    startup_probe: Probe | None = None
    stdin: bool | None = None
    stdin_once: bool | None = None
    termination_message_path: str | None = None
    termination_message_policy: str | None = None
    tty: bool | None = None
    volume_devices: Annotated[
        list[VolumeDevice], Merge("map", keys=("devicePath",), patch_key="devicePath", strategy=("merge",))
    ] = []
    volume_mounts: Annotated[
        list[VolumeMount], Merge("map", keys=("mountPath",), patch_key="mountPath", strategy=("merge",))
    ] = []
    working_dir: str | None = None


class ContainerExtendedResourceRequest(Struct):
    container_name: str = always("")
    request_name: str = always("")
    resource_name: str = always("")


class ContainerImage(Struct):
    names: list[str] = []
    size_bytes: Int64 | None = None


class ContainerPort(Struct):
    container_port: Int32 = always(0)
    host_ip: str | None = named("hostIP", None)
    host_port: Int32 | None = None
    name: str | None = None
    protocol: str | None = None


class ContainerResizePolicy(Struct):
    resource_name: str = always("")
    restart_policy: str = always("")


class ContainerRestartRule(Struct):
    action: str = always("")
    exit_codes: ContainerRestartRuleOnExitCodes | None = None


class ContainerRestartRuleOnExitCodes(Struct):
    operator: str = always("")
    values: Annotated[list[Int32], Merge("set")] = []


class ContainerState(Struct):
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None
    waiting: ContainerStateWaiting | None = None


class ContainerStateRunning(Struct):
    started_at: Time | None = None


class ContainerStateTerminated(Struct):
    container_id: str | None = named("containerID", None)
    exit_code: Int32 = always(0)
    finished_at: Time | None = None
    message: str | None = None
    reason: str | None = None
    signal: Int32 | None = None
    started_at: Time | None = None


class ContainerStateWaiting(Struct):
    message: str | None = None
    reason: str | None = None


class ContainerStatus(Struct):
    allocated_resources: dict[str, Quantity] = {}
    allocated_resources_status: Annotated[
        list[ResourceStatus], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []
    container_id: str | None = named("containerID", None)
    image: str = always("")
    image_id: str = always("", name="imageID")
    last_state: ContainerState | None = None
    name: str = always("")
    ready: bool = always(False)
    resources: ResourceRequirements | None = None
    restart_count: Int32 = always(0)
    started: bool | None = None
    state: ContainerState | None = None
    stop_signal: str | None = None
    user: ContainerUser | None = None
    volume_mounts: Annotated[
        list[VolumeMountStatus], Merge("map", keys=("mountPath",), patch_key="mountPath", strategy=("merge",))
    ] = []


class ContainerUser(Struct):
    linux: LinuxContainerUser | None = None


class DaemonEndpoint(Struct):
    port: Int32 = always(0, name="Port")


class DownwardAPIProjection(Struct):
    items: list[DownwardAPIVolumeFile] = []


class DownwardAPIVolumeFile(Struct):
    field_ref: ObjectFieldSelector | None = None
    mode: Int32 | None = None
    path: str = always("")
    resource_field_ref: ResourceFieldSelector | None = None


class DownwardAPIVolumeSource(Struct):
    default_mode: Int32 | None = None
    items: list[DownwardAPIVolumeFile] = []


class EmptyDirVolumeSource(Struct):
    medium: str | None = None
    size_limit: Quantity | None = None


class EndpointAddress(Struct):
    atomic = True

    hostname: str | None = None
    ip: str = always("")
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointPort(Struct):
    atomic = True

    app_protocol: str | None = None
    name: str | None = None
    port: Int32 = always(0)
    protocol: str | None = None


class EndpointSubset(Struct):
    addresses: list[EndpointAddress] = []
    not_ready_addresses: list[EndpointAddress] = []
    ports: list[EndpointPort] = []


class Endpoints(Struct):
    api_version: str = always("v1")
    kind: str = always("Endpoints")
    metadata: ObjectMeta = always(ObjectMeta)
    subsets: list[EndpointSubset] = []


class EnvFromSource(Struct):
    config_map_ref: ConfigMapEnvSource | None = None
    prefix: str | None = None
    secret_ref: SecretEnvSource | None = None


class EnvVar(Struct):
    name: str = always("")
    value: str | None = None
    value_from: EnvVarSource | None = None


class EnvVarSource(Struct):
    config_map_key_ref: ConfigMapKeySelector | None = None
    field_ref: ObjectFieldSelector | None = None
    file_key_ref: FileKeySelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    secret_key_ref: SecretKeySelector | None = None


class EphemeralContainer(Struct):
    args: list[str] = []
    command: list[str] = []
    env: Annotated[list[EnvVar], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))] = []
    env_from: list[EnvFromSource] = []
    image: str | None = None
    image_pull_policy: str | None = None
    lifecycle: Lifecycle | None = None
    liveness_probe: Probe | None = None
    name: str = always("")
    ports: Annotated[
        list[ContainerPort],
        Merge("map", keys=("containerPort", "protocol"), patch_key="containerPort", strategy=("merge",)),
    ] = []
    readiness_probe: Probe | None = None
    resize_policy: list[ContainerResizePolicy] = []
    resources: ResourceRequirements | None = None
    restart_policy: str | None = None
    restart_policy_rules: list[ContainerRestartRule] = []
    security_context: SecurityContext | None = None
    startup_probe: Probe | None = None
    stdin: bool | None = None
    stdin_once: bool | None = None
    target_container_name: str | None = None
    termination_message_path: str | None = None
    termination_message_policy: str | None = None
    tty: bool | None = None
    volume_devices: Annotated[
        list[VolumeDevice], Merge("map", keys=("devicePath",), patch_key="devicePath", strategy=("merge",))
    ] = []
    volume_mounts: Annotated[
        list[VolumeMount], Merge("map", keys=("mountPath",), patch_key="mountPath", strategy=("merge",))
    ] = []
    working_dir: str | None = None


class EphemeralVolumeSource(Struct):
    volume_claim_template: PersistentVolumeClaimTemplate | None = None


class Event(Struct):
    api_version: str = always("v1")
    kind: str = always("Event")
    metadata: ObjectMeta = always(ObjectMeta)
    action: str | None = None
    count: Int32 | None = None
    event_time: MicroTime | None = None
    first_timestamp: Time | None = None
    involved_object: ObjectReference = always(ObjectReference)
    last_timestamp: Time | None = None
    message: str | None = None
    reason: str | None = None
    related: ObjectReference | None = None
    reporting_component: str | None = None
    reporting_instance: str | None = None
    series: EventSeries | None = None
    source: EventSource | None = None
    type: str | None = None


class EventSeries(Struct):
    count: Int32 | None = None
    last_observed_time: MicroTime | None = None


class EventSource(Struct):
    component: str | None = None
    host: str | None = None


class ExecAction(Struct):
    command: list[str] = []


class FCVolumeSource(Struct):
    fs_type: str | None = None
    lun: Int32 | None = None
    read_only: bool | None = None
    target_wwns: list[str] = named("targetWWNs", [])
    wwids: list[str] = []


class FileKeySelector(Struct):
    atomic = True

    key: str = always("")
    optional: bool | None = None
    path: str = always("")
    volume_name: str = always("")


class FlexPersistentVolumeSource(Struct):
    driver: str = always("")
    fs_type: str | None = None
    options: dict[str, str] = {}
    read_only: bool | None = None
    secret_ref: SecretReference | None = None


class FlexVolumeSource(Struct):
    driver: str = always("")
    fs_type: str | None = None
    options: dict[str, str] = {}
    read_only: bool | None = None
    secret_ref: LocalObjectReference | None = None


class FlockerVolumeSource(Struct):
    dataset_name: str | None = None
    dataset_uuid: str | None = named("datasetUUID", None)


class GCEPersistentDiskVolumeSource(Struct):
    fs_type: str | None = None
    partition: Int32 | None = None
    pd_name: str = always("")
    read_only: bool | None = None


class GRPCAction(Struct):
    port: Int32 = always(0)
    service: str | None = None


class GitRepoVolumeSource(Struct):
    directory: str | None = None
    repository: str = always("")
    revision: str | None = None


class GlusterfsPersistentVolumeSource(Struct):
    endpoints: str = always("")
    endpoints_namespace: str | None = None
    path: str = always("")
    read_only: bool | None = None


class GlusterfsVolumeSource(Struct):
    endpoints: str = always("")
    path: str = always("")
    read_only: bool | None = None


class HTTPGetAction(Struct):
    host: str | None = None
    http_headers: list[HTTPHeader] = []
    path: str | None = None
    port: IntOrString = always(0)
    scheme: str | None = None


class HTTPHeader(Struct):
    name: str = always("")
    value: str = always("")


class HostAlias(Struct):
    hostnames: list[str] = []
    ip: str = always("")


class HostIP(Struct):
    ip: str = always("")


class HostPathVolumeSource(Struct):
    path: str = always("")
    type: str | None = None


class ISCSIPersistentVolumeSource(Struct):
    chap_auth_discovery: bool | None = None
    chap_auth_session: bool | None = None
    fs_type: str | None = None
    initiator_name: str | None = None
    iqn: str = always("")
    iscsi_interface: str | None = None
    lun: Int32 = always(0)
    portals: list[str] = []
    read_only: bool | None = None
    secret_ref: SecretReference | None = None
    target_portal: str = always("")


class ISCSIVolumeSource(Struct):
    chap_auth_discovery: bool | None = None
    chap_auth_session: bool | None = None
    fs_type: str | None = None
    initiator_name: str | None = None
    iqn: str = always("")
    iscsi_interface: str | None = None
    lun: Int32 = always(0)
    portals: list[str] = []
    read_only: bool | None = None
    secret_ref: LocalObjectReference | None = None
    target_portal: str = always("")


class ImageVolumeSource(Struct):
    pull_policy: str | None = None
    reference: str | None = None


class ImageVolumeStatus(Struct):
    image_ref: str = always("")


class KeyToPath(Struct):
    key: str = always("")
    mode: Int32 | None = None
    path: str = always("")


class Lifecycle(Struct):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str | None = None


class LifecycleHandler(Struct):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    sleep: SleepAction | None = None
    tcp_socket: TCPSocketAction | None = None


class LimitRange(Struct):
    api_version: str = always("v1")
    kind: str = always("LimitRange")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: LimitRangeSpec | None = None


class LimitRangeItem(Struct):
    default: dict[str, Quantity] = {}
    default_request: dict[str, Quantity] = {}
    max: dict[str, Quantity] = {}
    max_limit_request_ratio: dict[str, Quantity] = {}
    min: dict[str, Quantity] = {}
    type: str = always("")


class LimitRangeSpec(Struct):
    limits: list[LimitRangeItem] = always([])


class LinuxContainerUser(Struct):
    gid: Int64 = always(0)
    supplemental_groups: list[Int64] = []
    uid: Int64 = always(0)


class LoadBalancerIngress(Struct):
    hostname: str | None = None
    ip: str | None = None
    ip_mode: str | None = None
    ports: list[PortStatus] = []


class LoadBalancerStatus(Struct):
    ingress: list[LoadBalancerIngress] = []


class LocalObjectReference(Struct):
    atomic = True

    name: str | None = None


class LocalVolumeSource(Struct):
    fs_type: str | None = None
    path: str = always("")


class ModifyVolumeStatus(Struct):
    status: str = always("")
    target_volume_attributes_class_name: str | None = None


class NFSVolumeSource(Struct):
    path: str = always("")
    read_only: bool | None = None
    server: str = always("")


class Namespace(Struct):
    api_version: str = always("v1")
    kind: str = always("Namespace")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: NamespaceSpec | None = None
    status: NamespaceStatus | None = None


class NamespaceCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class NamespaceSpec(Struct):
    finalizers: list[str] = []


class NamespaceStatus(Struct):
    conditions: Annotated[
        list[NamespaceCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []
    phase: str | None = None


class Node(Struct):
    api_version: str = always("v1")
    kind: str = always("Node")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class NodeAddress(Struct):
    address: str = always("")
    type: str = always("")


class NodeAffinity(Struct):
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] = []
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None


class NodeAllocatableResourceClaimStatus(Struct):
    containers: Annotated[list[str], Merge("set")] = []
    resource_claim_name: str = always("")
    resources: dict[str, Quantity] = always({})


class NodeCondition(Struct):
    last_heartbeat_time: Time | None = None
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class NodeConfigSource(Struct):
    config_map: ConfigMapNodeConfigSource | None = None


class NodeConfigStatus(Struct):
    active: NodeConfigSource | None = None
    assigned: NodeConfigSource | None = None
    error: str | None = None
    last_known_good: NodeConfigSource | None = None


class NodeDaemonEndpoints(Struct):
    kubelet_endpoint: DaemonEndpoint | None = None


class NodeFeatures(Struct):
    supplemental_groups_policy: bool | None = None


class NodeRuntimeHandler(Struct):
    features: NodeRuntimeHandlerFeatures | None = None
    name: str | None = None


class NodeRuntimeHandlerFeatures(Struct):
    recursive_read_only_mounts: bool | None = None
    user_namespaces: bool | None = None


class NodeSelector(Struct):
    atomic = True

    node_selector_terms: list[NodeSelectorTerm] = always([])


class NodeSelectorRequirement(Struct):
    key: str = always("")
    operator: str = always("")
    values: list[str] = []


class NodeSelectorTerm(Struct):
    atomic = True

    match_expressions: list[NodeSelectorRequirement] = []
    match_fields: list[NodeSelectorRequirement] = []


class NodeSpec(Struct):
    config_source: NodeConfigSource | None = None
    external_id: str | None = named("externalID", None)
    pod_cidr: str | None = named("podCIDR", None)
    pod_cidrs: Annotated[list[str], Merge("set", strategy=("merge",))] = named("podCIDRs", [])
    provider_id: str | None = named("providerID", None)
    taints: list[Taint] = []
    unschedulable: bool | None = None


class NodeStatus(Struct):
    addresses: Annotated[list[NodeAddress], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))] = []
    allocatable: dict[str, Quantity] = {}
    capacity: dict[str, Quantity] = {}
    conditions: Annotated[list[NodeCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))] = []
    config: NodeConfigStatus | None = None
    daemon_endpoints: NodeDaemonEndpoints | None = None
    declared_features: list[str] = []
    features: NodeFeatures | None = None
    images: list[ContainerImage] = []
    node_info: NodeSystemInfo | None = None
    phase: str | None = None
    runtime_handlers: list[NodeRuntimeHandler] = []
    volumes_attached: list[AttachedVolume] = []
    volumes_in_use: list[str] = []


class NodeSwapStatus(Struct):
    capacity: Int64 | None = None


class NodeSystemInfo(Struct):
    architecture: str = always("")
    boot_id: str = always("", name="bootID")
    container_runtime_version: str = always("")
    kernel_version: str = always("")
    kube_proxy_version: str = always("")
    kubelet_version: str = always("")
    machine_id: str = always("", name="machineID")
    operating_system: str = always("")
    os_image: str = always("")
    swap: NodeSwapStatus | None = None
    system_uuid: str = always("", name="systemUUID")


class ObjectFieldSelector(Struct):
    atomic = True

    api_version: str | None = None
    field_path: str = always("")


class PersistentVolume(Struct):
    api_version: str = always("v1")
    kind: str = always("PersistentVolume")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: PersistentVolumeSpec | None = None
    status: PersistentVolumeStatus | None = None


class PersistentVolumeClaim(Struct):
    api_version: str = always("v1")
    kind: str = always("PersistentVolumeClaim")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: PersistentVolumeClaimSpec | None = None
    status: PersistentVolumeClaimStatus | None = None


class PersistentVolumeClaimCondition(Struct):
    last_probe_time: Time | None = None
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class PersistentVolumeClaimSpec(Struct):
    access_modes: list[str] = []
    data_source: TypedLocalObjectReference | None = None
    data_source_ref: TypedObjectReference | None = None
    resources: VolumeResourceRequirements | None = None
    selector: LabelSelector | None = None
    storage_class_name: str | None = None
    volume_attributes_class_name: str | None = None
    volume_mode: str | None = None
    volume_name: str | None = None


class PersistentVolumeClaimStatus(Struct):
    access_modes: list[str] = []
    allocated_resource_statuses: dict[str, str] = {}
    allocated_resources: dict[str, Quantity] = {}
    capacity: dict[str, Quantity] = {}
    conditions: Annotated[
        list[PersistentVolumeClaimCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []
    current_volume_attributes_class_name: str | None = None
    modify_volume_status: ModifyVolumeStatus | None = None
    phase: str | None = None


class PersistentVolumeClaimTemplate(Struct):
    metadata: ObjectMeta | None = None
    spec: PersistentVolumeClaimSpec = always(PersistentVolumeClaimSpec)


class PersistentVolumeClaimVolumeSource(Struct):
    claim_name: str = always("")
    read_only: bool | None = None


class PersistentVolumeSpec(Struct):
    access_modes: list[str] = []
    aws_elastic_block_store: AWSElasticBlockStoreVolumeSource | None = None
    azure_disk: AzureDiskVolumeSource | None = None
    azure_file: AzureFilePersistentVolumeSource | None = None
    capacity: dict[str, Quantity] = {}
    cephfs: CephFSPersistentVolumeSource | None = None
    cinder: CinderPersistentVolumeSource | None = None
    claim_ref: Annotated[ObjectReference, Merge(map_type="granular")] | None = None
    csi: CSIPersistentVolumeSource | None = None
    fc: FCVolumeSource | None = None
    flex_volume: FlexPersistentVolumeSource | None = None
    flocker: FlockerVolumeSource | None = None
    gce_persistent_disk: GCEPersistentDiskVolumeSource | None = None
    glusterfs: GlusterfsPersistentVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    iscsi: ISCSIPersistentVolumeSource | None = None
    local: LocalVolumeSource | None = None
    mount_options: list[str] = []
    nfs: NFSVolumeSource | None = None
    node_affinity: VolumeNodeAffinity | None = None
    persistent_volume_reclaim_policy: str | None = None
    photon_persistent_disk: PhotonPersistentDiskVolumeSource | None = None
    portworx_volume: PortworxVolumeSource | None = None
    quobyte: QuobyteVolumeSource | None = None
    rbd: RBDPersistentVolumeSource | None = None
    scale_io: ScaleIOPersistentVolumeSource | None = named("scaleIO", None)
    storage_class_name: str | None = None
    storageos: StorageOSPersistentVolumeSource | None = None
    volume_attributes_class_name: str | None = None
    volume_mode: str | None = None
    vsphere_volume: VsphereVirtualDiskVolumeSource | None = None


class PersistentVolumeStatus(Struct):
    last_phase_transition_time: Time | None = None
    message: str | None = None
    phase: str | None = None
    reason: str | None = None


class PhotonPersistentDiskVolumeSource(Struct):
    fs_type: str | None = None
    pd_id: str = always("", name="pdID")


class Pod(Struct):
    api_version: str = always("v1")
    kind: str = always("Pod")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: PodSpec | None = None
    status: PodStatus | None = None


class PodAffinity(Struct):
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] = []
    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] = []


class PodAffinityTerm(Struct):
    label_selector: LabelSelector | None = None
    match_label_keys: list[str] = []
    mismatch_label_keys: list[str] = []
    namespace_selector: LabelSelector | None = None
    namespaces: list[str] = []
    topology_key: str = always("")


class PodAntiAffinity(Struct):
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] = []
    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] = []


class PodCertificateProjection(Struct):
    certificate_chain_path: str | None = None
    credential_bundle_path: str | None = None
    key_path: str | None = None
    key_type: str = always("")
    max_expiration_seconds: Int32 | None = None
    signer_name: str = always("")
    user_annotations: dict[str, str] = {}


class PodCondition(Struct):
    last_probe_time: Time | None = None
    last_transition_time: Time | None = None
    message: str | None = None
    observed_generation: Int64 | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class PodDNSConfig(Struct):
    nameservers: list[str] = []
    options: list[PodDNSConfigOption] = []
    searches: list[str] = []


class PodDNSConfigOption(Struct):
    name: str | None = None
    value: str | None = None


class PodExtendedResourceClaimStatus(Struct):
    request_mappings: list[ContainerExtendedResourceRequest] = always([])
    resource_claim_name: str = always("")


class PodIP(Struct):
    ip: str = always("")


class PodOS(Struct):
    name: str = always("")


class PodReadinessGate(Struct):
    condition_type: str = always("")


class PodResourceClaim(Struct):
    name: str = always("")
    resource_claim_name: str | None = None
    resource_claim_template_name: str | None = None


class PodResourceClaimStatus(Struct):
    name: str = always("")
    resource_claim_name: str | None = None


class PodSchedulingGate(Struct):
    name: str = always("")


class PodSchedulingGroup(Struct):
    pod_group_name: str | None = None


class PodSecurityContext(Struct):
    app_armor_profile: AppArmorProfile | None = None
    fs_group: Int64 | None = None
    fs_group_change_policy: str | None = None
    run_as_group: Int64 | None = None
    run_as_non_root: bool | None = None
    run_as_user: Int64 | None = None
    se_linux_change_policy: str | None = None
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None
    supplemental_groups: list[Int64] = []
    supplemental_groups_policy: str | None = None
    sysctls: list[Sysctl] = []
    windows_options: WindowsSecurityContextOptions | None = None


class PodSpec(Struct):
    active_deadline_seconds: Int64 | None = None
    affinity: Affinity | None = None
    automount_service_account_token: bool | None = None
    containers: Annotated[list[Container], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))] = (
        always([])
    )
    dns_config: PodDNSConfig | None = None
    dns_policy: str | None = None
    enable_service_links: bool | None = None
    ephemeral_containers: Annotated[
        list[EphemeralContainer], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []
    host_aliases: Annotated[list[HostAlias], Merge("map", keys=("ip",), patch_key="ip", strategy=("merge",))] = []
    host_ipc: bool | None = named("hostIPC", None)
    host_network: bool | None = None
    host_pid: bool | None = named("hostPID", None)
    host_users: bool | None = None
    hostname: str | None = None
    hostname_override: str | None = None
    image_pull_secrets: Annotated[
        list[LocalObjectReference], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []
    init_containers: Annotated[
        list[Container], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []
    node_name: str | None = None
    node_selector: Annotated[dict[str, str], Merge(map_type="atomic")] = {}
    os: PodOS | None = None
    overhead: dict[str, Quantity] = {}
    preemption_policy: str | None = None
    priority: Int32 | None = None
    priority_class_name: str | None = None
    readiness_gates: list[PodReadinessGate] = []
    resource_claims: Annotated[
        list[PodResourceClaim], Merge("map", keys=("name",), patch_key="name", strategy=("merge", "retainKeys"))
    ] = []
    resources: ResourceRequirements | None = None
    restart_policy: str | None = None
    runtime_class_name: str | None = None
    scheduler_name: str | None = None
    scheduling_gates: Annotated[
        list[PodSchedulingGate], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))
    ] = []
    scheduling_group: PodSchedulingGroup | None = None
    security_context: PodSecurityContext | None = None
    service_account: str | None = None
    service_account_name: str | None = None
    set_hostname_as_fqdn: bool | None = named("setHostnameAsFQDN", None)
    share_process_namespace: bool | None = None
    subdomain: str | None = None
    termination_grace_period_seconds: Int64 | None = None
    tolerations: list[Toleration] = []
    topology_spread_constraints: Annotated[
        list[TopologySpreadConstraint],
        Merge("map", keys=("topologyKey", "whenUnsatisfiable"), patch_key="topologyKey", strategy=("merge",)),
    ] = []
    volumes: Annotated[
        list[Volume], Merge("map", keys=("name",), patch_key="name", strategy=("merge", "retainKeys"))
    ] = []


class PodStatus(Struct):
    allocated_resources: dict[str, Quantity] = {}
    conditions: Annotated[list[PodCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))] = []
    container_statuses: list[ContainerStatus] = []
    ephemeral_container_statuses: list[ContainerStatus] = []
    extended_resource_claim_status: PodExtendedResourceClaimStatus | None = None
    host_ip: str | None = named("hostIP", None)
    host_ips: Annotated[list[HostIP], Merge(patch_key="ip", strategy=("merge",))] = named("hostIPs", [])
    init_container_statuses: list[ContainerStatus] = []
    message: str | None = None
    node_allocatable_resource_claim_statuses: list[NodeAllocatableResourceClaimStatus] = []
    nominated_node_name: str | None = None
    observed_generation: Int64 | None = None
    phase: str | None = None
    pod_ip: str | None = named("podIP", None)
    pod_ips: Annotated[list[PodIP], Merge("map", keys=("ip",), patch_key="ip", strategy=("merge",))] = named(
        "podIPs", []
    )
    qos_class: str | None = None
    reason: str | None = None
    resize: str | None = None
    resource_claim_statuses: Annotated[
        list[PodResourceClaimStatus], Merge("map", keys=("name",), patch_key="name", strategy=("merge", "retainKeys"))
    ] = []
    resources: ResourceRequirements | None = None
    start_time: Time | None = None


class PodTemplate(Struct):
    api_version: str = always("v1")
    kind: str = always("PodTemplate")
    metadata: ObjectMeta = always(ObjectMeta)
    template: PodTemplateSpec | None = None


class PodTemplateSpec(Struct):
    metadata: ObjectMeta | None = None
    spec: PodSpec | None = None


class PortStatus(Struct):
    error: str | None = None
    port: Int32 = always(0)
    protocol: str = always("")


class PortworxVolumeSource(Struct):
    fs_type: str | None = None
    read_only: bool | None = None
    volume_id: str = always("", name="volumeID")


class PreferredSchedulingTerm(Struct):
    preference: NodeSelectorTerm = always(NodeSelectorTerm)
    weight: Int32 = always(0)


class Probe(Struct):
    exec: ExecAction | None = None
    failure_threshold: Int32 | None = None
    grpc: GRPCAction | None = None
    http_get: HTTPGetAction | None = None
    initial_delay_seconds: Int32 | None = None
    period_seconds: Int32 | None = None
    success_threshold: Int32 | None = None
    tcp_socket: TCPSocketAction | None = None
    termination_grace_period_seconds: Int64 | None = None
    timeout_seconds: Int32 | None = None


class ProjectedVolumeSource(Struct):
    default_mode: Int32 | None = None
    sources: list[VolumeProjection] = []


class QuobyteVolumeSource(Struct):
    group: str | None = None
    read_only: bool | None = None
    registry: str = always("")
    tenant: str | None = None
    user: str | None = None
    volume: str = always("")


class RBDPersistentVolumeSource(Struct):
    fs_type: str | None = None
    image: str = always("")
    keyring: str | None = None
    monitors: list[str] = always([])
    pool: str | None = None
    read_only: bool | None = None
    secret_ref: SecretReference | None = None
    user: str | None = None


class RBDVolumeSource(Struct):
    fs_type: str | None = None
    image: str = always("")
    keyring: str | None = None
    monitors: list[str] = always([])
    pool: str | None = None
    read_only: bool | None = None
    secret_ref: LocalObjectReference | None = None
    user: str | None = None


class ReplicationController(Struct):
    api_version: str = always("v1")
    kind: str = always("ReplicationController")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ReplicationControllerSpec | None = None
    status: ReplicationControllerStatus | None = None


class ReplicationControllerCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class ReplicationControllerSpec(Struct):
    min_ready_seconds: Int32 | None = None
    replicas: Int32 | None = None
    selector: Annotated[dict[str, str], Merge(map_type="atomic")] = {}
    template: PodTemplateSpec | None = None


class ReplicationControllerStatus(Struct):
    available_replicas: Int32 | None = None
    conditions: Annotated[
        list[ReplicationControllerCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []
    fully_labeled_replicas: Int32 | None = None
    observed_generation: Int64 | None = None
    ready_replicas: Int32 | None = None
    replicas: Int32 = always(0)


class ResourceClaim(Struct):
    name: str = always("")
    request: str | None = None


class ResourceFieldSelector(Struct):
    atomic = True

    container_name: str | None = None
    divisor: Quantity | None = None
    resource: str = always("")


class ResourceHealth(Struct):
    health: str | None = None
    message: str | None = None
    resource_id: str = always("", name="resourceID")


class ResourceQuota(Struct):
    api_version: str = always("v1")
    kind: str = always("ResourceQuota")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ResourceQuotaSpec | None = None
    status: ResourceQuotaStatus | None = None


class ResourceQuotaSpec(Struct):
    hard: dict[str, Quantity] = {}
    scope_selector: ScopeSelector | None = None
    scopes: list[str] = []


class ResourceQuotaStatus(Struct):
    hard: dict[str, Quantity] = {}
    used: dict[str, Quantity] = {}


class ResourceRequirements(Struct):
    claims: Annotated[list[ResourceClaim], Merge("map", keys=("name",))] = []
    limits: dict[str, Quantity] = {}
    requests: dict[str, Quantity] = {}


class ResourceStatus(Struct):
    name: str = always("")
    resources: Annotated[list[ResourceHealth], Merge("map", keys=("resourceID",))] = []


class SELinuxOptions(Struct):
    level: str | None = None
    role: str | None = None
    type: str | None = None
    user: str | None = None


class SecretReference(Struct):
    atomic = True

    name: str | None = None
    namespace: str | None = None


class ScaleIOPersistentVolumeSource(Struct):
    fs_type: str | None = None
    gateway: str = always("")
    protection_domain: str | None = None
    read_only: bool | None = None
    secret_ref: SecretReference = always(SecretReference)
    ssl_enabled: bool | None = None
    storage_mode: str | None = None
    storage_pool: str | None = None
    system: str = always("")
    volume_name: str | None = None


class ScaleIOVolumeSource(Struct):
    fs_type: str | None = None
    gateway: str = always("")
    protection_domain: str | None = None
    read_only: bool | None = None
    secret_ref: LocalObjectReference = always(LocalObjectReference)
    ssl_enabled: bool | None = None
    storage_mode: str | None = None
    storage_pool: str | None = None
    system: str = always("")
    volume_name: str | None = None


class ScopeSelector(Struct):
    atomic = True

    match_expressions: list[ScopedResourceSelectorRequirement] = []


class ScopedResourceSelectorRequirement(Struct):
    operator: str = always("")
    scope_name: str = always("")
    values: list[str] = []


class SeccompProfile(Struct):
    localhost_profile: str | None = None
    type: str = always("")


class Secret(Struct):
    api_version: str = always("v1")
    kind: str = always("Secret")
    metadata: ObjectMeta = always(ObjectMeta)
    data: dict[str, bytes] = {}
    immutable: bool | None = None
    string_data: dict[str, str] = {}
    type: str | None = None


class SecretEnvSource(Struct):
    name: str | None = None
    optional: bool | None = None


class SecretKeySelector(Struct):
    atomic = True

    key: str = always("")
    name: str | None = None
    optional: bool | None = None


class SecretProjection(Struct):
    items: list[KeyToPath] = []
    name: str | None = None
    optional: bool | None = None


class SecretVolumeSource(Struct):
    default_mode: Int32 | None = None
    items: list[KeyToPath] = []
    optional: bool | None = None
    secret_name: str | None = None


class SecurityContext(Struct):
    allow_privilege_escalation: bool | None = None
    app_armor_profile: AppArmorProfile | None = None
    capabilities: Capabilities | None = None
    privileged: bool | None = None
    proc_mount: str | None = None
    read_only_root_filesystem: bool | None = None
    run_as_group: Int64 | None = None
    run_as_non_root: bool | None = None
    run_as_user: Int64 | None = None
    se_linux_options: SELinuxOptions | None = None
    seccomp_profile: SeccompProfile | None = None
    windows_options: WindowsSecurityContextOptions | None = None


class Service(Struct):
    api_version: str = always("v1")
    kind: str = always("Service")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None


class ServiceAccount(Struct):
    api_version: str = always("v1")
    kind: str = always("ServiceAccount")
    metadata: ObjectMeta = always(ObjectMeta)
    automount_service_account_token: bool | None = None
    image_pull_secrets: list[LocalObjectReference] = []
    secrets: Annotated[list[ObjectReference], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))] = []


class ServiceAccountTokenProjection(Struct):
    audience: str | None = None
    expiration_seconds: Int64 | None = None
    path: str = always("")


class ServicePort(Struct):
    app_protocol: str | None = None
    name: str | None = None
    node_port: Int32 | None = None
    port: Int32 = always(0)
    protocol: str | None = None
    target_port: IntOrString | None = None


class ServiceSpec(Struct):
    allocate_load_balancer_node_ports: bool | None = None
    cluster_ip: str | None = named("clusterIP", None)
    cluster_ips: list[str] = named("clusterIPs", [])
    external_ips: list[str] = named("externalIPs", [])
    external_name: str | None = None
    external_traffic_policy: str | None = None
    health_check_node_port: Int32 | None = None
    internal_traffic_policy: str | None = None
    ip_families: list[str] = []
    ip_family_policy: str | None = None
    load_balancer_class: str | None = None
    load_balancer_ip: str | None = named("loadBalancerIP", None)
    load_balancer_source_ranges: list[str] = []
    ports: Annotated[
        list[ServicePort], Merge("map", keys=("port", "protocol"), patch_key="port", strategy=("merge",))
    ] = []
    publish_not_ready_addresses: bool | None = None
    selector: Annotated[dict[str, str], Merge(map_type="atomic")] = {}
    session_affinity: str | None = None
    session_affinity_config: SessionAffinityConfig | None = None
    traffic_distribution: str | None = None
    type: str | None = None


class ServiceStatus(Struct):
    conditions: Annotated[list[Condition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))] = []
    load_balancer: LoadBalancerStatus | None = None


class SessionAffinityConfig(Struct):
    client_ip: ClientIPConfig | None = named("clientIP", None)


class SleepAction(Struct):
    seconds: Int64 = always(0)


class StorageOSPersistentVolumeSource(Struct):
    fs_type: str | None = None
    read_only: bool | None = None
    secret_ref: ObjectReference | None = None
    volume_name: str | None = None
    volume_namespace: str | None = None


class StorageOSVolumeSource(Struct):
    fs_type: str | None = None
    read_only: bool | None = None
    secret_ref: LocalObjectReference | None = None
    volume_name: str | None = None
    volume_namespace: str | None = None


class Sysctl(Struct):
    name: str = always("")
    value: str = always("")


class TCPSocketAction(Struct):
    host: str | None = None
    port: IntOrString = always(0)


class Taint(Struct):
    effect: str = always("")
    key: str = always("")
    time_added: Time | None = None
    value: str | None = None


class Toleration(Struct):
    effect: str | None = None
    key: str | None = None
    operator: str | None = None
    toleration_seconds: Int64 | None = None
    value: str | None = None


class TopologySelectorLabelRequirement(Struct):
    key: str = always("")
    values: list[str] = always([])


class TopologySelectorTerm(Struct):
    atomic = True

    match_label_expressions: list[TopologySelectorLabelRequirement] = []


class TopologySpreadConstraint(Struct):
    label_selector: LabelSelector | None = None
    match_label_keys: list[str] = []
    max_skew: Int32 = always(0)
    min_domains: Int32 | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None
    topology_key: str = always("")
    when_unsatisfiable: str = always("")


class TypedLocalObjectReference(Struct):
    atomic = True

    api_group: str | None = None
    kind: str = always("")
    name: str = always("")


class TypedObjectReference(Struct):
    api_group: str | None = None
    kind: str = always("")
    name: str = always("")
    namespace: str | None = None


class Volume(Struct):
    aws_elastic_block_store: AWSElasticBlockStoreVolumeSource | None = None
    azure_disk: AzureDiskVolumeSource | None = None
    azure_file: AzureFileVolumeSource | None = None
    cephfs: CephFSVolumeSource | None = None
    cinder: CinderVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    csi: CSIVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = named("downwardAPI", None)
    empty_dir: EmptyDirVolumeSource | None = None
    ephemeral: EphemeralVolumeSource | None = None
    fc: FCVolumeSource | None = None
    flex_volume: FlexVolumeSource | None = None
    flocker: FlockerVolumeSource | None = None
    gce_persistent_disk: GCEPersistentDiskVolumeSource | None = None
    git_repo: GitRepoVolumeSource | None = None
    glusterfs: GlusterfsVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    image: ImageVolumeSource | None = None
    iscsi: ISCSIVolumeSource | None = None
    name: str = always("")
    nfs: NFSVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    photon_persistent_disk: PhotonPersistentDiskVolumeSource | None = None
    portworx_volume: PortworxVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    quobyte: QuobyteVolumeSource | None = None
    rbd: RBDVolumeSource | None = None
    scale_io: ScaleIOVolumeSource | None = named("scaleIO", None)
    secret: SecretVolumeSource | None = None
    storageos: StorageOSVolumeSource | None = None
    vsphere_volume: VsphereVirtualDiskVolumeSource | None = None


class VolumeDevice(Struct):
    device_path: str = always("")
    name: str = always("")


class VolumeMount(Struct):
    mount_path: str = always("")
    mount_propagation: str | None = None
    name: str = always("")
    read_only: bool | None = None
    recursive_read_only: str | None = None
    sub_path: str | None = None
    sub_path_expr: str | None = None


class VolumeMountStatus(Struct):
    mount_path: str = always("")
    name: str = always("")
    read_only: bool | None = None
    recursive_read_only: str | None = None
    volume_status: VolumeStatus | None = None


class VolumeNodeAffinity(Struct):
    required: NodeSelector | None = None


class VolumeProjection(Struct):
    cluster_trust_bundle: ClusterTrustBundleProjection | None = None
    config_map: ConfigMapProjection | None = None
    downward_api: DownwardAPIProjection | None = named("downwardAPI", None)
    pod_certificate: PodCertificateProjection | None = None
    secret: SecretProjection | None = None
    service_account_token: ServiceAccountTokenProjection | None = None


class VolumeResourceRequirements(Struct):
    limits: dict[str, Quantity] = {}
    requests: dict[str, Quantity] = {}


class VolumeStatus(Struct):
    image: ImageVolumeStatus | None = None


class VsphereVirtualDiskVolumeSource(Struct):
    fs_type: str | None = None
    storage_policy_id: str | None = named("storagePolicyID", None)
    storage_policy_name: str | None = None
    volume_path: str = always("")


class WeightedPodAffinityTerm(Struct):
    pod_affinity_term: PodAffinityTerm = always(PodAffinityTerm)
    weight: Int32 = always(0)


class WindowsSecurityContextOptions(Struct):
    gmsa_credential_spec: str | None = None
    gmsa_credential_spec_name: str | None = None
    host_process: bool | None = None
    run_as_user_name: str | None = None
