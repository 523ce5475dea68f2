"""What the study of TST and V-TST is made of: heads, their training, the table and the figure."""
