"""The order of events: one run for each optimizer, the control, the comparison, and what is left at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.train import picture, report
from bench.train.agreement import EARLY_STEPS, Agreement, compare
from bench.train.corpus import Corpus
from bench.train.loop import Run, Settings, build_model, perturb, train
from bench.train.model import GPT
from bench.train.optimizers import Choice

_IMPLEMENTATION = {"fused", "foreach", "capturable"}
"""Arguments that choose how a step is computed, not what."""


@dataclass
class Session:
    """All runs so far; whatever stops them, ``save`` writes what there is."""

    corpus: Corpus
    settings: Settings
    runs: list[Run] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    model: GPT | None = None
    """The model trained last."""

    def train(self, choices: Sequence[Choice]) -> None:
        """Train with each choice in turn and compare it with the first earlier one of the same algorithm."""
        controls: dict[int, Run] = {}
        for index, choice in enumerate(choices):
            reference = next((i for i in range(index) if _same_algorithm(choices[i], choice)), None)
            if reference is not None and reference not in controls:
                controls[reference] = self._control(choices[reference])
            self.model = build_model(self.settings)
            run = Run(choice.label)
            self.runs.append(run)
            train(run, self.model, choice, self.corpus, self.settings)
            if reference is not None:
                self._compare(run, self.runs[reference], controls[reference])

    def save(self, folder: Path) -> list[Path]:
        """Write JSON and picture; returns the files written."""
        files = [folder / "train.json"]
        report.write_json(files[0], report.document(self.runs, self.agreements, self.corpus, self.settings))
        try:
            picture.draw(folder / "train.png", self.runs, self._title())
            files.append(folder / "train.png")
        except ImportError:
            self.remarks.append("no picture: matplotlib is not installed")
        return files

    def _control(self, choice: Choice) -> Run:
        run = Run("control")
        model = build_model(self.settings)
        perturb(model, self.settings)
        train(run, model, choice, self.corpus, replace(self.settings, evaluations=0), EARLY_STEPS)
        return run

    def _compare(self, run: Run, reference: Run, control: Run) -> None:
        if run.state_dtypes != reference.state_dtypes:
            self.remarks.append(
                f"{run.label} is not compared with {reference.label}: it keeps its states in "
                f"{'/'.join(run.state_dtypes)}, the other in {'/'.join(reference.state_dtypes)}"
            )
            return
        self.agreements.append(compare(run.label, run.losses, reference.label, reference.losses, control.losses))

    def _title(self) -> str:
        settings = self.settings
        return (
            f"byte-level GPT, {self.runs[0].parameters / 1e6:.1f} M parameters, {settings.steps} steps of "
            f"{settings.batch} x {settings.shape.context} bytes, {settings.device.type}"
        )


def _same_algorithm(one: Choice, other: Choice) -> bool:
    def mathematics(choice: Choice) -> dict[str, object]:
        return {name: value for name, value in choice.arguments.items() if name not in _IMPLEMENTATION}

    return one.algorithm == other.algorithm and mathematics(one) == mathematics(other)
