"""Optimizers: drop-in subclasses of :class:`torch.optim.Optimizer` that step all parameters in one call of an op."""

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions
from momentum.optim.adam import Adam
from momentum.optim.adamw import AdamW
from momentum.optim.lion import Lion
from momentum.optim.scale import SCALE, scale_groups
from momentum.optim.sgd import SGD
from momentum.optim.spam import SPAM
from momentum.optim.stable_spam import StableSPAM

__all__ = ["SCALE", "SGD", "SPAM", "Adam", "AdamW", "CommonOptions", "FusedOptimizer", "Lion", "StableSPAM", "scale_groups"]
