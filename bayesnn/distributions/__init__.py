"""Distributions that Pyro lacks: those of targets with a random effect."""

from bayesnn.distributions.cauchy_bernoulli import CauchyBernoulli as CauchyBernoulli
from bayesnn.distributions.normal_bernoulli import NormalBernoulli as NormalBernoulli
from bayesnn.distributions.normal_student_t import NormalStudentT as NormalStudentT
from bayesnn.distributions.student_t_bernoulli import StudentTBernoulli as StudentTBernoulli
from bayesnn.distributions.student_t_categorical import StudentTCategorical as StudentTCategorical
from bayesnn.distributions.voigt.voigt import Voigt as Voigt
