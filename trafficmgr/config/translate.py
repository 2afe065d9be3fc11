"""From the shape of the YAML file to what the rest of the house works with.

Everything here has passed `shape` and `checks`; nothing can fail any more.
"""

from pathlib import Path

from trafficmgr.config import checks
from trafficmgr.config.settings import EndpointConfig, RegistrySettings, Settings, UpdatePolicy
from trafficmgr.config.shape import (
    ContainerShape,
    EndpointShape,
    FileShape,
    ProbeShape,
    RegistryShape,
    RolloutShape,
    ZoneShape,
)
from trafficmgr.core.model import CandidateReplicas, EndpointSettings, OnNewer, Publish, Step
from trafficmgr.core.routing import Zone
from trafficmgr.core.template import (
    ContainerTemplate,
    GroupTemplate,
    HttpCheck,
    Probe,
    Resources,
    TcpCheck,
)


def settings_of(file: FileShape, path: Path) -> Settings:
    """Return the settings of a file that is in order."""
    folder = path.absolute().parent
    return Settings(
        path=path.absolute(),
        state_dir=folder / file.state_dir,
        listen_dns=tuple(file.listen.dns),
        listen_http=tuple(file.listen.http),
        advertise=checks.advertised(file),
        address_pool=file.address_pool,
        workers=file.workers,
        runtime=file.runtime,
        max_concurrent=file.max_concurrent,
        zones=tuple(map(_zone, file.zones)),
        registries={name: _registry(shape, folder) for name, shape in file.registries.items()},
        endpoints={
            name: EndpointConfig(
                settings=_endpoint(name, shape, file.fence),
                update=UpdatePolicy(every_s=shape.update.every),
            )
            for name, shape in file.endpoints.items()
        },
    )


def _zone(shape: ZoneShape) -> Zone:
    return Zone(name=shape.name, ns=tuple(shape.ns), mailbox=shape.mailbox)


def _registry(shape: RegistryShape, folder: Path) -> RegistrySettings:
    return RegistrySettings(
        username=shape.username,
        password_file=folder / shape.password_file if shape.password_file else None,
        is_insecure=shape.insecure,
    )


def _endpoint(name: str, shape: EndpointShape, fence_s: float) -> EndpointSettings:
    rollout, drain = shape.rollout, shape.drain
    return EndpointSettings(
        name=name,
        hosts=tuple(shape.hosts),
        template=GroupTemplate(
            containers=tuple(map(_container, shape.group.containers)), rootfs=shape.group.rootfs
        ),
        port=checks.fronted_port(shape),
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


def _container(shape: ContainerShape) -> ContainerTemplate:
    limits = shape.resources
    return ContainerTemplate(
        name=shape.name,
        image=shape.image.repository,
        tag=shape.image.tag,
        command=tuple(shape.command),
        env=dict(shape.env),
        ports=tuple(shape.ports),
        working_dir=shape.working_dir,
        resources=Resources(
            cpu=None if limits.cpu is None else float(limits.cpu), memory_bytes=limits.memory
        ),
        stop_grace_s=shape.stop_grace,
        readiness=_probe(shape.readiness, shape.ports[0]) if shape.readiness else None,
    )


def _probe(shape: ProbeShape, only_port: int) -> Probe:
    check: HttpCheck | TcpCheck
    if shape.http:
        check = HttpCheck(port=shape.http.port or only_port, path=shape.http.path)
    else:
        assert shape.tcp is not None  # noqa: S101  `checks` lets exactly one of them through
        check = TcpCheck(port=shape.tcp.port or only_port)
    return Probe(
        check=check,
        every_s=shape.every,
        timeout_s=shape.timeout,
        rise=shape.rise,
        fall=shape.fall,
    )
