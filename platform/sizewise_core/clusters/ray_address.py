"""Which Ray cluster an address means, whether it answers, and whether this user may join it.

Ray itself waits for minutes for a cluster that is gone or that needs another token, and aborts the process where the
cluster on this machine belongs to another user.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ray.exceptions import AuthenticationError, RayError

from sizewise_core.clusters import ray_internals

SECONDS = 20.0  # how long a cluster's head may take to answer


class RefusedError(ValueError):
    """A cluster answers, but this user cannot join it; the text says why, and what to do."""


def joinable(named: str, say: Callable[[str], None] = lambda text: None) -> str | None:
    """HOST:PORT of the cluster that `named` means; None where it means none that has been started.

    Args:
        named: HOST:PORT, `auto` for the cluster that runs on this machine, `local` for none, or nothing: then this
            user's own cluster on this machine if there is one.
        say: called with a sentence about a cluster that was found and is not joined because nobody named it.

    Raises:
        RefusedError: the cluster that is named does not let this user in.
        OSError, ValueError: the text says why there is no such cluster.
    """
    if named:
        return _found(named)
    note = ray_internals.address_file()
    with suppress(OSError):
        if note.lstat().st_uid != os.getuid():
            say(
                f"Ray: the cluster on this machine is another user's ({note}): not used; `--ray auto` tries it"
            )
            return None
    try:
        return _found("")
    except RefusedError as error:
        say(f"Ray: the cluster on this machine is left alone: {error}")
    except (OSError, ValueError):  # left by a cluster that ended without removing it
        pass
    return None


def _found(named: str) -> str | None:
    # Not Ray's own `auto`, which would also join the private Ray of whichever driver runs on this machine.
    running = named in ("", "auto")
    found = ray_internals.running_address() if running else ray_internals.canonical_address(named)
    if found is None:
        if named == "auto":
            raise ValueError("none was started on this machine")
        return None
    host, _, port = found.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS) as connection:
        if not _speaks_grpc(connection):
            raise ValueError("what answers there is no Ray")
    _check_admitted(found)
    return found


def _check_admitted(address: str) -> None:
    """Check that this user has the token that a cluster asks for, and owns its processes on this machine."""
    for with_token in (False, True):
        if with_token:
            _use_tokens(address)
        try:
            with _silent():
                sockets = ray_internals.raylet_sockets(address, SECONDS)
            break
        except AuthenticationError:
            if with_token or os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
                raise RefusedError(
                    f"{address} does not take this user's token: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the "
                    "one that it was started with"
                ) from None
        except RayError as error:
            raise ValueError(f"{address} does not answer as a Ray cluster: {error!s:.100}") from None
    here = [path for path in sockets if os.path.lexists(path)]
    if here and not any(os.access(path, os.W_OK) for path in here):
        owner = here[0].lstat().st_uid
        raise RefusedError(
            f"{address} was started by another user (id {owner}), who alone can use it from this machine: submit to "
            "it with `ray job submit`, or use --ray local"
        )


def _use_tokens(address: str) -> None:
    """From now on send the token that this user has: Ray does so by itself only to clusters that it found itself."""
    try:
        has_token = ray_internals.has_token()
    except AuthenticationError as error:  # RAY_AUTH_TOKEN_PATH names no file
        raise RefusedError(f"{address} asks for a token: {str(error).split('. ')[0]}") from None
    if not has_token:
        raise RefusedError(
            f"{address} asks for a token: set RAY_AUTH_TOKEN to it, or RAY_AUTH_TOKEN_PATH to a file with it "
            "(`ray get-auth-token` prints it where the cluster was started)"
        )
    os.environ["RAY_AUTH_MODE"] = "token"
    ray_internals.read_settings_again()


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what Ray's C++ code writes to standard error about a refusal, which is reported in one sentence here."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether a server speaks HTTP/2: another program may have got the port of a cluster that is gone."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True  # not known
    # RFC 9113, 3.4: a client's connection preface, and no settings of its own.
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    return connection.recv(9, socket.MSG_WAITALL)[3:4] == b"\4"  # the server's settings, its first frame
