"""Posterior draws of single numbers with their priors drawn in: what did the data say?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.distributions import Distribution

from bayesnn.metrics import Array
from bayesnn.plots import _style
from bayesnn.plots._arrays import Vector, vector

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 30
LOG = "log_"
"""Sites whose names begin so are drawn over their exponential, on a logarithmic axis."""


def prior_and_posterior(
    draws: Mapping[str, Array], priors: Mapping[str, Distribution], *, axes: Sequence[Axes] | None = None
) -> list[Axes]:
    """A histogram of the posterior's draws for each number, and the density of its prior over the
    same range.

    Where both agree the data do not identify the number: standard deviations are in the key. A
    site "log_gamma" is drawn over gamma on a logarithmic axis, its density that of log gamma. The
    range is that of 99 % of the draws.

    Args:
        draws: {site: [draw]} of the posterior, as `RECaSTGuide.corrected(x, y).draws`.
        priors: {site: distribution} of the sites to draw, as `model.priors`; those of a named
            network carry its name.
        axes: Where to draw, one for each prior; a row in a new figure by default.

    Returns:
        One axes for each prior; x in the number's unit, y a density.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no prior; a site without draws; nan, or draws of more than one number; another
            number of axes.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed., 2013, chapter 2.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> prior = torch.distributions.Normal(0.0, 3.0)
        >>> axes = [Figure().subplots()]
        >>> (ax,) = prior_and_posterior({"log_gamma": torch.randn(99)}, {"log_gamma": prior}, axes=axes)
        >>> ax.get_xlabel(), ax.get_xscale()
        ('gamma', 'log')
    """
    where = "prior_and_posterior"
    if not priors:
        raise ValueError(f"{where}: nothing to draw; give {{site: prior}}.")
    lacking = [site for site in priors if site not in draws]
    if lacking:
        raise ValueError(f"{where}: there are no draws of {lacking[0]!r}, only of {', '.join(draws) or 'nothing'}.")
    values = {site: vector(where, f"draws[{site!r}]", draws[site]) for site in priors}
    panels = _row(len(priors)) if axes is None else list(axes)
    if len(panels) != len(priors):
        raise ValueError(f"{where}: {len(priors)} priors need as many axes, not {len(panels)}.")
    for ax, (site, value) in zip(panels, values.items(), strict=True):
        _draw(ax, site, value, priors[site])
    return panels


def _row(count: int) -> list[Axes]:
    first = _style.axes(None, (3.1 * count, 3.1))
    if count == 1:
        return [first]
    figure = first.figure
    first.remove()
    return list(figure.subplots(1, count))


def _draw(ax: Axes, site: str, value: Vector, prior: Distribution) -> None:
    ax = _style.axes(ax)
    low, high = np.quantile(value, [0.005, 0.995])
    edge = 0.08 * (high - low) or 0.5
    edges = np.linspace(low - edge, high + edge, BINS + 1)
    density = np.histogram(value, edges)[0] / (len(value) * (edges[1] - edges[0]))
    grid = np.linspace(edges[0], edges[-1], 400)
    expected = prior.log_prob(torch.as_tensor(grid)).exp().numpy()
    name = site.rpartition(".")[2]
    logarithmic = name.startswith(LOG)
    if logarithmic:
        edges, grid, name = np.exp(edges), np.exp(grid), name.removeprefix(LOG)
        _logarithmic(ax, edges[-1] / edges[0])
    ax.stairs(density, edges, color=_style.BLUE, fill=True, alpha=0.25)
    ax.stairs(density, edges, color=_style.BLUE, linewidth=1.3)
    ax.plot(grid, expected, color=_style.VERMILION, linewidth=1.7)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, 1.05 * max(density.max(), expected.max()))
    known = _spread(prior)
    entries = [
        (f"posterior, sd {value.std():.2g}", _style.BLUE),
        ("prior" if known is None else f"prior, sd {known:.2g}", _style.VERMILION),
    ]
    _style.headroom(ax, 3)
    _style.key(ax, entries, "upper left")
    symbol = f"log {name}" if logarithmic else name
    _style.name(ax, x=name, y=f"density of {symbol}", title=symbol)


def _logarithmic(ax: Axes, ratio: float) -> None:
    """Plain numbers at the ticks: all of them within a factor of 3, 2 and 5
    between powers within 100.
    """

    def between(value: float, _: object) -> str:
        return f"{value:g}" if ratio < 3 or (ratio < 100 and f"{value:e}"[0] in "25") else ""

    ax.set_xscale("log")
    ax.tick_params(which="minor", colors=_style.FAINT, labelcolor=_style.INK, labelsize=9, length=2, width=0.8)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(between)


def _spread(prior: Distribution) -> float | None:
    """Its standard deviation, where there is one."""
    try:
        deviation = float(prior.stddev)
    except NotImplementedError:
        return None
    return deviation if np.isfinite(deviation) else None
