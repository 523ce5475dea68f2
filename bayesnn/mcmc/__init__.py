"""Markov chains on minibatches: producers of draws. Where all data fit into a batch, use Pyro's
`MCMC` and `NUTS`.
"""

from bayesnn.mcmc.sghmc import sghmc as sghmc
