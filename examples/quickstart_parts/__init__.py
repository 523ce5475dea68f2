"""What `quickstart.py` and `quickstart_seeds.py` share: options, data, training, the choice of a prior, scores, pictures."""
