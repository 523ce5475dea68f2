"""Stateless primitives on torch.func: call a net with given values, one draw or many. No Pyro."""

from bayesnn.functional.call import Inputs as Inputs
from bayesnn.functional.call import batch_size as batch_size
from bayesnn.functional.call import call as call
from bayesnn.functional.call import call_chunks as call_chunks
from bayesnn.functional.call import chunks as chunks
from bayesnn.functional.call import parameters as parameters
from bayesnn.functional.call import to_device as to_device
from bayesnn.functional.draws import map_draws as map_draws
from bayesnn.functional.draws import worth_vectorising as worth_vectorising
from bayesnn.functional.holding import alone as alone
from bayesnn.functional.holding import holding as holding
from bayesnn.functional.mode import check_evaluation_mode as check_evaluation_mode
from bayesnn.functional.mode import check_layers as check_layers
from bayesnn.functional.mode import mode_dependent as mode_dependent
from bayesnn.functional.progress import progress_bar as progress_bar
from bayesnn.functional.roots import semidefinite_root as semidefinite_root
