"""What studies share: data, networks and their training, choices, scores,
seeds, tables and curves.
"""
