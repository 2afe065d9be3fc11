"""The admin API's client: HTTP over the unix socket, with nothing but the standard library.

While the controller is being restarted its socket refuses connections. The client then tries
again for a few seconds as long as a supervisor runs, so that a script which calls
`trafficmgr status` at the wrong moment is not told that nothing runs.
"""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from trafficmgr.admin.address import reachable, socket_path
from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import Place

ANSWER_S = 20.0
"""How long an answer may take; longer than a journal waits for somebody's lock."""

RESTART_S = 10.0
"""How long to wait for a controller that is being restarted."""

RETRY_S = 0.1

READ_BYTES = 65536

Params = dict[str, str | int | None]


class Client:
    """Asks the service of one place. Every method raises `CliError` with a whole sentence."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def get(self, path: str, params: Params | None = None) -> Any:  # noqa: ANN401  JSON
        """Return the JSON that a GET is answered with."""
        with self._answer("GET", path, params) as response:
            return _decoded(response.read())

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON object that a POST is answered with."""
        with self._answer("POST", path, body=body) as response:
            answer = _decoded(response.read())
            assert isinstance(answer, dict)  # noqa: S101  admin/api.py says so
            return answer

    def stream(self, path: str, params: Params | None = None) -> Iterator[bytes]:
        """Yield a text answer line by line, for as long as it goes on."""
        with self._answer("GET", path, params, is_endless=True) as response:
            rest = b""
            # read1, because iterating over a response takes one that breaks off for a whole one
            while data := response.read1(READ_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                yield from (line + b"\n" for line in lines)
            if rest:
                yield rest

    @contextlib.contextmanager
    def upgraded(self, path: str) -> Iterator[socket.socket]:
        """Yield the connection of a WebSocket; the service says nothing before we do."""
        from trafficmgr.cli import websocket  # noqa: PLC0415  only `exec` needs one

        key = websocket.new_key()
        connection = http.client.HTTPConnection("localhost", timeout=ANSWER_S)
        with contextlib.closing(connection):
            with self._sentences():
                connection.sock = self._connected(is_endless=False)
                connection.request("GET", path, headers=websocket.request_headers(key))
                response = connection.getresponse()
                if response.status != http.client.SWITCHING_PROTOCOLS:
                    raise _refusal(response)
                if not websocket.is_accepted(key, response.getheader("Sec-WebSocket-Accept")):
                    raise CliError("trafficmgr did not answer as a WebSocket does.")
            yield connection.sock

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        body: dict[str, Any] | None = None,
        *,
        is_endless: bool = False,
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield the answer to one request on a connection of its own."""
        connection = http.client.HTTPConnection("localhost", timeout=ANSWER_S)
        given = {key: value for key, value in (params or {}).items() if value is not None}
        with self._sentences(), contextlib.closing(connection):
            connection.sock = self._connected(is_endless=is_endless)
            connection.request(
                method,
                f"{path}?{urlencode(given)}" if given else path,
                body=None if body is None else json.dumps(body),
                headers={} if body is None else {"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise _refusal(response)
            yield response

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        """Say what it means that an answer does not come or breaks off."""
        try:
            yield
        except TimeoutError as error:
            raise CliError(
                f"trafficmgr on {self.place.state_dir} took the request but did not answer within"
                f" {ANSWER_S:g}s. Traffic is served without it; look at the service's log."
            ) from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise CliError(
                f"trafficmgr on {self.place.state_dir} broke off its answer ({error!r}): it was"
                f" probably stopped or restarted. Ask again."
            ) from error

    def _connected(self, *, is_endless: bool) -> socket.socket:
        """Return a connection; wait for a controller that is being restarted."""
        give_up_at = time.monotonic() + RESTART_S
        while True:
            try:
                return self._connect(None if is_endless else ANSWER_S)
            except PermissionError as error:
                raise CliError(
                    f"You may not ask trafficmgr on {self.place.state_dir}: its socket is for the"
                    f" user who started it. Use that user's account."
                ) from error
            except OSError as error:
                self._explain(error, is_last=time.monotonic() >= give_up_at)
            time.sleep(RETRY_S)

    def _connect(self, timeout_s: float | None) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(ANSWER_S)
            with reachable(socket_path(self.place.state_dir)) as name:
                connection.connect(name)
            connection.settimeout(timeout_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def _explain(self, error: OSError, *, is_last: bool) -> None:
        """Return if it is worth trying again; else raise what it means that nobody listens."""
        from trafficmgr.cli.supervision import supervisor_of  # noqa: PLC0415  only when in trouble

        supervisor = supervisor_of(self.place.state_dir)
        if supervisor is None:
            raise self.place.not_running from error
        if is_last:
            raise CliError(
                f"trafficmgr runs on {self.place.state_dir} (supervisor pid {supervisor.pid}), but"
                f" its controller does not answer ({error.strerror or error}). Traffic is served"
                f" with the last tables; the service's log says why the controller does not start."
            ) from error


def segment(name: str) -> str:
    """Return a name as one segment of a path."""
    return quote(name, safe="")


def _decoded(text: bytes) -> Any:  # noqa: ANN401  JSON
    try:
        return json.loads(text)
    except ValueError as error:
        raise CliError(f"trafficmgr answered with something that is not JSON: {error}.") from error


def _refusal(response: http.client.HTTPResponse) -> CliError:
    text = response.read().decode(errors="replace")
    is_config = response.status == http.client.UNPROCESSABLE_ENTITY
    code = ExitCode.bad_config if is_config else ExitCode.refused
    try:
        return CliError(str(json.loads(text)["error"]), code)
    except (ValueError, TypeError, KeyError):
        return CliError(f"trafficmgr answered with {response.status} {response.reason}: {text}")
