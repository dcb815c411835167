"""The error of a model that a backend does not load."""


class ModelRejectedError(ValueError):
    """The C++ backend of that name would reject this model too; Triton reports the message and serves the others."""
