"""Dummy children for the supervisor's tests: `worker` and `controller`, standard library only.

The worker answers everything on its inherited sockets with its pid. The controller writes each
line it is told to DIR/told.jsonl, with its own pid added, and passes datagrams sent to
DIR/commands.sock on as its lines. Both outlive the supervisor, as the real ones may.

    python supervisor_children.py (worker | controller) DIR [what the supervisor adds]
"""

import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path


def worker(sockets: str) -> None:
    """Answer with our pid until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    selector = selectors.DefaultSelector()
    for each in json.loads(sockets):
        selector.register(socket.socket(fileno=each["fd"]), selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            answer(key.fileobj)


def answer(sock: socket.socket) -> None:
    """Answer one datagram or one connection."""
    pid = str(os.getpid()).encode()
    if sock.type == socket.SOCK_DGRAM:
        sock.sendto(pid, sock.recvfrom(4096)[1])
        return
    connection, _ = sock.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + pid)


def controller(folder: Path, fd: int) -> None:
    """Write down what we are told, to the last line; pass on what the test wants to say."""
    commands = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    (folder / "commands.sock").unlink(missing_ok=True)
    commands.bind(str(folder / "commands.sock"))
    link = socket.socket(fileno=fd)
    inbox, outbox = socket.socketpair()
    outbox.setblocking(False)
    signal.set_wakeup_fd(outbox.fileno())
    for signum in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(signum, lambda *_: None)
    selector = selectors.DefaultSelector()
    for sock in (commands, link, inbox):
        selector.register(sock, selectors.EVENT_READ)
    unread = b""
    is_ending = False
    while not is_ending or [key for key, _ in selector.select(0) if key.fileobj is link]:
        for key, _ in selector.select():
            if key.fileobj is commands:
                link.sendall(commands.recv(200_000) + b"\n")
            elif key.fileobj is inbox:
                signums = inbox.recv(100)
                is_ending = is_ending or signal.SIGTERM in signums
                if signal.SIGHUP in signums:
                    note(folder, {"is": "SIGHUP"})
            else:
                data = link.recv(65536)
                if not data:
                    selector.unregister(link)
                *lines, unread = (unread + data).split(b"\n")
                for line in lines:
                    note(folder, json.loads(line))


def note(folder: Path, line: dict[str, object]) -> None:
    """Append one line to what the test reads."""
    with (folder / "told.jsonl").open("a") as told:
        told.write(json.dumps({**line, "to": os.getpid()}) + "\n")


def main() -> None:
    """Be the child that the arguments name."""
    role, folder, *pairs = sys.argv[1:]
    arguments = dict(zip(pairs[::2], pairs[1::2], strict=True))
    if role == "worker":
        worker(arguments["--sockets"])
    else:
        controller(Path(folder), int(arguments["--supervisor-fd"]))


if __name__ == "__main__":
    main()
