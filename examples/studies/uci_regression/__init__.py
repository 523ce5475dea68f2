"""The study of small regression sets: folds, methods, scores, tables and
figure, one job a file.
"""
