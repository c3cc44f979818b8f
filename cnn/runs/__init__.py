"""Runs: what is known before one starts, and what is where in its folder."""
