"""The encoding that must not be used: the network as it is, sent to Marabou unscaled."""

from __future__ import annotations

from maraboupy import MarabouCore

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box


def ask(network: ReluNetwork, ball: Box, row: FloatArray, timeout_seconds: int = 10) -> str:
    """Marabou's answer to: is there a point of the ball with `row @ logits <= 0`?"""
    query = MarabouCore.InputQuery()
    hidden = [len(layer.bias) for layer in network.layers[:-1]]
    answer = network.num_inputs + 2 * sum(hidden)
    query.setNumberOfVariables(answer + 1)
    for variable in range(network.num_inputs):
        query.setLowerBound(variable, ball.lower[0, variable])
        query.setUpperBound(variable, ball.upper[0, variable])
        query.markInputVariable(variable, variable)
    before, start = 0, network.num_inputs
    for layer, width in zip(network.layers, hidden, strict=False):
        for unit in range(width):
            _equate(query, layer.weight[unit], before, start + unit, layer.bias[unit])
            query.setLowerBound(start + width + unit, 0.0)
            MarabouCore.addReluConstraint(query, start + unit, start + width + unit)
        before, start = start + width, start + 2 * width
    last = network.layers[-1]
    _equate(query, row @ last.weight, before, answer, float(row @ last.bias))
    query.setUpperBound(answer, 0.0)
    options = MarabouCore.Options()
    options._verbosity = 0
    options._timeoutInSeconds = timeout_seconds
    code, _, _ = MarabouCore.solve(query, options, "")
    return str(code)


def _equate(
    query: MarabouCore.InputQuery, weights: FloatArray, before: int, variable: int, bias: float
) -> None:
    equation = MarabouCore.Equation()
    for column, weight in enumerate(weights):
        equation.addAddend(float(weight), before + column)
    equation.addAddend(-1.0, variable)
    equation.setScalar(-float(bias))
    query.addEquation(equation)
