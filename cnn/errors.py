"""Errors that the user can mend: one line says what is wrong and what to do."""


class Mendable(ValueError):
    """The user's to mend: jobs print its message as one line and exit with 2, without traceback."""
