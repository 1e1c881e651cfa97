"""Models as deployed: Keras, onnxruntime or NumPy, loaded and held against their networks.

May import `bounds` and what lies before it.
Guarantees: a model that is loaded agreed with its network, to float32, at every point asked.
"""
