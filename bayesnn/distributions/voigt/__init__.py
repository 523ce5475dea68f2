"""The Voigt distribution: a normal plus a Cauchy variable."""

from bayesnn.distributions.voigt.voigt import Voigt as Voigt
