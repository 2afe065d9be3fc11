"""`show` as data: what a group is made of, its states, and its counted events."""

import msgspec
import pytest
from support.story import NAME, Story, World, revision, settings

from trafficmgr.admin import counted, details
from trafficmgr.core.events import (
    EndpointEvent,
    GroupEnded,
    GroupReady,
    GroupStarted,
    GroupUnready,
    RevisionSeen,
    Woke,
)
from trafficmgr.core.model import Group, GroupPhase, Publish
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import (
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
    Revision,
    SecretFiles,
    TcpCheck,
    Volume,
)
from trafficmgr.journal.entries import Entry, Stored
from trafficmgr.runtimes.contract import ContainerState, ContainerStatus, GroupState, GroupStatus

(WEB,) = revision("v1").template.containers
GROUP = Group(
    id="shop-2",
    revision="v1",
    created_at=0.0,
    address="127.77.0.2",
    phase=GroupPhase.started,
    replaces="shop-1",
    restarts=3,
)


def shown(
    template: GroupTemplate,
    *,
    group: Group = GROUP,
    status: GroupStatus | None = None,
    is_engine_away: bool = False,
) -> details.Plain:
    found = Revision(id="v1", template=template, images=revision("v1").images)
    state = EndpointState(
        name=NAME,
        boot_id="boot-1",
        settings=settings(),
        table=Table(endpoint=NAME, generation=0, hosts=(), publish=Publish.proxy, ttl_s=1),
        revisions={"v1": found},
        groups=(group,),
    )
    return details.group(group, state, status, is_engine_away=is_engine_away)


def seen(*containers: ContainerStatus) -> GroupStatus:
    return GroupStatus(
        group="shop-2", endpoint=NAME, state=GroupState.running, containers=containers
    )


# -- what it is made of ---------------------------------------------------------------------------


def test_everything_that_was_written_is_shown() -> None:
    web = WEB.but(
        command=("serve", "--all"),
        user="1000:1000",
        env={"A": "text"},
        mounts=(Mount(volume="shared", path="/shared", is_read_only=True),),
        resources=Resources(cpu=0.5, memory_bytes=1024),
        readiness=Probe(check=HttpCheck(port=8080, path="/healthz"), initial_delay_s=3.0),
        liveness=Probe(check=ExecCheck(command=("cat", "/alive")), every_s=10.0),
        pre_stop=HttpCheck(port=8080, path="/bye"),
    )
    volumes = (
        Volume(name="shared", source=EmptyDir(size_bytes=64)),
        Volume(name="data", source=HostPath(path="/srv/data")),
    )
    template = GroupTemplate(
        containers=(web,), volumes=volumes, resources=Resources(memory_bytes=4096)
    )

    view = shown(template)

    (container,) = view["containers"]
    assert container | {"state": "", "reason": ""} == {
        "name": "web",
        "is_init": False,
        "restarts": 3,
        "state": "",
        "reason": "",
        "exit_code": None,
        "started": None,
        "finished": None,
        "image": "registry.test/shop/web:latest",
        "digest": "v1",
        "command": ["serve", "--all"],
        "user": "1000:1000",
        "ports": [8080],
        "limits": {"cpu": 0.5, "memory_bytes": 1024},
        "env": {"A": "(hidden)"},
        "mounts": [{"path": "/shared", "volume": "shared", "is_read_only": True}],
        "readiness": "http :8080/healthz, every 1s, timeout 5s, rise 2, fall 3, after 3s",
        "liveness": "exec cat /alive, every 10s, timeout 5s, fall 3",
        "pre_stop": "http :8080/bye",
        "stop_grace_s": 10.0,
    }
    assert view["volumes"] == [
        {"name": "shared", "kind": "empty_dir", "size_bytes": 64},
        {"name": "data", "kind": "host_path", "path": "/srv/data"},
    ]
    assert view["limits"] == {"cpu": None, "memory_bytes": 4096}
    assert (view["address"], view["port"], view["restart"]) == ("127.77.0.2", 8080, "Always")


def test_secrets_are_shown_by_reference() -> None:
    web = WEB.but(
        env_from={
            "A": FromSecret(name="token"),
            "B": FromFile(path="/etc/hostname"),
            "C": FromEnv(variable="HOSTNAME"),
        }
    )
    keys = Volume(name="keys", source=SecretFiles(files={"tls.key": "token"}))

    view = shown(GroupTemplate(containers=(web,), volumes=(keys,)))

    assert view["containers"][0]["env"] == {
        "A": "(secret token)",
        "B": "(file /etc/hostname)",
        "C": "(variable HOSTNAME of the controller)",
    }
    assert view["volumes"] == [{"name": "keys", "kind": "secret", "files": {"tls.key": "token"}}]


def test_a_tcp_probe_is_shown() -> None:
    web = WEB.but(readiness=Probe(check=TcpCheck(port=8080)))

    (container,) = shown(GroupTemplate(containers=(web,)))["containers"]

    assert container["readiness"] == "tcp :8080, every 1s, timeout 5s, rise 2, fall 3"


