"""What is to be proved: boxes, unsafe regions of outputs, robustness, and VNN-LIB's text.

May import the modules of `tasks.core` itself.
Guarantees: a property that is read is never weaker than what its file says.
"""
