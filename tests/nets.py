"""Small networks of every kind that the library must work with, each with inputs:
`NETS[name]() -> (net, x)`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

BATCH = 3
Case = tuple[Any, Any]  # a network, whose layers the type checker does not know, and its inputs


def mlp(inputs: int = 3, hidden: int = 4, outputs: int = 2) -> Any:
    """A network of inputs * hidden + hidden + hidden * outputs + outputs
    weights: 26 by default.
    """
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs)).eval()


class Once(torch.autograd.Function):
    """An operation whose derivative has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * g


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)


class Tied(nn.Module):
    """The decoder's matrix is the encoder's; the output head is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3, bias=False)
        self.decoder = nn.Linear(3, 3)
        self.decoder.weight = self.encoder.weight
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(x).tanh()).tanh())


class Recurrent(nn.Module):
    """The last state of an LSTM over a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 3, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Words(nn.Module):
    """The mean of embedded integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).mean(1))


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Encoder(nn.Module):
    """One transformer encoder layer, whose evaluation mode has a fused kernel
    without derivatives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=8, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class TwoInputs(nn.Module):
    """f(a, b), called with a tuple or, by keywords, with a dict; `scale` is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 2)
        self.right = nn.Linear(1, 2, bias=False)

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        return scale * (self.left(a) + self.right(b)).tanh()


class Temperature(nn.Module):
    """Logits divided by a parameter without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) / self.temperature


class TwoNames(nn.Module):
    """The head has a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])
        self.head = self.layers[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers[0](x).tanh())


class TwoNamesRecurrent(Recurrent):
    """The LSTM has a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = self.lstm


class TiedWords(nn.Module):
    """The decoder's matrix is the embedding's, and both have second names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.decoder = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
        self.decoder.weight = self.embedding.weight
        self.both = nn.ModuleList([self.embedding, self.decoder])
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decoder(self.embedding(x).mean(1)).tanh())


def layer_twice() -> Case:
    """One linear layer at two places."""
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(3, 2)).eval(), torch.randn(BATCH, 3)


def norm_twice() -> Case:
    """One batch normalisation at two places, in evaluation mode."""
    norm = nn.BatchNorm1d(3)
    net = nn.Sequential(norm, nn.Linear(3, 3), nn.ReLU(), norm, nn.Linear(3, 2))
    net(torch.randn(20, 3))
    return net.eval(), torch.randn(BATCH, 3)


def convolutional() -> Case:
    """A small LeNet."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 5), nn.ReLU(), nn.Flatten()
    )
    return nn.Sequential(*net, nn.Linear(12, 2)).eval(), torch.randn(BATCH, 1, 12, 12)


def batch_norm() -> Case:
    """In evaluation mode, with running statistics that are not those of its start."""
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    net(torch.randn(20, 3))
    return net.eval(), torch.randn(BATCH, 3)


NETS: dict[str, Callable[[], Case]] = {
    "mlp": lambda: (mlp(), torch.randn(BATCH, 3)),
    "conv": convolutional,
    "tied": lambda: (Tied().eval(), torch.randn(BATCH, 3)),
    "lstm": lambda: (Recurrent().eval(), torch.randn(BATCH, 4, 2)),
    "embedding": lambda: (Words().eval(), torch.randint(0, 7, (BATCH, 4))),
    "attention": lambda: (Attention().eval(), torch.randn(BATCH, 5, 4)),
    "encoder": lambda: (Encoder().eval(), torch.randn(BATCH, 5, 4)),
    "tuple": lambda: (TwoInputs().eval(), (torch.randn(BATCH, 3), torch.randn(BATCH, 1))),
    "dict": lambda: (TwoInputs().eval(), {"b": torch.randn(BATCH, 1), "a": torch.randn(BATCH, 3), "scale": 0.5}),
    "batch_norm": batch_norm,
    "temperature": lambda: (Temperature().eval(), torch.randn(BATCH, 3)),
    "two names": lambda: (TwoNames().eval(), torch.randn(BATCH, 3)),
    "two names, lstm": lambda: (TwoNamesRecurrent().eval(), torch.randn(BATCH, 4, 2)),
    "tied words": lambda: (TiedWords().eval(), torch.randint(0, 7, (BATCH, 4))),
    "layer twice": layer_twice,
    "norm twice": norm_twice,
}
"""Two outputs each."""


def _vision(build: Callable[[], nn.Module]) -> Callable[[], Case]:
    return lambda: (build().eval(), torch.randn(BATCH, 3, 32, 32))


def _resnet() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


def _densenet() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=10)


def _vision_transformer() -> Any:
    from torchvision.models import VisionTransformer

    net = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )
    # zeros as it comes: the outputs would depend on no other weight
    nn.init.normal_(net.heads.head.weight)
    return net


def _swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=[4, 4], num_classes=10
    )


TORCHVISION: dict[str, Callable[[], Case]] = {
    "resnet18": _vision(_resnet),
    "densenet": _vision(_densenet),
    "vit": _vision(_vision_transformer),
    "swin": _vision(_swin),
}
"""Ten classes, images of 32 x 32, weights as initialised."""
