"""Prior and noise fitted by the marginal likelihood while the weights are trained."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from bayesnn.functional import Inputs, batch_size, check_evaluation_mode, progress_bar, to_device
from bayesnn.guides.fisher.exact import EXACT
from bayesnn.guides.fisher.protocol import OutputFisher
from bayesnn.guides.laplace.data_pass import check_repeatable, log_likelihoods
from bayesnn.guides.laplace.evidence import Per
from bayesnn.guides.laplace.guide import Laplace
from bayesnn.guides.laplace.kronecker import Kronecker
from bayesnn.guides.laplace.prior import normal_prior
from bayesnn.guides.laplace.structure import MakeStructure
from bayesnn.models import BNN
from bayesnn.models.inputs import check_inputs

Loader = Iterable[tuple[Inputs, Tensor]]
Optimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


def train_online(
    model: BNN,
    loader: Loader,
    *,
    epochs: int,
    every_epochs: int = 5,
    burn_in: int = 0,
    per: Per = "block",
    fit_noise: bool = False,
    structure: MakeStructure = Kronecker,
    fisher: OutputFisher = EXACT,
    start: Mapping[str, Tensor] | None = None,
    optimizer: Optimizer = torch.optim.Adam,
    schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    after_round: Callable[[Laplace], None] | None = None,
    progress: bool = True,
) -> Laplace:
    """Train the random weights under a prior that the marginal likelihood chooses on the way; no
    validation data.

    Every step descends -(log p(y, w)) / N, estimated from a batch, under the present prior and
    noise. After every few epochs comes a *round*: the curvature is summed at the present weights,
    and the prior's scales (and the noise) move to the maximum of the evidence with weights and
    curvature fixed. The result is the round of the largest evidence: a fitted guide around its
    weights, whose `model` has its prior and noise. At convergence the weights are a mode, and the
    precision p of each group of k weights is MacKay's, p = (k - p tr Sigma) / |w - m|^2.

    The network is never written to, not even its gradients: `subset.put` or `guide.loc` has the
    trained weights. The training data must be the same in every epoch but for their order: a round
    counts what it sees.

    Args:
        model: its prior is where the scales start; `size` is needed only where the loader has a
            part of the data.
        loader: training data, anew each time it is iterated.
        epochs: passes over the loader, those of the rounds not counted.
        every_epochs: epochs between rounds; the last epoch ends with one.
        burn_in: epochs before the first round: evidence and prior mean little where the weights
            are untrained.
        per: one factor of the prior's precisions for the "network", for every "block" or "weight".
        fit_noise: fit the noise scale of `likelihoods.normal` as well.
        structure: of the curvature; see `Laplace`.
        fisher: see `Laplace`.
        start: {site: value} where the weights start; by default the network's own.
        optimizer: parameter groups -> torch optimiser, which lives through all rounds, such as
            `partial(torch.optim.Adam, lr=1e-2)`.
        schedule: optimiser -> LRScheduler, stepped after each optimiser step.
        after_round: is given every round's guide: for plots of its `log_evidence()`, or to stop
            early by an exception.
        progress: a tqdm bar over epochs with the evidence in nats.

    Raises:
        ValueError: as `Laplace` and its `maximise_evidence`; epochs, `every_epochs` or `burn_in`
            out of range.
        TypeError: a loader that can be read only once.
        FloatingPointError: outputs that are not finite.

    Reference: Immer, Bauer, Fortuin, Rätsch, Khan (2021), Scalable marginal likelihood estimation
    for model selection in deep learning, Algorithm 1. Its few gradient steps in the scales are
    here steps to their maximum.

    >>> from functools import partial
    >>> from bayesnn import likelihoods, priors, subset
    >>> net = nn.Linear(1, 1, bias=False)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> data = [(torch.ones(4, 1), torch.full((4, 1), 3.0))]
    >>> guide = train_online(model, data, epochs=200, optimizer=partial(torch.optim.SGD, lr=0.5), progress=False)
    >>> round(1 / guide.fitted.prior_precision.item(), 2)           # 3^2 - 1/4, the prior variance of largest evidence
    8.75
    """
    _check(model, loader, epochs=epochs, every_epochs=every_epochs, burn_in=burn_in)
    given = model.values() if start is None else start
    Laplace(model, given, structure=structure, fisher=fisher)  # raises where it cannot work
    weights = {site: nn.Parameter(given[site].detach().clone()) for site in model.sites}
    steps = optimizer([{"params": list(weights.values())}])
    schedules = None if schedule is None else schedule(steps)
    size = model.size if model.size is not None else sum(batch_size(x) for x, _ in loader)
    best: Laplace | None = None
    with progress_bar(desc="train_online", unit="epoch", show=progress, total=epochs) as bar:
        for epoch in range(1, epochs + 1):
            loss = _epoch(model, weights, loader, size, steps, schedules)
            bar.update()
            if epoch < epochs and (epoch < burn_in or (epoch - burn_in) % every_epochs):
                continue
            guide = _round(model, weights, loader, structure, fisher, per=per, fit_noise=fit_noise, epoch=epoch)
            model = guide.model
            if best is None or bool(guide.log_evidence() > best.log_evidence()):
                best = guide
            bar.set_postfix(loss=f"{loss:.4g}", evidence=f"{float(guide.log_evidence()):.6g}")
            if after_round is not None:
                after_round(guide)
    assert best is not None
    return best


def _check(model: BNN, loader: Loader, **counts: int) -> None:
    check_evaluation_mode(model.net, "train_online")
    for name, value in counts.items():
        least = 0 if name == "burn_in" else 1
        if value != int(value) or value < least:
            raise ValueError(f"train_online: {name} is an integer of at least {least}, not {value!r}")
    if counts["burn_in"] > counts["epochs"]:
        raise ValueError(f"train_online: a burn-in of {counts['burn_in']} epochs is more than all {counts['epochs']}")
    check_repeatable(loader, "train_online")


def _epoch(
    model: BNN,
    weights: dict[str, nn.Parameter],
    loader: Loader,
    size: int,
    steps: torch.optim.Optimizer,
    schedules: LRScheduler | None,
) -> float:
    """Train for one epoch; returns the mean loss, -(log p(y, w)) / N up to the
    prior's constant.
    """
    loc, precision = normal_prior(model)
    total, batches = 0.0, 0
    for x, y in loader:
        check_inputs(x)
        outputs = model.outputs(weights, to_device(x, loc.device))
        if not bool(outputs.sum().isfinite()):
            raise FloatingPointError("train_online: the network's outputs are not finite; lower the learning rate")
        mean = log_likelihoods(model, outputs, y.to(loc.device)).sum() / len(outputs)
        flat = torch.cat([weight.flatten() for weight in weights.values()])
        loss = 0.5 * (precision * (flat - loc) ** 2).sum() / size - mean
        # Of the weights alone: a learned scale of the likelihood belongs to the model.
        for weight, gradient in zip(weights.values(), torch.autograd.grad(loss, list(weights.values())), strict=True):
            weight.grad = gradient
        steps.step()
        if schedules is not None:
            schedules.step()
        total += float(loss.detach())
        batches += 1
    return total / max(batches, 1)


def _round(
    model: BNN,
    weights: dict[str, nn.Parameter],
    loader: Loader,
    structure: MakeStructure,
    fisher: OutputFisher,
    *,
    per: Per,
    fit_noise: bool,
    epoch: int,
) -> Laplace:
    guide = Laplace(model, weights, structure=structure, fisher=fisher).fit(loader)
    try:
        return guide.maximise_evidence(per=per, fit_noise=fit_noise)
    except ValueError as error:
        error.add_note(f"train_online: in the round after epoch {epoch}; a longer burn_in may help")
        raise
