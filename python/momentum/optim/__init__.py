"""Optimizers: drop-in subclasses of :class:`torch.optim.Optimizer` that step all parameters in one call of an op."""

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions
from momentum.optim.adabelief import AdaBelief
from momentum.optim.adam import Adam
from momentum.optim.adamp import AdamP
from momentum.optim.adamw import AdamW
from momentum.optim.adan import Adan
from momentum.optim.adaptive_memory import AMSGD, AMAdamW
from momentum.optim.create import create, names
from momentum.optim.diffgrad import DiffGrad
from momentum.optim.frugal import FRUGAL, frugal_groups
from momentum.optim.lion import Lion
from momentum.optim.low_bit import Adam4bit, Adam8bit, AdamW4bit, AdamW8bit, Lion4bit, Lion8bit, SPAM4bit, SPAM8bit
from momentum.optim.normalized_sgd import NormalizedSGD
from momentum.optim.scale import SCALE, scale_groups
from momentum.optim.sgd import SGD
from momentum.optim.sgd_sai import SGDSaI
from momentum.optim.sgdp import SGDP
from momentum.optim.sophia_g import SophiaG
from momentum.optim.sophia_h import SophiaH
from momentum.optim.spam import SPAM
from momentum.optim.stable_spam import StableSPAM

__all__ = [
    "AMSGD",
    "FRUGAL",
    "SCALE",
    "SGD",
    "SGDP",
    "SPAM",
    "AMAdamW",
    "AdaBelief",
    "Adam",
    "Adam4bit",
    "Adam8bit",
    "AdamP",
    "AdamW",
    "AdamW4bit",
    "AdamW8bit",
    "Adan",
    "CommonOptions",
    "DiffGrad",
    "FusedOptimizer",
    "Lion",
    "Lion4bit",
    "Lion8bit",
    "NormalizedSGD",
    "SGDSaI",
    "SPAM4bit",
    "SPAM8bit",
    "SophiaG",
    "SophiaH",
    "StableSPAM",
    "create",
    "frugal_groups",
    "names",
    "scale_groups",
]
