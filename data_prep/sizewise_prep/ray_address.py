"""Which Ray cluster an address means, and whether it answers: Ray itself waits for minutes for one that is gone."""

from __future__ import annotations

import os
import socket

from ray._private import services

SECONDS = 20.0  # how long a cluster's head may take to answer


def answering(named: str) -> str | None:
    """HOST:PORT of the cluster that `named` means; None where it means none that has been started.

    `named` is HOST:PORT, `auto` for the one that runs on this machine, `local`, or nothing for `auto` if there is one.

    Raises OSError or ValueError, whose text says why there is no such cluster.
    """
    if named in ("", "auto"):
        # Ray's own `auto` would also join the private Ray of whichever driver runs on this machine.
        found = services.find_bootstrap_address(None)
    else:
        found = services.canonicalize_bootstrap_address(named)
    if found is None:
        if named == "auto":
            raise ValueError("none was started on this machine")
        return None
    host, _, port = found.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS) as connection:
        if not _speaks_grpc(connection):
            raise ValueError("what answers there is no Ray")
    return str(found)


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether a server begins as HTTP/2 has it: another program may have got the port of a cluster that is gone."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True  # cannot be told
    # RFC 9113, 3.4: a client's first words, and no settings of its own.
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    return connection.recv(9, socket.MSG_WAITALL)[3:4] == b"\4"  # the server's settings, its first frame
