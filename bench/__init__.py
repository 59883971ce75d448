"""Benchmarks of ``momentum``: ``python -m bench`` times the kernels, ``python -m bench.train`` trains a model."""
