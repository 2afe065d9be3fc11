"""The proxies under test, and the origins behind them. Each is a command and a config file."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from bench.http import ours
from bench.http.processes import BenchError, free_port, running, wait_for_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trafficmgr.core.routing import Table

CONFIGS = Path(__file__).parent / "configs"


@dataclass
class Peer:
    """A proxy that runs: its main process and its ports."""

    name: str
    pid: int
    http: int
    https: int


def prepare(work: Path) -> None:
    """Write what all need: a certificate and the file of 64 KiB."""
    (work / "64k").write_bytes(b"0123456789abcdef" * 4096)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ours.HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(ours.HOST)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (work / "tls.pem").write_bytes(certificate)
    (work / "tls.key").write_bytes(private)
    (work / "tls.both").write_bytes(certificate + private)


@contextmanager
def origin(work: Path, *, is_upload: bool) -> Iterator[int]:
    """Run what stands behind the proxies; yields its port."""
    port = free_port()
    if is_upload:
        command = [sys.executable, "-m", "bench.http.upload_origin", str(port)]
    else:
        config = _filled("origin.conf", work, {"ORIGIN": port})
        command = nginx(work, config)
    with running(command, work) as process:
        wait_for_port(port, process, work)
        yield port


@contextmanager
def ours_running(work: Path, origin_port: int, tables: list[Table] | None = None) -> Iterator[Peer]:
    """Run our worker.

    Args:
        work: Its state_dir.
        origin_port: What it stands before.
        tables: To load at its start, if the caller is its controller; without them it serves HOST.
    """
    http, https = free_port(), free_port()
    shutil.rmtree(work / "tables", ignore_errors=True)
    ours.write_state(work, tables or [ours.table(ours.HOST, [origin_port])])
    controller = nullcontext() if tables else ours.controller(work)
    with controller, ours.listening(http, https) as (descriptors, sockets):
        command = ours.command(work, sockets)
        with running(command, work, pass_fds=descriptors) as process:
            wait_for_port(http, process, work)
            yield Peer("trafficmgr", process.pid, http, https)


def nginx(work: Path, config: Path) -> list[str]:
    return ["nginx", "-e", "stderr", "-p", str(work), "-c", str(config)]


def haproxy(_: Path, config: Path) -> list[str]:
    return ["haproxy", "-db", "-q", "-f", str(config)]


def caddy(_: Path, config: Path) -> list[str]:
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]


_WITH_CONFIG: dict[str, tuple[str, Callable[[Path, Path], list[str]]]] = {
    "nginx": ("nginx.conf", nginx),
    "haproxy": ("haproxy.cfg", haproxy),
    "caddy": ("Caddyfile", caddy),
}


@contextmanager
def _peer_running(name: str, work: Path, origin_port: int) -> Iterator[Peer]:
    http, https = free_port(), free_port()
    if name in _WITH_CONFIG:
        file, command_for = _WITH_CONFIG[name]
        ports = {"ORIGIN": origin_port, "HTTP": http, "HTTPS": https}
        command = command_for(work, _filled(file, work, ports))
    else:
        command = [sys.executable, "-m", "bench.http.aiohttp_proxy", str(http), str(origin_port)]
    with running(command, work) as process:
        wait_for_port(http, process, work)
        yield Peer(name, process.pid, http, https)


def start(name: str, work: Path, origin_port: int) -> AbstractContextManager[Peer]:
    """Run a proxy in front of an origin."""
    if name == "trafficmgr":
        return ours_running(work, origin_port)
    return _peer_running(name, work, origin_port)


def known() -> dict[str, str]:
    """Return the proxies that can run here, ours first, with their versions."""
    found = {"trafficmgr": f"this tree, uvloop {version('uvloop')}"}
    for name, arguments in (("nginx", "-v"), ("haproxy", "-v"), ("caddy", "version")):
        if shutil.which(name):
            found[name] = version_of(name, arguments)
    found["aiohttp"] = f"{version('aiohttp')}, uvloop {version('uvloop')}"
    return found


def version_of(program: str, argument: str) -> str:
    """Return the number that a program says is its version."""
    if not shutil.which(program):
        raise BenchError(f"{program} is not installed")
    done = subprocess.run([program, argument], capture_output=True, check=False, timeout=10)
    said = (done.stdout + done.stderr).decode()
    match = re.search(r"\d+\.\d+[\w.+~-]*", said)
    return match[0] if match else said.strip()[:40]


def _filled(file: str, work: Path, ports: dict[str, int]) -> Path:
    text = (CONFIGS / file).read_text("utf-8").replace("@WORK@", str(work))
    for name, port in ports.items():
        text = text.replace(f"@{name}@", str(port))
    filled = work / file
    filled.write_text(text, "utf-8")
    return filled
