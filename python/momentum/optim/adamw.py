"""AdamW."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._options import CommonOptions, Group
from momentum.optim.adam import Adam


class AdamW(Adam):
    r"""AdamW, with the signature and the state of :class:`torch.optim.AdamW`.

    .. math::
        p_t = (1 - \eta \lambda) \, p_{t-1} - \eta \, \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    with the moments of :class:`Adam`, of a gradient that weight decay does not touch.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, foreach, capturable, differentiable, fused
        As for :class:`Adam`.
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 1e-2.
    **options
        The options of :class:`~momentum.optim.CommonOptions`. ``weight_decay_mode`` is ``"decoupled"`` by default.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2, with the schedule multiplier folded
    into the learning rate, as in torch.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1, dtype=torch.bfloat16)
    >>> optimizer = momentum.optim.AdamW(model.parameters(), lr=1e-2, compensation="kahan")
    >>> model(torch.ones(4, 2, dtype=torch.bfloat16)).sum().backward(); optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | Tensor = 1e-2,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[CommonOptions],
    ) -> None:
        options.setdefault("weight_decay_mode", "decoupled")
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            **options,
        )

    def adopt_torch_options(self, group: Group, own: Group) -> None:
        """Drop torch's ``decoupled_weight_decay``: it is what AdamW means."""
        group.pop("decoupled_weight_decay", None)
