"""A GPT over bytes: pre-norm blocks, causal attention, learned positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from bench.train.corpus import VOCABULARY


@dataclass(frozen=True)
class Shape:
    """Size of the model; ``width`` is a multiple of ``heads``."""

    layers: int
    width: int
    heads: int
    context: int


PRESETS = {
    "tiny": Shape(layers=2, width=64, heads=2, context=64),
    "small": Shape(layers=4, width=128, heads=4, context=128),
    "base": Shape(layers=4, width=256, heads=4, context=128),
    "large": Shape(layers=8, width=512, heads=8, context=256),
}
"""About 0.1, 0.9, 3.3 and 25.6 million parameters."""


class Block(nn.Module):
    """Attention, then a feed-forward network four times as wide, each added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm_attention = nn.LayerNorm(shape.width)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width)
        self.attention_out = nn.Linear(shape.width, shape.width)
        self.norm_feed_forward = nn.LayerNorm(shape.width)
        self.feed_forward_in = nn.Linear(shape.width, 4 * shape.width)
        self.feed_forward_out = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [batch, heads, context, width / heads]
            for part in self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        )
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_out(attended.transpose(1, 2).flatten(-2))
        return x + self.feed_forward_out(functional.gelu(self.feed_forward_in(self.norm_feed_forward(x))))


class GPT(nn.Module):
    """Logits of the next byte for every position of ``tokens [batch, context]``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token = nn.Embedding(VOCABULARY, shape.width)
        self.position = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, VOCABULARY, bias=False)
        self.apply(_initialise)
        for block in self.blocks:  # keeps the variance of the residual stream independent of the depth, as in GPT-2
            for layer in (block.attention_out, block.feed_forward_out):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * shape.layers))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy in nats per byte, in fp32 whatever the parameters are."""
        return functional.cross_entropy(self(tokens).float().flatten(0, 1), targets.flatten())


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


@torch.no_grad()
def generate(model: GPT, prompt: bytes, length: int, seed: int, temperature: float = 0.7) -> bytes:
    """Continue ``prompt`` by ``length`` bytes drawn from the model."""
    device = model.head.weight.device
    generator = torch.Generator().manual_seed(seed)
    text = list(prompt)
    for _ in range(length):
        window = torch.tensor([text[-model.shape.context :]], device=device)
        logits = model(window)[0, -1].float().cpu()
        text.append(int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)))
    return bytes(text)
