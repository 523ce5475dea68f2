"""State dicts that know what they belong to."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from typing_extensions import override

from bayesnn.tempering import note, noted

LONGEST = 300
"""Characters of two fingerprints, the most that an error shows."""


class CheckedState(nn.Module):
    """A guide whose state dict carries a fingerprint of its sites, and is refused by a guide with
    another.

    It also carries the weight of the KL divergence in the loss that trained the guide, if one of
    ours did. A subclass says what its `_fingerprint` is; one that checks more, or has buffers that
    are None before a fit, extends `_check` or `_prepare`.

    Raises:
        ValueError: on loading a state of another network, subset or model, before anything is
            changed.
    """

    def __init__(self) -> None:
        super().__init__()
        note(self, {})  # which shallow copies share, as they do the parameters

    def get_extra_state(self) -> dict[str, Any]:
        """The fingerprint of the sites and the note on the objective in a state dict."""
        return {"fingerprint": self._fingerprint(), **noted(self)}

    @override
    def set_extra_state(self, state: dict[str, Any]) -> None:
        # `_load_from_state_dict` has checked the fingerprint before anything was loaded.
        note(self, {name: value for name, value in state.items() if name != "fingerprint"})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        self._check(state)
        self._prepare(state)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check(self, state: Mapping[str, Any]) -> None:
        """Refuse this guide's part of a state dict, {name: value}, where it is
        of another guide.
        """
        held, own = state.get("_extra_state", {}).get("fingerprint"), self._fingerprint()
        if held != own:
            both = f": it is of {held}, this guide is of {own}"
            raise ValueError(
                f"{type(self).__name__}: this state belongs to another network, subset or model (sites, shapes, "
                f"indices or groups differ){both if len(both) <= LONGEST else ''}"
            )

    def _prepare(self, state: Mapping[str, Any]) -> None:
        """Make room for a state that was checked and is loaded next."""

    def _fingerprint(self) -> str:
        raise NotImplementedError
