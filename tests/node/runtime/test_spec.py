"""What the OCI runtime is told about a container."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.node.runtime import spec
from knarr.node.runtime.archives import ImageSettings
from knarr.node.runtime.contract import ContainerConfig, Mount, Resources, RuntimeFailure, SecurityContext
from knarr.node.runtime.users import User

HOST = spec.Host(
    cgroup_v2=False,
    capabilities=frozenset(spec.ALL_CAPABILITIES) - {"SYS_RESOURCE"},
    oom_score_adj=100,
    recursive_read_only=True,
)
PLACE = spec.Place(
    "web-0", {"network": "/n", "ipc": "/i", "uts": "/u"}, "/shm", "/hostname", "/knarr/pod/c", {"a": "b"}
)


def config(**fields: Any) -> ContainerConfig:
    return ContainerConfig(**{"name": "main", "attempt": 0, "image": "x", "command": ["run"], **fields})


def build(host: spec.Host = HOST, settings: ImageSettings = ImageSettings(), **fields: Any) -> dict[str, Any]:
    return spec.build(config(**fields), settings, User(5, 6, (6, 7)), PLACE, host)


@pytest.mark.parametrize(
    ("command", "args", "line"),
    [
        ((), (), ["entry", "cmd"]),
        ((), ("a",), ["entry", "a"]),
        (("c",), (), ["c"]),
        (("c",), ("a",), ["c", "a"]),
    ],
)
def test_command_replaces_entrypoint_and_cmd_and_args_replaces_cmd(
    command: tuple[str, ...], args: tuple[str, ...], line: list[str]
) -> None:
    settings = ImageSettings(entrypoint=("entry",), cmd=("cmd",))
    assert spec.arguments(config(command=command, args=args), settings) == line


def test_a_container_without_any_command_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="no command specified"):
        spec.arguments(config(command=()), ImageSettings(entrypoint=None, cmd=None))


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 15), (None, 15), ("SIGQUIT", 3), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)],
)
def test_stop_signals_are_written_in_many_ways(text: str | None, number: int) -> None:
    assert spec.stop_signal(ImageSettings(stop_signal=text)) == number


def test_an_unknown_stop_signal_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="SIGNONSENSE"):
        spec.stop_signal(ImageSettings(stop_signal="SIGNONSENSE"))


def test_environment_is_the_images_overlaid_by_the_pods() -> None:
    settings = ImageSettings(env=("PATH=/image", "A=1", "EMPTY"))
    values = spec.environment(config(env=[("A", "2"), ("B", "x=y")]), settings, "web-0")
    assert values == ["PATH=/image", "HOSTNAME=web-0", "A=2", "EMPTY=", "B=x=y"]
    assert spec.DEFAULT_PATH in spec.environment(config(), ImageSettings(), "web-0")
    assert "TERM=xterm" in spec.environment(config(tty=True), ImageSettings(), "web-0")


@pytest.mark.parametrize(
    ("add", "drop", "granted"),
    [
        ((), (), {f"CAP_{name}" for name in spec.CAPABILITIES}),
        ((), ("ALL",), set()),
        (("NET_ADMIN",), ("ALL",), {"CAP_NET_ADMIN"}),
        (("cap_sys_time",), ("all",), {"CAP_SYS_TIME"}),
        (("ALL",), (), {f"CAP_{name}" for name in spec.ALL_CAPABILITIES} - {"CAP_SYS_RESOURCE"}),
        ((), ("NET_RAW", "MKNOD"), {f"CAP_{name}" for name in spec.CAPABILITIES} - {"CAP_NET_RAW", "CAP_MKNOD"}),
        (("SYS_RESOURCE",), ("ALL",), set()),
    ],
)
def test_capabilities_are_the_default_ones_plus_added_minus_dropped(
    add: tuple[str, ...], drop: tuple[str, ...], granted: set[str]
) -> None:
    security = SecurityContext(add_capabilities=add, drop_capabilities=drop)
    process = build(security=security)["process"]
    assert set(process["capabilities"]["bounding"]) == granted
    assert "inheritable" not in process["capabilities"]


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="CAP_NONSENSE"):
        build(security=SecurityContext(add_capabilities=("NONSENSE",)))


def test_a_mount_of_the_pod_replaces_the_systems_and_outer_ones_come_first() -> None:
    mounts = [Mount("/d", "/a/b"), Mount("/c", "/a", read_only=True), Mount("/mine", "/dev/shm/")]
    listed = build(mounts=mounts)["mounts"]
    places = [mount["destination"] for mount in listed]
    assert places.count("/dev/shm") == 1
    assert next(mount for mount in listed if mount["destination"] == "/dev/shm")["source"] == "/mine"
    assert places.index("/a") < places.index("/a/b")
    assert next(mount for mount in listed if mount["destination"] == "/a")["options"][-1] == "rro"
    old = build(msgspec.structs.replace(HOST, recursive_read_only=False), mounts=mounts)["mounts"]
    assert next(mount for mount in old if mount["destination"] == "/a")["options"][-1] == "ro"


def test_privileged_hides_nothing_and_others_see_neither_firmware_nor_kernel_memory() -> None:
    plain = build()["linux"]
    assert {"/proc/kcore", "/sys/firmware"} <= set(plain["maskedPaths"])
    assert "/proc/sys" in plain["readonlyPaths"]
    assert plain["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    privileged = build(security=SecurityContext(privileged=True))["linux"]
    assert privileged["maskedPaths"] == privileged["readonlyPaths"] == []
    assert privileged["resources"]["devices"][0] == {"allow": True, "access": "rwm"}


def test_bounds_are_handed_on_in_the_kernels_units() -> None:
    resources = Resources(cpu_shares=102, cpu_quota_us=20_000, memory_limit_bytes=1 << 20)
    assert build(resources=resources)["linux"]["resources"]["cpu"] == {
        "shares": 102,
        "quota": 20_000,
        "period": 100_000,
    }
    assert build(resources=resources)["linux"]["resources"]["memory"] == {"limit": 1 << 20}
    assert "cpu" not in build()["linux"]["resources"]


def test_oom_score_is_never_lowered_where_that_is_refused() -> None:
    assert build(oom_score_adj=-997)["process"]["oomScoreAdj"] == 100
    assert build(oom_score_adj=900)["process"]["oomScoreAdj"] == 900
    able = msgspec.structs.replace(HOST, capabilities=frozenset(spec.ALL_CAPABILITIES))
    assert build(able, oom_score_adj=-997)["process"]["oomScoreAdj"] == -997
    assert "oomScoreAdj" not in build()["process"]


def test_namespaces_are_joined_by_path_and_made_new_where_none_is_given() -> None:
    kinds = {entry["type"]: entry.get("path") for entry in build()["linux"]["namespaces"]}
    assert kinds == {"pid": None, "mount": None, "network": "/n", "ipc": "/i", "uts": "/u"}
    v2 = build(msgspec.structs.replace(HOST, cgroup_v2=True))["linux"]["namespaces"]
    assert {"type": "cgroup"} in v2


def test_user_and_working_folder() -> None:
    process = build(settings=ImageSettings(working_dir="/image"))["process"]
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [6, 7]}
    assert process["cwd"] == "/image"
    assert build(settings=ImageSettings(working_dir="/image"), working_dir="/pod")["process"]["cwd"] == "/pod"
    assert build()["process"]["cwd"] == "/"
