"""The transfer study: what is kept is not done again, tables are tidy, scores
are those of closed forms.
"""

import json
import math
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from statistical import bound

from bayesnn import metrics
from bayesnn.transfer import (
    LEVELS,
    NormalQuantiles,
    Prediction,
    Probabilities,
    Study,
    TransferData,
    crps_of_quantiles,
    linear_design,
    scores,
    source_only,
    transfer_study,
)
from bayesnn.transfer.table import KEYS


def easy(seed: int, *, n_test: int = 50) -> TransferData:
    """y ~ N(f, 0.5^2), f given."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.randn(20 + n_test, generator=generator, dtype=torch.double)
    y = f + 0.5 * torch.randn(20 + n_test, generator=generator, dtype=torch.double)
    return TransferData(None, f[:20], y[:20], f[20:], y[20:])


def truth(data: TransferData, seed: int) -> Prediction:
    """The distribution that the data come from."""
    return NormalQuantiles(data.f_test, torch.full_like(data.f_test, 0.5))


def shaken(data: TransferData, seed: int) -> Prediction:
    """Uses torch's global generator."""
    return NormalQuantiles(data.f_test + torch.randn(()), torch.ones_like(data.f_test))


class Counted:
    """A method that counts its calls and stops like Ctrl-C at one seed."""

    def __init__(self, stop: int | None = None) -> None:
        self.seeds: Counter[int] = Counter()
        self.stop = stop

    def __call__(self, data: TransferData, seed: int) -> Prediction:
        self.seeds[seed] += 1
        if seed == self.stop:
            raise KeyboardInterrupt
        return shaken(data, seed)


