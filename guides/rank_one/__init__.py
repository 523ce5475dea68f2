"""The posterior of rank-one ensembles, and the ELBO that trains all members in one pass."""

from bayesnn.guides.rank_one.elbo import RankOneELBO as RankOneELBO
from bayesnn.guides.rank_one.guide import RankOneGuide as RankOneGuide
