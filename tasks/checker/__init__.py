"""Checks certificates of robustness without trusting whoever made them.

Reads the network from its ONNX file, the property from its VNN-LIB file or from the certificate,
and the certificate's multipliers, and computes from them bounds that hold whatever these are.
May import numpy and onnx alone, so that the folder runs by itself: `python -m checker --help`.
Guarantees: what is called proved is true of the file's network in exact arithmetic; a damaged
certificate can fail, never pass wrongly.

To be read in this order: `bounds` (why a pass proves something), `check` (what must be proved),
`certificate`, `network`, `properties`, `exact`.
"""
