"""Why Triton or the synchroniser could not be started, in words for the user."""


class StartError(Exception):
    """Something the user can put right: the message says what, and the next step."""


class WrongSetting(StartError):
    """A setting is wrong: another start would fail as well."""
