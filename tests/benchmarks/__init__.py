"""Measurements: run on demand, each prints ratios of figures taken in turn on one machine."""
