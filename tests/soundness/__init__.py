"""The soundness laboratory: every engine asked what a second source knows exactly.

A case is a network, a property and, for each region, a point with its exact excess there, in
integers: whoever proves more than that is wrong. Families (`families_*`) draw cases from a seed;
most depend on all their inputs through one or two sums alone, so that the least excess is known
exactly however many inputs there are (`exact`). `engines` asks, `findings` judges, `float32`
evaluates as deployed models may, `laboratory` runs rounds in processes, `failures` writes what is
wrong as files, `mends` takes mends of the product back.

`make soundness SECONDS=600` goes on in the folder `soundness/`; without that folder it begins anew.
"""
