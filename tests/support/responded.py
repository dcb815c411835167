"""Which versions responded to a load."""

import itertools

from loadtest.generator.responses import Response, Result


def versions(result: Result) -> list[str]:
    """Versions that responded, in the order of their first responses."""
    return list(dict.fromkeys(response.version for response in result.successes))


def stale(result: Result) -> list[Response]:
    """Successful responses of a version that had been replaced when the request was sent.

    A version is replaced with the first response of the next one. A request that was in progress during a swap may be
    read late: the order in which responses end says nothing.
    """
    first_read: dict[str, float] = {}
    for response in result.successes:
        first_read.setdefault(response.version, response.ended)
    moments = list(first_read.items())
    replaced = {version: ended for (version, _), (_, ended) in itertools.pairwise(moments)}
    return [each for each in result.successes if each.started > replaced.get(each.version, float("inf"))]
