"""How fast the package is: paired with PyTorch in one run, never inside a test.

``python -m benchmarks`` runs every topic and prints one table; ``--quick`` runs small sizes to see that it works.
"""
