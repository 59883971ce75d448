"""Rows of figures, and the JSON they are kept in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

SCHEMA = 1


@dataclass
class Row:
    """What one contender of one case measured; everything from ``seconds`` on is absent where it was skipped."""

    case: str
    title: str
    contender: str
    peer: str
    elements: int
    bytes_moved: float
    skipped: str | None = None
    seconds: float | None = None
    """Median over the rounds."""
    ratio: float | None = None
    """Median over the rounds of the time over the peer's in the same round."""
    copy_rate: float | None = None
    """Bytes per second of the copy in the rounds of this case, read and written bytes both counted."""
    repeated: int = 0
    """Rounds of this case that do not count, because the machine had fewer processors to give than there are threads."""
    disturbed: int = 0
    """Rounds of the same kind that count all the same, because too many had been repeated."""
    host_seconds: float | None = None
    launches: int | None = None
    verified: bool | None = None
    samples: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float | None:
        """Bytes per second, by the least traffic that the work needs."""
        return self.bytes_moved / self.seconds if self.seconds else None

    @property
    def share(self) -> float | None:
        """The rate as a share of the copy's."""
        return self.rate / self.copy_rate if self.rate and self.copy_rate else None


def write(path: Path, machine: dict[str, Any], settings: dict[str, Any], rows: Sequence[Row]) -> None:
    """Replace ``path`` in one go, so that an interruption leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "machine": machine, "settings": settings, "rows": [asdict(row) for row in rows]}
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[Row]]:
    """Machine, settings and rows of a file written by `write`.

    Raises
    ------
    ValueError
        If the file is none of ours, or of another schema.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"{path} holds no results of schema {SCHEMA}")
    names = {entry.name for entry in fields(Row)}
    rows = [Row(**{key: value for key, value in row.items() if key in names}) for row in content["rows"]]
    return content["machine"], content["settings"], rows
