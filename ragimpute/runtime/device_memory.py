"""How much of a device's memory is free to be used by torch."""

from __future__ import annotations

import torch

from ragimpute.runtime.memory import free_bytes

# Share of the free memory that work on a device may plan for: what it allocates beside is not
# foreseen to the byte, and the allocator rounds up.
_SHARE = 0.5
# On a CPU more would not help: what is worked on should rather stay near the processor's caches.
_CPU_BYTES = 256 * 2**20


@torch.compiler.disable  # type: ignore[untyped-decorator]
def idle_bytes(device: torch.device) -> int:
    """Bytes of a GPU that are free, or that torch holds without using them."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def work_bytes(device: torch.device) -> int:
    """Bytes that work on a device may take at once: half of what is free, on a CPU 256 MiB."""
    if device.type == "cuda":
        return int(idle_bytes(device) * _SHARE)
    return min(_CPU_BYTES, int(free_bytes() * _SHARE))
