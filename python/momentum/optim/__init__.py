"""Optimizers: drop-in subclasses of :class:`torch.optim.Optimizer` that step all parameters in one call of an op."""

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions
from momentum.optim.adam import Adam
from momentum.optim.adamw import AdamW
from momentum.optim.lion import Lion
from momentum.optim.low_bit import Adam4bit, Adam8bit, AdamW4bit, AdamW8bit, Lion4bit, Lion8bit, SPAM4bit, SPAM8bit
from momentum.optim.scale import SCALE, scale_groups
from momentum.optim.sgd import SGD
from momentum.optim.spam import SPAM
from momentum.optim.stable_spam import StableSPAM

__all__ = [
    "SCALE",
    "SGD",
    "SPAM",
    "Adam",
    "Adam4bit",
    "Adam8bit",
    "AdamW",
    "AdamW4bit",
    "AdamW8bit",
    "CommonOptions",
    "FusedOptimizer",
    "Lion",
    "Lion4bit",
    "Lion8bit",
    "SPAM4bit",
    "SPAM8bit",
    "StableSPAM",
    "scale_groups",
]
