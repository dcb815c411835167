"""Support vector machines in FP64, with libsvm's iteration for probabilities, which stops within half a percent."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.tables.nodes import Nodes, as_rows

_LEAST = 1e-7  # libsvm's: the least probability of a pair of classes
_TOLERANCE = 0.005 / 2  # libsvm's, of two classes, below which it stops
_STEPS = 3  # no pair of classes needs more: tried from 1e-7 to 1 - 1e-7


def decide(nodes: Nodes, machine: Any, rows: str) -> str:
    """The decision function of two classes, or the value of a regressor: `(batch, 1)`.

    Raises:
        ExportError: the kernel is a function of the user's.
    """
    vectors, weights = _dense(machine.support_vectors_), _dense(machine._dual_coef_)
    similar = _kernel(nodes, machine, rows, vectors)
    product = nodes.add("MatMul", similar, nodes.constant(weights.T))
    summed = nodes.add("Add", product, nodes.constant(as_rows(machine._intercept_)))
    # libsvm counts its first class as the positive one.
    return nodes.add("Neg", summed) if len(getattr(machine, "classes_", ())) == 2 else summed


def _dense(values: Any) -> NDArray[np.float64]:
    """A fitted attribute as a dense array: it is sparse where the training rows were."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, np.float64)


def _kernel(nodes: Nodes, machine: Any, rows: str, vectors: Any) -> str:
    kernel, gamma = machine.kernel, machine._gamma
    if kernel == "rbf":
        # Distances do not depend on the origin; around the mean they lose fewer digits.
        middle = vectors.mean(axis=0)
        near, vectors = nodes.add("Sub", rows, nodes.constant(as_rows(middle))), vectors - middle
        squares = nodes.add("ReduceSum", nodes.add("Mul", near, near), nodes.constant([1], np.int64), keepdims=1)
        squares = nodes.add("Add", squares, nodes.constant(as_rows((vectors**2).sum(axis=1))))
        twice = nodes.add("MatMul", near, nodes.constant(2 * vectors.T))
        return nodes.add("Exp", nodes.add("Mul", nodes.add("Sub", squares, twice), nodes.constant(-gamma)))
    product = nodes.add("MatMul", rows, nodes.constant(vectors.T))
    if kernel == "linear":
        return product
    shifted = nodes.add("Add", nodes.add("Mul", product, nodes.constant(gamma)), nodes.constant(machine.coef0))
    if kernel == "poly":
        return nodes.add("Pow", shifted, nodes.constant(machine.degree))
    if kernel == "sigmoid":
        return nodes.add("Tanh", shifted)
    raise ExportError(f"{type(machine).__name__}: got kernel {kernel!r}, expected rbf, linear, poly or sigmoid")


def probability(nodes: Nodes, machine: Any, decision: str) -> str:
    """Probability of the second of two classes, `(batch, 1)`: Platt scaling, and libsvm's few iterations after it.

    Args:
        nodes: the graph.
        machine: fitted with probability=True.
        decision: as of `decide`.
    """
    curve = nodes.add("Mul", decision, nodes.constant(machine.probA_[0]))  # libsvm's sign again
    first = nodes.add("Sigmoid", nodes.add("Sub", curve, nodes.constant(machine.probB_[0])))
    first = nodes.add("Clip", first, nodes.constant(_LEAST), nodes.constant(1 - _LEAST))
    one = nodes.constant(1)
    odds = (first, nodes.add("Sub", one, first))
    half = nodes.add("Add", nodes.add("Mul", first, nodes.constant(0)), nodes.constant(0.5))
    shares = (half, half)
    for _ in range(_STEPS):
        shares = _step(nodes, odds, shares)
    return shares[1]


def _step(nodes: Nodes, odds: tuple[str, str], shares: tuple[str, str]) -> tuple[str, str]:
    """One round of `multiclass_probability` of libsvm (svm.cpp) for two classes, where it is not done."""

    def mul(a: str, b: str) -> str:
        return nodes.add("Mul", a, b)

    def add(a: str, b: str) -> str:
        return nodes.add("Add", a, b)

    first, second = odds
    cross = nodes.add("Neg", mul(first, second))
    weights = ((mul(second, second), cross), (cross, mul(first, first)))
    p = list(shares)
    pulls = [add(mul(weights[t][0], p[0]), mul(weights[t][1], p[1])) for t in (0, 1)]
    total = add(mul(p[0], pulls[0]), mul(p[1], pulls[1]))
    errors = [nodes.add("Abs", nodes.add("Sub", pull, total)) for pull in pulls]
    done = nodes.add("Less", nodes.add("Max", *errors), nodes.constant(_TOLERANCE))
    for t in (0, 1):
        change = nodes.add("Div", nodes.add("Sub", total, pulls[t]), weights[t][t])
        shrink = add(change, nodes.constant(1))
        p[t] = add(p[t], change)
        grown = add(mul(change, weights[t][t]), mul(nodes.constant(2), pulls[t]))
        total = nodes.add("Div", nodes.add("Div", add(total, mul(change, grown)), shrink), shrink)
        pulls = [nodes.add("Div", add(pulls[j], mul(change, weights[t][j])), shrink) for j in (0, 1)]
        p = [nodes.add("Div", share, shrink) for share in p]
    return nodes.add("Where", done, shares[0], p[0]), nodes.add("Where", done, shares[1], p[1])
