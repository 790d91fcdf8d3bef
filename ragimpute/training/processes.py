"""Training in one process or several: their start, and the share of each."""

from __future__ import annotations

import logging
import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from ragimpute.training.data.share import Share

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


def share_of(accelerator: Accelerator) -> Share:
    """This process's share of every batch."""
    return Share(accelerator.process_index, accelerator.num_processes)
