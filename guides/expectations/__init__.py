"""E_q[log p(y | f)] for normal outputs f, likelihood by likelihood."""

from bayesnn.guides.expectations.expected_log_likelihood import expected_log_likelihood as expected_log_likelihood
from bayesnn.guides.expectations.logit_draws import LogitDraws as LogitDraws
from bayesnn.guides.expectations.logit_draws import probit_score as probit_score
from bayesnn.guides.expectations.normal_and_bounds import jensen_bound as jensen_bound
from bayesnn.guides.expectations.normal_and_bounds import normal_expectation as normal_expectation
from bayesnn.guides.expectations.normal_and_bounds import second_order as second_order