def values(study: Study) -> list[tuple[object, ...]]:
    return [row for row in study.rows if row[3] != "seconds"]


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Finished seeds are not done again, and the numbers are those of a run
    that was never stopped.
    """
    killed = Counted(stop=3)
    with pytest.raises(KeyboardInterrupt):
        transfer_study({"easy": easy}, {"truth": truth, "shaken": killed}, range(6), folder=tmp_path / "a")
    assert sorted(file.name for file in (tmp_path / "a" / "easy").iterdir()) == [f"seed_{i}.json" for i in range(3)]
    again = Counted()
    study = transfer_study({"easy": easy}, {"truth": truth, "shaken": again}, range(6), folder=tmp_path / "a")
    assert again.seeds == Counter({3: 1, 4: 1, 5: 1})
    whole = transfer_study({"easy": easy}, {"truth": truth, "shaken": shaken}, range(6), folder=tmp_path / "b")
    assert values(study) == values(whole)


def test_a_method_is_added_without_redoing_the_others(tmp_path: Path) -> None:
    first, second = Counted(), Counted()
    transfer_study({"easy": easy}, {"one": first}, range(3), folder=tmp_path)
    study = transfer_study({"easy": easy}, {"one": second, "truth": truth}, range(3), folder=tmp_path)
    assert not second.seeds
    assert set(study.column("method")) == {"one", "truth"}
    alone = transfer_study({"easy": easy}, {"truth": truth}, range(3), folder=tmp_path)
    assert set(alone.column("method")) == {"truth"}


def test_the_callers_random_numbers_are_untouched(tmp_path: Path) -> None:
    torch.manual_seed(5)
    transfer_study({"easy": easy}, {"shaken": shaken}, [0], folder=tmp_path)
    found = torch.randn(())
    torch.manual_seed(5)
    assert torch.equal(found, torch.randn(()))


def test_the_table_is_tidy(tmp_path: Path) -> None:
    designs = {"a": easy, "b": partial(easy, n_test=30)}
    study = transfer_study(designs, {"truth": truth, "source": source_only}, [4, 7], folder=tmp_path)
    assert study.columns == KEYS
    each = 3 * len(LEVELS) + 2 + 1  # coverage, length, interval score; CRPS, RMSE; seconds
    assert len(study) == 2 * 2 * 2 * each
    assert len({row[:5] for row in study.rows}) == len(study)
    assert set(study.column("seed")) == {4, 7}
    frame = study.to_dataframe()
    assert list(frame.columns) == list(KEYS)
    assert len(frame) == len(study)
    summary = study.summary()
    assert summary.columns == ("design", "method", "metric", "level", "mean", "se", "seeds")
    one = study.where(design="b", method="truth", metric="length", level=0.5)
    (found,) = summary.where(design="b", method="truth", metric="length", level=0.5).rows
    assert found[4:] == (pytest.approx(2 * 0.5 * 0.6744897502), pytest.approx(0, abs=1e-12), 2)
    assert len(one) == 2


@pytest.mark.slow
def test_processes_give_the_same_numbers(tmp_path: Path) -> None:
    designs = {"design": partial(linear_design, n_train=20, noise=1.0, n_test=20, n_source=100)}
    one = transfer_study(designs, {"source": source_only}, range(3), folder=tmp_path / "1")
    two = transfer_study(designs, {"source": source_only}, range(3), folder=tmp_path / "2", workers=2)
    assert values(one) == values(two)
    with pytest.raises(ValueError, match="functions of modules"):
        transfer_study(designs, {"source": lambda data, seed: source_only(data, seed)}, [8, 9], folder=tmp_path / "2", workers=2)  # fmt: skip # noqa: E501


def test_the_truth_covers_as_it_says(tmp_path: Path) -> None:
    """12,000 targets; a false alarm in a million, for all levels together."""
    study = transfer_study({"easy": partial(easy, n_test=400)}, {"truth": truth}, range(30), folder=tmp_path)
    for design, _, _, level, mean, se, seeds in study.summary().where(metric="coverage").rows:
        assert (design, seeds) == ("easy", 30)
        sd = math.sqrt(level * (1 - level) / 12_000)
        assert abs(mean - level) < bound(len(LEVELS)) * sd
        assert 0.3 * sd < se < 3 * sd  # Monte-Carlo error of 30 seeds


def test_crps_is_the_normals() -> None:
    """y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi), Gneiting and Raftery (2007)."""
    y = torch.tensor([-2.0, 0.0, 0.3, 4.0], dtype=torch.double)
    normal = torch.distributions.Normal(torch.zeros(4, dtype=torch.double), 1.0)
    exact = y * (2 * normal.cdf(y) - 1) + 2 * normal.log_prob(y).exp() - math.pi**-0.5
    found = crps_of_quantiles(NormalQuantiles(torch.zeros_like(y), torch.ones_like(y)), y)
    torch.testing.assert_close(found, exact, atol=2e-3, rtol=0)
    finer = crps_of_quantiles(NormalQuantiles(torch.zeros_like(y), torch.ones_like(y)), y, 4000)
    torch.testing.assert_close(finer, exact, atol=1e-4, rtol=0)


def test_binary_scores() -> None:
    p = torch.tensor([0.96, 0.94, 0.06, 0.5, 0.04], dtype=torch.double)
    y = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    found = {name: value for name, _, value in scores(Probabilities(p, {"khat": 0.2}), y, LEVELS)}
    assert found["coverage"] == 0.5  # of four confident examples two are right
    assert found["confident"] == 4
    assert found["khat"] == 0.2
    assert found["auc"] == pytest.approx(3 / 6)  # .96 beats both zeros, .5 one of them, .04 none
    probs = torch.stack([1 - p, p], 1)
    assert found["spiegelhalter_z"] == metrics.spiegelhalter(probs, y.long()).z
    assert found["nll"] == pytest.approx(float(metrics.nll(probs, y.long())))
    one_class = {name for name, _, _ in scores(Probabilities(p), torch.ones(5), LEVELS)}
    assert "auc" not in one_class


def table(*rows: tuple[str, int, float]) -> Study:
    return Study(KEYS, tuple(("d", method, seed, "crps", 0.0, value) for method, seed, value in rows))


def test_paired_differences() -> None:
    """On the seeds that both have."""
    study = table(*(("RECaST", i, 1.0 + i) for i in range(4)), *(("target only", i, 3.0 + 2 * i) for i in range(5)))
    ((_, _, _, difference, se, seeds, verdict),) = study.negative_transfer().rows
    assert difference == pytest.approx(-(2 + 3 + 4 + 5) / 4)
    assert se == pytest.approx(math.sqrt(5 / 3) / 2)
    assert (seeds, verdict) == (4, "transfer helps")
    ((*_, verdict),) = study.negative_transfer("target only", "RECaST").rows
    assert verdict == "transfer harms"
    with pytest.raises(ValueError, match="no seed has 'crps' at level 0 of both 'RECaST' and 'nobody'"):
        study.paired("RECaST", "nobody", "crps")
    single = table(("RECaST", 0, 1.0), ("target only", 0, 5.0))
    assert math.isnan(single.summary().rows[0][5])
    assert single.negative_transfer().rows[0][-1] == "no difference shown"


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no method"):
        transfer_study({"easy": easy}, {}, [0], folder=tmp_path)
    with pytest.raises(ValueError, match="there is no seed"):
        transfer_study({"easy": easy}, {"truth": truth}, [], folder=tmp_path)
    with pytest.raises(ValueError, match="names a folder"):
        transfer_study({"../easy": easy}, {"truth": truth}, [0], folder=tmp_path)
    with pytest.raises(ValueError, match="levels lie strictly"):
        transfer_study({"easy": easy}, {"truth": truth}, [0], levels=(95,), folder=tmp_path)
    with pytest.raises(ValueError, match="at least one process"):
        transfer_study({"easy": easy}, {"truth": truth}, [0], folder=tmp_path, workers=0)
    transfer_study({"easy": easy}, {"truth": truth}, [0], folder=tmp_path)
    with pytest.raises(ValueError, match="has the levels"):
        transfer_study({"easy": easy}, {"truth": truth}, [0], levels=(0.9,), folder=tmp_path)
    with pytest.raises(RuntimeError, match="design 'easy', seed 1, method 'broken': no"):
        transfer_study({"easy": easy}, {"broken": broken}, [1], folder=tmp_path)
    assert json.loads((tmp_path / "easy" / "seed_0.json").read_text())["methods"].keys() == {"truth"}
    with pytest.raises(ValueError, match="no column 'colour'"):
        table(("RECaST", 0, 1.0)).where(colour=1)


def broken(data: TransferData, seed: int) -> Prediction:
    raise ValueError("no")


def test_data_that_are_refused() -> None:
    f = torch.linspace(-1, 1, 5)
    with pytest.raises(ValueError, match="at least 3"):
        TransferData(None, f[:2], f[:2], f, f)
    with pytest.raises(ValueError, match="is zero or one"):
        TransferData(None, f, f, f, f, binary=True)
    with pytest.raises(ValueError, match=r"y_train must be \[batch\]"):
        TransferData(None, f, f.unsqueeze(1), f, f)
    with pytest.raises(ValueError, match="y_test is not finite"):
        TransferData(None, f, f, f, f / 0)
    with pytest.raises(ValueError, match="gradients on"):
        TransferData(torch.nn.Linear(1, 1).eval(), f.unsqueeze(1), f, f.unsqueeze(1), f)
    with pytest.raises(ValueError, match="both, x_source and y_source"):
        TransferData(None, f, f, f, f, x_source=f)


WHOLE = {"levels": LEVELS, "methods": {"counted": [["coverage", 0.5, 0.5]]}}
UNREADABLE = {
    "half": json.dumps(WHOLE)[:-20],
    "empty": "",
    "a list": "[1]",
    "no methods": json.dumps({"levels": LEVELS}),
    "no triples": json.dumps({"levels": LEVELS, "methods": {"counted": [1]}}),
    "methods in a list": json.dumps({"levels": LEVELS, "methods": []}),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_cannot_be_read_is_none(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    method = Counted()
    expected = transfer_study({"easy": easy}, {"counted": method}, [0, 1], folder=tmp_path / "whole")
    transfer_study({"easy": easy}, {"counted": method}, [0, 1], folder=tmp_path / "hurt")
    file = tmp_path / "hurt" / "easy" / "seed_0.json"
    file.write_text(UNREADABLE[kind])
    study = transfer_study({"easy": easy}, {"counted": method}, [0, 1], folder=tmp_path / "hurt")
    assert method.seeds == {0: 3, 1: 2}
    assert values(study) == values(expected)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{file} cannot be read" in caplog.text
    assert json.loads(file.read_text())["methods"].keys() == {"counted"}
