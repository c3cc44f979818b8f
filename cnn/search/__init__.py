"""The search space, and the trials in it."""
