"""What describes one draw of a posterior: its blocks where they are small,
functions of them where they are not.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from bayesnn.arviz.call import Call, Evaluation
from bayesnn.functional import Inputs, chunks
from bayesnn.models import is_model

Function: TypeAlias = Callable[[Mapping[str, Tensor]], "Tensor | float"]
"""{site: value} of one draw -> a quantity of it."""


@dataclass(frozen=True, eq=False)
class Quantities:
    """The variables of the groups posterior and prior.

    Attributes:
        call: the model and its data.
        limit: the most numbers that a block may have to be a variable itself.
        probe: inputs at which the outputs of a network model are a variable.
        functions: {variable: function of the draw}.
        chunk: inputs in one pass.
    """

    call: Call
    limit: int
    probe: "Inputs | None"
    functions: Mapping[str, Function]
    chunk: int

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"to_arviz: limit is the most numbers of a variable in one draw, not {self.limit}")
        if self.probe is not None and not is_model(self.call.model):
            raise ValueError(
                "to_arviz: probe= needs a model of bayesnn.models; for other models give functions={'f': lambda "
                "values: component.outputs(values, x)}"
            )
        if self.probe is not None and self.call.local:
            raise ValueError(
                f"to_arviz: probe= has no values for {sorted(self.call.local)}, which belong to the inputs of the data"
            )
        sites = {**self.call.latent, **self.call.deterministic}
        norms = {f"{name}_norm" for name, site in sites.items() if site.shape.numel() > self.limit}
        taken = sites.keys() | norms | {self.probe_name, "log_joint"}
        if clash := sorted(taken & self.functions.keys()):
            raise ValueError(f"to_arviz: functions has {clash[0]!r}, which is already a variable; choose another name")

    @property
    def probe_name(self) -> str:
        """The variable of outputs on the probe inputs."""
        prefix = getattr(self.call.model, "name", "")
        return f"{prefix}.f_probe" if prefix and self.probe is not None else "f_probe"

    def of(self, values: Mapping[str, Tensor], result: Evaluation, *, joint: bool) -> Iterator[tuple[str, np.ndarray]]:
        """(variable, value) for one draw; `joint` adds the log joint density
        where a block is left out.
        """
        left_out = False
        latent = {name: values[name] for name in self.call.latent if name in values}
        for name, value in {**latent, **result.deterministic}.items():
            if value.numel() <= self.limit:
                yield name, array(value)
            else:
                left_out = True
                yield f"{name}_norm", array(value.double().norm())
        if self.probe is not None:
            parts = list(chunks(self.probe, self.chunk))
            yield self.probe_name, array(self.call.model.outputs_of_chunks(values, parts))
        for name, function in self.functions.items():
            yield name, array(torch.as_tensor(function(values)))
        if left_out and joint:
            yield "log_joint", np.asarray(result.log_joint)


def array(value: Tensor) -> np.ndarray:
    """A copy as NumPy has it: without gradients, on the CPU, half precision as single."""
    value = value.detach().cpu()
    return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy().copy()
