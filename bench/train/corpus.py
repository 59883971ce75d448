"""Real text that every machine has: the Python standard library's sources, as bytes."""

from __future__ import annotations

import hashlib
import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

VOCABULARY = 256
HELD_OUT = 20
"""One file in this many is held out."""

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "idlelib", "__pycache__"}


@dataclass(frozen=True)
class Corpus:
    """Training and held-out bytes, and the digest that says which text it was."""

    train: torch.Tensor  # uint8 [n]
    held_out: torch.Tensor  # uint8 [m]
    files: int
    digest: str

    def batch(self, batch: int, context: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw windows at random from the training bytes: inputs and next-byte targets ``[batch, context]``."""
        starts = torch.randint(self.train.numel() - context, (batch, 1), generator=generator)
        return _windows(self.train, starts, context)

    def held_out_batches(self, count: int, batch: int, context: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """``count`` batches spread evenly over the held-out bytes: always the same ones."""
        last = self.held_out.numel() - context - 1
        starts = torch.linspace(0, last, count * batch, dtype=torch.float64).long()
        return [_windows(self.held_out, chunk[:, None], context) for chunk in starts.split(batch)]


def standard_library(root: Path | None = None) -> Corpus:
    """Read every module below ``root`` (default: the running interpreter's standard library).

    The order is that of the sorted paths. A file is held out when the CRC of its path says so, so the split of a file
    does not depend on which other files exist. Test suites are left out: not every distribution installs them.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    parts: dict[bool, list[bytes]] = {False: [], True: []}
    digest = hashlib.sha256()
    files = 0
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if _SKIPPED_FOLDERS.intersection(relative.parts[:-1]):
            continue
        text = path.read_bytes()
        parts[zlib.crc32(relative.as_posix().encode()) % HELD_OUT == 0].append(text)
        digest.update(text)
        files += 1
    train, held_out = (bytearray(b"\n".join(parts[key])) for key in (False, True))
    if not train or not held_out:
        raise FileNotFoundError(f"no Python sources to train on below {root}")
    return Corpus(
        train=torch.frombuffer(train, dtype=torch.uint8),
        held_out=torch.frombuffer(held_out, dtype=torch.uint8),
        files=files,
        digest=digest.hexdigest(),
    )


def _windows(text: torch.Tensor, starts: torch.Tensor, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    window = text[starts + torch.arange(context + 1)].long()
    return window[:, :-1], window[:, 1:]
