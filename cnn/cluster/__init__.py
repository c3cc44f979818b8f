"""The only modules of the library that import Ray."""
