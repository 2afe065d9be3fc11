"""From the shape of the YAML file to what the rest of the house works with.

Everything here has passed `shape` and `checks`; nothing can fail any more. Where the order in the
file means nothing it is made one, so that another order is no new revision.
"""

from operator import attrgetter
from pathlib import Path
from typing import Any

from trafficmgr.config import checks, checks_group, translate_gates, translate_http
from trafficmgr.config.settings import (
    EndpointConfig,
    RegistrySettings,
    RuntimeSettings,
    Settings,
    UpdatePolicy,
)
from trafficmgr.config.shape import (
    EndpointShape,
    FileShape,
    RegistryShape,
    RuntimeShape,
    SecretShape,
    ZoneShape,
)
from trafficmgr.config.shape_group import (
    ContainerShape,
    GroupShape,
    HttpShape,
    InitContainerShape,
    LivenessShape,
    MountShape,
    PreStopShape,
    ProbeShape,
    ResourcesShape,
    ValueFromShape,
    VolumeShape,
)
from trafficmgr.config.shape_rollout import RolloutShape
from trafficmgr.config.translate_dns import dns_policy_of
from trafficmgr.core.model import (
    CandidateReplicas,
    EndpointSettings,
    OnNewer,
    Publish,
    Step,
)
from trafficmgr.core.routing import Zone
from trafficmgr.core.template import (
    ContainerTemplate,
    EmptyDir,
    ExecCheck,
    FromEnv,
    FromFile,
    FromSecret,
    GroupTemplate,
    HostPath,
    HttpCheck,
    Mount,
    Probe,
    Resources,
    RestartPolicy,
    SecretFiles,
    TcpCheck,
    ValueFrom,
    Volume,
)


def settings_of(file: FileShape, path: Path) -> Settings:
    """Return the settings of a file that is in order."""
    folder = path.absolute().parent
    return Settings(
        path=path.absolute(),
        state_dir=folder / file.state_dir,
        listen_dns=tuple(file.listen.dns),
        listen_http=tuple(file.listen.http),
        listen_https=tuple(file.listen.https),
        front=translate_http.front_of(file, folder),
        dns=dns_policy_of(file.dns),
        advertise=checks.advertised(file),
        address_pool=checks.pool_of(file),
        workers=file.workers,
        runtime=_runtime(file.runtime),
        max_concurrent=file.max_concurrent,
        zones=tuple(map(_zone, file.zones)),
        registries={name: _registry(shape, folder) for name, shape in file.registries.items()},
        keep_logs_s=file.keep_logs,
        secrets={name: _source(shape, folder) for name, shape in file.secrets.items()},
        endpoints={
            name: EndpointConfig(
                settings=_endpoint(name, shape, fence_s=file.fence, folder=folder),
                update=UpdatePolicy(every_s=shape.update.every),
            )
            for name, shape in file.endpoints.items()
        },
    )


def _runtime(shape: RuntimeShape) -> RuntimeSettings:
    return RuntimeSettings(
        kind=shape.kind, host=shape.host or "", pause_image=shape.pause_image or ""
    )


def _zone(shape: ZoneShape) -> Zone:
    return Zone(name=shape.name, ns=tuple(shape.ns), mailbox=shape.mailbox)


def _registry(shape: RegistryShape, folder: Path) -> RegistrySettings:
    return RegistrySettings(
        username=shape.username,
        password_file=folder / shape.password_file if shape.password_file else None,
        is_insecure=shape.insecure,
    )


def _endpoint(name: str, shape: EndpointShape, *, fence_s: float, folder: Path) -> EndpointSettings:
    rollout, drain = shape.rollout, shape.drain
    return EndpointSettings(
        name=name,
        hosts=tuple(shape.hosts),
        template=_group(shape.group, folder),
        port=checks_group.fronted_port(shape),
        replicas=shape.group.replicas,
        publish=Publish(shape.publish),
        ttl_s=shape.ttl,
        ttl_grace_s=shape.ttl_grace,
        steps=_steps(rollout),
        candidate_replicas=CandidateReplicas(rollout.candidate_replicas),
        on_newer=OnNewer(rollout.on_newer),
        min_ready_s=rollout.min_ready,
        deadline_s=rollout.deadline,
        watch_s=rollout.watch,
        keep_previous_s=rollout.keep_previous,
        drain_http_s=drain.http,
        drain_websocket_s=drain.websocket,
        fence_s=fence_s,
        max_revisions=shape.max_revisions,
        affinity=shape.affinity.kind,
        gates=translate_gates.gates_of(shape, folder),
        hooks=translate_gates.hooks_of(shape),
        smoke=translate_gates.smoke_of(rollout.smoke),
        http=translate_http.policy_of(shape),
    )


