"""Sites that are late, dead, wrong or hostile: a round completes or is repeated, and is never silently wrong."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import JsonValue

from mil.federation import local_run
from mil.federation.coordinator import Engine, Reply, RoundError
from mil.federation.federated_run import FederatedRun
from mil.federation.federation_options import FederationOptions
from mil.federation.hospital import Hospital
from mil.federation.messages import FederationError, Message
from mil.federation.site_sources import SiteSource, site_sources
from mil.study.compose import compose
from mil.study.run_config import RunConfig
from tests.federation.hospitals import Federated, config_of, federated, hospital_of, options_of, patients_of

PLAIN = ("model=abmil", "model.dropout=0.0", "model.embed_dim=8", "model.attention_dim=4", "trainer.max_epochs=3")
Floats = NDArray[np.float64]
Change = Callable[[Message, str, Message | FederationError], Iterator[Reply]]


class Faulty:
    """An engine that changes what some sites answer."""

    def __init__(self, engine: Engine, change: Change, shuffled: bool = False) -> None:
        self.engine, self.change, self.shuffled = engine, change, shuffled

    @property
    def sites(self) -> Sequence[str]:
        return self.engine.sites

    def ask(self, question: Message, sites: Sequence[str], seconds: float) -> Iterator[Reply]:
        replies = [
            reply
            for site, answer in self.engine.ask(question, sites, seconds)
            for reply in self.change(question, site, answer)
        ]
        yield from reversed(replies) if self.shuffled else replies


def trained(change: Change | None = None, shuffled: bool = False, **options: object) -> Federated:
    def same(question: Message, site: str, answer: Message | FederationError) -> Iterator[Reply]:
        yield site, answer

    federation = federated(
        config_of("binary", *PLAIN), options_of(**options), wrap=lambda engine: Faulty(engine, change or same, shuffled)
    )
    federation.weights = federation.training().run().weights
    return federation


def weights_of(federation: Federated) -> Floats:
    assert federation.weights is not None
    return federation.weights


@pytest.fixture(scope="module")
def undisturbed() -> Floats:
    return weights_of(trained())


class Once:
    """Disturbs the n-th gradient of site b, once or always."""

    def __init__(self, disturb: Callable[[Message], Iterator[Message | FederationError]], always: bool = False) -> None:
        self.disturb, self.always, self.count = disturb, always, 0

    def __call__(self, question: Message, site: str, answer: Message | FederationError) -> Iterator[Reply]:
        if site == "b" and question.kind == "gradient" and isinstance(answer, Message):
            self.count += 1
            if self.count == 2 or (self.always and self.count > 2):
                yield from ((site, each) for each in self.disturb(answer))
                return
        yield site, answer


def changed(answer: Message, gradient: Floats) -> Message:
    return Message(answer.kind, {**answer.arrays, "gradient": gradient}, answer.facts, answer.patients)


def late(answer: Message) -> Iterator[Message | FederationError]:
    yield from ()


def twice(answer: Message) -> Iterator[Message | FederationError]:
    yield answer
    yield changed(answer, 5 * answer.array("gradient"))


def not_finite(answer: Message) -> Iterator[Message | FederationError]:
    yield changed(answer, np.full_like(answer.array("gradient"), np.nan))


def cut_off(answer: Message) -> Iterator[Message | FederationError]:
    yield changed(answer, answer.array("gradient")[:-1])


def scaled(answer: Message) -> Iterator[Message | FederationError]:
    yield changed(answer, -1000 * answer.array("gradient"))


def stale(answer: Message) -> Iterator[Message | FederationError]:
    yield Message(answer.kind, answer.arrays, {**answer.facts, "round": "an earlier one"}, answer.patients)


DISTURBED = {
    "late": (late, "site b: no answer within"),
    "twice": (twice, "site b: answered twice, the first answer counts"),
    "not finite": (not_finite, "site b: gradient holds numbers that are not finite"),
    "wrong shape": (cut_off, "site b: gradient of shape"),
    "scaled": (scaled, "site b: an update"),
    "stale": (stale, "site b: answered to an earlier round, ignored"),
}


@pytest.mark.parametrize("name", DISTURBED)
def test_one_wrong_answer_is_asked_again_and_changes_no_bit(name: str, undisturbed: Floats) -> None:
    disturb, sentence = DISTURBED[name]
    federation = trained(Once(disturb))
    np.testing.assert_array_equal(weights_of(federation), undisturbed)
    assert [incident for incident in federation.coordinator.incidents if incident.startswith(sentence)]


@pytest.mark.parametrize("name", ["late", "not finite", "wrong shape", "scaled"])
def test_a_site_that_stays_wrong_ends_the_run_by_name(name: str) -> None:
    disturb, sentence = DISTURBED[name]
    with pytest.raises(RoundError, match=f"{sentence}.*2 of 3 sites are left, expected 3"):
        trained(Once(disturb, always=True))


def test_with_a_quorum_the_step_is_repeated_among_the_others() -> None:
    """The later steps are those of a federation of two sites from the weights that three had reached."""
    federation = trained(Once(late, always=True), quorum=2)
    assert federation.coordinator.active == ["a", "c"]
    assert np.isfinite(weights_of(federation)).all()
    assert any("left out of round gradient: site b" in sentence for sentence in federation.coordinator.incidents)
    assert federation.coordinator.traffic.repeated > 0


def test_with_masks_a_site_that_stops_leads_to_a_repeated_round_of_the_others() -> None:
    def dead(question: Message, site: str, answer: Message | FederationError) -> Iterator[Reply]:
        if site != "b" or question.kind not in ("gradient", "loss sums", "select sums"):
            yield site, answer

    with_masks, without = (trained(dead, quorum=2, secure=secure) for secure in (True, False))
    np.testing.assert_allclose(weights_of(with_masks), weights_of(without), rtol=0, atol=1e-6)


def test_a_site_that_dies_within_a_step_leaves_no_trace_in_it() -> None:
    """Site b answers the sums of the second step and dies: the step is taken anew, by sums of the two others alone."""
    asked: list[Message] = []
    answered: list[tuple[str, Message]] = []

    def dies(question: Message, site: str, answer: Message | FederationError) -> Iterator[Reply]:
        if site == "a":
            asked.append(question)
        steps = sum(each.kind == "gradient" for each in asked)
        if site != "b" or steps < 2:
            assert isinstance(answer, Message)
            answered.append((site, answer))
            yield site, answer

    plain = trained(dies, quorum=2, secure=False)
    taken = [each for each in asked if each.kind == "gradient"]
    repeated = [each for each in taken if (each.number("epoch"), each.number("step")) == (0, 1)][-1]
    assert repeated.facts["sites"] == ["a", "c"]
    place = next(at for at, (_, each) in enumerate(answered) if each.facts["round"] == repeated.facts["round"])
    sums = [each for site, each in answered[:place] if each.kind == "loss sums" and site in "ac"][-2:]
    assert repeated.number("bags") == sum(float(each.array("bags")[0]) for each in sums)
    assert repeated.number("bags") < taken[1].number("bags")
    assert plain.coordinator.active == ["a", "c"]
    asked.clear()
    masked = trained(dies, quorum=2, secure=True)
    np.testing.assert_allclose(weights_of(masked), weights_of(plain), rtol=0, atol=1e-6)


def test_masks_of_a_repeated_round_are_new() -> None:
    """What the coordinator holds of a round that broke off tells nothing beside the round that replaced it."""
    sent: dict[str, list[NDArray[np.uint64]]] = {}

    def dies(question: Message, site: str, answer: Message | FederationError) -> Iterator[Reply]:
        if question.kind == "select sums" and isinstance(answer, Message):
            sent.setdefault(site, []).append(np.asarray(answer.arrays["masked"], np.uint64))
        if site != "b" or question.kind != "select sums":
            yield site, answer

    federation = trained(dies, quorum=2, secure=True)
    assert federation.coordinator.active == ["a", "c"]
    with_b, without_b = sent["a"][0], sent["a"][-1]
    assert len(sent["b"]) == federation.options.attempts
    differences = np.stack([with_b - other for other in sent["a"][1:4]])
    assert (np.abs(differences.view(np.int64).astype(np.float64)) > 2.0**30).mean() > 0.9
    assert not np.isin(with_b, without_b).any()


@pytest.mark.parametrize("secure", [False, True])
def test_any_order_of_answers_gives_the_same_bits(secure: bool) -> None:
    forwards, backwards = (trained(shuffled=shuffled, secure=secure) for shuffled in (False, True))
    assert weights_of(forwards).tobytes() == weights_of(backwards).tobytes()


def test_a_round_whose_mask_was_used_is_not_answered_again() -> None:
    federation = trained(secure=True)
    facts: dict[str, JsonValue] = {
        "session": federation.coordinator.session,
        "round": "1",
        "sites": ["a", "b", "c"],
        "fold": 0,
    }
    question = Message("select sums", {"weights": weights_of(federation)}, facts)
    federation.hospitals["a"].answer(question)
    with pytest.raises(FederationError, match="site a: was asked twice in one round"):
        federation.hospitals["a"].answer(question)


def test_a_second_coordinator_is_refused() -> None:
    federation = trained()
    question = Message("describe", facts={"session": "another", "round": "1"})
    with pytest.raises(FederationError, match="site a: takes part in the federation of another coordinator"):
        federation.hospitals["a"].answer(question)


def test_a_coordinator_that_was_killed_goes_on_with_the_same_bits(tmp_path: Path, undisturbed: Floats) -> None:
    config, options, state = config_of("binary", *PLAIN), options_of(), tmp_path / "fold_0.pt"
    killed = federated(config, options).training(state)

    def stop() -> float:
        raise KeyboardInterrupt

    killed._exact_epoch()
    killed._select(0.0, 0.0)
    killed._save()
    killed._exact_epoch = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    resumed = federated(config, options).training(state)
    assert resumed.progress.epoch == 1
    np.testing.assert_array_equal(resumed.run().weights, undisturbed)


@pytest.mark.parametrize("secure", [False, True])
def test_a_site_that_was_started_anew_joins_again(secure: bool, tmp_path: Path) -> None:
    config, options = config_of("survival", *PLAIN), options_of(secure=secure)
    tables = {site: patients_of(site, count) for site, count in {"a": 13, "b": 9, "c": 11}.items()}

    def hospitals() -> dict[str, Hospital]:
        return {site: hospital_of(config, site, table, options) for site, table in tables.items()}

    from mil.federation.engines.local import LocalEngine

    class Restarting(LocalEngine):
        """Starts site b anew before the third gradient, where `restarts`."""

        restarts, count = False, 0

        def ask(self, question: Message, sites: Sequence[str], seconds: float) -> Iterator[Reply]:
            self.count += question.kind == "gradient"
            if self.restarts and self.count == 3:
                self.restarts, self.hospitals["b"] = False, hospitals()["b"]
            yield from super().ask(question, sites, seconds)

    weights = []
    for restart in (False, True):
        engine = Restarting(hospitals())
        engine.restarts = restart
        run = FederatedRun(config, options, engine, engine.hospitals["a"].study.encoder, tmp_path / str(restart))
        run.join()
        weights.append(run.train_fold(0).weights)
        assert not engine.restarts
    np.testing.assert_allclose(weights[0], weights[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("fact", "value", "words"),
    [
        ("encoder", "uni", "site b: encoder 'uni', expected 'simulated'"),
        ("version", "0.0.1", "site b: version of mil-zoo '0.0.1'"),
        ("tool", "binary 9.9.9", "site b: tool 'binary 9.9.9'"),
        ("options", "abc", "site b: digest of options 'abc'"),
        ("width", 9, "site b: width of features 9, expected 8"),
        ("mpp", 1.0, "site b: micrometres a pixel 1.0, expected 0.5"),
    ],
)
def test_a_site_that_differs_is_refused_by_name_before_training(
    fact: str, value: JsonValue, words: str, tmp_path: Path
) -> None:
    def other(question: Message, site: str, answer: Message | FederationError) -> Iterator[Reply]:
        assert question.kind in ("describe", "join")
        if site == "b" and isinstance(answer, Message) and question.kind == "describe":
            facts = {**answer.facts, fact: value}
            answer = Message(answer.kind, answer.arrays, facts, answer.patients)
        yield site, answer

    from mil.federation.engines.local import LocalEngine

    config, options = config_of("binary", *PLAIN), options_of()
    hospitals = {site: hospital_of(config, site, patients_of(site, 12), options) for site in ("a", "b", "c")}
    engine = Faulty(LocalEngine(hospitals), other)
    with pytest.raises(FederationError, match=words):
        FederatedRun(config, options, engine, hospitals["a"].study.encoder, tmp_path).join()


def test_a_site_whose_labels_are_flipped_is_named_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four simulated centres; the labels of the last are exchanged before it takes part."""
    words = ["tool=binary", "split=holdout", "split.report=0.5", "simulation.patients=300", "simulation.sites=4"]
    words += ["simulation.tiles=20", "simulation.width=8", "simulation.contrast=3", "simulation.target.attainable=0.98"]
    words += ["simulation.signal=diffuse", "model=mean", "trainer.max_epochs=8", "optimizer.lr=0.02", "data.workers=0"]
    config = compose([*words, "baseline=false", "figures=false", "resamples=50", "tool.decision=null"])

    def flipped(config: RunConfig, options: FederationOptions) -> list[SiteSource]:
        *others, last = site_sources(config, options)
        column = last.study.patients["label"].map({"0": "1", "1": "0"})
        table = last.study.cohort.table
        study = replace(
            last.study,
            patients=last.study.patients.assign(label=column),
            target=1 - last.study.target,
            cohort=replace(last.study.cohort, table=table.assign(label=table["label"].map({"0": "1", "1": "0"}))),
        )
        return [*others, replace(last, study=study)]

    monkeypatch.setattr(local_run, "site_sources", flipped)
    section = local_run.federate(config, options_of(minimum=3, secure=True), tmp_path / "run")
    [sentence] = section.unlike
    assert sentence.startswith("Site site-4: ")
    assert "or its labels are wrong" in sentence
    assert sentence in (tmp_path / "run" / "checkpoint" / "README.md").read_text()


def test_no_message_holds_a_patient(tmp_path: Path) -> None:
    """Every message of a whole federation is walked: no id, and no array with a row for each patient."""
    seen: list[tuple[str, Message]] = []

    def watched(question: Message, site: str, answer: Message | FederationError) -> Iterator[Reply]:
        assert isinstance(answer, Message)
        seen.append((site, answer))
        yield site, answer

    config, options = config_of("several", *PLAIN), options_of(minimum=2, times="grid", secure=True)
    federation = federated(config, options, sites=dict.fromkeys("abc", 25), wrap=lambda engine: Faulty(engine, watched))
    federation.training().run()
    names = [str(name) for table in federation.tables.values() for name in table.index]
    assert len(seen) > 30
    for site, message in seen:
        text = message.to_bytes().partition(b"\n")[0].decode()
        assert not [name for name in names if f'"{name}"' in text]
        patients = len(federation.tables[site])
        rows = [shape for shape in message.shape.values() if patients in shape and not message.masked]
        assert not rows
        if message.kind not in ("description", "done", "key"):
            assert message.patients >= options.minimum
            assert message.masked
