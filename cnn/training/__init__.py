"""Training: what the loop is fed with, and what it leaves behind."""
