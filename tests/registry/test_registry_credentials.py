"""Where credentials come from: config first, then docker's config.json and its helpers."""

import asyncio
import base64
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from trafficmgr.registry import credentials
from trafficmgr.registry.credentials import Credentials, RegistryAccess, find_credentials
from trafficmgr.registry.errors import AccessDeniedError

HOST = "registry.example.com"
NOTHING = RegistryAccess()


def encoded(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


def write(folder: Path, config: object) -> None:
    (folder / "config.json").write_text(json.dumps(config))


async def found(registry: str = HOST, repository: str = "team/web") -> Credentials | None:
    return await find_credentials(registry, repository, NOTHING)


async def test_nothing_configured_is_no_credentials() -> None:
    assert await found() is None


async def test_our_own_config_comes_before_dockers(docker_config: Path) -> None:
    write(docker_config, {"auths": {HOST: encoded("docker:theirs")}})

    ours = RegistryAccess(username="ci", password="ours")

    assert await find_credentials(HOST, "team/web", ours) == Credentials("ci", "ours")


async def test_a_password_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Going on without credentials would hide it until the image is made private."""
    access = RegistryAccess(username="ci", password_file=str(tmp_path / "gone"))
    with pytest.raises(AccessDeniedError, match=r"password file .*gone can't be read"):
        await find_credentials(HOST, "team/web", access)


def test_secrets_are_not_shown() -> None:
    access = RegistryAccess(username="ci", password="s3cret")
    shown = Credentials("ci", "s3cret", identity_token="s3cret")
    assert "s3cret" not in f"{access!r} {shown!r}"


@pytest.mark.parametrize(
    "key", [HOST, f"https://{HOST}", f"https://{HOST}/v1/", f"{HOST}/v2/", f"http://{HOST}/v1"]
)
async def test_every_spelling_of_a_host_is_found(docker_config: Path, key: str) -> None:
    write(docker_config, {"auths": {key: encoded("ci:with:colon")}})
    assert await found() == Credentials("ci", "with:colon")


async def test_the_longest_prefix_wins(docker_config: Path) -> None:
    auths = {
        HOST: encoded("host:1"),
        f"{HOST}/team": encoded("team:2"),
        f"{HOST}/te": encoded("x:3"),
    }
    write(docker_config, {"auths": auths})

    assert await found(repository="team/web") == Credentials("team", "2")
    assert await found(repository="other/web") == Credentials("host", "1")


async def test_docker_hub_has_its_old_name(docker_config: Path) -> None:
    write(docker_config, {"auths": {"https://index.docker.io/v1/": encoded("me:hub")}})
    assert await found("docker.io", "library/nginx") == Credentials("me", "hub")


async def test_another_host_gets_nothing(docker_config: Path) -> None:
    write(docker_config, {"auths": {"registry.example.com.evil.test": encoded("a:b")}})
    assert await found() is None


@pytest.mark.parametrize(
    "text", ["{", '{"auths": 7}', '{"auths": {"registry.example.com": {"auth": "%"}}}']
)
async def test_a_broken_config_is_an_error(docker_config: Path, text: str) -> None:
    (docker_config / "config.json").write_text(text)
    with pytest.raises(AccessDeniedError, match=r"config\.json"):
        await found()


# -- helpers --------------------------------------------------------------------------------------


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def helper(folder: Path, body: str) -> None:
    path = folder / "docker-credential-test"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


async def test_a_helper_is_asked_for_the_host(docker_config: Path, bin_folder: Path) -> None:
    write(docker_config, {"credHelpers": {HOST: "test"}, "auths": {HOST: {}}})
    helper(bin_folder, """[ "$1" = get ] && printf '{"Username":"u","Secret":"%s"}' "$(cat)" """)

    assert await found() == Credentials("u", HOST)
    assert await found("other.example.com") is None


async def test_a_store_is_asked_for_every_host(docker_config: Path, bin_folder: Path) -> None:
    write(docker_config, {"credsStore": "test"})
    helper(bin_folder, """echo '{"ServerURL":"s","Username":"<token>","Secret":"long"}'""")

    assert await found() == Credentials(identity_token="long")


async def test_a_store_without_the_host_leaves_the_rest(
    docker_config: Path, bin_folder: Path
) -> None:
    write(docker_config, {"credsStore": "test", "auths": {HOST: encoded("a:b")}})
    helper(bin_folder, "echo credentials not found in native keychain; exit 1")

    assert await found() == Credentials("a", "b")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo locked; exit 3", r"failed with status 3 \(locked\)"),
        ("echo hello", "answered with no credentials"),
    ],
)
async def test_a_helper_that_fails_is_an_error(
    docker_config: Path, bin_folder: Path, body: str, says: str
) -> None:
    write(docker_config, {"credsStore": "test"})
    helper(bin_folder, body)
    with pytest.raises(AccessDeniedError, match=says):
        await found()


async def test_a_helper_that_hangs_is_killed(
    docker_config: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(docker_config, {"credsStore": "test"})
    helper(bin_folder, "exec sleep 1000")
    monkeypatch.setattr(credentials, "HELPER_TIMEOUT_S", 0.2)
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def noted(*command: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(await start(*command, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    with pytest.raises(AccessDeniedError, match=r"did not answer within 0.2 s"):
        await found()

    assert [process.returncode for process in started] == [-signal.SIGKILL]


@pytest.mark.parametrize(
    ("name", "says"),
    [("../../bin/sh", "no name"), ("a b", "no name"), ("nowhere-to-be-found", "can't be run")],
)
async def test_a_helper_that_is_none_is_an_error(docker_config: Path, name: str, says: str) -> None:
    write(docker_config, {"credsStore": name})
    with pytest.raises(AccessDeniedError, match=says):
        await found()
