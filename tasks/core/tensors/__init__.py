"""What a file's layers do to tensors, lowered to the float64 `ReluNetwork`.

May import `networks`, `properties` and what lies before them; the readers of files are its users.
Guarantees: the network computes, over the reals, what was asked of the tensors.
"""
