"""A program that torchrun starts several times: they train a run together, and one may be killed.

    torchrun … train_together.py DATA OUT CONFIG_JSON [EPOCH STEP]

With EPOCH and STEP, both from 1, the first process is killed after that step.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from chestxray.dataset import read_dataset
from chestxray.learning.config import TrainConfig
from chestxray.learning.processes import together
from chestxray.learning.training import train


def main(data: str, out: str, config: str, epoch: str = "", step: str = "") -> None:
    def progress(what: str, done: int, total: int) -> None:
        if what.startswith(f"epoch {epoch}/") and str(done) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with together() as processes:
        told = TrainConfig.model_validate_json(config)
        samples = read_dataset(Path(data), told.finding.labels)
        run = train(told, samples, Path(out), processes=processes, progress=progress)
    # In one write, or the lines of two processes could mix.
    sys.stdout.write(f"{processes.rank} of {processes.world}: {len(run.history)} epochs\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
