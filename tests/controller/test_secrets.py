"""Secrets are read when a group starts, from where the config says, and are never said."""

import os
from pathlib import Path

import pytest

from trafficmgr.controller.secrets import MAX_BYTES, SecretStore, Sources
from trafficmgr.core.template import (
    ContainerTemplate,
    FromEnv,
    FromFile,
    FromSecret,
    GroupTemplate,
    SecretFiles,
    ValueFrom,
    Volume,
)
from trafficmgr.runtimes.contract import RuntimeFailure

CANARY = "canary-3f9a"


def template(*volumes: Volume, **env: ValueFrom) -> GroupTemplate:
    web = ContainerTemplate(name="web", image="registry.test/web", env_from=env)
    return GroupTemplate(containers=(web,), volumes=volumes)


def keys(**files: str) -> Volume:
    return Volume(name="keys", source=SecretFiles(files=files))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{CANARY}\n")
    return path


@pytest.fixture
def sources(file: Path) -> Sources:
    return {"token": FromFile(path=str(file)), "db": FromEnv(variable="DB_PASSWORD")}


async def test_a_variable_gets_its_value_from_where_it_says(file: Path, sources: Sources) -> None:
    store = SecretStore(sources, {"DB_PASSWORD": "s3cret\n", "PLAIN": "here"})
    asked = template(
        A=FromSecret(name="token"),
        B=FromSecret(name="db"),
        C=FromFile(path=str(file)),
        D=FromEnv(variable="PLAIN"),
    )

    secrets = await store.read(asked)

    assert secrets.env("web") == {"A": CANARY, "B": "s3cret\n", "C": CANARY, "D": "here"}


async def test_init_containers_get_theirs_as_well(sources: Sources) -> None:
    fetch = ContainerTemplate(
        name="fetch", image="registry.test/fetch", env_from={"A": FromSecret(name="token")}
    )

    secrets = await SecretStore(sources).read(template().but(init_containers=(fetch,)))

    assert secrets.env("fetch") == {"A": CANARY}
    assert secrets.env("web") == {}


async def test_a_secret_volume_holds_the_bytes_of_its_source(tmp_path: Path) -> None:
    """A key without its final line end is not what was written."""
    data = b"\0\xff---\r\n"
    (tmp_path / "key").write_bytes(data)
    store = SecretStore({"key": FromFile(path=str(tmp_path / "key"))})

    secrets = await store.read(template(keys(**{"tls.key": "key"})))

    assert secrets.files("keys") == {"tls.key": data}


async def test_a_rotated_secret_is_taken_up_by_the_next_group(file: Path, sources: Sources) -> None:
    store, asked = SecretStore(sources), template(A=FromSecret(name="token"))
    before = await store.read(asked)

    file.write_text("another")

    assert before.env("web") == {"A": CANARY}
    assert (await store.read(asked)).env("web") == {"A": "another"}


async def test_nothing_is_read_for_a_template_that_names_nothing() -> None:
    store = SecretStore({"token": FromFile(path="/nowhere/at/all")})

    assert (await store.read(template())).env("web") == {}


def test_the_representation_of_secrets_says_nothing(sources: Sources) -> None:
    assert CANARY not in repr(SecretStore(sources)._read(template(A=FromSecret(name="token"))))


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (FromSecret(name="gone"), 'secret "gone" (nowhere) is not in the config any more'),
        (FromSecret(name="db"), 'secret "db" (variable DB_PASSWORD) is not there'),
        (FromFile(path="/nowhere/at/all"), "/nowhere/at/all can't be read (No such file or dir"),
        (FromFile(path="/dev/zero"), "file /dev/zero is no plain file"),
        (FromFile(path="/"), "file / can"),
    ],
)
async def test_what_cannot_be_read_is_named_with_its_place(
    sources: Sources, source: ValueFrom, what: str
) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await SecretStore(sources, {}).read(template(A=source))

    assert what in str(caught.value)
    assert "No group that needs it is started; what runs goes on." in str(caught.value)


async def test_a_pipe_that_nobody_writes_to_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(RuntimeFailure, match="is no plain file"):
        await SecretStore({}).read(template(A=FromFile(path=str(tmp_path / "pipe"))))


@pytest.mark.parametrize(
    "data", [CANARY.encode() + b"\xff", CANARY.encode() + b"\0", CANARY.encode() * (MAX_BYTES // 5)]
)
async def test_an_error_never_says_the_value(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad").write_bytes(data)
    store = SecretStore({"bad": FromFile(path=str(tmp_path / "bad"))})

    with pytest.raises(RuntimeFailure, match='secret "bad"') as caught:
        await store.read(template(A=FromSecret(name="bad")))

    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in repr(error)
        error = error.__cause__ or error.__context__


async def test_another_config_counts_for_what_starts_after_it(sources: Sources) -> None:
    store = SecretStore(sources, {"OTHER": "other"})

    store.use({"token": FromEnv(variable="OTHER")})

    assert (await store.read(template(A=FromSecret(name="token")))).env("web") == {"A": "other"}


def test_what_is_unreadable_is_listed(sources: Sources) -> None:
    (sentence,) = SecretStore(sources, {}).unreadable()

    assert sentence.startswith('secret "db" (variable DB_PASSWORD) is not there')
