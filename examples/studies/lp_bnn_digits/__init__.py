"""What the study of latents is made of: methods, members over training, scores,
the tables and the figure.
"""
