"""Say how much memory is needed before it is taken."""

import os
from pathlib import Path

import torch


def require(needed: int, device: torch.device, what: str, remedy: str) -> None:
    """Refuse an allocation beyond the free memory, with its size and what to do instead.

    Raises:
        MemoryError: `needed` bytes are more than are free on the device.
    """
    free = available(device)
    if free is not None and needed > free:
        raise MemoryError(
            f"{what} needs {needed / 2**30:,.1f} GiB, but {free / 2**30:,.1f} GiB are free on {device}; {remedy}"
        )


def available(device: torch.device) -> int | None:
    """Free bytes on the device; None where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    if device.type != "cpu":
        return None
    facts = Path("/proc/meminfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
