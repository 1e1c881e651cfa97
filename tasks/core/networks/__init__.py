"""The float64 `ReluNetwork` that proofs speak about, and its readers: Keras, ONNX, `.nnet`.

May import `properties` and what lies before it.
Guarantees: the file's function, or a `CertiflowError` that names what cannot be expressed.
"""
