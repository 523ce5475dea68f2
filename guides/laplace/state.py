"""The state dict of a Laplace guide: its checks, and the model and fit restored from it."""

from collections.abc import Mapping
from typing import Any

from bayesnn.curvature import JacobianRows
from bayesnn.guides.laplace.fitted import TENSORS, Fitted
from bayesnn.guides.laplace.origin import check_fixed, restored_likelihood
from bayesnn.guides.laplace.prior import restored_prior
from bayesnn.guides.laplace.structure import MakeStructure
from bayesnn.models import BNN


def facts(model: BNN, fitted: Fitted | None) -> dict[str, Any]:
    """The facts about the model and the fit that a state contains."""
    own: dict[str, Any] = {"fingerprint": model.subset.fingerprint()}
    if fitted is None:
        return own
    structure = type(fitted.curvature).__name__
    return own | {"structure": structure, "likelihood": fitted.likelihood, "fixed": fitted.fixed}


def check_fingerprint(model: BNN, state: Mapping[str, Any]) -> None:
    """Refuse the state of another network or subset."""
    if state.get("_extra_state", {}).get("fingerprint") != model.subset.fingerprint():
        raise ValueError("Laplace: this state belongs to another network or subset (names, shapes or indices differ)")


def restored(
    state: Mapping[str, Any], prefix: str, model: BNN, rows: JacobianRows, make: MakeStructure
) -> tuple[BNN, Fitted | None]:
    """The model under the fitted prior and noise, and the fit.

    Torch loads the sums of the fit after this.

    Args:
        state: {name: value} of the guide.
        prefix: of the fit's names.
        model: the guide's.
        rows: derivatives of its network.
        make: (model, rows) -> structure.

    Raises:
        ValueError: the state of another network, subset, structure or likelihood, of a prior with
            other means, or around other fixed weights.
    """
    check_fingerprint(model, state)
    own = state["_extra_state"]
    if "structure" not in own:
        return model, None
    curvature = make(model, rows)
    if (held := own["structure"]) != type(curvature).__name__:
        raise ValueError(f"Laplace: this state has the structure {held}; use Laplace(model, structure={held})")
    check_fixed(model, own["fixed"])
    device = next(iter(rows.values.values())).device
    tensors = {name: state[prefix + name].to(device, copy=True) for name in TENSORS}
    likelihood = restored_likelihood(model.likelihood, own["likelihood"])
    prior = restored_prior(model, tensors["prior_loc"], tensors["prior_precision"])
    if likelihood is not model.likelihood:
        model = model.with_likelihood(likelihood)
    if prior is not model.prior:
        model = model.with_prior(prior)
    return model, Fitted(curvature, tensors, likelihood=own["likelihood"], fixed=own["fixed"])
