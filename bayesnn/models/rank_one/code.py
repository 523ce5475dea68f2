"""The small variational autoencoder of one layer's vectors."""

import torch
from torch import Tensor, nn


class LayerCode(nn.Module):
    """h = ReLU(E r); z ~ N(M h, exp(V h)); r_hat = D z + c: a member's vector r through a code z.

    The decoder's bias c starts at 1, so that r_hat starts around 1 (weights D as `nn.Linear` has
    them give it a standard deviation of about 0.6). As `nn.Linear` starts it, r_hat would be 0.1
    to 0.6 in size and every layer would shrink its activations by that; batch normalisation hides
    this, a network without it does not train.

    Args:
        width: entries of r.
        latent: entries of z.
        bypassed: r_hat = D h + c, without z, mean and variance: what the published code does in
            convolutions.
    """

    def __init__(self, width: int, latent: int, *, bypassed: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Linear(width, latent)
        self.mean = nn.Linear(latent, latent)
        self.log_variance = nn.Linear(latent, latent)
        self.decoder = nn.Linear(latent, width)
        nn.init.ones_(self.decoder.bias)
        self.bypassed = bypassed

    @property
    def latent(self) -> int:
        """Entries of z."""
        return self.mean.out_features

    def hidden(self, r: Tensor) -> Tensor:
        """h, [..., latent]."""
        return self.encoder(r).relu()

    def moments(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | r), [..., latent] each, for r [..., width]."""
        h = self.hidden(r)
        return self.mean(h), self.log_variance(h)

    def vector(self, z: Tensor, r: Tensor) -> Tensor:
        """r_hat, [..., width]."""
        return self.decoder(self.hidden(r) if self.bypassed else z)

    def draw(self, r: Tensor) -> Tensor:
        """r_hat with a fresh z, [..., width]."""
        mean, log_variance = self.moments(r)
        return self.vector(mean + (0.5 * log_variance).exp() * torch.randn_like(mean), r)

    def undecayed(self) -> list[nn.Parameter]:
        """The parameters that weight decay would pull from 1 to 0."""
        return [self.decoder.bias]
