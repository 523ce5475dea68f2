"""E_q[log p(y | f)] for normal outputs f: by the likelihood's own formula, by draws, by bounds."""

from bayesnn.guides.expectations.expected_log_likelihood import expected_log_likelihood as expected_log_likelihood
from bayesnn.guides.expectations.log_softmax import jensen_bound as jensen_bound
from bayesnn.guides.expectations.log_softmax import second_order as second_order
from bayesnn.guides.expectations.logit_draws import LogitDraws as LogitDraws
from bayesnn.guides.expectations.logit_draws import probit_score as probit_score
