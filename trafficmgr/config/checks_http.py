"""What must hold between `http`, `tls` and the rest of the file: who listens, and for what.

Certificates are files that can be looked at before anybody needs them, the way workers will: by
loading both into a TLS context.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

from trafficmgr.config import checks_hosts
from trafficmgr.config.document import Loc
from trafficmgr.config.shape import EndpointShape, FileShape
from trafficmgr.config.shape_http import CertificateShape
from trafficmgr.config.wording import Fault

HTTP_HINT = 'add listen: {http: ["127.0.0.1:8080"]}'
_HTTPS_HINT = 'add listen: {https: ["127.0.0.1:8443"]}'
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"
_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")


def faults_of(file: FileShape, broken: frozenset[str]) -> Iterator[Fault]:
    """Yield what does not fit together, but for what is in the files of certificates."""
    if "listen" in broken:
        return
    if "tls" not in broken:
        yield from _tls(file)
    for name, endpoint in file.endpoints.items():
        yield from _redirect(name, endpoint, file)
        yield from _unproxied(name, endpoint, file)
        yield from _smoke(name, endpoint, file)


def _tls(file: FileShape) -> Iterator[Fault]:
    if file.listen.https and file.tls is None:
        text = "listen.https has no certificate to show"
        hint = "add tls: {certificates: [{certificate: ./apps.pem, key: ./apps.key}]}"
        yield Fault(("listen", "https"), text, hint, on_key=True)
    if file.tls is not None and not file.listen.https:
        text = '"tls" has certificates, but nothing listens for TLS'
        yield Fault(("tls",), text, f"{_HTTPS_HINT}, or remove it", on_key=True)


def _redirect(name: str, endpoint: EndpointShape, file: FileShape) -> Iterator[Fault]:
    if endpoint.http.redirect_https and not file.listen.https:
        text = f'"redirect_https" of endpoint "{name}" leads to https, which is served nowhere'
        loc: Loc = ("endpoints", name, "http", "redirect_https")
        yield Fault(loc, text, f"{_HTTPS_HINT}, or remove it", on_key=True)


def _unproxied(name: str, endpoint: EndpointShape, file: FileShape) -> Iterator[Fault]:
    """Yield settings of the proxy where there is none; with `proxy` that is said already."""
    is_served = file.listen.http or file.listen.https
    if endpoint.publish == "groups" and endpoint.http.model_fields_set and not is_served:
        text = f'"http" of endpoint "{name}" is about the proxy, which listens nowhere'
        yield Fault(("endpoints", name, "http"), text, f"{HTTP_HINT}, or remove it", on_key=True)


# -- smoke ----------------------------------------------------------------------------------------


def _smoke(name: str, endpoint: EndpointShape, file: FileShape) -> Iterator[Fault]:
    """Yield what keeps smoke from the preview; that nothing is served at all is said already."""
    smoke, loc = endpoint.rollout.smoke, ("endpoints", name, "rollout", "smoke")
    if smoke is None:
        return
    is_said = endpoint.publish == "proxy" and not file.listen.https
    if not file.listen.http and not is_said:
        where = "listens for TLS only" if file.listen.https else "listens nowhere"
        text = f'"smoke" of endpoint "{name}" asks through the proxy, which {where}'
        yield Fault(loc, text, HTTP_HINT, on_key=True)
    if not checks_hosts.previewed(endpoint):
        text = f'"smoke" of endpoint "{name}" asks a preview, and a wildcard has none'
        yield Fault(loc, text, "add a host without *, such as shop.apps.test", on_key=True)
    paths = endpoint.http.paths
    for index, request in enumerate(smoke.requests):
        if paths and not any(_is_below(request.path, path) for path in paths):
            text = f'"smoke" of endpoint "{name}" asks for {request.path}, which is not its own'
            place: Loc = (*loc, "requests", index, "path")
            yield Fault(place, text, f"write requests: [{{path: {paths[0]}}}]")


def _is_below(path: str, prefix: str) -> bool:
    return f"{path.partition('?')[0]}/".startswith(f"{prefix}/")


# -- certificates ---------------------------------------------------------------------------------


def certificate_faults(file: FileShape, folder: Path, *, are_needed: bool) -> Iterator[Fault]:
    """Yield certificates that no worker could show.

    Args:
        file: A file whose shape is right.
        folder: Where relative paths start.
        are_needed: Whether it is a fault that one can't be read; else it is passed over.
    """
    for index, one in enumerate(file.tls.certificates if file.tls else ()):
        yield from _certificate(("tls", "certificates", index), one, folder, are_needed=are_needed)


def _certificate(
    loc: Loc, one: CertificateShape, folder: Path, *, are_needed: bool
) -> Iterator[Fault]:
    files = {"certificate": folder / one.certificate, "key": folder / one.key}
    is_sound = True
    for key, path in files.items():
        try:
            predicate, hint = _unlike(key, path.read_bytes())
        except OSError as error:
            is_sound = False
            predicate = f"can't be read: {error.strerror}" if are_needed else ""
            hint = "check the path, and who may read it"
        if predicate:
            is_sound = False
            yield Fault((*loc, key), f"{path} {predicate}", hint)
    if is_sound:
        yield from _pair((*loc, "key"), files["certificate"], files["key"])


def _unlike(key: str, data: bytes) -> tuple[str, str]:
    """Return what is wrong with a file by itself, and what to do; two "" are nothing."""
    predicate = hint = ""
    if key == "certificate" and _CERTIFICATE not in data:
        predicate = "has no certificate in PEM form"
        hint = "write the file of the certificate; it begins with -----BEGIN CERTIFICATE-----"
    elif key == "key" and any(mark in data for mark in _ENCRYPTED):
        predicate = "is protected by a password, which nobody could type"
        hint = "write one without: openssl pkey -in OLD -out NEW"
    elif key == "key" and _KEY not in data:
        predicate = "has no private key in PEM form"
        hint = "write the file of the private key; it has a line with PRIVATE KEY in it"
    return predicate, hint


def _pair(loc: Loc, certificate: Path, key: Path) -> Iterator[Fault]:
    """Yield a fault if they don't belong together; the key's file is where it is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")  # so that nobody is asked for one
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"{key} is not the key of the first certificate in {certificate}"
            hint = "write its own key; the certificate itself comes first, before those above it"
        else:
            text = f"{certificate} and {key} can't be used: {error.reason or error}"
            hint = "write both in PEM form, as openssl makes them"
        yield Fault(loc, text, hint)
