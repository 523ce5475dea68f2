"""The door to ArviZ, of both generations: every fit to one `InferenceData`
(0.x) or `DataTree` (1.x).
"""

from bayesnn.arviz.collect import to_groups as to_groups
from bayesnn.arviz.convert import Groups as Groups
from bayesnn.arviz.convert import from_groups as from_groups
from bayesnn.arviz.export import to_arviz as to_arviz
from bayesnn.arviz.khat import khat as khat
from bayesnn.arviz.khat import pareto_smoothed as pareto_smoothed
from bayesnn.arviz.leave_one_out import LeaveOneOut as LeaveOneOut
from bayesnn.arviz.leave_one_out import leave_one_out as leave_one_out
from bayesnn.arviz.leave_one_out import loo_pit as loo_pit
