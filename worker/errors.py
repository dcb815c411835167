"""What can go wrong with a message, by what becomes of it."""


class StartError(Exception):
    """The worker cannot start; the message says why. A restart does not help."""


class Undeliverable(Exception):
    """A message that no retry helps: it goes to the dead-letter queue.

    Attributes:
        code: one word for programs; those of the server are in docs/api.md#errors.
    """

    def __init__(self, code: str, reason: str) -> None:
        """The reason is for people."""
        super().__init__(reason)
        self.code = code


class Failed(Exception):
    """A message that failed and may succeed another time: it is received again, some times."""


class Away(Exception):
    """What every message needs is away or busy: the message is held until it is back.

    Attributes:
        retry_s: when to try again, where the server said so.
    """

    def __init__(self, reason: str, retry_s: float | None = None) -> None:
        """The reason is for people."""
        super().__init__(reason)
        self.retry_s = retry_s


class Stopping(Exception):
    """The worker stops before the message is done: it is given back."""
