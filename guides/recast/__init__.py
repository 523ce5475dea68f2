"""The posterior of RECaST's two or three numbers."""

from bayesnn.guides.recast.guide import CorrectedDraws as CorrectedDraws
from bayesnn.guides.recast.guide import RECaSTGuide as RECaSTGuide
from bayesnn.guides.recast.nuts import recast_nuts as recast_nuts
