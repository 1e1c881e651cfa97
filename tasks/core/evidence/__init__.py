"""What verdicts come to: tables, figures, comparisons of versions, and the gate.

May import every package before it; nothing of the core imports it.
Guarantees: certified <= robust <= clean on the same points, or the run stops.
"""
