"""Two Bayesian networks and random intercepts in one Pyro model, by VI and by NUTS, in ArviZ.

    python -m examples.hierarchical_regression --out output

Simulated harvests on eight fields: weather and fertiliser act by unknown smooth curves, and each
field has an intercept. Networks, trained by least squares, stand for the curves; then their last
layers become random. It prints ArviZ's summary, LOO and k-hat for three fits, and writes
curves.png and a netCDF file for each. SMOKE=1 in the environment shortens it to seconds.
"""

import warnings
from functools import partial
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import to_arviz
from bayesnn.fit import fit
from bayesnn.guides import MeanField, MeanFieldELBO

from examples.studies.hierarchical_regression import harvests, options, report
from examples.studies.hierarchical_regression.harvests import COORDS, FIELDS, GRID, Data, centred


def curve(name: str) -> BNN:
    """A smooth function of one variable: a component, whose likelihood is never used."""
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1, bias=False)).eval()
    return BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.normal(), name=name)


class Harvest(nn.Module):
    """harvest ~ N(weather(rain) + response(dose) + effect[field], noise^2)."""

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


def variational(guide: Any, elbo: Any, model: Harvest, data: Data, steps: int) -> Any:
    """A fitted guide. Restarts serve as chains: R-hat then says whether they agree."""
    optimizer, schedule = partial(torch.optim.Adam, lr=0.03), partial(CosineAnnealingLR, T_max=steps)
    fit(elbo(model, guide), [data], epochs=steps, optimizer=optimizer, schedule=schedule)
    return guide


def diagnose(posterior: Any, model: Harvest, data: Data, draws: int) -> Any:
    """ArviZ's container, with what the data identify: curves and effects up to
    a constant, differences.
    """
    functions = {
        "gain": lambda w: model.response.outputs(w, GRID[-1:]).sum() - model.response.outputs(w, GRID[:1]).sum(),
        "weather_curve": lambda w: centred(model.weather.outputs(w, GRID).squeeze(-1)),
        "response_curve": lambda w: centred(model.response.outputs(w, GRID).squeeze(-1)),
        "field": lambda w: centred(w["effect"]),
    }
    curves = {"weather_curve": ["grid"], "response_curve": ["grid"], "field": ["fields"]}
    return to_arviz(posterior, *data, model=model, draws=draws, functions=functions, dims=curves, coords=COORDS)


def main() -> None:
    """The whole run."""
    given = options.parse()
    torch.set_num_threads(1)  # threads that share work this small cost more than they do
    pyro.set_rng_seed(given.seed)
    data, effect = harvests.simulate(torch.Generator().manual_seed(given.seed))
    model = Harvest()
    harvests.least_squares(model.weather.net, model.response.net, data, given.training)
    warnings.filterwarnings("ignore", message="num_chains")  # few cores: one chain after the other
    nuts = NUTS(model, full_mass=True, max_tree_depth=given.depth)
    mcmc = MCMC(nuts, num_samples=given.draws, warmup_steps=given.draws, num_chains=2)
    mcmc.run(*data)
    fitted = partial(variational, model=model, data=data, steps=given.steps)
    full_rank = [fitted(AutoMultivariateNormal(model, init_scale=0.1), Trace_ELBO()) for _ in range(2)]
    mean_field = [fitted(MeanField(model, *data), MeanFieldELBO()) for _ in range(2)]
    posteriors = {"NUTS": mcmc, "full rank": full_rank, "mean field": mean_field}
    trees = {name: diagnose(posterior, model, data, given.draws) for name, posterior in posteriors.items()}
    report.write(trees, effect, given.out)


if __name__ == "__main__":
    main()
