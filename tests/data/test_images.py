"""Letters in MNIST's format, rotation with exact right angles, noise of the scale asked for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bayesnn import data
from bayesnn.data import glyphs
from bayesnn.data._warp import MNIST_CENTRE, centre_of_mass

FALSE_ALARM_Z = 4.9  # two-sided 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return data.mnist5k()[0]


def test_letters_have_mnists_format() -> None:
    images = data.letters(600, generator=seeded())
    assert images.shape == (600, 1, 28, 28)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert 0.99 < float(images.max()) <= 1
    assert (centre_of_mass(images) - MNIST_CENTRE).abs().max() < 0.55
    inked = images > 0.02
    longest = torch.maximum(inked.any(-1).sum((1, 2)), inked.any(-2).sum((1, 2))).double()
    assert 19.5 < longest.mean() < 20.5
    assert longest.max() <= 25
    assert 0.11 < images.mean() < 0.16  # MNIST has 0.131
    rim = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]])
    assert rim.max() < 0.2
    grey = ((images > 0.1) & (images < 0.9)).sum() / (images > 0.1).sum()
    assert 0.35 < grey < 0.6  # anti-aliased as MNIST (0.50)
    assert len(images.flatten(1).unique(dim=0)) == 600


def test_letters_are_drawn_by_the_generator() -> None:
    assert torch.equal(data.letters(9, generator=seeded(3)), data.letters(9, generator=seeded(3)))
    assert not torch.equal(data.letters(9, generator=seeded(3)), data.letters(9, generator=seeded(4)))
    state = torch.get_rng_state()
    data.letters(9, generator=seeded(3))
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="n is 0"):
        data.letters(0)


def test_letters_leave_out_what_reads_as_a_digit() -> None:
    assert len(set(data.LETTERS)) == len(data.LETTERS) == 37
    assert data.LETTERS.isalpha()
    assert not set(data.LETTERS) & set("OoQIijlZzSsbBgq")


def test_letters_stand_upright_and_unmirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "LETTERS", "L")
    ink = data.letters(50, generator=seeded()).mean((0, 1))
    assert ink.sum(0).argmax() < 13  # the stem is left of the middle
    assert ink.sum(1).argmax() > 18  # the foot is below it
    monkeypatch.setattr(glyphs, "LETTERS", "T")
    assert data.letters(50, generator=seeded()).mean((0, 1)).sum(1).argmax() < 10


def test_letters_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data.letters(23, generator=seeded())
    monkeypatch.setattr(glyphs, "_CHUNK", 5)
    torch.testing.assert_close(data.letters(23, generator=seeded()), whole)


@pytest.mark.parametrize("quarter", [-1, 0, 1, 2, 3, 4])
def test_right_angles_are_rot90(digits: Tensor, quarter: int) -> None:
    images = digits[::50]
    expected = torch.rot90(images, quarter, (-2, -1))
    torch.testing.assert_close(data.rotated(images, 90 * quarter), expected, atol=2e-5, rtol=0)
    double = data.rotated(images.double(), 90.0 * quarter)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, expected.double(), atol=1e-12, rtol=0)


def test_rotation_turns_each_image_by_its_angle(digits: Tensor) -> None:
    images = digits[::1_000]
    degrees = torch.tensor([0.0, 15.0, 90.0, 123.0, 270.0])
    turned = data.rotated(images, degrees)
    for i, angle in enumerate(degrees.tolist()):
        torch.testing.assert_close(turned[i : i + 1], data.rotated(images[i : i + 1], angle))
    # The centre of mass goes round the middle, counter-clockwise as seen (down is positive).
    spot = torch.zeros(1, 1, 28, 28)
    spot[..., 13:15, 22:24] = 1
    for angle in (30.0, 45.0, 200.0):
        moved = centre_of_mass(data.rotated(spot, angle))[0]
        radians = torch.deg2rad(torch.tensor(angle))
        torch.testing.assert_close(moved, 9 * torch.stack([radians.cos(), -radians.sin()]), atol=0.05, rtol=0)


def test_rotation_keeps_shape_range_and_input(digits: Tensor) -> None:
    images = digits[::100].clone()
    turned = data.rotated(images, 37)
    assert torch.equal(images, digits[::100])
    assert turned.shape == images.shape
    assert turned.min() == 0
    assert turned.max() <= 1
    assert float(turned.sum() / images.sum()) == pytest.approx(1, abs=0.005)  # ink is kept
    # nothing comes in from outside
    assert data.rotated(torch.ones(1, 1, 28, 28), 45)[0, 0, 0, 0] == 0
    wide = torch.rand(2, 3, 8, 20, generator=seeded())
    torch.testing.assert_close(data.rotated(wide, 180), wide.flip(-1, -2), atol=2e-5, rtol=0)
    torch.testing.assert_close(data.rotated(wide, 90)[..., 6:14], torch.rot90(wide[..., 6:14], 1, (-2, -1)))
    assert data.rotated(images[:0], 20).shape == (0, 1, 28, 28)


def test_noise_has_the_scale_asked_for() -> None:
    grey = torch.full((50, 1, 28, 28), 0.5)
    noise = data.noisy(grey, 0.05, generator=seeded()) - grey
    n = noise.numel()
    assert abs(float(noise.mean())) < FALSE_ALARM_Z * 0.05 / n**0.5
    assert abs(float(noise.std()) / 0.05 - 1) < FALSE_ALARM_Z / (2 * n) ** 0.5
    assert torch.equal(data.noisy(grey, 0.3, generator=seeded(1)), data.noisy(grey, 0.3, generator=seeded(1)))
    assert not torch.equal(data.noisy(grey, 0.3, generator=seeded(1)), data.noisy(grey, 0.3, generator=seeded(2)))
    assert torch.equal(data.noisy(grey, 0), grey)
    loud = data.noisy(grey.double(), 5.0, generator=seeded())
    assert loud.dtype == torch.float64
    assert [loud.min().item(), loud.max().item()] == [0, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.rotated(torch.zeros(28, 28), 5), "must be floats"),
        (lambda: data.rotated(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), 5), "images / 255"),
        (lambda: data.rotated(torch.zeros(2, 1, 28, 28), torch.zeros(3)), r"for 2 images; .*\[2\]"),
        (lambda: data.rotated(torch.zeros(2, 1, 28, 28), float("nan")), "NaN or infinite"),
        (lambda: data.noisy(torch.zeros(28, 28), 1.0), "noisy: images must be floats"),
        (lambda: data.noisy(torch.zeros(1, 1, 28, 28), -0.1), "scale is -0.1"),
        (lambda: data.noisy(torch.zeros(1, 1, 28, 28), float("inf")), "scale is inf"),
    ],
)
def test_wrong_images_and_scales_are_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
