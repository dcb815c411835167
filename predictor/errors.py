"""Why Triton or the synchroniser could not start; the messages are for users."""


class StartError(Exception):
    """A failure that the user can fix: the message names it, and the next step."""


class WrongSetting(StartError):
    """A setting is invalid, or this machine lacks something: restarting will not help."""
