"""Training in one process or several: their start, and which rows of a batch each takes."""

from __future__ import annotations

import logging
import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor

logger = logging.getLogger(__name__)


def make_accelerator(device: torch.device, precision: str) -> Accelerator:
    """Make accelerate's view of this process, which is alone or one of several.

    Parameters
    ----------
    device
        The device of this process.
    precision
        "no", "fp16" or "bf16".
    """
    # Accelerate keeps the device and precision of the first run in this process: forget them.
    if AcceleratorState._shared_state and AcceleratorState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    made = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    _warn_if_alone(made.num_processes)
    return made


def _warn_if_alone(num_processes: int) -> None:
    """Warn if ``accelerate launch`` was asked for several processes, but started one."""
    # With --cpu, or without a second GPU, accelerate 1.15 starts one process and does not say so.
    # The only trace of --num_processes is MASTER_ADDR, where the processes were to meet.
    if num_processes == 1 and {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys():
        logger.warning(
            "accelerate launch started one process only, and this run uses one; for more, give it "
            "--multi_gpu in place of --cpu (on CPUs too, with ragimpute's --device cpu), or use "
            "torchrun"
        )


def share_batch(batch: dict[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    """This process's rows of a batch, on its device.

    Parameters
    ----------
    batch
        The rows of all processes, shape (B, ...) each; every ``num_processes``-th is this one's.
    accelerator
        Knows the processes.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    if world > 1:
        rows = len(next(iter(batch.values())))
        mine = torch.arange(min(rank, rows - 1), rows, world)
        batch = {name: value[mine] for name, value in batch.items()}
        if rank >= rows:  # every process needs a row; this one does not count
            for label in ("label_h1", "label_h2"):
                batch[label] = torch.full_like(batch[label], -1)
    return {name: value.to(accelerator.device) for name, value in batch.items()}
