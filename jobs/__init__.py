"""The verbs: each job parses its settings, and calls the library once."""
