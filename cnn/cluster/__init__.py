"""The only rooms of the library that know Ray."""
