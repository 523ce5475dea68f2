"""The study of segmentation: its scenes, its numbers on cases whose answers are
known, and a tiny network.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bayesnn import likelihoods, predictive
from bayesnn.guides import RankOneELBO, RankOneGuide
from bayesnn.models import RankOneEnsemble, batch_ensemble, latent_rank_one

from examples.studies.segmentation import judged, methods, network, report
from examples.studies.segmentation.judged import detection, iou, maps, quality
from examples.studies.segmentation.methods import published_weight
from examples.studies.segmentation.report import any_object
from examples.studies.segmentation.scenes import CLASSES, TYPICAL, UNSEEN, _surface, scenes


def test_scenes_follow_their_seed_and_stay_in_range() -> None:
    first, again, other = scenes(6, seed=3), scenes(6, seed=3), scenes(6, seed=4)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.y, other.y)
    assert first.x.shape == (6, 3, 48, 48)
    assert first.y.shape == (6, 48, 48)
    assert len(first) == 6
    assert 0 <= float(first.x.min()) < float(first.x.max()) <= 1
    state = torch.random.get_rng_state()
    scenes(2, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_cross_is_in_the_scenes_that_ask_for_it_alone() -> None:
    known, with_cross = scenes(200, seed=0), scenes(200, seed=0, unseen=True)
    assert set(known.y.unique().tolist()) == set(range(len(CLASSES)))
    assert UNSEEN in with_cross.y.unique()
    crossed = (with_cross.y == UNSEEN).flatten(1).any(1)
    assert crossed.float().mean() > 0.95  # in a few it lies below the others
    # What is neither cross nor what the cross took the place of is as it was.
    assert ((known.y == with_cross.y) | (with_cross.y == UNSEEN) | (known.y > 0)).all()


def test_noise_changes_pixels_and_no_labels() -> None:
    clean, noisy = scenes(20, seed=1, noise=0.0), scenes(20, seed=1, noise=0.1)
    assert torch.equal(clean.y, noisy.y)
    # Clipping at 0 and 1 takes a little of it.
    assert float((noisy.x - clean.x).std()) == pytest.approx(0.1, rel=0.1)


def test_neither_colour_nor_surface_tells_the_class() -> None:
    made = scenes(400, seed=2, noise=0.0)
    colours = made.x.movedim(1, -1)
    means = torch.stack([colours[made.y == label].mean(0) for label in range(1, len(CLASSES))])
    spread = torch.stack([colours[made.y == label].std(0) for label in range(1, len(CLASSES))])
    # Means of 400 colours of their own an image differ by their standard error.
    assert float((means - means.mean(0)).abs().max()) < 0.25 * float(spread.min())
    counts = torch.bincount(made.y.flatten(), minlength=len(CLASSES)).double()[1:]
    assert float(counts.max() / counts.min()) < 1.3


@pytest.mark.parametrize(("chance", "expected"), [((0.99, 0.0), 1), ((0.99, 0.99), 2), ((0.0, 0.99), 0)])
def test_a_box_is_striped_unless_chance_says_otherwise(chance: tuple[float, float], expected: int) -> None:
    assert _surface(torch.tensor([2]), torch.tensor([chance])).tolist() == [expected]


def test_typical_surfaces_are_as_frequent_as_said() -> None:
    n = 100_000
    chance = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    striped = (_surface(torch.full((n,), 2), chance) == 1).double().mean()
    # fails one time in 1.7 million
    assert float(striped) == pytest.approx(TYPICAL, abs=5 * math.sqrt(0.25 / n))
    crosses = torch.bincount(_surface(torch.full((n,), UNSEEN), chance)) / n
    assert crosses.tolist() == pytest.approx([1 / 3] * 3, abs=5 * math.sqrt(0.25 / n))


def test_detection_among_objects_leaves_the_ground_out() -> None:
    # Two pixels of ground, one of a known shape, two unseen: the known one lies between these two.
    p = torch.tensor([0.5, 0.5, 0.8, 0.9, 0.7])
    found = detection(torch.stack([p, 1 - p], -1)[None, None, None], torch.tensor([[[0, 0, 1, 4, 4]]]))
    assert found["objects_max"] == found["objects_entropy"] == 0.5
    assert found["auroc_max"] == pytest.approx(1 / 6)
    assert "objects_information" not in found


def test_iou_of_a_map_that_can_be_counted() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 1, 2, 0])
    assert iou(predicted, labels, 3).tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 2])


def test_numbers_of_known_draws() -> None:
    # One image of 2 x 2 pixels; two draws that agree on the first row and contradict each other on
    # the second.
    sure = torch.tensor([1.0, 0.0])
    draws = sure.repeat(2, 1, 2, 2, 1)
    draws[1, :, 1] = 1 - sure
    row = quality(draws.clamp(min=1e-12), torch.zeros(1, 2, 2, dtype=torch.long), torch.arange(4))
    assert row["accuracy"] == 1.0
    assert row["nll"] == pytest.approx(0.5 * math.log(2))
    assert row["disagreement"] == pytest.approx(0.5)
    assert row["confidence"] == pytest.approx(0.75)
    assert row["ece"] == pytest.approx(0.25)  # the pixels of 0.5 are right too
    found = detection(draws, torch.tensor([[[0, 1], [4, 4]]]))
    assert found["share"] == 0.5
    assert found["objects_entropy"] == 1.0
    for score in ("max", "entropy", "information"):
        assert [found[f"{what}_{score}"] for what in ("auroc", "aupr", "fpr95")] == [1.0, 1.0, 0.0]
    assert maps(draws)["information"] == [[[0.0, 0.0], [0.693, 0.693]]]


def test_scores_that_know_no_more_than_where_objects_are() -> None:
    # Three of ground, one known, two unseen pixels: one of four negatives has the score of the
    # positives.
    y = torch.tensor([[[0, 0, 0, 1, 4, 4]]])
    found = any_object(y == 4, y > 0)
    assert found == {"auroc": pytest.approx(1 - 0.5 / 4), "aupr": pytest.approx(2 / 3), "fpr95": pytest.approx(1 / 4)}


class Tiny(nn.Module):
    """A dict, as torchvision's segmentation networks return."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 4, 1)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.layers(x)}


