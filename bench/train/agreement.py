r"""Do two loss curves agree? Two tests, each with a bound that is measured rather than chosen.

Two implementations of one optimizer compute the same mathematics and differ in rounding. Training amplifies such
differences until, after enough steps, the two runs are different draws of the same process. So:

Early steps, tightly
    A *control* repeats the reference from weights moved by one rounding error each. Its deviation
    :math:`c_t = \max_{s \le t} |L^{control}_s - L_s|` shows what this model makes of one rounding per parameter.
    A second implementation adds such an error at every step instead of once: at most two roundings (its own and the
    reference's) per parameter and step, each amplified no more than the oldest one. To first order its deviation
    after ``t`` steps is therefore at most :math:`2\,(t+1)\,c_t`, where :math:`c_t` is not taken below the resolution
    of the fp32 loss itself. An optimizer that is wrong in the fourth digit exceeds this within a few steps.

Later steps, loosely
    The means over windows of ``W`` steps may differ by no more than the means of two runs whose batches are drawn
    independently: :math:`4\,\sigma\sqrt{2/W}`, :math:`\sigma` being the spread of the reference's loss from batch to
    batch within that window. The runs see the same batches, so runs that agree stay well inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

EARLY_STEPS = 20
_SMALLEST_WINDOW = 20
_WINDOWS = 10
_STANDARD_ERRORS = 4.0
_RESOLUTION = 2.0**-23
"""Spacing of fp32 numbers around one."""


@dataclass(frozen=True)
class Agreement:
    """How far a curve is from its reference, and how far it may be; windows are empty in a short run."""

    label: str
    reference: str
    early_difference: float
    early_bound: float
    late_difference: float | None
    late_bound: float | None
    agrees: bool

    def sentence(self) -> str:
        """The verdict, with the figures behind it."""
        text = (
            f"{self.label} {'agrees' if self.agrees else 'DISAGREES'} with {self.reference}: "
            f"nearest to their bounds, a first step differs by {self.early_difference:.1e} where {self.early_bound:.1e} is "
            "allowed"
        )
        if self.late_difference is not None:
            text += f", a smoothed stretch by {self.late_difference:.1e} where {self.late_bound:.1e} is"
        return text


def compare(
    label: str, losses: Sequence[float], reference_label: str, reference: Sequence[float], control: Sequence[float]
) -> Agreement:
    """Compare the losses of ``label`` with the reference's; the step and window nearest their bound are reported."""
    early = max(_early(losses, reference, control), key=_strain)
    late = max(_late(losses, reference), key=_strain, default=None)
    return Agreement(
        label=label,
        reference=reference_label,
        early_difference=early[0],
        early_bound=early[1],
        late_difference=late[0] if late else None,
        late_bound=late[1] if late else None,
        agrees=_strain(early) <= 1 and (late is None or _strain(late) <= 1),
    )


def _early(losses: Sequence[float], reference: Sequence[float], control: Sequence[float]) -> Iterator[tuple[float, float]]:
    deviation = 0.0
    for step, (loss, expected, perturbed) in enumerate(zip(losses, reference, control, strict=False)):
        deviation = max(deviation, abs(perturbed - expected), _RESOLUTION * abs(expected))
        yield abs(loss - expected), 2 * (step + 1) * deviation


def _late(losses: Sequence[float], reference: Sequence[float]) -> Iterator[tuple[float, float]]:
    steps = min(len(losses), len(reference))
    window = max(_SMALLEST_WINDOW, steps // _WINDOWS)
    for start in range(0, steps - window + 1, window):
        ours, theirs = losses[start : start + window], reference[start : start + window]
        difference = abs(math.fsum(ours) - math.fsum(theirs)) / window
        # Successive differences take the trend out; each holds the noise of two batches.
        noise = math.fsum((b - a) ** 2 for a, b in pairwise(theirs)) / (window - 1) / 2
        yield difference, _STANDARD_ERRORS * math.sqrt(noise * 2 / window)


def _strain(measured: tuple[float, float]) -> float:
    """Difference as a share of its bound; infinite where a loss is not a number."""
    difference, bound = measured
    strain = difference / bound if bound > 0 else math.inf
    return math.inf if math.isnan(strain) else strain
