"""Why Triton or the synchroniser could not be started, in words for the one who started it."""


class StartError(Exception):
    """Something the user can put right: the message says what, and the next step."""


class WrongSetting(StartError):
    """To start it again is of no use."""
