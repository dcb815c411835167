"""The one error of a load."""


class ModelRefusedError(ValueError):
    """The C++ backend of that name would refuse this model too; Triton reports the message and serves the rest."""
