"""State dicts that know what they belong to."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from bayesnn.models.tempering import kl_weight_of, note_kl_weight


class CheckedState(nn.Module):
    """A guide whose state dict carries a fingerprint of its sites, and is refused by a guide with another.

    It also carries the weight of the KL divergence in the loss that trained the guide, if one of
    ours did. A subclass says what its `_fingerprint` is; one that checks more, or has buffers that
    are None before a fit, extends `_check` or `_prepare`.

    Raises:
        ValueError: on loading a state of another network, subset or model, before anything is changed.
    """

    def get_extra_state(self) -> dict[str, Any]:
        """What a state dict says of the sites that it belongs to, and of the objective."""
        weight = kl_weight_of(self)
        return {"fingerprint": self._fingerprint(), **({} if weight is None else {"kl_weight": weight})}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The fingerprint was checked before anything was loaded: see `_load_from_state_dict`."""
        note_kl_weight(self, state.get("kl_weight"))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        self._check(state)
        self._prepare(state)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check(self, state: Mapping[str, Any]) -> None:
        """Refuse this guide's part of a state dict, {name: value}, where it is of another guide."""
        if state.get("_extra_state", {}).get("fingerprint") != self._fingerprint():
            raise ValueError(
                f"{type(self).__name__}: this state belongs to another network, subset or model (sites, shapes, "
                "indices or groups differ)"
            )

    def _prepare(self, state: Mapping[str, Any]) -> None:
        """Make room for a state that was checked and is loaded next."""

    def _fingerprint(self) -> str:
        raise NotImplementedError
