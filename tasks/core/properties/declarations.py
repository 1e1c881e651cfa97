"""What a file of VNN-LIB 2.0 declares: networks, their tensors, and which models they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.core.errors import CertiflowError
from tasks.core.properties.query import Interface, Variable
from tasks.core.properties.s_expressions import Form, line_error

ELEMENTS = ("Real", "real", "float32")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,199}")
_SHAPE = re.compile(r"\[\s*([0-9]{1,9}\s*(,\s*[0-9]{1,9}\s*)*)?\]")
_EQUIVALENCES = ("equal-to", "isomorphic-to")


@dataclass(frozen=True)
class Network:
    """A network with one input and one output tensor, declared on a line.

    `equal_to` is the network whose model it is as well; `like` the one whose tensors it has, of
    that model or of its own.
    """

    name: str
    line: int
    input: Variable
    output: Variable
    equal_to: str = ""
    like: str = ""


def declared_networks(forms: Sequence[Form]) -> list[Network]:
    """Of the file's declarations; raises `CertiflowError` naming the line."""
    networks: dict[str, Network] = {}
    names: set[str] = set()
    for form in forms:
        network = _Declaration(form).network()
        for name in (network.name, network.input.name, network.output.name):
            if name in names:
                raise line_error(form.line, f"'{name}' is declared twice; name each differently")
            names.add(name)
        if network.like:
            _check_alike(network, networks.get(network.like))
        networks[network.name] = network
    kinds = {v.element.lower() for each in networks.values() for v in (each.input, each.output)}
    if len(kinds) > 1:
        raise CertiflowError(f"mixes the types {' and '.join(sorted(kinds))}; declare one for all")
    return list(networks.values())


def models_of(networks: Sequence[Network], models: Mapping[str, Interface]) -> tuple[int, ...]:
    """The place of each network's model among those given, each of which must be asked for.

    A model alone needs no name. Raises `CertiflowError` naming what is missing or too much.
    """
    needed = [network.name for network in networks if not network.equal_to]
    given = list(models)
    if given == [""] and len(needed) == 1:
        given = needed
    if sorted(given) != sorted(needed):
        shown = "one without a name" if given == [""] else ", ".join(f"'{each}'" for each in given)
        wanted = ", ".join(f"'{each}'" for each in needed)
        raise CertiflowError(
            f"needs models for the networks {wanted}, and is given {shown}; name a model for each"
        )
    places = tuple(given.index(network.equal_to or network.name) for network in networks)
    for network, place in zip(networks, places, strict=True):
        _check_fit(network, list(models.values())[place])
    return places


def _check_alike(network: Network, other: Network | None) -> None:
    if other is None or other.like:
        raise line_error(
            network.line,
            f"'{network.name}' is to be like '{network.like}', which is not declared before it, or "
            "is like another itself; name one that stands for itself",
        )
    sides = ((network.input, other.input), (network.output, other.output))
    if any(one.shape != two.shape for one, two in sides):
        raise line_error(
            network.line,
            f"'{network.name}' has tensors of other shapes than '{network.like}'; declare the same",
        )


def _check_fit(network: Network, model: Interface) -> None:
    """Raises `CertiflowError` where the model has not the tensors that are declared."""
    if network.output.size != model.num_outputs or network.input.size != model.num_inputs:
        raise line_error(
            network.line,
            f"'{network.name}' has {network.input.size} inputs and {network.output.size} outputs, "
            f"its model {model.num_inputs} and {model.num_outputs}; give the model it is about",
        )
    if not model.takes(network.input.shape):
        raise line_error(
            network.line,
            f"the input of '{network.name}' has the shape {list(network.input.shape)}, its model's "
            f"{list(model.input_shape)}; declare that",
        )


@dataclass
class _Declaration:
    """One `declare-network`, read item by item."""

    form: Form
    inputs: list[Variable] = field(default_factory=list)
    outputs: list[Variable] = field(default_factory=list)

    def network(self) -> Network:
        match self.form.items:
            case ["declare-network", str() as name, *items] if _NAME.fullmatch(name):
                pass
            case _:
                raise line_error(
                    self.form.line, "expected (declare-network name …), with a name of letters"
                )
        like = self._equivalences([item for item in items if _word(item) in _EQUIVALENCES], name)
        for item in items:
            if _word(item) not in _EQUIVALENCES:
                self._tensor(item)
        for found, what in ((self.inputs, "input"), (self.outputs, "output")):
            if len(found) != 1:
                raise line_error(
                    self.form.line,
                    f"network '{name}' declares {len(found)} {what}s; expected one declare-{what}: "
                    "models of several tensors are not verified",
                )
        return Network(name, self.form.line, self.inputs[0], self.outputs[0], *like)

    def _equivalences(self, items: Sequence[str | Form], name: str) -> tuple[str, str]:
        match [item.items for item in items if isinstance(item, Form)]:
            case []:
                return "", ""
            case [["equal-to", str() as other]]:
                return other, other
            case [["isomorphic-to", str() as other]]:
                return "", other
        raise line_error(
            self.form.line,
            f"network '{name}' has more than one (equal-to name) or (isomorphic-to name), or not "
            "one name in it",
        )

    def _tensor(self, item: str | Form) -> None:
        line = item.line if isinstance(item, Form) else self.form.line
        match item.items if isinstance(item, Form) else [item]:
            case ["declare-hidden", *_]:
                raise line_error(
                    line,
                    "declare-hidden: questions about hidden nodes are not answered; export the "
                    "node as the model's output",
                )
            case ["declare-input", _, _, _, "initialized", *_]:
                raise line_error(
                    line, "initialized: defaults of inputs are not read; assert the input's values"
                )
            case ["declare-input" | "declare-output" as what, str(name), str(kind), str(shape)] if (
                _NAME.fullmatch(name) and _SHAPE.fullmatch(shape)
            ):
                variable = Variable(name, _checked(kind, line), _sizes(shape, line))
                (self.inputs if what == "declare-input" else self.outputs).append(variable)
            case _:
                raise line_error(
                    line,
                    "expected (declare-input name Real [shape]) or declare-output, such as "
                    "(declare-input X float32 [1,28,28])",
                )


def _word(item: str | Form) -> str | Form:
    return item.items[0] if isinstance(item, Form) and item.items else ""


def _checked(element: str, line: int) -> str:
    if element not in ELEMENTS:
        raise line_error(
            line, f"elements of type '{element[:40]}' are not verified; expected Real or float32"
        )
    return element


def _sizes(shape: str, line: int) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape.strip("[] \t\r").split(",") if size.strip())
    if 0 in sizes:
        raise line_error(line, f"the shape {shape} has no elements; expected sizes above 0")
    return sizes
