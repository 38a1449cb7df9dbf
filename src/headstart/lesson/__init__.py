"""A lesson: `engine` holds packs, grading, badges and progress; `experiments` are what backs its claims.

Importing this package imports nothing, and no module of the engine imports PyTorch: a lesson starts at once.
"""