@pytest.mark.parametrize(("name", "expected"), [("migrate", ["do"]), ("forgotten", [])])
def test_the_task_of_a_hook_is_shown_with_its_command(name: str, expected: list[str]) -> None:
    """What a hook that the rollout under way knows nothing of has run can't be said any more."""
    story = Story(World(), settings(hooks="before:migrate:command:60s"))
    story.feed(RevisionSeen(at=0.0, endpoint=NAME, revision=revision("v1")))
    (task,) = story.state.groups

    view = details.group(task.but(hook=name), story.state, None, is_engine_away=False)

    assert (view["hook"], view["ready"]) == (name, False)
    (container,) = view["containers"]
    assert container["command"][:1] == expected
    assert view["restart"] == ("Never" if expected else "Always")
    assert shown(revision("v1").template)["hook"] is None


# -- states ---------------------------------------------------------------------------------------


def test_states_are_the_runtimes() -> None:
    fetch = WEB.but(name="fetch", ports=())
    template = GroupTemplate(containers=(WEB,), init_containers=(fetch,))
    status = seen(
        ContainerStatus(
            name="fetch",
            state=ContainerState.terminated,
            is_init=True,
            reason="Completed",
            exit_code=0,
            started_at=10.0,
            finished_at=12.25,
        ),
        ContainerStatus(name="web", state=ContainerState.running, started_at=13.0),
    )

    first, second = shown(template, status=status)["containers"]

    assert (first["name"], first["is_init"], first["state"]) == ("fetch", True, "Terminated")
    assert (first["reason"], first["exit_code"]) == ("Completed", 0)
    assert first["started"] == "1970-01-01T00:00:10+00:00"
    assert first["finished"] == "1970-01-01T00:00:12+00:00"
    assert (second["name"], second["is_init"], second["state"]) == ("web", False, "Running")
    assert second["finished"] is None


@pytest.mark.parametrize(
    ("phase", "state", "reason"),
    [
        (GroupPhase.waiting, "Waiting", "BackOff"),
        (GroupPhase.wanted, "Waiting", "ContainerCreating"),
        (GroupPhase.ended, "Terminated", "Error"),
        (GroupPhase.completed, "Terminated", "Completed"),
    ],
)
def test_what_the_runtime_does_not_know_follows_from_the_phase(
    phase: GroupPhase, state: str, reason: str
) -> None:
    (container,) = shown(revision("v1").template, group=GROUP.but(phase=phase))["containers"]

    assert (container["state"], container["reason"]) == (state, reason)


def test_while_the_engine_is_away_states_are_unknown() -> None:
    (container,) = shown(revision("v1").template, is_engine_away=True)["containers"]

    assert (container["state"], container["reason"]) == ("Unknown", "")


# -- events ---------------------------------------------------------------------------------------


def journal(*happened: EndpointEvent) -> list[Stored]:
    return [
        Stored(
            seq=seq,
            wall=f"2031-02-03T04:05:{seq:02}.5+00:00",
            entry=Entry(
                at=one.at,
                boot_id="boot-1",
                endpoint=one.endpoint,
                kind=type(one).__name__,
                event=msgspec.json.encode(one),
            ),
        )
        for seq, one in enumerate(happened, 1)
    ]


def test_the_same_again_makes_a_count_and_another_reason_another_line() -> None:
    sick = GroupUnready(at=0.0, endpoint=NAME, group="shop-2", reason="refused")
    events = counted.by_group(
        journal(
            GroupStarted(at=0.0, endpoint=NAME, group="shop-2"),
            sick,
            Woke(at=0.0, endpoint=NAME),
            GroupReady(at=0.0, endpoint=NAME, group="shop-2"),
            sick,
            sick.but(reason="GET /healthz answered 503"),
            sick.but(group="shop-9"),
        )
    )

    lines = [(one["what"], one["why"], one["count"]) for one in events["shop-2"]]
    assert lines == [
        ("Started", "", 1),
        ("Unhealthy", "refused", 2),
        ("Ready", "", 1),
        ("Unhealthy", "GET /healthz answered 503", 1),
    ]
    assert events["shop-2"][1]["first"] == "2031-02-03T04:05:02.5+00:00"
    assert events["shop-2"][1]["last"] == "2031-02-03T04:05:05.5+00:00"
    assert len(events["shop-9"]) == 1


def test_how_a_group_ended_is_found_among_its_events() -> None:
    events = counted.by_group(
        journal(
            GroupReady(at=0.0, endpoint=NAME, group="shop-1"),
            GroupEnded(at=0.0, endpoint=NAME, group="shop-1", reason="exit code 3"),
            GroupReady(at=0.0, endpoint=NAME, group="shop-2"),
        )
    )

    assert counted.end_of(events["shop-1"]) == {
        "what": "Ended",
        "why": "exit code 3",
        "at": "2031-02-03T04:05:02.5+00:00",
    }
    assert counted.end_of(events["shop-2"]) is None


def test_every_kind_that_is_counted_concerns_a_group() -> None:
    """A kind that was renamed in the core would be counted no more."""
    kinds = {one.__name__: one for one in EndpointEvent.__subclasses__()}

    for kind in counted.NAMES:
        assert "group" in kinds[kind].__struct_fields__
    of_groups = {name for name, one in kinds.items() if "group" in one.__struct_fields__}
    assert of_groups - counted.NAMES.keys() == {"DirectClientsGone"}
