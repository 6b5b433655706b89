"""How many CPUs, how much memory and how many processes this process may use, often fewer than the machine has.

CPUs may be limited by an affinity mask (`taskset`, Slurm) or by a quota of the control group that the process runs
in (containers, systemd); memory and processes by the control group, and processes by `ulimit -u` too. Everything that
counts CPUs uses this module: Ray, PyTorch's threads, the kernels' threads, and the workers of a preparation.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_EXEMPT = (21, 24)  # CAP_SYS_ADMIN and CAP_SYS_RESOURCE: RLIMIT_NPROC does not count for them


class TooFewProcessesError(RuntimeError):
    """A limit on processes and threads leaves too few; the message names it and says what to do."""


@dataclass(frozen=True)
class Processes:
    """How many more processes and threads may be started, and the limit that says so, in words."""

    left: int
    limit: str


def cpus() -> int:
    """The CPUs that this process may use; a fractional quota is rounded up."""
    return max(1, min(len(os.sched_getaffinity(0)), *map(math.ceil, _quotas()), 1 << 20))


def memory() -> int:
    """Bytes of memory that this process and others in its control group may use together."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [
        _number(folder / name)
        for folder in _folders("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    ]
    return min([machine, *(limit for limit in limits if limit is not None)])


def processes() -> Processes | None:
    """The tightest limit on processes and threads; None where there is none."""
    found = [limit for limit in (*_control_group_processes(), _user_processes()) if limit]
    return min(found, key=lambda limit: limit.left, default=None)


def check_processes(needed: int, what: str) -> None:
    """Raise an error at once where too few processes would later mean a crash, or a wait of a minute.

    Args:
        needed: processes and threads.
        what: that which needs them, as the beginning of a sentence: "Ray".

    Raises:
        TooFewProcessesError: a limit leaves fewer.
    """
    allowed = processes()
    if allowed and allowed.left < needed:
        raise TooFewProcessesError(
            f"{what} needs {needed} more processes and threads; {allowed.limit}: raise that limit or end other programs"
        )


def _quotas() -> Iterator[float]:
    for folder in _folders("cpu"):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                yield int(quota) / int(period)
        quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota_us is not None and period_us:
            yield quota_us / period_us


def _control_group_processes() -> Iterator[Processes]:
    for folder in _folders("pids"):
        most, now = _number(folder / "pids.max"), _number(folder / "pids.current")
        if most is not None and now is not None:
            what = f"pids.max of its control group allows {most} processes and threads"
            yield Processes(max(0, most - now), f"{what}, of which {now} run")


def _user_processes() -> Processes | None:
    """What `ulimit -u` leaves: the kernel counts all threads of a user, in all sessions."""
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if most == resource.RLIM_INFINITY or _exempt():
        return None
    now = 0
    for status in _PROC.glob("[0-9]*/status"):
        with suppress(OSError, KeyError, ValueError):  # it has ended meanwhile
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if int(fields["Uid"].split()[0]) == os.getuid():
                now += int(fields["Threads"])
    what = f"`ulimit -u` allows this user {most} processes and threads"
    return Processes(max(0, most - now), f"{what}, of which {now} run")


def _exempt() -> bool:
    """Whether RLIMIT_NPROC does not count: for the machine's own root, and for what has some of its rights."""
    with suppress(OSError, ValueError):
        first, outside, _ = map(int, (_PROC / "self/uid_map").read_text().split()[:3])
        if (first, outside) != (0, 0):  # a user namespace, whose root is an ordinary user outside
            return False
        if os.getuid() == 0:
            return True
        fields = dict(
            line.split(":", 1) for line in (_PROC / "self/status").read_text().splitlines() if ":" in line
        )
        return any(int(fields["CapEff"], 16) >> right & 1 for right in _EXEMPT)
    return False


def _folders(controller: str) -> Iterator[Path]:
    """This process's control group and those around it, the innermost first; of version 1 and of version 2.

    Some do not exist: a container may not see the group that it is in, only what its own limits are, at the root.
    """
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = _CONTROL_GROUPS
        elif controller in controllers.split(","):
            root = _CONTROL_GROUPS / controllers
            root = root if root.exists() else _CONTROL_GROUPS / controller
        else:
            continue
        inner = root / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def _number(path: Path) -> int | None:
    """The number in a file; None where it has none, or a negative one, which means no limit."""
    with suppress(OSError, ValueError):
        number = int(path.read_text())
        return number if number >= 0 else None
    return None
