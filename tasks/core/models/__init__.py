"""Models as deployed (Keras, onnxruntime, NumPy), loaded and held against their networks.

May import `bounds` and what lies before it.
Guarantees: a model that is loaded computes, in float32, what its network says.
"""
