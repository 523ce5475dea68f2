"""The parts of uci_regression.py, one job a file."""
