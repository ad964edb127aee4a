"""The vocabulary: what can be asked for, what happens meanwhile, what comes back.

Imports nothing of ours; everything else speaks in these words.
"""
