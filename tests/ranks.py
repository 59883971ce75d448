"""Runs a function in several processes of one process group.

    run(function, folder)

calls ``function(rank, folder)`` in ``WORLD`` processes, whose default group is of Gloo, and fails with what all of them printed
if one does not succeed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Callable

WORLD = 2
SECONDS = 300


def run(function: Callable[[int, Path], None], folder: Path) -> None:
    command = [__file__, function.__module__, function.__name__, str(folder)]
    run_programs(*([*command, str(rank)] for rank in range(WORLD)))


def run_programs(*arguments: list[str]) -> None:
    """Run programs that may import what tests can beside each other, and check that all succeed."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for words in arguments
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert not any(codes), f"exited with {codes}:\n" + "\n".join(outputs)


def _main(module: str, function: str, folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    getattr(import_module(module), function)(rank, folder)
    # No connection is closed while a process still uses one, which the group's own barrier does not promise.
    store.set(f"done {rank}", "")
    store.wait([f"done {other}" for other in range(WORLD)])
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
