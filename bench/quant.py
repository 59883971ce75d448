"""``python -m bench.quant``: what quantised states lose, on moments with outliers in rows and columns. Not a timing.

Of a first moment the relative error matters. A second moment v enters a step as h = 1 / (sqrt(v) + eps), so what counts is
|log(h of what is stored / h)|, and how many elements read as zero, whose steps are unbounded but for eps.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from bench.table import render
from momentum.quant import StateFormat, quantize

SHAPE = (512, 512)
EPS = 1e-6
RESULT = Path(__file__).parent / "results" / "quantisation-error.json"

SIGNED = {
    "int4 (dynamic4)": StateFormat("dynamic4"),
    "dynamic4, blocks of 64": StateFormat("dynamic4", 64),
    "dynamic4, stochastic": StateFormat("dynamic4", rounding="stochastic"),
    "dynamic4_minus_one": StateFormat("dynamic4_minus_one"),
    "int8 (dynamic8)": StateFormat("dynamic8"),
    "linear8": StateFormat("linear8"),
    "fp8 (float8)": StateFormat("float8"),
}
UNSIGNED = {
    "int4 (linear4)": StateFormat("linear4"),
    "linear4, rank one": StateFormat("linear4", scaling="rank_one"),
    "linear4, grid": StateFormat("linear4", scaling="grid"),
    "unsigned_dynamic4": StateFormat("unsigned_dynamic4"),
    "int8 (unsigned_dynamic8)": StateFormat("unsigned_dynamic8"),
    "fp8 (float8)": StateFormat("float8"),
}


def moments() -> tuple[Tensor, Tensor]:
    """Return m with a few rows and columns 30 times as large, and v as the square of noise by log-normal rows and columns."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    rows, columns = torch.ones(SHAPE[0], dtype=torch.float64), torch.ones(SHAPE[1], dtype=torch.float64)
    rows[::101] = columns[::101] = 30.0
    first = normal(*SHAPE) * torch.maximum(rows[:, None], columns)
    spread = (1.5 * normal(SHAPE[0], 1)).exp() * (1.5 * normal(1, SHAPE[1])).exp()
    second = 1e-6 * spread * normal(*SHAPE).square()
    return first.float(), second.float()


def measure() -> list[dict[str, str | float]]:
    """Return one row per state and format."""
    first, second = moments()
    inverse_root = 1 / (second.double().sqrt() + EPS)
    rows: list[dict[str, str | float]] = []
    for state, values, formats in (("exp_avg", first, SIGNED), ("exp_avg_sq", second, UNSIGNED)):
        for name, chosen in formats.items():
            quantized = quantize(values, chosen)
            read = quantized.dequantize().double()
            row: dict[str, str | float] = {
                "state": state,
                "format": name,
                "bytes per element": quantized.nbytes / values.numel(),
                "relative error": ((read - values.double()).norm() / values.double().norm()).item(),
                "read as zero": ((read == 0) & (values != 0)).double().mean().item(),
            }
            if state == "exp_avg_sq":
                row["mean |log h|"] = (1 / (read.sqrt() + EPS) / inverse_root).log().abs().mean().item()
            rows.append(row)
    return rows


def main() -> None:
    """Print the table and write it to `RESULT`."""
    rows = measure()
    header = ["format", "bytes per element", "relative error", "read as zero", "mean |log h|"]
    for state in ("exp_avg", "exp_avg_sq"):
        cells = [[_shown(row.get(column, "")) for column in header] for row in rows if row["state"] == state]
        print(f"{state}\n{render(header, cells)}\n")
    RESULT.write_text(json.dumps({"shape": SHAPE, "eps": EPS, "rows": rows}, indent=1) + "\n")
    print(f"written to {RESULT}")


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


if __name__ == "__main__":
    main()
