"""What several families of guides share."""
