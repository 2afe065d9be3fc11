"""Getting in: Basic and Bearer against a real docker-registry, and stubborn token services."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from support.registry_support import (
    PASSWORD,
    USER,
    Server,
    docker_registry,
    htpasswd_auth,
    serving,
)

from demo.builder import Image, push
from trafficmgr.registry.auth import Authorizer
from trafficmgr.registry.client import RegistryClient
from trafficmgr.registry.credentials import RegistryAccess
from trafficmgr.registry.errors import (
    AccessDeniedError,
    RegistryUnreachableError,
    UntrustworthyAnswerError,
)
from trafficmgr.registry.transport import Transport

IMAGE = Image(files={"a": b"1"})
LOGIN = RegistryAccess(username=USER, password=PASSWORD)


@asynccontextmanager
async def client_for(host: str, access: RegistryAccess) -> AsyncIterator[RegistryClient]:
    client = RegistryClient(host, access, timeout_s=10.0)
    try:
        yield client
    finally:
        await client.close()


# -- Basic ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def htpasswd_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("htpasswd")
    with docker_registry(folder, auth=htpasswd_auth(folder)) as host:
        yield host


@pytest.mark.registry
async def test_user_and_password_open_a_registry_with_htpasswd(htpasswd_host: str) -> None:
    url = f"http://{htpasswd_host}"
    pushed = await push(url, "team/web", "v1", IMAGE, auth=(USER, PASSWORD))

    async with client_for(htpasswd_host, LOGIN) as client:
        assert await client.digest("team/web", "v1") == pushed


@pytest.mark.registry
async def test_a_rotated_password_file_needs_no_restart(htpasswd_host: str, tmp_path: Path) -> None:
    url = f"http://{htpasswd_host}"
    pushed = await push(url, "team/rotated", "v1", IMAGE, auth=(USER, PASSWORD))
    file = tmp_path / "password"
    file.write_text("old\n")

    async with client_for(
        htpasswd_host, RegistryAccess(username=USER, password_file=str(file))
    ) as client:
        with pytest.raises(AccessDeniedError, match="401 for team/rotated:v1"):
            await client.digest("team/rotated", "v1")
        file.write_text(PASSWORD + "\n")
        assert await client.digest("team/rotated", "v1") == pushed


@pytest.mark.registry
async def test_docker_login_is_enough(htpasswd_host: str, docker_config: Path) -> None:
    url = f"http://{htpasswd_host}"
    pushed = await push(url, "team/login", "v1", IMAGE, auth=(USER, PASSWORD))
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config = {"auths": {htpasswd_host: {"auth": auth}}}
    (docker_config / "config.json").write_text(json.dumps(config))

    async with client_for(htpasswd_host, RegistryAccess()) as client:
        assert await client.digest("team/login", "v1") == pushed


@pytest.mark.registry
async def test_without_credentials_it_stays_closed(htpasswd_host: str) -> None:
    async with client_for(htpasswd_host, RegistryAccess()) as client:
        with pytest.raises(AccessDeniedError, match=r"Check the credentials under `registries`"):
            await client.digest("team/web", "v1")


# -- Bearer, against the real registry ------------------------------------------------------------


class TokenService:
    """A token server for docker-registry: RS256, its certificate in x5c."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = _certificate(self.key)
        self.bundle = folder / "bundle.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    async def __call__(self, request: web.Request) -> web.Response:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("Authorization") != expected:
            return web.Response(status=401)
        _, name, actions = request.query["scope"].split(":")
        return web.json_response({"token": self.token(name, actions.split(","))})

    def token(self, name: str, actions: list[str]) -> str:
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = datetime.now(UTC)
        claims = {
            "iss": "tests",
            "aud": "my-registry",
            "sub": USER,
            "jti": "1",
            "nbf": int((now - timedelta(minutes=1)).timestamp()),
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(minutes=5)).timestamp()),
            "access": [{"type": "repository", "name": name, "actions": actions}],
        }
        signed = f"{_part(header)}.{_part(claims)}"
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _certificate(key: rsa.RSAPrivateKey, *names: x509.GeneralName) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


@pytest.mark.registry
async def test_a_token_is_fetched_once_and_opens_the_registry(tmp_path: Path) -> None:
    service = TokenService(tmp_path)
    async with serving(service) as tokens:
        auth = {
            "realm": f"http://{tokens.host}/token",
            "service": "my-registry",
            "issuer": "tests",
            "rootcertbundle": str(service.bundle),
        }
        with docker_registry(tmp_path, auth={"token": auth}) as host:
            bearer = f"Bearer {service.token('team/web', ['pull', 'push'])}"
            headers = {"Authorization": bearer}
            pushed = await push(f"http://{host}", "team/web", "v1", IMAGE, headers=headers)

            async with client_for(host, LOGIN) as client:
                assert await client.digest("team/web", "v1") == pushed
                assert await client.digest("team/web", "v1") == pushed

            wrong = RegistryAccess(username=USER, password="wrong")
            async with client_for(host, wrong) as client:
                with pytest.raises(AccessDeniedError, match="401 for a token"):
                    await client.digest("team/web", "v1")

    first, _ = tokens.requests
    assert first.query["service"] == "my-registry"
    assert first.query["scope"] == "repository:team/web:pull"


