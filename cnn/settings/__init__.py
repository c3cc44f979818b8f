"""Settings: how the page in cnn/config.py becomes a command line, and is checked."""
