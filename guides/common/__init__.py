"""Parts that several families of guides share."""
