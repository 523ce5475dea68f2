"""State dicts that know what they belong to."""

from typing import Any

from torch import nn


class Recognised(nn.Module):
    """A guide whose state dict carries a fingerprint of its sites, and is refused by a guide with another.

    Raises:
        ValueError: on loading a state of another network, subset or model, before anything is changed.
    """

    def get_extra_state(self) -> dict[str, str]:
        """What a state dict says of the sites that it belongs to."""
        return {"fingerprint": self._fingerprint()}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Checked before anything is loaded: see `_load_from_state_dict`."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if state_dict.get(prefix + "_extra_state", {}).get("fingerprint") != self._fingerprint():
            raise ValueError(
                f"{type(self).__name__}: this state belongs to another network, subset or model (sites, shapes, "
                "indices or groups differ)"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fingerprint(self) -> str:
        raise NotImplementedError
