"""Errors that end a measurement with one line and an exit status."""


class LoadTestError(Exception):
    """Nothing can be measured; the message says what happened and what to do next.

    Attributes:
        status: of the process.
    """

    status = 1


class WrongArgument(LoadTestError):
    """An argument that does not fit the server, or that cannot be read."""

    status = 2
