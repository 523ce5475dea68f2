"""State dicts that know what they belong to."""

from typing import Any

from torch import nn

from bayesnn.models.tempering import kl_weight_of, note_kl_weight


class CheckedState(nn.Module):
    """A guide whose state dict carries a fingerprint of its sites, and is refused by a guide with another.

    It also carries the weight of the KL divergence in the loss that trained the guide, if one of ours did.

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
        if state_dict.get(prefix + "_extra_state", {}).get("fingerprint") != self._fingerprint():
            raise ValueError(
                f"{type(self).__name__}: this state belongs to another network, subset or model (sites, shapes, "
                "indices or groups differ)"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fingerprint(self) -> str:
        raise NotImplementedError