@pytest.mark.registry
async def test_https_is_checked_against_the_configured_certificate(tmp_path: Path) -> None:
    import ipaddress  # noqa: PLC0415  only here

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = _certificate(key, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    pem, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    other = tmp_path / "other.pem"
    other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    other.write_bytes(_certificate(other_key).public_bytes(serialization.Encoding.PEM))

    tls = {"certificate": str(pem), "key": str(key_file)}
    with docker_registry(tmp_path, tls=tls) as host:
        async with client_for(host, RegistryAccess(ca_file=str(pem))) as client:
            with pytest.raises(Exception, match="404 for team/web:v1"):
                await client.digest("team/web", "v1")
        async with client_for(host, RegistryAccess(ca_file=str(other))) as client:
            with pytest.raises(RegistryUnreachableError, match="TLS connection"):
                await client.digest("team/web", "v1")


# -- Bearer, against stubborn services ------------------------------------------------------------


class Gate:
    """A registry and its token service in one. Only the newest token opens it."""

    def __init__(self, *, expires_in: float | None = None, refusal: int = 401) -> None:
        self.issued = 0
        self.valid = ""
        self.expires_in = expires_in
        self.refusal = refusal
        self.server: Server | None = None

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path == "/token":
            self.issued += 1
            self.valid = f"token-{self.issued}"
            answer: dict[str, object] = {"access_token": self.valid}
            if self.expires_in is not None:
                answer["expires_in"] = self.expires_in
            await asyncio.sleep(0)
            return web.json_response(answer)
        shown = request.headers.get("Authorization")
        if shown is None:
            challenge = f'Bearer realm="http://{request.host}/token",service="a,b"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if shown != f"Bearer {self.valid}":
            return web.Response(status=self.refusal)
        return web.Response(headers={"Docker-Content-Digest": IMAGE.digest})


@pytest.mark.parametrize("refusal", [400, 401, 403])
async def test_a_stale_token_is_dropped_and_replaced_once(refusal: int) -> None:
    gate = Gate(refusal=refusal)
    async with serving(gate) as server, client_for(server.host, RegistryAccess()) as client:
        await client.digest("team/web", "v1")
        gate.valid = "revoked"

        assert await client.digest("team/web", "v1") == IMAGE.digest

    assert gate.issued == 2


async def test_a_token_that_is_never_taken_is_not_fetched_for_ever() -> None:
    class Closed(Gate):
        async def __call__(self, request: web.Request) -> web.Response:
            answer = await super().__call__(request)
            is_open = answer.status == 200 and request.path != "/token"
            return web.Response(status=403) if is_open else answer

    gate = Closed()
    async with serving(gate) as server, client_for(server.host, RegistryAccess()) as client:
        with pytest.raises(AccessDeniedError, match="403"):
            await client.digest("team/web", "v1")

    assert gate.issued == 1


@pytest.mark.parametrize(
    ("expires_in", "kept_s", "renewed_s"), [(None, 29, 31), (300, 224, 226), (20, 9, 11)]
)
async def test_a_token_is_renewed_before_it_runs_out(
    expires_in: float | None, kept_s: float, renewed_s: float
) -> None:
    now = [1000.0]
    gate = Gate(expires_in=expires_in)
    async with serving(gate) as server:
        transport = Transport(server.host, RegistryAccess())
        authorizer = Authorizer(transport, now=lambda: now[0])
        authorizer.learn(f'Bearer realm="http://{server.host}/token"')
        shown = await authorizer.authorization("team/web")
        now[0] += kept_s
        assert await authorizer.authorization("team/web") == shown
        now[0] += renewed_s - kept_s
        assert await authorizer.authorization("team/web") != shown
        await transport.close()


async def test_many_requests_wait_for_one_token() -> None:
    gate = Gate()
    async with serving(gate) as server:
        transport = Transport(server.host, RegistryAccess())
        authorizer = Authorizer(transport)
        authorizer.learn(f'Bearer realm="http://{server.host}/token"')
        shown = await asyncio.gather(*(authorizer.authorization("team/web") for _ in range(20)))
        await transport.close()

    assert set(shown) == {"Bearer token-1"}


async def test_an_identity_token_is_exchanged_by_form(docker_config: Path) -> None:
    asked: list[dict[str, str]] = []

    async def service(request: web.Request) -> web.Response:
        asked.append({key: str(value) for key, value in (await request.post()).items()})
        return web.json_response({"access_token": "t"})

    async with serving(service) as server:
        config = {"auths": {server.host: {"identitytoken": "long-lived"}}}
        (docker_config / "config.json").write_text(json.dumps(config))
        transport = Transport(server.host, RegistryAccess())
        authorizer = Authorizer(transport)
        authorizer.learn(f'Bearer realm="http://{server.host}/token",service="s"')
        assert await authorizer.authorization("team/web") == "Bearer t"
        await transport.close()

    assert asked == [
        {
            "grant_type": "refresh_token",
            "refresh_token": "long-lived",
            "service": "s",
            "scope": "repository:team/web:pull",
            "client_id": "trafficmgr",
        }
    ]


@pytest.mark.parametrize("realm", ["http://auth.example.com/token", "", "/token", "ftp://a/b"])
async def test_credentials_are_not_sent_to_a_realm_without_https(realm: str) -> None:
    transport = Transport("registry.example.com", LOGIN)
    authorizer = Authorizer(transport)
    authorizer.learn(f'Bearer realm="{realm}"')
    with pytest.raises(UntrustworthyAnswerError):
        await authorizer.authorization("team/web")
    await transport.close()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"token":7}', b'{"token":"a\\r\\nX: y"}'])
async def test_a_token_that_is_none_is_refused(body: bytes) -> None:
    async def service(_request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(service) as server:
        transport = Transport(server.host, RegistryAccess())
        authorizer = Authorizer(transport)
        authorizer.learn(f'Bearer realm="http://{server.host}/token"')
        with pytest.raises(UntrustworthyAnswerError, match="no token"):
            await authorizer.authorization("team/web")
        await transport.close()
