"""certiflow on arrays and files, in this process: `from tasks import api`.

May import `tasks.core`; loads neither Prefect nor MLflow, and TensorFlow only for Keras models.
Guarantees: what `verify`, `radius` and `bounds` prove is proved as by the commands, in float64 with
outward rounding; every counterexample was evaluated by the model as it is deployed.

A network of two inputs and two outputs, `h1 = relu(x1 + x2)`, `h2 = relu(x1 - x2)`,
`y1 = h1 + 1`, `y2 = h2`:

>>> import numpy as np
>>> from tasks import api
>>> network = api.ReluNetwork(
...     (
...         api.Affine(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)),
...         api.Affine(np.eye(2), np.array([1.0, 0.0])),
...     )
... )

The first output wins wherever both inputs are in [0, 1], which no number of points would show:

>>> square = api.box([0.0, 0.0], [1.0, 1.0])
>>> found = api.verify(network, api.Robustness(square, label=0))
>>> found.holds, str(found.verdict), str(found.decided_by), found.margin > 0
(True, 'robust', 'crown', True)

Outputs may be asked anything linear. That `y1 >= 2.5` is never reached is wrong:

>>> high = api.unreachable(square, rows=[[-1.0, 0.0]], offsets=[2.5])
>>> found = api.verify(network, high)
>>> found.holds, bool(found.outputs[0] >= 2.5), square.contains(found.counterexample[None])[0]
(False, True, np.True_)

How far may the inputs move before the label changes, and which values can the outputs take?

>>> wide = api.radius(network, np.array([0.9, 0.1]), lower=-2.0, upper=2.0, max_epsilon=1.0)
>>> wide.label, 0 < wide.proved < wide.falsified, wide.falsified - wide.proved <= 0.001
(0, True, True)
>>> api.bounds(network, [0.0, 0.0], [0.5, 0.5], method="crown").upper >= [2.0, 0.5]
array([ True,  True])

Models are paths of ONNX, Keras and `.nnet` files, Keras models, networks, or what `load` makes of
any of them: load once what you ask several times. Outputs are logits, also of a model that ends
with a softmax or a sigmoid. What you cause raises `CertiflowError`, in one line with the remedy.
"""

from tasks.api.models import Model, load
from tasks.api.properties import Robustness, always_positive, box, linf_ball, unreachable
from tasks.api.questions import OutputBounds, Radius, Verified, bounds, radius, verify
from tasks.core.errors import CertiflowError
from tasks.core.models.loading import LoadedModel
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.verdicts import DecidedBy, Verdict

__all__ = [
    "Affine",
    "Box",
    "CertiflowError",
    "DecidedBy",
    "LoadedModel",
    "Model",
    "OutputBounds",
    "Property",
    "Radius",
    "ReluNetwork",
    "Robustness",
    "UnsafeRegion",
    "Verdict",
    "Verified",
    "always_positive",
    "bounds",
    "box",
    "linf_ball",
    "load",
    "radius",
    "unreachable",
    "verify",
]
