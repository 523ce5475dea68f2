"""Ensembles whose members share all weights but vectors: BatchEnsemble, LP-BNN
and the rank-1 BNN.
"""

from bayesnn.models.rank_one.convert import batch_ensemble as batch_ensemble
from bayesnn.models.rank_one.convert import latent_rank_one as latent_rank_one
from bayesnn.models.rank_one.diversity import LayerDiversity as LayerDiversity
from bayesnn.models.rank_one.diversity import diversity as diversity
from bayesnn.models.rank_one.ensemble import RankOneEnsemble as RankOneEnsemble
from bayesnn.models.rank_one.groups import parameter_groups as parameter_groups
from bayesnn.models.rank_one.groups import without_decay as without_decay
from bayesnn.models.rank_one.initialisation import near_one as near_one
from bayesnn.models.rank_one.initialisation import random_signs as random_signs
from bayesnn.models.rank_one.layer import RankOne as RankOne
from bayesnn.models.rank_one.layout import by_member as by_member
from bayesnn.models.rank_one.layout import shared_batch as shared_batch
from bayesnn.models.rank_one.layout import tile as tile
from bayesnn.models.rank_one.network import RankOneNet as RankOneNet
from bayesnn.models.rank_one.norm import MemberNorm as MemberNorm
from bayesnn.models.rank_one.output import Output as Output
