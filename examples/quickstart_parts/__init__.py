"""What the quickstart is made of: options, data, training, the choice of a prior, scores, pictures, the page."""
