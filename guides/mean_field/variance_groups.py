"""Which sites of a guide share a variance: site name -> the name of its group."""


def per_network(site: str) -> str:
    """All sites share one variance."""
    return "network"


def per_layer(site: str) -> str:
    """The sites of one layer, `fc1.weight` and `fc1.bias`, share a variance."""
    return site.rpartition(".")[0]


def per_tensor(site: str) -> str:
    """Every site has its own variance."""
    return site
