"""RECaST: random effects that calibrate a source's predictions to a small target sample."""

from bayesnn.models.recast.effects import CauchyEffect as CauchyEffect
from bayesnn.models.recast.effects import Effect as Effect
from bayesnn.models.recast.effects import NormalEffect as NormalEffect
from bayesnn.models.recast.effects import StudentTEffect as StudentTEffect
from bayesnn.models.recast.make import binary as binary
from bayesnn.models.recast.make import categorical as categorical
from bayesnn.models.recast.make import continuous as continuous
from bayesnn.models.recast.model import PRIORS as PRIORS
from bayesnn.models.recast.model import RECaST as RECaST
from bayesnn.models.recast.source_draws import SourceDraws as SourceDraws
from bayesnn.models.recast.source_posterior import source_weights as source_weights
from bayesnn.models.recast.source_posterior import with_source as with_source
