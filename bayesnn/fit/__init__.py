"""One small training loop for any loss module: progress, exact resume, devices,
several processes.
"""

from bayesnn.fit.history import History as History
from bayesnn.fit.loop import fit as fit
