"""The directions of weight space that the data say most about, and the prior in all others."""

import torch
from torch import Tensor
from typing_extensions import override

from bayesnn.curvature import JacobianRows
from bayesnn.curvature.ggn_products import GGNProducts
from bayesnn.functional import Inputs, memory
from bayesnn.guides.laplace.data_pass import BatchTargets, DataPass, check_repeatable
from bayesnn.guides.laplace.lanczos import longest, top_eigenpairs
from bayesnn.guides.laplace.low_rank_posterior import LowRankPosterior
from bayesnn.guides.laplace.prior import normal_prior
from bayesnn.guides.laplace.structure import Structure
from bayesnn.models import BNN


class LowRank(Structure):
    """H ~ V^T diag(l) V with the `rank` largest eigenpairs of P^-1/2 H P^-1/2, P the prior's
    precision at the fit.

    l_j is how many times more precise the data are than the prior in one direction, so that no
    other matrix of this rank comes closer to the posterior in Kullback-Leibler divergence; under
    one prior scale they are the eigenpairs of H. All other directions keep the prior's variance:
    predictions are too uncertain rather than too certain. The prior may change afterwards; V
    stays, and is the best for priors that one factor rescales.

    Any subset, every layer that autograd knows. H is never formed: Lanczos's method takes 2 to 5
    times as many products as there are pairs, eight of them in one pass over the training data.
    The loader has to give the same examples each time (torch's random numbers are repeated:
    shuffling and the targets of `MonteCarloFisher` are then the same too). Memory grows with rank
    times weights. A whole batch passes the network at once, with its graph, as in training.

    Args:
        model: what is random.
        rows: derivatives of the network at the mode.
        rank: how many eigenpairs; the evidence counts these alone.
        tolerance: largest |A v - l v| / l of a pair; the relative error of l is about its square.

    Raises:
        ValueError: a rank below 1; more data for a fitted structure.
        TypeError: a loader that can be read only once.
        MemoryError: the vectors need more memory than there is.

    References: Spantini, Solonen, Cui, Martin, Tenorio, Marzouk (2015), Optimal low-rank
    approximations of Bayesian linear inverse problems; Maddox, Benton, Wilson (2020), Rethinking
    parameter counting.

    >>> from functools import partial
    >>> from bayesnn import likelihoods, priors, subset
    >>> from bayesnn.guides import Laplace
    >>> net = torch.nn.Linear(3, 1, bias=False)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> guide = Laplace(model, structure=partial(LowRank, rank=1)).fit([(torch.eye(3) * 3, torch.zeros(3, 1))])
    >>> [round(value, 6) for value in guide.fitted.curvature.eigenvalues.tolist()]
    [9.0]
    """

    eigenvectors: Tensor
    eigenvalues: Tensor

    def __init__(self, model: BNN, rows: JacobianRows, rank: int = 20, *, tolerance: float = 1e-2) -> None:
        super().__init__(model, rows)
        if rank < 1:
            raise ValueError(f"LowRank: the rank is how many eigenpairs are kept, at least 1, not {rank}")
        self.rank, self.tolerance = rank, tolerance

    def collect(self, data: DataPass) -> None:
        """Find the eigenpairs, in several passes."""
        if "eigenvalues" in self._buffers:
            raise ValueError(
                "LowRank: further data cannot be added to the eigenpairs of those before; fit all data again, or use "
                "Kronecker, Diagonal or Full"
            )
        check_repeatable(data.loader, "LowRank")
        like, count = next(iter(self.rows.values.values())), self.rows.count
        held = longest(count, self.rank) + self.rank
        memory.require(
            held * count * like.element_size(),
            like.device,
            f"LowRank: {held} vectors of {count:,} weights",
            "choose a lower rank, a smaller subset, or structure=Kronecker or Diagonal",
        )
        states = _random_states(like.device)
        root = normal_prior(self._model[0])[1].sqrt().to(like)
        product = _Scaled(self.rows, data, root, states)
        values, vectors = top_eigenpairs(product, like, count, self.rank, tolerance=self.tolerance)
        self.register_buffer("eigenvalues", values)
        self.register_buffer("eigenvectors", vectors * root)

    def spectrum(self, precision: Tensor) -> Tensor:
        """The eigenvalues of P^-1/2 H P^-1/2 that are not zero."""
        return torch.linalg.eigvalsh(self._gram(precision)).clamp(min=0)

    def log_ratio(self, precision: Tensor) -> Tensor:
        """log |H + P| - log |P| = log |1 + l^1/2 V P^-1 V^T l^1/2|, a
        determinant of the rank's size.
        """
        gram = self._gram(precision)
        root = torch.linalg.cholesky(gram + torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
        return 2 * root.diagonal().log().sum()

    @torch.no_grad()
    @override
    def posterior(self, precision: Tensor, scale: float) -> LowRankPosterior:
        gains, turn = torch.linalg.eigh(scale * self._gram(precision))
        kept = gains > 1e-13 * gains.max() if len(gains) else gains > 0
        gains, turn = gains[kept], turn[:, kept]
        weights = (turn * (scale * self.eigenvalues).sqrt().unsqueeze(-1) * gains.rsqrt()).mT.to(self.eigenvectors)
        deviations = precision.rsqrt().to(self.eigenvectors)
        return LowRankPosterior(deviations, (weights @ self.eigenvectors) * deviations, gains.to(deviations))

    def _gram(self, precision: Tensor) -> Tensor:
        """l^1/2 V P^-1 V^T l^1/2, [rank, rank]."""
        vectors, root = self.eigenvectors, self.eigenvalues.sqrt()
        inner = ((vectors / precision.to(vectors)) @ vectors.mT).double()
        return root.unsqueeze(-1) * (inner + inner.mT) / 2 * root


class _Scaled:
    """P^-1/2 H P^-1/2 v for some vectors v: one pass over the training data a call."""

    def __init__(self, rows: JacobianRows, data: DataPass, root: Tensor, states: list[Tensor]) -> None:
        self.products, self.data, self.root = GGNProducts(rows), data, root
        self.passes, self.states = 0, states

    def __call__(self, vectors: Tensor) -> Tensor:
        self.passes += 1
        _repeat(self.states, self.root.device)
        vectors = vectors / self.root
        total = torch.zeros_like(vectors)

        def add(x: Inputs, targets: BatchTargets) -> None:
            total.add_(self.products(x, targets.roots, vectors))

        self.data(add, f"LowRank, pass {self.passes}")
        return total / self.root


def _random_states(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _repeat(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
