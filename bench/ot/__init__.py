"""Optimal transport: time to a given marginal error, beside other solvers."""
