"""What is known of the processes that train together: which one this is, and how it speaks to them.

torchrun starts them and says in ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK`` who is who. They talk
over NCCL where there are GPUs, one for each process of a machine, and over gloo on CPUs.

Does not: start processes, or make a group of one: who is alone trains as if there were no others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from chestxray.errors import ConfigError

TIMEOUT = timedelta(minutes=30)
"""How long processes wait for one another, since the first one scores held-out radiographs alone,
and exports alone between the folds of a cross-validation. It is no limit to how long an error goes
unnoticed; torchrun ends the others when one of them dies."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process, the ``rank``-th from 0 of ``world``, the ``local_rank``-th on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, speaks and shows progress."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def device(self) -> torch.device:
        """The one that is this process's own."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")

    def wait(self) -> None:
        """Return when all have come here."""
        if not self.alone:
            distributed.barrier()

    def mean(self, value: Tensor) -> float:
        """The mean of everyone's ``value``, a tensor of one number."""
        if not self.alone:
            distributed.all_reduce(value)
        return float(value) / self.world


ALONE = Processes()


@contextmanager
def together() -> Iterator[Processes]:
    """The processes that torchrun started, ready to speak to one another; else one, alone.

    Raises:
        ConfigError: torchrun's variables are incomplete, or there are fewer GPUs than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    try:
        processes = Processes(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]))
    except KeyError as exc:
        raise ConfigError(f"WORLD_SIZE is {world} without {exc}: start with torchrun") from exc
    device = processes.device
    if device.type == "cuda":
        if processes.local_rank >= torch.cuda.device_count():
            raise ConfigError(f"{torch.cuda.device_count()} GPUs are here, fewer than processes")
        torch.cuda.set_device(device)
        distributed.init_process_group("nccl", timeout=TIMEOUT, device_id=device)
    else:
        distributed.init_process_group("gloo", timeout=TIMEOUT)
    yield processes
    # Not after an error: the others may be waiting for what will never come.
    distributed.destroy_process_group()
