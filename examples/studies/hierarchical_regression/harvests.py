"""Simulated harvests on the plots of eight fields, with what is true of them."""

from typing import Any

import torch
from torch import Tensor, nn

FIELDS, PLOTS = 8, 120
TRUTH = {"spread": 0.5, "noise": 0.3, "gain": 1.52}
GRID = torch.linspace(-1.0, 1.0, 41).unsqueeze(1)
COORDS: dict[str, Any] = {
    "grid": GRID.flatten().numpy().round(2),
    "fields": [f"field {i}" for i in range(1, FIELDS + 1)],
}

Data = tuple[Tensor, Tensor, Tensor, Tensor]


def true_weather(rain: Tensor) -> Tensor:
    """Too little and too much rain both harm."""
    return 0.8 * torch.cos(2.5 * rain)


def true_response(dose: Tensor) -> Tensor:
    """Saturates: from the lowest to the highest dose it gains 2 tanh(1) = 1.52."""
    return torch.tanh(dose)


def simulate(generator: torch.Generator) -> tuple[Data, Tensor]:
    """The data, and the true effects of the fields."""
    rain, dose = (torch.rand(PLOTS, 1, generator=generator) * 2 - 1 for _ in range(2))
    field = torch.arange(PLOTS) % FIELDS
    effect = TRUTH["spread"] * torch.randn(FIELDS, generator=generator)
    noise = TRUTH["noise"] * torch.randn(PLOTS, generator=generator)
    return (rain, dose, field, (true_weather(rain) + true_response(dose)).squeeze(-1) + effect[field] + noise), effect


def least_squares(weather: nn.Module, response: nn.Module, data: Data, steps: int) -> None:
    """Train both networks together, about the mean of each field."""
    rain, dose, field, harvest = data
    centred_harvest = harvest - torch.stack([harvest[field == i].mean() for i in range(FIELDS)])[field]
    optimizer = torch.optim.Adam([*weather.parameters(), *response.parameters()], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (weather(rain) + response(dose) - centred_harvest.unsqueeze(1)).square().mean().backward()
        optimizer.step()


def centred(values: Tensor) -> Tensor:
    """The networks' offsets and the mean of the effects share one constant, which no data can
    divide among them.
    """
    return values - values.mean()
