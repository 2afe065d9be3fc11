"""What tests of the client's side share: policies, fronts, certificates, TLS clients."""

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.proxy_support import App, Client, Rig
from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target, Zones
from trafficmgr.core.traffic import Certificate, Front, HttpPolicy


def publish(
    rig: Rig,
    endpoint: str,
    hosts: tuple[str, ...],
    apps: list[App],
    *,
    http: HttpPolicy | None = None,
    preview: list[App] | None = None,
) -> None:
    """Publish the next table of an endpoint; all its traffic goes to these applications."""
    rig.generation += 1
    rig.book.apply(
        Table(
            endpoint=endpoint,
            generation=rig.generation,
            hosts=hosts,
            publish=Publish.proxy,
            ttl_s=1,
            shares=(_share("r0", apps),) if apps else (),
            preview=_share("r1", preview) if preview else None,
            http=http or HttpPolicy(),
        )
    )


def _share(revision: str, apps: list[App]) -> Share:
    targets = tuple(
        Target(group=app.group, dial=Tcp(address="127.0.0.1", port=app.port)) for app in apps
    )
    return Share(revision=revision, weight_pct=100, targets=targets)


def take_front(rig: Rig, front: Front) -> None:
    """Let a front concern all connections from now on."""
    generation = rig.book.zones.generation + 1
    rig.book.apply_zones(Zones(generation=generation, zones=(), advertise=(), front=front))


def says(name: str) -> bytes:
    """Return an application's answer that names it."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name.encode())


class Issued:
    """A self-signed certificate in files, and what a client needs to believe it."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.files = Certificate(
            certificate=str(folder / f"{names[0]}.crt"), key=str(folder / f"{names[0]}.key")
        )
        self.issue(*names)

    def issue(self, *names: str) -> None:
        """Write a new certificate and key for these names over the old ones."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        self.serial = certificate.serial_number
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        Path(self.files.certificate).write_bytes(self.pem)
        Path(self.files.key).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def unverified() -> ssl.SSLContext:
    """Return a TLS client's context that believes everybody; tests look at what they got."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def listen_tls(rig: Rig, *certificates: Certificate) -> int:
    """Open a TLS port of the proxy; returns it."""
    take_front(rig, rig.book.zones.front.but(certificates=certificates))
    sock = socket.create_server(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    await rig.server.serve(sock, 128, tls=True)
    return port


async def tls_client(
    rig: Rig, port: int, name: str | None = "shop.test", context: ssl.SSLContext | None = None
) -> Client:
    """Return a connection over TLS; `name` is what the client asks for, None is no SNI."""
    client = Client(
        *await asyncio.open_connection(
            "127.0.0.1", port, ssl=context or unverified(), server_hostname=name or ""
        )
    )
    rig.clients.append(client)
    return client


def serial_of(client: Client) -> int:
    """Return the serial number of the certificate that a client was shown."""
    shown = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number
