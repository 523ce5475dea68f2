"""The study of propagated moments on torchvision's networks."""
