"""Convert a network to members that share its weights: BatchEnsemble, or LP-BNN with codes."""

import copy
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from torch import nn

from bayesnn.models.rank_one.choice import Choice, Shared
from bayesnn.models.rank_one.code import LayerCode
from bayesnn.models.rank_one.initialisation import Initialisation, near_one
from bayesnn.models.rank_one.layer import RankOne, widths
from bayesnn.models.rank_one.layout import check_members
from bayesnn.models.rank_one.network import RankOneNet, replaced
from bayesnn.models.rank_one.norm import MemberNorm


def batch_ensemble(
    net: nn.Module,
    members: int = 4,
    *,
    layers: Collection[str] | None = None,
    shared: Shared = (),
    initial: Initialisation | None = None,
    per_member_norm: bool = False,
) -> RankOneNet:
    """W_j = W with its entries times s_j r_j^T, j = 1 ... M: a network whose members share all but
    vectors.

    Every Linear, Conv1d, 2d, 3d and ConvTranspose1d, 2d, 3d of **a deep copy** of the network
    becomes a layer y = (W (x r_j)) s_j + b_j, where r, s and b have one row a member; in
    convolutions they act on channels. All members are evaluated in one pass over a tiled batch.
    Weights and biases start as the network's. Other parameters (normalisations, a positional
    embedding named in `shared`) are one for all members.

    A layer costs M (in + out) numbers, and (M - 1) out for the biases.

    Args:
        net: any network, which is not touched; untrained or trained.
        members: M.
        layers: names of the layers, or of modules that hold them, to convert; None = all. The
            others stay shared.
        shared: names, or classes, of modules or parameters to leave shared by the members.
        initial: how r and s start: `near_one(0.5)` where None, `random_signs()`, or a function
            (members, width) -> [member, width].
        per_member_norm: whether each member has weights and running statistics of its own in
            BatchNorm layers.

    Raises:
        ValueError: fewer than one member; a name that the network does not have; no layer to
            convert; a layer that cannot be converted and is not named in `shared` (it says which).

    Reference: Wen, Tran, Ba (2020), BatchEnsemble: an alternative approach to efficient ensemble
    and lifelong learning.

    >>> import torch
    >>> net = batch_ensemble(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), members=4)
    >>> net(torch.zeros(5, 3)).shape  # member, batch, out
    torch.Size([4, 5, 2])
    """
    choice = Choice("batch_ensemble", net, layers, shared)
    return _converted(choice, members, initial, per_member_norm, None)


def latent_rank_one(
    net: nn.Module,
    members: int = 4,
    *,
    latent: int = 32,
    train_r: bool = True,
    official_conv: bool = False,
    layers: Collection[str] | None = None,
    shared: Shared = (),
    initial: Initialisation | None = None,
    per_member_norm: bool = True,
) -> RankOneNet:
    """r_hat_j = D z_j + c, z_j ~ q(z | r_j): BatchEnsemble whose input-side vectors pass a small
    autoencoder, LP-BNN.

    In every layer the vectors r of the members are encoded, a code z is drawn, and what the
    decoder makes of it takes the place of r: weights of one member are then random and dependent
    through z. With a linear decoder Cov(r_hat_j) = D diag(variance_j) D^T, of rank `latent` at
    most. Codes are drawn at every call, in training and prediction. Fit it as `RankOneEnsemble`
    with `RankOneELBO`.

    A layer costs in latent + latent + 2 (latent^2 + latent) + latent in + in numbers more than
    BatchEnsemble.

    Args:
        net: any network, which is not touched.
        members: M.
        latent: entries of z.
        train_r: whether the vectors r are trained; the published code freezes them in
            convolutions.
        official_conv: r_hat = D h + c in convolutions, as the published code has it: h is the
            encoder's hidden layer, so that codes, though drawn and priced, do not reach the
            output.
        layers: as in `batch_ensemble`.
        shared: as in `batch_ensemble`.
        initial: as in `batch_ensemble`.
        per_member_norm: as in the published code, True; its BatchEnsemble has shared ones, which
            makes them hard to compare.

    Raises:
        ValueError: as `batch_ensemble`; a latent length below 1.

    Reference: Franchi, Bursuc, Aldea, Dubuisson, Bloch (2024), Encoding the latent posterior of
    Bayesian neural networks for uncertainty quantification.

    >>> import torch
    >>> net = latent_rank_one(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), members=4, latent=16)
    >>> net(torch.zeros(5, 3)).shape
    torch.Size([4, 5, 2])
    """
    if latent != int(latent) or latent < 1:
        raise ValueError(f"latent_rank_one: a code has at least one entry, not {latent!r}")
    choice = Choice("latent_rank_one", net, layers, shared)
    code = partial(_code, latent=int(latent), official_conv=official_conv)
    result = _converted(choice, members, initial, per_member_norm, code)
    for layer in result.layers.values():
        layer.r.requires_grad_(train_r)
    return result


def _code(layer: Any, latent: int, official_conv: bool) -> LayerCode:
    code = LayerCode(widths(layer)[0], latent, bypassed=official_conv and not isinstance(layer, nn.Linear))
    return code.to(layer.weight)


def _converted(
    choice: Choice,
    members: int,
    initial: Initialisation | None,
    per_member_norm: bool,
    code: Callable[[Any], LayerCode] | None,
) -> RankOneNet:
    check_members(members, choice.caller)
    names = choice.layers()
    norms = choice.norms() if per_member_norm else []
    net = copy.deepcopy(choice.net)
    modules: dict[str, Any] = dict(net.named_modules())
    start = initial or near_one()
    replacements: dict[nn.Module, nn.Module] = {modules[name]: MemberNorm(modules[name], members) for name in norms}
    parents = list(net.modules())
    for name in names:
        layer = modules[name]
        replacements[layer] = RankOne(layer, members, start, code(layer) if code else None)
    return RankOneNet(replaced(net, parents, replacements), members)
