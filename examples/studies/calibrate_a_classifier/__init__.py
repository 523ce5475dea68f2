"""The study of TST and V-TST: the table and the figure."""
