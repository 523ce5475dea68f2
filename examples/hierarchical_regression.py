"""Two Bayesian networks and random intercepts in one Pyro model, by variational inference and by NUTS, in ArviZ.

Simulated harvests on plots of eight fields: the weather and the fertiliser act by two unknown smooth curves, and each
field has an intercept of its own. Networks stand for the curves: they are trained by least squares, then their last
layers become random. The rest is an ordinary hierarchical regression. (What the hidden layers learned counts as known,
so the intervals of the curves are a little narrow: over eight seeds the error of the gain was 1.5 of its standard
deviations, root mean square.)

    python examples/hierarchical_regression.py --out output

prints ArviZ's summary of what can be interpreted, LOO and k-hat for three fits, and writes curves.png and a netCDF file
for each. SMOKE=1 in the environment shortens everything to seconds.
"""

import argparse
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import khat, to_arviz
from bayesnn.fit import fit
from bayesnn.guides import MeanField, MeanFieldELBO

SMOKE = bool(os.environ.get("SMOKE"))
FIELDS, PLOTS = 8, 120
TRUTH = {"spread": 0.5, "noise": 0.3, "gain": 1.52}
GRID = torch.linspace(-1.0, 1.0, 41).unsqueeze(1)

Data = tuple[Tensor, Tensor, Tensor, Tensor]


def curve(name: str) -> BNN:
    """A smooth function of one variable; as a component it observes nothing, so that its likelihood is never used."""
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1, bias=False)).eval()
    return BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.normal(), name=name)


class Harvest(nn.Module):
    """harvest ~ N(weather(rain) + response(dose) + effect[field], noise^2), effect ~ N(0, spread^2)."""

    def __init__(self) -> None:
        super().__init__()
        self.weather, self.response = curve("weather"), curve("response")

    def forward(self, rain: Tensor, dose: Tensor, field: Tensor, harvest: Tensor) -> None:
        """The whole Pyro model."""
        curves = self.weather.sample(rain) + self.response.sample(dose)
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        with pyro.plate("fields", FIELDS):
            effect = pyro.sample("effect", dist.Normal(0.0, spread))
        with pyro.plate("plots", len(harvest)):
            pyro.sample("harvest", dist.Normal(curves.squeeze(-1) + effect[field], noise), obs=harvest)


def train(model: Harvest, rain: Tensor, dose: Tensor, field: Tensor, harvest: Tensor) -> None:
    """Least squares over both networks, about the mean of each field."""
    centred_harvest = harvest - torch.stack([harvest[field == i].mean() for i in range(FIELDS)])[field]
    nets = nn.ModuleList([model.weather.net, model.response.net])
    optimizer = torch.optim.Adam(nets.parameters(), lr=0.02)
    for _ in range(20 if SMOKE else 500):
        optimizer.zero_grad()
        (nets[0](rain) + nets[1](dose) - centred_harvest.unsqueeze(1)).square().mean().backward()
        optimizer.step()


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


def variational(guide: Any, elbo: Any, model: Harvest, data: Data) -> Any:
    """A fitted guide. Restarts serve as chains: R-hat then says whether they agree."""
    steps = 30 if SMOKE else 1500
    optimizer, schedule = partial(torch.optim.Adam, lr=0.03), partial(CosineAnnealingLR, T_max=steps)
    fit(elbo(model, guide), [data], epochs=steps, optimizer=optimizer, schedule=schedule)
    return guide


def diagnose(posterior: Any, model: Harvest, data: Data, draws: int) -> Any:
    """ArviZ's container, with what the data identify: curves and effects up to a constant, differences."""
    functions = {
        "gain": lambda w: model.response.outputs(w, GRID[-1:]).sum() - model.response.outputs(w, GRID[:1]).sum(),
        "weather_curve": lambda w: centred(model.weather.outputs(w, GRID).squeeze(-1)),
        "response_curve": lambda w: centred(model.response.outputs(w, GRID).squeeze(-1)),
        "field": lambda w: centred(w["effect"]),
    }
    curves = {"weather_curve": ["grid"], "response_curve": ["grid"], "field": ["fields"]}
    names = [f"field {i}" for i in range(1, FIELDS + 1)]
    coords: dict[str, Any] = {"grid": GRID.flatten().numpy().round(2), "fields": names}
    return to_arviz(posterior, *data, model=model, draws=draws, functions=functions, dims=curves, coords=coords)


