"""bayesnn: Bayesian deep learning that stays plain Pyro.

A Bayesian network is a plain Pyro model that samples some entries of some parameters and calls the
user's untouched `nn.Module` with them. The rooms: `subset` (what is random), `priors`,
`likelihoods`, `models`, `guides` (how it is approximated), `fit`, `predict`, `metrics`, `arviz`,
`plots`, `data`.
"""

from bayesnn import data as data
from bayesnn import guides as guides
from bayesnn import likelihoods as likelihoods
from bayesnn import metrics as metrics
from bayesnn import plots as plots
from bayesnn import priors as priors
from bayesnn import subset as subset
from bayesnn.arviz import to_arviz as to_arviz
from bayesnn.fit import fit as fit
from bayesnn.models import BNN as BNN
from bayesnn.predict import PredictiveDistribution as PredictiveDistribution
from bayesnn.predict import draw as draw
from bayesnn.predict import predict as predict
from bayesnn.predict import predictive as predictive
from bayesnn.scales import learned as learned
