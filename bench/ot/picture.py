"""Error against time, a panel for each problem."""

from __future__ import annotations

from pathlib import Path


def draw(results: dict, path: Path) -> None:
    """Write the picture of the curves; without matplotlib there is none."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        print("no picture: matplotlib is not installed")
        return
    mpl.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["problem"] for row in results["curves"]))
    figure, axes = pyplot.subplots(1, len(names), figsize=(5 * len(names), 4), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        of_problem = [row for row in results["curves"] if row["problem"] == name]
        for solver in dict.fromkeys(row["solver"] for row in of_problem):
            mine = [row for row in of_problem if row["solver"] == solver]
            ours = solver.startswith("momentum")
            axis.loglog(
                *([row["seconds"] for row in mine], [max(row["error"], 1e-16) for row in mine]),
                **{"marker": "o", "markersize": 4, "label": solver, "linestyle": "-" if ours else "--"},
            )
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("seconds, one thread")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("L1 error of the marginals")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
