"""What the hierarchical regression leaves out of its story: simulated data,
options, printing and the figure.
"""
