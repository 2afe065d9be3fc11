"""What a template asks of an engine."""

import pytest

from trafficmgr.admin.needs import needs, unmet
from trafficmgr.core.template import (
    ContainerTemplate,
    EmptyDir,
    ExecCheck,
    FromSecret,
    GroupTemplate,
    HostPath,
    Mount,
    Probe,
    Resources,
    SecretFiles,
    Volume,
)

WEB = ContainerTemplate(name="web", image="registry.test/web", ports=(80,))
PLAIN = GroupTemplate(containers=(WEB,))


def of(**given: object) -> GroupTemplate:
    return PLAIN.but(containers=(WEB.but(**given),))


def holding(source: EmptyDir | HostPath | SecretFiles) -> GroupTemplate:
    return PLAIN.but(volumes=(Volume(name="v", source=source),))


def test_a_plain_container_asks_for_nothing() -> None:
    assert needs(PLAIN) == ()


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        (PLAIN.but(init_containers=(WEB.but(name="init"),)), ("init_containers",)),
        (PLAIN.but(containers=(WEB, WEB.but(name="side"))), ("shared_localhost",)),
        (PLAIN.but(resources=Resources(cpu=1.0)), ("group_limits",)),
        (of(user="1000"), ("user",)),
        (of(env_from={"A": FromSecret(name="a")}), ("secret_env",)),
        (of(mounts=(Mount(volume="v", path="/v"),)), ("mount_paths",)),
        (
            of(mounts=(Mount(volume="v", path="/v", is_read_only=True),)),
            ("read_only_mounts", "mount_paths"),
        ),
        (of(resources=Resources(cpu=0.5)), ("cpu_limit",)),
        (of(resources=Resources(memory_bytes=1)), ("memory_limit",)),
        (of(readiness=Probe(check=ExecCheck(command=("a",)))), ("exec",)),
        (of(liveness=Probe(check=ExecCheck(command=("a",)))), ("exec",)),
        (of(pre_stop=ExecCheck(command=("a",))), ("exec",)),
        (holding(EmptyDir()), ("empty_dir",)),
        (holding(EmptyDir(size_bytes=1)), ("empty_dir", "empty_dir_size")),
        (holding(HostPath(path="/srv")), ("host_path",)),
        (holding(SecretFiles(files={"a": "b"})), ("secret_files",)),
    ],
)
def test_what_is_written_is_asked_for(template: GroupTemplate, asked: tuple[str, ...]) -> None:
    assert needs(template) == asked


def test_only_what_is_asked_for_can_be_missed() -> None:
    gaps = {"cpu_limit": "no cgroups", "memory_limit": "no cgroups", "isolated_files": "never"}

    assert unmet(of(resources=Resources(cpu=0.5)), gaps) == [("cpu_limit", "no cgroups")]
    assert unmet(PLAIN, gaps) == []