def _steps(shape: RolloutShape) -> tuple[Step, ...]:
    """Return the stages. Blue-green is nothing but a preview, and then everything at once."""
    if shape.strategy == "blue-green":
        preview = shape.preview
        if preview is None:
            return ()
        return (Step(weight_pct=0, hold_s=preview.hold or 0.0, pause=preview.pause),)
    return tuple(
        Step(
            weight_pct=step.weight,
            hold_s=step.hold or 0.0,
            pause=step.pause,
            deadline_s=step.deadline,
        )
        for step in shape.steps
    )


# -- groups ---------------------------------------------------------------------------------------


def _group(shape: GroupShape, folder: Path) -> GroupTemplate:
    return GroupTemplate(
        containers=tuple(_container(one, folder) for one in shape.containers),
        init_containers=tuple(
            ContainerTemplate(**_common(one, folder)) for one in shape.init_containers
        ),
        volumes=tuple(sorted(map(_volume, shape.volumes), key=attrgetter("name"))),
        restart=RestartPolicy(shape.restart),
        resources=_resources(shape.resources),
        rootfs=shape.rootfs,
    )


def _container(shape: ContainerShape, folder: Path) -> ContainerTemplate:
    return ContainerTemplate(
        **_common(shape, folder),
        ports=tuple(shape.ports),
        pre_stop=_pre_stop(shape.pre_stop, shape.ports) if shape.pre_stop else None,
        readiness=_probe(shape.readiness, shape.ports) if shape.readiness else None,
        liveness=_probe(shape.liveness, shape.ports) if shape.liveness else None,
    )


def _common(shape: InitContainerShape, folder: Path) -> dict[str, Any]:
    """Return what containers and init containers have in common."""
    return {
        "name": shape.name,
        "image": shape.image.repository,
        "tag": shape.image.tag,
        "command": tuple(shape.command),
        "env": {name: one.value for name, one in shape.env.items() if one.value is not None},
        "env_from": {
            name: _value_from(one.value_from, folder)
            for name, one in shape.env.items()
            if one.value_from is not None
        },
        "working_dir": shape.working_dir,
        "user": shape.user,
        "mounts": tuple(sorted(map(_mount, shape.mounts), key=attrgetter("path"))),
        "resources": _resources(shape.resources),
        "stop_grace_s": shape.stop_grace,
    }


def _mount(shape: MountShape) -> Mount:
    return Mount(volume=shape.volume, path=shape.path, is_read_only=shape.read_only)


def _value_from(shape: ValueFromShape, folder: Path) -> ValueFrom:
    if shape.secret is not None:
        return FromSecret(name=shape.secret)
    return _source(shape, folder)


def _source(shape: SecretShape | ValueFromShape, folder: Path) -> FromFile | FromEnv:
    if shape.file is not None:
        return FromFile(path=str(folder / shape.file))
    assert shape.env is not None  # noqa: S101  the shape lets exactly one of them through
    return FromEnv(variable=shape.env)


def _volume(shape: VolumeShape) -> Volume:
    source: EmptyDir | HostPath | SecretFiles
    if shape.empty_dir is not None:
        source = EmptyDir(size_bytes=shape.empty_dir.size)
    elif shape.host_path is not None:
        source = HostPath(path=shape.host_path)
    else:
        assert shape.secret is not None  # noqa: S101  the shape lets exactly one of them through
        source = SecretFiles(files=dict(shape.secret))
    return Volume(name=shape.name, source=source)


def _resources(shape: ResourcesShape) -> Resources:
    cpu = None if shape.cpu is None else float(shape.cpu)
    return Resources(cpu=cpu, memory_bytes=shape.memory)


# -- checks ---------------------------------------------------------------------------------------


def _probe(shape: LivenessShape, ports: list[int]) -> Probe:
    """Return a probe; liveness has no `rise`, because one pass is enough to be alive."""
    check: HttpCheck | TcpCheck | ExecCheck
    if shape.http:
        check = _http(shape.http, ports)
    elif shape.tcp:
        check = TcpCheck(port=shape.tcp.port or ports[0])
    else:
        assert shape.exec is not None  # noqa: S101  `checks` lets exactly one of them through
        check = ExecCheck(command=tuple(shape.exec.command))
    return Probe(
        check=check,
        every_s=shape.every,
        timeout_s=shape.timeout,
        rise=shape.rise if isinstance(shape, ProbeShape) else 1,
        fall=shape.fall,
        initial_delay_s=shape.initial_delay,
    )


def _pre_stop(shape: PreStopShape, ports: list[int]) -> HttpCheck | ExecCheck:
    if shape.http:
        return _http(shape.http, ports)
    assert shape.exec is not None  # noqa: S101  the shape lets exactly one of them through
    return ExecCheck(command=tuple(shape.exec.command))


def _http(shape: HttpShape, ports: list[int]) -> HttpCheck:
    """Return an HTTP check; `checks` made sure that there is a port to look at."""
    return HttpCheck(port=shape.port or ports[0], path=shape.path)
