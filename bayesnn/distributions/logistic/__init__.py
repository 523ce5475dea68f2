"""Logistic functions integrated over a random effect."""
