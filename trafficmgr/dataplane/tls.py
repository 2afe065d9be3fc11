"""TLS in a worker: certificates from files, one per name, loaded anew when the files change.

* TLS 1.2 and newer; the only protocol offered inside is HTTP/1.1 (ALPN).
* A client that names a server (SNI) gets the first certificate that covers the name, exact names
  before wildcards. Others, and those who name nobody that we know, get the first of all.
* The sweep looks at the files. New ones are for new connections; those that are open live on. If
  the new files are no good, the old certificate stays in use, and that is said once: a certificate
  and its key are two files, so one of them is always the first to change.
* A connection whose name picked a certificate is for the hosts of that certificate only: the proxy
  answers 421 to others (RFC 9110 section 7.4). One that came without such a name is not held to it.
"""

import os
import ssl
from pathlib import Path
from typing import Any, cast

from trafficmgr.core.traffic import Certificate
from trafficmgr.dataplane.notes import note

Stamp = tuple[tuple[int, int, int], ...]
"""Inode, size and time of change (ns) of files, as far as they are there."""


class Names:
    """The hosts that a certificate is for: exact ones, and wildcards of one label (RFC 9525)."""

    __slots__ = ("_names",)

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def __iter__(self) -> Any:  # noqa: ANN401  of strings
        return iter(sorted(self._names))

    def covers(self, host: str) -> bool:
        """Whether the certificate is for this host (lower case, without last dot)."""
        return host in self._names or "*." + host.partition(".")[2] in self._names


class SecureObject(ssl.SSLObject):
    """The TLS half of a connection; it remembers what its client's server name led to.

    Attributes:
        names: What the certificate covers that the server name picked; None if it picked none.
    """

    names: Names | None = None


class Loaded:
    """A certificate with its key, as it was last read."""

    __slots__ = ("_stamp", "context", "files", "names")

    def __init__(self, files: Certificate) -> None:
        self.files = files
        self.context: ssl.SSLContext | None = None
        self.names = Names(frozenset())
        self._stamp: Stamp = ()

    def refresh(self) -> bool:
        """Read the files if they changed; returns whether another certificate is in use now."""
        stamp = _stamp_of(self.files)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            names = Names(_names_in(Path(self.files.certificate).read_bytes()))
            context = _context()
            context.load_cert_chain(self.files.certificate, self.files.key, password=_no_password)
        except (OSError, ValueError) as error:
            keeps = "the one read before" if self.context is not None else "none"
            note("certificate_refused", file=self.files.certificate, reason=error, keeps=keeps)
            return False
        self.context, self.names = context, names
        note("certificate_loaded", file=self.files.certificate, names=",".join(names))
        return True


class Certificates:
    """All certificates of a worker.

    Attributes:
        context: For the listening sockets; it is never replaced.
    """

    def __init__(self) -> None:
        self.context = _context()
        self.context.sslobject_class = SecureObject
        self.context.sni_callback = self._choose
        self._loaded: list[Loaded] = []
        self._by_name: dict[str, Loaded] = {}

    def apply(self, certificates: tuple[Certificate, ...]) -> None:
        """Serve these from now on; those that are known are not read again."""
        known = {loaded.files: loaded for loaded in self._loaded}
        self._loaded = [known.get(files) or Loaded(files) for files in certificates]
        for loaded in self._loaded:
            loaded.refresh()
        self._index()

    def sweep(self) -> None:
        """Load what changed on the disk."""
        changed = [loaded for loaded in self._loaded if loaded.refresh()]
        if changed:
            self._index()

    def _index(self) -> None:
        self._by_name = {}
        for loaded in self._loaded:
            for name in loaded.names:
                self._by_name.setdefault(name, loaded)

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """Give a connection its certificate while it is being made; returns an alert if none."""
        found = self._named(name.lower().removesuffix(".")) if name else None
        if found is None:
            found = next((loaded for loaded in self._loaded if loaded.context is not None), None)
        else:
            cast("SecureObject", connection).names = found.names
        if found is None or found.context is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found.context
        return None

    def _named(self, host: str) -> Loaded | None:
        return self._by_name.get(host) or self._by_name.get("*." + host.partition(".")[2])


def _context() -> ssl.SSLContext:
    """Return a context without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """Refuse a key with a password: OpenSSL would ask for it on the terminal.

    Raises:
        ValueError: Always.
    """
    raise ValueError("the key is protected by a password")


def _stamp_of(files: Certificate) -> Stamp:
    stamp = []
    for path in (files.certificate, files.key):
        try:
            found = os.stat(path)  # noqa: PTH116  once a second per file
        except OSError:
            continue
        stamp.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(stamp) or ((0, 0, 0),)


def _names_in(chain: bytes) -> frozenset[str]:
    """Return the host names of the first certificate of a PEM chain.

    Raises:
        ValueError: It is no certificate, or names no host.
    """
    from cryptography import x509  # noqa: PLC0415  8 MB that a worker without TLS does without

    certificate = x509.load_pem_x509_certificates(chain)[0]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        raise ValueError("the certificate names no host (no subjectAltName)") from None
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = map(str, extension.value.get_values_for_type(x509.IPAddress))
    return frozenset(name.lower().removesuffix(".") for name in (*names, *addresses))


def names_of(connection: object) -> Names | None:
    """Return the hosts that a connection is for; None if it is not held to any."""
    return connection.names if isinstance(connection, SecureObject) else None
