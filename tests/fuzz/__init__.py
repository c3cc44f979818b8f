"""Fuzzing: run on demand, with a small sample in the suite."""
