"""Attacks on a running suite, one module per kind: bounded, on the loopback address, against a suite of their own.

`python -m tests.attacks [word] [--mode processes --replicas 2]` runs them and prints for each what it met, how long
somebody else waited meanwhile, and how the memory of our processes grew. `make test-long` runs them too.
"""