def test_a_tiny_network_goes_through_all_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(seed: int) -> network.Logits:
        torch.manual_seed(seed)
        return network.Logits(Tiny())

    monkeypatch.setattr(methods, "deeplab", tiny)
    monkeypatch.setattr(methods, "IMAGES", 32)
    monkeypatch.setattr(methods, "HELD", 4)
    task = methods.begin(0, tmp_path)
    again = methods.begin(0, tmp_path)  # from its file
    assert all(torch.equal(a, b) for a, b in zip(task.net.parameters(), again.net.parameters(), strict=True))
    assert task.seconds == again.seconds
    before = [parameter.clone() for parameter in task.net.parameters()]
    asked = judged.questions(0, 4)
    run = {}
    for make in methods.METHODS.values():
        for name, trained in make(task).items():
            held = methods.held_loss(trained.predictor(task.held.x), task.held)
            run[name] = json.loads(json.dumps(judged.numbers(trained, asked) | {"held": held}))
    assert all(torch.equal(a, b) for a, b in zip(before, task.net.parameters(), strict=True))
    run[methods.CHOSEN] = run[methods.PUBLISHED]
    assert run[methods.COOLED]["miou"] == run[methods.MAP]["miou"]
    assert run[methods.COOLED]["held"] <= run[methods.MAP]["held"] + 1e-6
    assert run[methods.ENSEMBLE]["disagreement"] > 0
    table = report.to_markdown([run, run], [asked.unseen, asked.unseen])
    assert all(f"| {name} | " in table for name in run)
    assert len(report.figure(run, asked.unseen).axes) == 40


def test_the_published_weight_makes_the_loss_the_published_one() -> None:
    """Mean cross entropy over images, pixels and members + 1 / (L + 1) sum_l (sum_j KL_jl + the
    mean squared error).
    """
    torch.manual_seed(0)
    data = scenes(4, seed=0, size=16)
    body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, len(CLASSES), 1)).eval()
    net = latent_rank_one(body, 2, latent=3)
    weight = published_weight(net, data)
    model = RankOneEnsemble(net, likelihoods.pixelwise_categorical, size=4, kl_weight=weight)
    torch.manual_seed(1)
    loss = RankOneELBO()(model, RankOneGuide(model))(data.x, data.y) / data.y.numel()
    torch.manual_seed(1)
    drawn, penalty = {}, torch.zeros(())
    for name, layer in net.layers.items():
        assert layer.code is not None
        mean, log_variance = layer.code.moments(layer.r)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        drawn[f"{name}.r"] = layer.code.decoder(z)
        penalty = penalty + 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum()
        penalty = penalty + (drawn[f"{name}.r"] - layer.r).square().mean()
    rows = net.rows(torch.cat([data.x, data.x]), drawn)
    expected = nn.functional.cross_entropy(rows, torch.cat([data.y, data.y])) + penalty / 3
    torch.testing.assert_close(loss, expected)


def test_maps_predict_in_chunks_as_at_once_and_average_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    net = batch_ensemble(nn.Conv2d(3, 4, 3, padding=1), 3)
    model = RankOneEnsemble(net, likelihoods.pixelwise_categorical, size=10)
    draws, x = RankOneGuide(model).draws(), torch.rand(5, 3, 6, 7)
    whole, chunked = (predictive(draws, x, 3, model=model, chunk=chunk) for chunk in (1000, 2))
    assert chunked.component_probs.shape == (3, 5, 6, 7, 4)
    torch.testing.assert_close(chunked.probs, whole.probs)
    torch.testing.assert_close(whole.probs, net(x).softmax(2).mean(0).movedim(1, -1))
