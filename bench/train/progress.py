"""A progress bar on stderr: redrawn in place on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_WIDTH = 24
_REDRAW_SECONDS = 0.1
_LINES = 10
"""How many lines a whole run prints where the output is no terminal."""


class Progress:
    """Shows how far ``label`` is; used as a context manager, so the line is closed even by an exception."""

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self.note = ""
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._start = time.perf_counter()
        self._drawn_at = 0.0
        self._printed_lines = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._terminal:
            self._draw()
            self._stream.write("\n")
            self._stream.flush()

    def advance(self, note: str) -> None:
        """One more step is done; ``note`` is shown behind the bar."""
        self.done += 1
        self.note = note
        if self._terminal:
            if time.perf_counter() - self._drawn_at >= _REDRAW_SECONDS:
                self._draw()
        elif self.done * _LINES // self.total > self._printed_lines:
            self._printed_lines = self.done * _LINES // self.total
            print(self._line(), file=self._stream, flush=True)

    def _draw(self) -> None:
        self._drawn_at = time.perf_counter()
        self._stream.write("\r" + self._line() + "\x1b[K")
        self._stream.flush()

    def _line(self) -> str:
        elapsed = time.perf_counter() - self._start
        left = elapsed / max(self.done, 1) * (self.total - self.done)
        filled = _WIDTH * self.done // self.total
        bar = "#" * filled + "." * (_WIDTH - filled)
        return f"{self.label:<18} [{bar}] {self.done}/{self.total}  {elapsed:4.0f} s, {left:4.0f} s left  {self.note}"
