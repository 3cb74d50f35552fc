"""Operators one after the other, appended to a graph."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Chain:
    """Operators of which each takes what the one before it gives.

    Parameters
    ----------
    graph
        Gets the constants.
    tensor
        What the first operator takes.
    name
        Begins the names of what they give, which nothing else in the graph may have.

    Attributes
    ----------
    nodes
        The operators so far.
    tensor
        What the last one gives.
    """

    def __init__(self, graph: onnx.GraphProto, tensor: str, name: str) -> None:
        self._graph = graph
        self._name = name
        self._constants = 0
        self.nodes: list[onnx.NodeProto] = []
        self.tensor = tensor

    def then(self, operator: str, *constants: Sequence[int], **attributes: Any) -> None:
        """Append an operator; constants are its further inputs, of whole numbers."""
        made = f"{self._name}/{len(self.nodes)}"
        inputs = [self.tensor, *(self._constant(values) for values in constants)]
        self.nodes.append(helper.make_node(operator, inputs, [made], **attributes))
        self.tensor = made

    def ends_as(self, name: str) -> None:
        """Give what the last operator gives another name."""
        self.nodes[-1].output[0] = self.tensor = name

    def _constant(self, values: Sequence[int]) -> str:
        name = f"{self._name}/constant.{self._constants}"
        self._constants += 1
        self._graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name
