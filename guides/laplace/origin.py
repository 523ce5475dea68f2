"""The marks by which a fitted state recognises the network and the likelihood of its fit."""

import hashlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn.functional import parameters
from bayesnn.likelihoods import Likelihood, normal
from bayesnn.likelihoods.real import Normal
from bayesnn.models import BNN
from bayesnn.scales import Learned, learned


def fixed_digests(model: BNN) -> dict[str, str]:
    """{name: digest} of every tensor of the network that has entries which are not random; those
    count as zero.

    Of the bytes in single precision, on whatever device. Buffers of integers, such as BatchNorm's
    counter of batches, do not enter predictions and are left out.
    """
    index = model.subset.index
    digests = {}
    for name, tensor in [*parameters(model.net).items(), *model.net.named_buffers()]:
        value = tensor.detach()
        if not value.is_floating_point() or (name in index and index[name] is None):
            continue
        chosen = index.get(name)
        if chosen is not None:
            value = value.flatten().index_fill(0, chosen.to(value.device), 0.0)
        numbers = value.to("cpu", torch.float).contiguous().reshape(-1).numpy()
        digests[name] = hashlib.blake2b(numbers.tobytes(), digest_size=16).hexdigest()
    return digests


def check_fixed(model: BNN, fixed: dict[str, str]) -> None:
    """Refuse a state that was fitted around other weights, naming the first
    tensor that differs.
    """
    ours = fixed_digests(model)
    other = next((name for name in {**ours, **fixed} if ours.get(name) != fixed.get(name)), None)
    if other is not None:
        raise ValueError(
            "Laplace: this state was fitted around other fixed weights: the network was trained further, or is "
            f"another of the same shape ({other!r} differs); load the network's own state first, or fit again"
        )


def likelihood_facts(likelihood: Any) -> dict[str, Any]:
    """{"family": the likelihood's name, "numbers": {name: value}}: its scales,
    whether fixed or learned.
    """
    numbers: dict[str, Any] = {}
    while isinstance(likelihood, partial):
        given = dict(enumerate(likelihood.args)) | likelihood.keywords
        numbers |= {str(name): _number(value) for name, value in given.items()}
        likelihood = likelihood.func
    kind = likelihood if hasattr(likelihood, "__qualname__") else type(likelihood)
    held = {name: value for name, value in vars(likelihood).items() if name != "training"}
    if isinstance(likelihood, nn.Module):
        held |= (
            dict(likelihood.named_parameters()) | dict(likelihood.named_buffers()) | dict(likelihood.named_children())
        )
    # A learned scale stands as its value, not as its parameter: a fixed one may take its place.
    own = [name for name, value in held.items() if isinstance(value, Learned)]
    for name, value in held.items():
        if not name.startswith("_") and not any(name.startswith(f"{one}.") for one in own):
            numbers[name] = _number(value)
    known = {name: value for name, value in sorted(numbers.items()) if value is not None}
    return {"family": f"{kind.__module__}.{kind.__qualname__}", "numbers": known}


def restored_likelihood(likelihood: Likelihood, facts: dict[str, Any]) -> Likelihood:
    """The model's likelihood, if a state's facts are its own; another scale of
    `likelihoods.normal` is taken over.

    Raises:
        ValueError: the state was fitted under another likelihood.
    """
    ours = likelihood_facts(likelihood)
    if ours["family"] == facts["family"] and _close(ours["numbers"], facts["numbers"]):
        return likelihood
    scale = facts["numbers"].get("scale")
    if type(likelihood) is Normal and ours["family"] == facts["family"] and scale is not None:
        value = scale if isinstance(scale, float) else torch.tensor(scale, dtype=torch.double)
        return normal(learned(value) if isinstance(likelihood.scale, Learned) else value)
    raise ValueError(
        f"Laplace: this state was fitted under the likelihood {_told(facts)}, but that of the model is {_told(ours)}; "
        "make the guide from the model that has it"
    )


def _number(value: Any) -> Any:
    """A plain value of a state dict; None where it is no number or text."""
    if isinstance(value, Learned):
        value = value()
    if isinstance(value, Tensor):
        return value.detach().double().tolist()
    if isinstance(value, (bool, str)):
        return value
    return float(value) if isinstance(value, (int, float)) else None


def _close(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether all values are the same, but for the rounding of single precision."""
    if ours.keys() != theirs.keys():
        return False
    for name, value in ours.items():
        if isinstance(value, (float, list)) and isinstance(theirs[name], (float, list)):
            one, other = (torch.tensor(v, dtype=torch.double) for v in (value, theirs[name]))
            if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-6, atol=0, equal_nan=True):
                return False
        elif value != theirs[name]:
            return False
    return True


def _told(facts: dict[str, Any]) -> str:
    numbers = ", ".join(f"{name}={value}" for name, value in facts["numbers"].items())
    return f"{facts['family'].rsplit('.', 1)[-1]}({numbers})"
