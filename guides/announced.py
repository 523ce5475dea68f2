"""Tell Pyro of a guide's parameters without its global store."""

from typing import Any

from pyro.poutine.runtime import effectful
from torch import Tensor, nn


def announced(name: str, parameter: nn.Parameter) -> Tensor:
    """The parameter's value, as a "param" site of that name: what `SVI` trains, and handlers of parameters see.

    `pyro.param` keeps parameters in a global store by name, where two guides with the same names share them; a
    `PyroModule` does so too unless `module_local_params` is set. This announces the guide's own parameter in either
    mode. ELBOs that are called as modules (`Trace_ELBO()(model, guide)`) find it among `parameters()` anyway.
    """
    value: Any = parameter.view_as(parameter)  # Pyro asks the value for its parameter; that note stays off the latter
    value.unconstrained = lambda: parameter
    announce = effectful(lambda: value, type="param")
    result: Tensor = announce(name=name)
    return result
