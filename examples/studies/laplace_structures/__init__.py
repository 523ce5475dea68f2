"""The study of the structures and subsets of Laplace approximations."""
