"""How models of other formats become one that can be read; none of them is opened here."""

from __future__ import annotations

from pathlib import Path

_H5 = (
    "python -c \"import keras; keras.models.load_model('{path}', compile=False)"
    ".save('{stem}.keras')\""
)
_TORCH = (
    "torch.onnx.export(model, example_input, '{stem}.onnx', dynamo=False) in the program that "
    "defines the model"
)
_SCIKIT_LEARN = (
    "skl2onnx.to_onnx(model, X[:1].astype('float32'), options={{'zipmap': False}}) where the model "
    "was trained, its SerializeToString() written to '{stem}.onnx'"
)
_SAVED_MODEL = "python -m tf2onnx.convert --saved-model {path} --output {stem}.onnx"
_COMMANDS = {
    ".h5": _H5,
    ".hdf5": _H5,
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".pkl": _SCIKIT_LEARN,
    ".pickle": _SCIKIT_LEARN,
    ".joblib": _SCIKIT_LEARN,
}


def how_to_convert(path: Path) -> str:
    """What to add to an error about an unknown kind of model; nothing where nothing is known.

    Pickles run code when they are loaded: they are converted where they were made.
    """
    is_saved_model = (path / "saved_model.pb").is_file()
    command = _SAVED_MODEL if is_saved_model else _COMMANDS.get(path.suffix.lower())
    return "" if command is None else f": convert it by {command.format(path=path, stem=path.stem)}"