def centred(values: Tensor) -> Tensor:
    """The networks' offsets and the mean of the effects share one constant, which no data can divide among them."""
    return values - values.mean()


def report(name: str, tree: Any) -> None:
    """Summary, LOO and k-hat."""
    import arviz

    print(f"\n{name}\n{'-' * len(name)}")
    print(arviz.summary(tree, var_names=["spread", "noise", "gain", "field"]).to_string())
    print(arviz.loo(tree))
    if "log_q" in tree["sample_stats"]:
        print(f"k-hat of the two guides: {khat(tree).round(2)} (below 0.7 their draws can stand for the posterior)")


def draw_figure(trees: dict[str, Any], effect: Tensor, path: Path) -> None:
    """The curves and the fields' effects: posterior means, central 90 % intervals, and the truth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    grid = GRID.flatten().numpy()
    truths = {"weather_curve": true_weather(GRID), "response_curve": true_response(GRID)}
    for axis, (variable, truth) in zip(axes, truths.items(), strict=False):
        for colour, (name, tree) in zip(("C0", "C2", "C1"), trees.items(), strict=True):
            draws = np.asarray(tree["posterior"][variable]).reshape(-1, len(grid))
            axis.fill_between(grid, *np.quantile(draws, (0.05, 0.95), axis=0), color=colour, alpha=0.25, lw=0)
            axis.plot(grid, draws.mean(0), color=colour, label=name)
        axis.plot(grid, centred(truth.flatten()), "k--", lw=1, label="truth")
        axis.set(xlabel="rain" if variable == "weather_curve" else "dose", ylabel="effect on the harvest")
    axes[0].legend(frameon=False)
    for offset, colour, tree in zip((-0.2, 0, 0.2), ("C0", "C2", "C1"), trees.values(), strict=True):
        draws = np.asarray(tree["posterior"]["field"]).reshape(-1, FIELDS)
        mean, place = draws.mean(0), np.arange(1, FIELDS + 1) + offset
        low, high = np.quantile(draws, (0.05, 0.95), axis=0)
        axes[2].errorbar(place, mean, (mean - low, high - mean), fmt="o", ms=4, color=colour)
    axes[2].plot(np.arange(1, FIELDS + 1), centred(effect), "k_", ms=14)
    axes[2].set(xlabel="field", ylabel="its effect, about their mean")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("output"), help="folder for the figure and the netCDF files")
    parser.add_argument("--seed", type=int, default=3, help="of the data and of the fits")
    parser.add_argument("--draws", type=int, default=30 if SMOKE else 200, help="of each of two chains, 30 or more")
    options = parser.parse_args()
    if options.draws < 30:
        parser.error(f"--draws: 30 or more are needed for diagnostics, not {options.draws}")
    options.out.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)  # threads that share work this small cost more than they do
    pyro.set_rng_seed(options.seed)
    data, effect = simulate(torch.Generator().manual_seed(options.seed))
    model = Harvest()
    train(model, *data)

    warnings.filterwarnings("ignore", message="num_chains")  # few cores: one chain after the other
    sampler = NUTS(model, full_mass=True, max_tree_depth=3 if SMOKE else 5)
    mcmc = MCMC(sampler, num_samples=options.draws, warmup_steps=options.draws, num_chains=2)
    mcmc.run(*data)
    posteriors = {
        "NUTS": mcmc,
        "full rank": [
            variational(AutoMultivariateNormal(model, init_scale=0.1), Trace_ELBO(), model, data) for _ in range(2)
        ],
        "mean field": [variational(MeanField(model, *data), MeanFieldELBO(), model, data) for _ in range(2)],
    }
    trees = {name: diagnose(posterior, model, data, options.draws) for name, posterior in posteriors.items()}
    for name, tree in trees.items():
        report(name, tree)
        tree.to_netcdf(str(options.out / f"{name.lower().replace(' ', '_')}.nc"))
    print("truth: " + ", ".join(f"{name} {value}" for name, value in TRUTH.items()))
    print("effects of the fields: " + ", ".join(f"{value:.2f}" for value in centred(effect)))
    draw_figure(trees, effect, options.out / "curves.png")
    print(f"written to {options.out}: {', '.join(sorted(file.name for file in options.out.iterdir()))}")


if __name__ == "__main__":
    main()
