"""The criterion that says whether two loss curves agree, on curves and on optimizers whose answer is known."""

from __future__ import annotations

import random

import pytest
import torch
from bench.train.agreement import EARLY_STEPS, compare
from bench.train.corpus import Corpus, standard_library
from bench.train.loop import Run, Settings, build_model, perturb, train
from bench.train.model import PRESETS
from bench.train.optimizers import Choice

STEPS = 200


def curve(seed: int, noise: float = 0.1) -> list[float]:
    draw = random.Random(seed)
    return [2.0 + 3.0 / (1 + step / 20) + draw.gauss(0, noise) for step in range(STEPS)]


def test_equal_curves_agree() -> None:
    verdict = compare("ours", curve(0), "theirs", curve(0), curve(0)[:EARLY_STEPS])
    assert verdict.agrees
    assert (verdict.early_difference, verdict.late_difference) == (0, 0)


def test_a_rounding_error_is_allowed_early_and_a_wrong_fourth_digit_is_not() -> None:
    reference = curve(0)
    control = [loss * (1 + 1e-7) for loss in reference[:EARLY_STEPS]]
    assert compare("", [loss * (1 + 2e-7) for loss in reference], "", reference, control).agrees
    assert not compare("", [loss * (1 + 1e-4) for loss in reference], "", reference, control).agrees


def test_runs_that_parted_agree_when_they_are_equally_good() -> None:
    reference, other = curve(0), curve(1)
    other[:EARLY_STEPS] = reference[:EARLY_STEPS]
    assert compare("", other, "", reference, reference[:EARLY_STEPS]).agrees
    worse = [loss + 0.2 * (step > STEPS // 2) for step, loss in enumerate(other)]
    assert not compare("", worse, "", reference, reference[:EARLY_STEPS]).agrees


def test_a_loss_that_is_not_a_number_disagrees() -> None:
    broken = [*curve(0)[:-1], float("nan")]
    assert not compare("", broken, "", curve(0), curve(0)[:EARLY_STEPS]).agrees


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return standard_library()


def test_the_corpus_is_split_by_file_and_repeatable(corpus: Corpus) -> None:
    assert corpus.train.numel() > 10 * corpus.held_out.numel() > 0
    assert standard_library().digest == corpus.digest
    batches = [corpus.batch(3, 16, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(batches[0][0], batches[1][0])
    tokens, targets = batches[0]
    assert torch.equal(tokens[:, 1:], targets[:, :-1])


@pytest.mark.parametrize(
    ("arguments", "agrees"),
    [({"foreach": True}, True), ({"eps": 1e-6}, False), ({"betas": (0.9, 0.9991)}, False), ({"lr": 1.0001e-3}, False)],
    ids=str,
)
def test_it_tells_another_implementation_from_another_optimizer(
    corpus: Corpus, arguments: dict[str, object], agrees: bool
) -> None:
    settings = Settings(
        shape=PRESETS["tiny"],
        steps=EARLY_STEPS,
        batch=2,
        lr=1e-3,
        weight_decay=0.1,
        evaluations=0,
        seed=0,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )

    def losses(arguments: dict[str, object], *, perturbed: bool = False) -> list[float]:
        model, run = build_model(settings), Run("AdamW")
        if perturbed:
            perturb(model, settings)
        train(run, model, Choice("torch.AdamW", torch.optim.AdamW, arguments), corpus, settings)
        return run.losses

    verdict = compare("", losses(arguments), "", losses({}), losses({}, perturbed=True))
    assert verdict.agrees is agrees, verdict
