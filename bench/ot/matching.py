"""``python -m bench.ot.matching PATH``: draws the example of the README, two clouds of points matched by their plan."""

from __future__ import annotations

import sys

import torch

from momentum import ot


def main(path: str) -> None:
    """Solve and draw."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.collections import LineCollection

    generator = torch.Generator().manual_seed(0)
    angle = torch.rand(400, generator=generator) * 2 * torch.pi
    ring = torch.stack([angle.cos(), angle.sin()], -1) + 0.08 * torch.randn(400, 2, generator=generator)
    spots = torch.randn(300, 2, generator=generator) * 0.15 + torch.randint(0, 2, (300, 2), generator=generator) * 2 - 1

    result = ot.solve(ot.Points(ring, spots), reg=1e-3, tol=1e-9)
    plan = result.plan_csr(1e-3).to_sparse_coo()
    (rows, columns), weights = plan.indices(), plan.values()
    figure, axis = pyplot.subplots(figsize=(5, 5))
    shades = (weights / weights.max()).clamp(0, 1).numpy()
    lines = torch.stack([ring[rows], spots[columns]], 1).numpy()
    axis.add_collection(LineCollection(lines, colors="gray", alpha=shades, linewidths=0.8))
    axis.scatter(*ring.T, s=8, color="tab:blue", zorder=2)
    axis.scatter(*spots.T, s=8, color="tab:orange", zorder=2)
    axis.set_aspect("equal")
    axis.set_axis_off()
    error, sweeps, newton = result.error.item(), int(result.sweeps), int(result.newton)
    axis.set_title(f"marginal error {error:.0e} after {sweeps} reads of the cost, {newton} Newton steps", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main(sys.argv[1])
