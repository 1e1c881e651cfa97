"""What becomes of a whole file: its bytes, its words and numbers, its members, its graph."""

from __future__ import annotations

import io
import re
import zipfile

import numpy as np
import onnx

NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
WORDS = (
    *(b"1e308 -1e309 -0 0.0 nan inf -inf 1e-320 1e400 00 1_0 0x10 9223372036854775808".split()),
    *(b"-1 2147483648 18446744073709551616 1e99999999 -9999999999999999999999 3/0 true".split()),
    *(b"( ) [ ] { } , ; : & * ! | > ' \" # % @ ` // \\ assert or and <= = Y_0 X_99999 - ?".split()),
    *(b"X[0,1] [1,2] [] [ ] < == != equal-to declare-hidden Real float32 <2.0>".split()),
    b"9" * 5000,
    b"(" * 300,
    b"[" * 3000,
    b"\n",
    b"\t",
    b" ",
    b"\r",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    "Größe".encode("latin-1"),
    "\u202e\u0661\u2028".encode(),
)


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """One to four changes anywhere."""
    for _ in range(int(generator.integers(1, 5))):
        change = CHANGES[int(generator.integers(len(CHANGES)))]
        content = change(content, generator)
    return content


def _bytes(content: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in generator.integers(len(content), size=int(generator.integers(1, 4))):
        changed[place] = int(generator.integers(256))
    return bytes(changed)


def _cut(content: bytes, generator: np.random.Generator) -> bytes:
    start, end = _slice(content, generator)
    return content[:start] + content[end:] or content


def _end(content: bytes, generator: np.random.Generator) -> bytes:
    return content[: int(generator.integers(1, len(content) + 1))]


def _twice(content: bytes, generator: np.random.Generator) -> bytes:
    start, end = _slice(content, generator)
    count = int(generator.choice([1, 1, 1, 50]))
    return content[:end] + content[start:end] * count + content[end:]


def _elsewhere(content: bytes, generator: np.random.Generator) -> bytes:
    start, end = _slice(content, generator)
    rest = content[:start] + content[end:]
    place = int(generator.integers(len(rest) + 1))
    return rest[:place] + content[start:end] + rest[place:]


def _word(content: bytes, generator: np.random.Generator) -> bytes:
    place = int(generator.integers(len(content) + 1))
    return content[:place] + _chosen(generator) + content[place:]


def _number(content: bytes, generator: np.random.Generator) -> bytes:
    found = list(NUMBER.finditer(content))
    if not found:
        return _word(content, generator)
    start, end = found[int(generator.integers(len(found)))].span()
    return content[:start] + _chosen(generator) + content[end:]


CHANGES = (_bytes, _cut, _end, _twice, _elsewhere, _word, _word, _number, _number, _number)


def _slice(content: bytes, generator: np.random.Generator) -> tuple[int, int]:
    start = int(generator.integers(len(content)))
    return start, start + int(generator.integers(1, min(400, len(content) - start) + 1))


def _chosen(generator: np.random.Generator) -> bytes:
    return WORDS[int(generator.integers(len(WORDS)))]


def damaged_archive(content: bytes, generator: np.random.Generator) -> bytes:
    """A zip whose bytes are damaged, or whose members are, with digests that fit."""
    if generator.random() < 0.3:
        return damaged(content, generator)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = str(generator.choice(list(members)))
    match int(generator.integers(6)):
        case 0:
            del members[name]
        case 1:
            members[name + ".npy"] = members[name]
        case 2:
            members[name] = members[str(generator.choice(list(members)))]
        case 3:  # the header of an array says what follows
            head, body = members[name][:128], members[name][128:]
            members[name] = damaged(head, generator) + body
        case _:
            members[name] = damaged(members[name] or b" ", generator)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return packed.getvalue()


def damaged_graph(content: bytes, generator: np.random.Generator) -> bytes:
    """A model whose bytes are damaged, or which says something else at some place."""
    if generator.random() < 0.3:
        return damaged(content, generator)
    model = onnx.ModelProto.FromString(content)
    for _ in range(int(generator.integers(1, 4))):
        _change_graph(model, generator)
    try:
        return model.SerializeToString()
    except ValueError:  # a word that is no UTF-8
        return content


def _change_graph(model: onnx.ModelProto, generator: np.random.Generator) -> None:
    graph = model.graph
    node = graph.node[int(generator.integers(len(graph.node)))] if graph.node else None
    tensor = (
        graph.initializer[int(generator.integers(len(graph.initializer)))]
        if graph.initializer
        else None
    )
    number = int(generator.choice([-1, 0, 1, 2, 3, 7, 100_000, 2**31 - 1, 2**40]))
    kinds = [schema.name for schema in onnx.defs.get_all_schemas()]
    match int(generator.integers(10)):
        case 0 if node is not None:
            node.op_type = str(generator.choice(kinds))
        case 1 if node is not None and node.input:
            names = [name for each in graph.node for name in (*each.input, *each.output)]
            node.input[int(generator.integers(len(node.input)))] = str(
                generator.choice([*names, "", "nowhere"])
            )
        case 2 if node is not None and node.attribute:
            attribute = node.attribute[int(generator.integers(len(node.attribute)))]
            attribute.i, attribute.f = number, float(number)
            attribute.ints[:] = [number] * len(attribute.ints)
        case 3 if node is not None:
            name = str(
                generator.choice(["axis", "alpha", "pads", "strides", "group", "to", "perm"])
            )
            node.attribute.append(
                onnx.helper.make_attribute(name, [number] if name.endswith("s") else number)
            )
        case 4 if tensor is not None and tensor.dims:
            tensor.dims[int(generator.integers(len(tensor.dims)))] = number
        case 5 if tensor is not None:
            tensor.data_type = int(generator.integers(0, 24))
        case 6 if tensor is not None:
            tensor.raw_data = damaged(tensor.raw_data or b"\0", generator)
        case 7:
            shape = graph.input[0].type.tensor_type.shape if graph.input else None
            if shape is not None and shape.dim:
                shape.dim[int(generator.integers(len(shape.dim)))].dim_value = number
        case 8 if model.opset_import:
            model.opset_import[0].version = int(generator.integers(-1, 40))
        case _ if node is not None:
            again = graph.node.add()
            again.CopyFrom(node)
