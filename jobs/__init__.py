"""The verbs: each job parses its settings, calls the library once and prints."""
