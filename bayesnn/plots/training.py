"""The training curve: loss of each epoch, and the validation value beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bayesnn.plots import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TrainingHistory(Protocol):
    """What `bayesnn.fit` returns, and anything else that keeps its losses."""

    @property
    def loss(self) -> Sequence[float]:
        """Mean loss of each epoch."""

    @property
    def validation(self) -> Sequence[float]:
        """Validation value after each epoch, possibly none."""


def training_curve(
    history: TrainingHistory,
    *,
    ylabel: str = "training loss (nats)",
    validation_label: str = "validation",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Mean loss of every epoch, and on an axis of its own the validation value, with its smallest
    marked.

    The two have different units in general (an ELBO of the whole data set, an NLL of one example),
    so they share the epochs only.

    Args:
        history: Has `loss`, the mean loss of each epoch, and `validation`, as many values or none.
        ylabel: Name and unit of the loss.
        validation_label: Name and unit of the validation value.
        title: What is seen; by default the number of epochs and, where there is one, the best.
        ax: Where to draw; a new figure by default.

    Returns:
        The axes of the loss, in its unit; those of the validation are `ax.figure.axes[-1]`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: No epoch at all.

    Source: none; the picture that every fit is judged by first.

    Example:
        >>> from types import SimpleNamespace
        >>> from matplotlib.figure import Figure
        >>> history = SimpleNamespace(loss=[3.0, 2.0, 1.5], validation=[1.0, 0.7, 0.8])
        >>> training_curve(history, ax=Figure().subplots()).get_title("left")
        'Training, 3 epochs; validation is best after 2'
    """
    loss, validation = np.asarray(history.loss, dtype=float), np.asarray(history.validation, dtype=float)
    if loss.size == 0:
        raise ValueError("training_curve: history.loss is empty; give the history of a fit of at least one epoch.")
    ax = _style.axes(ax, (6.0, 3.6))
    _line(ax, loss, _style.BLUE)
    words = f"Training, {len(loss):,} epoch{'s' if len(loss) > 1 else ''}"
    colour = _style.INK
    if np.isfinite(validation).any():
        colour = _style.BLUE  # two axes: each label in the colour of its line
        other = ax.twinx()
        _style.dress(other)
        other.grid(visible=False)
        other.spines["left"].set_visible(False)
        other.spines["right"].set_visible(True)
        _line(other, validation, _style.VERMILION)
        best = int(np.nanargmin(validation))
        other.plot(
            best + 1, validation[best], marker="o", markersize=7, color=_style.VERMILION, markerfacecolor="white"
        )
        other.set_ylabel(validation_label, color=_style.VERMILION, fontsize=10)
        words += f"; validation is best after {best + 1}"
    ax.locator_params(axis="x", integer=True)
    _style.name(ax, x="epoch", y=ylabel, title=words if title is None else title)
    ax.yaxis.label.set_color(colour)
    return ax


def _line(ax: Axes, values: np.ndarray, colour: str) -> None:
    # A single epoch is a point; many are a line only.
    marker = "o" if len(values) < 20 else ""
    ax.plot(np.arange(1, len(values) + 1), values, color=colour, linewidth=1.7, marker=marker, markersize=3.5)
