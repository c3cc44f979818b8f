"""Benchmarks: run on demand, each prints ratios of figures measured in turn on one machine."""

from cnn.cluster import environment

environment.set_defaults()  # before one of them imports Ray
