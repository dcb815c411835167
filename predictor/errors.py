"""Why Triton could not be started, in words for the one who started it."""


class StartError(Exception):
    """Something the user can put right: the message says what, and the next step."""
