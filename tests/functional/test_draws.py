"""One function at many draws: vectorised and looped are the same, for every kind of network."""

import pytest
import torch
from conftest import Untouched
from nets import NETS, TORCHVISION
from torch import Tensor

from bayesnn.functional import (
    call,
    map_draws,
    parameters,
)

every_large_net = pytest.mark.parametrize("kind", [*NETS, *TORCHVISION])


@every_large_net
def test_vectorised_draws_equal_the_loop(kind: str, untouched: Untouched) -> None:
    """Outputs and gradients; LSTMs take the loop by themselves, and
    transformers their plain operations.
    """
    net, x = (NETS | TORCHVISION)[kind]()
    # few of the large ones
    names = list(parameters(net)) if kind in NETS else list(parameters(net))[-2:]
    draws = {name: torch.stack([v, 0.5 * v]).requires_grad_() for name, v in parameters(net).items() if name in names}
    results = {}
    fused = torch.backends.mha.get_fastpath_enabled()
    for vectorised in (True, False):
        with untouched(net):
            outputs = map_draws(lambda v: call(net, v, x), draws, vectorised=vectorised)
            gradients = torch.autograd.grad(outputs.square().sum(), list(draws.values()))
            with torch.no_grad():
                plain = map_draws(lambda v: call(net, v, x), draws, vectorised=vectorised)
        torch.testing.assert_close(plain, outputs, rtol=1e-4, atol=1e-5)
        results[vectorised] = (outputs, gradients)
    torch.testing.assert_close(results[True], results[False], rtol=1e-4, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled() == fused


@pytest.mark.parametrize("vectorised", [True, False])
def test_errors_of_the_function_pass_through(vectorised: bool) -> None:
    def broken(values: dict[str, Tensor]) -> Tensor:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        map_draws(broken, {"w": torch.zeros(2, 3)}, vectorised=vectorised)
    assert torch.backends.mha.get_fastpath_enabled()
