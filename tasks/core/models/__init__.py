"""Models as deployed: Keras, onnxruntime or NumPy, loaded and held against their networks.

May import `readers`, `bounds` and what lies before them.
Guarantees: a model that is loaded agreed with its network, to float32, at every point asked.
"""
