"""Readers of model files: Keras, ONNX and `.nnet`, lowered to a `ReluNetwork`.

May import `tensors` and what lies before it; models and runtimes import it.
Guarantees: the file's function, or a `CertiflowError` that names what cannot be expressed.
"""
