"""Training fine-tuned stages from cached activations."""

import os
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from headstart.errors import OptionError  # noqa: E402
from headstart.heads import LinearHead, fit_ridge  # noqa: E402
from headstart.training.finetune import (  # noqa: E402
    FineTuneConfig,
    fine_tune,
    normalise_pixels,
    parameter_groups,
    run_fine_tuned,
    schedule,
    start_logits,
)

CLASSES = 3
CPU = FineTuneConfig(epochs=4, batch_size=16, device="cpu", precision="f32")


@dataclass
class Stored:
    """Activations in memory; notes which views were asked for."""

    values: np.ndarray  # [views, N, ...]
    labels: np.ndarray
    asked: list = None

    @property
    def views(self):
        return len(self.values)

    def read(self, indices, *, views):
        if self.asked is not None:
            self.asked.append((np.asarray(indices), list(views)))
        return self.values[list(views), indices]


def maps(images, *, seed=0, views=1, dtype=np.float16):
    """Maps [views, N, 4, 6, 6] whose classes differ in the pattern of one channel."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, images)
    values = random.standard_normal((views, images, 4, 6, 6))
    for label in range(CLASSES):
        values[:, labels == label, 0, label * 2, :] += 2
    return Stored(values.astype(dtype), labels)


def small_network(*, dropout=0.0):
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout))
    stages = {"block1": first, "block2": second, "pool": nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())}
    trainable = nn.Sequential()
    for name, stage in stages.items():
        trainable.add_module(name, stage)
    return trainable.eval()


def ridge_start(trainable, data):
    return fit_ridge((run_fine_tuned(trainable, data.values[0]), data.labels), classes=CLASSES).head


def weights_of(result):
    return [
        *(w.numpy() for w in result.trainable.state_dict().values()),
        result.head.weight,
        result.head.bias,
    ]


def assert_same(left, right):
    for a, b in zip(weights_of(left), weights_of(right), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_the_tail_beats_the_ridge_head_it_started_from():
    trainable, train, validation = small_network(), maps(200), maps(300, seed=1)
    head = ridge_start(trainable, train)
    before = (
        head.logits(run_fine_tuned(trainable, validation.values[0])).argmax(axis=1) == validation.labels
    ).mean()
    result = fine_tune(
        trainable, head, train, validation, config=replace(CPU, epochs=12, learning_rate=0.05, patience=None)
    )
    features = run_fine_tuned(result.trainable, validation.values[0])
    after = (result.head.logits(features).argmax(axis=1) == validation.labels).mean()
    assert after > before + 0.05
    assert result.best_epoch > 0
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    best = result.history[result.best_epoch - 1]["validation_accuracy"]
    assert after == pytest.approx(best)
    assert result.validation_outcomes.shape == (1 + len(result.history), 2, 300)
    right, losses = result.validation_outcomes.mean(axis=2).T
    assert right[0] == pytest.approx(before)
    for name, values in (("validation_accuracy", right), ("validation_loss", losses)):
        np.testing.assert_allclose(values[1:], [row[name] for row in result.history], rtol=1e-5)


def test_the_tail_and_head_given_are_not_changed():
    trainable, train = small_network(), maps(60)
    head = ridge_start(trainable, train)
    before = [w.clone() for w in trainable.state_dict().values()]
    weight = head.weight.copy()
    result = fine_tune(trainable, head, train, None, config=CPU)
    assert all(torch.equal(a, b) for a, b in zip(before, trainable.state_dict().values(), strict=True))
    np.testing.assert_array_equal(weight, head.weight)
    assert not torch.equal(trainable.block1[0].weight, result.trainable.block1[0].weight)


def test_the_first_logits_are_the_calibrated_ridge_ones():
    trainable, train = small_network(), maps(60)
    head = ridge_start(trainable, train)
    logits = start_logits(trainable, head, train, config=CPU)
    features = run_fine_tuned(trainable, train.values[0])
    np.testing.assert_allclose(logits.softmax(1).numpy(), head.probabilities(features), atol=1e-4)
    assert head.temperature != 1


def test_training_begins_with_a_smaller_head_and_from_scratch_with_the_one_given():
    trainable, train = small_network(), maps(60)
    head = ridge_start(trainable, train)
    still = replace(CPU, epochs=1, learning_rate=1e-12, head_scale=0.25)
    for scratch, factor in ((False, 0.25), (True, 1.0)):
        scaled = fine_tune(trainable, head, train, None, config=replace(still, scratch=scratch)).head
        np.testing.assert_allclose(scaled.weight, factor * head.weight / head.temperature, rtol=1e-4)


def test_trainings_that_share_their_start_ask_the_validation_images_once():
    train, validation, trainable = maps(64), replace(maps(40, seed=1), asked=[]), small_network()
    head = ridge_start(trainable, train)
    alone = fine_tune(trainable, head, train, validation, config=CPU)
    looks = len(validation.asked)
    logits = start_logits(trainable, head, validation, config=CPU)
    validation.asked.clear()
    shared = fine_tune(trainable, head, train, validation, config=CPU, start_logits=logits)
    assert looks * len(alone.history) == len(validation.asked) * (1 + len(alone.history))
    assert_same(shared, alone)
    assert (shared.history, shared.best_epoch) == (alone.history, alone.best_epoch)
    sure = fine_tune(
        trainable,
        head,
        train,
        validation,
        config=CPU,
        start_logits=logits + 1e6 * torch.eye(CLASSES)[validation.labels],
    )
    assert sure.best_epoch == 0  # what the start is said to know decides, not a second look


def test_norm_statistics_stay_as_pretrained_unless_asked():
    trainable, train = small_network(), maps(60)
    head = ridge_start(trainable, train)

    def statistics(config):
        return fine_tune(trainable, head, train, None, config=config).trainable.block1[1].running_mean

    assert torch.equal(statistics(CPU), trainable.block1[1].running_mean)
    assert not torch.equal(statistics(replace(CPU, train_norms=True)), trainable.block1[1].running_mean)
    assert not torch.equal(statistics(replace(CPU, scratch=True)), trainable.block1[1].running_mean)


def test_a_stopped_training_resumes_with_the_same_weights(tmp_path):
    trainable, train, validation = small_network(dropout=0.3), maps(80, views=2), maps(60, seed=1)
    head = ridge_start(trainable, train)
    config = replace(CPU, epochs=5, patience=None)
    whole = fine_tune(trainable, head, train, validation, config=config)
    checkpoint = tmp_path / "deep" / "checkpoint"

    def stop_after_two(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            trainable, head, train, validation, config=config, checkpoint=checkpoint, progress=stop_after_two
        )
    torch.manual_seed(99)  # whatever else drew numbers in between
    seen = []
    resumed = fine_tune(
        trainable, head, train, validation, config=config, checkpoint=checkpoint, progress=seen.append
    )
    assert [row["epoch"] for row in seen] == [3, 4, 5]
    assert resumed.history == whole.history
    assert_same(resumed, whole)
    np.testing.assert_array_equal(
        resumed.validation_outcomes, whole.validation_outcomes
    )  # of the epochs before it was stopped too
    assert os.listdir(checkpoint.parent) == ["checkpoint"]


def test_a_training_can_be_left_in_the_middle_of_an_epoch_and_taken_up_before_it(tmp_path):
    trainable, train = small_network(), maps(80)
    head = ridge_start(trainable, train)
    config = replace(CPU, epochs=3, batch_size=16)
    whole = fine_tune(trainable, head, train, None, config=config)
    checkpoint, steps = tmp_path / "checkpoint", []

    def stop():
        steps.append(1)
        return len(steps) == 6  # four questions an epoch of five steps: the second step of the second

    left = fine_tune(trainable, head, train, None, config=config, checkpoint=checkpoint, stop=stop)
    assert len(left.history) == 2 and left.history[0] == whole.history[0]
    assert left.history[1]["learning_rate"] != whole.history[1]["learning_rate"], "it ended earlier"
    assert left.history[1]["accuracy"] * 32 == pytest.approx(round(left.history[1]["accuracy"] * 32))
    assert not torch.equal(left.trainable.block1[0].weight, whole.trainable.block1[0].weight)
    resumed = fine_tune(trainable, head, train, None, config=config, checkpoint=checkpoint)
    assert resumed.history == whole.history
    assert_same(resumed, whole)


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_used(tmp_path):
    trainable, train = small_network(), maps(60)
    head = ridge_start(trainable, train)
    checkpoint = tmp_path / "checkpoint"
    fine_tune(trainable, head, train, None, config=replace(CPU, seed=1), checkpoint=checkpoint)
    plain = fine_tune(trainable, head, train, None, config=CPU)
    assert_same(fine_tune(trainable, head, train, None, config=CPU, checkpoint=checkpoint), plain)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert_same(fine_tune(trainable, head, train, None, config=CPU, checkpoint=checkpoint), plain)


def test_a_checkpoint_needs_no_pickle(tmp_path):
    train = maps(40)
    trainable = small_network()
    fine_tune(trainable, ridge_start(trainable, train), train, None, config=CPU, checkpoint=tmp_path / "c")
    assert torch.load(tmp_path / "c", weights_only=True)["history"][-1]["epoch"] == 3  # of 4


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    trainable, train = small_network(dropout=0.3), maps(60)
    head = ridge_start(trainable, train)
    first = fine_tune(trainable, head, train, None, config=CPU)
    assert_same(first, fine_tune(trainable, head, train, None, config=CPU))
    other = fine_tune(trainable, head, train, None, config=replace(CPU, seed=1))
    assert not np.array_equal(first.head.weight, other.head.weight)


def test_a_training_says_whether_it_drew_random_numbers():
    train = maps(24)
    for dropout in (0.0, 0.3):
        trainable = small_network(dropout=dropout)
        result = fine_tune(
            trainable, ridge_start(trainable, train), train, None, config=replace(CPU, epochs=1)
        )
        assert result.uses_rng is (dropout > 0)


def test_every_image_is_seen_once_per_epoch_in_a_view_that_is_drawn_anew():
    trainable, train = small_network(), maps(50, views=3)
    train.asked = []
    head = ridge_start(trainable, train)
    fine_tune(trainable, head, train, None, config=replace(CPU, epochs=3, learning_rate=1e-6))
    seen, per_epoch = [], len(train.asked) // 3
    for epoch in range(3):
        batches = train.asked[epoch * per_epoch : (epoch + 1) * per_epoch]
        indices = np.concatenate([images for images, _ in batches])
        assert sorted(indices) == list(range(50))
        seen.append(np.concatenate([views for _, views in batches])[np.argsort(indices)])
    assert all(set(views) == {0, 1, 2} for views in seen)
    for one, other in pairwise(seen):
        assert 0.1 < (one == other).mean() < 0.6, "a third by chance; 0 where views only take turns"


def test_the_epoch_with_the_smallest_calibrated_loss_is_kept():
    trainable, train, validation = small_network(), maps(120), maps(90, seed=1)
    result = fine_tune(
        trainable, ridge_start(trainable, train), train, validation, config=replace(CPU, patience=None)
    )
    losses = [result.validation_outcomes[0, 1].mean(), *(row["validation_loss"] for row in result.history)]
    assert result.best_epoch == int(np.argmin(losses))
    features = run_fine_tuned(result.trainable, validation.values[0])
    said = result.head.probabilities(features)[np.arange(90), validation.labels]
    assert -np.log(said).mean() == pytest.approx(min(losses), rel=1e-4), "what is saved is as calibrated"


def test_bf16_is_left_to_networks_without_large_depthwise_kernels(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    start = LinearHead("softmax", np.zeros((4, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    for side, precision in ((3, "bf16"), (5, "f32")):
        stage = nn.Conv2d(4, 4, side, padding=side // 2, groups=4)
        trainable = nn.Sequential(stage, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        config = replace(CPU, precision="auto", epochs=1)
        assert fine_tune(trainable, start, maps(20), None, config=config).precision == precision


def test_training_stops_when_validation_no_longer_improves_and_keeps_the_best():
    trainable, train, validation = small_network(), maps(80), maps(80, seed=1)
    validation.labels = np.random.default_rng(3).integers(0, CLASSES, 80)  # nothing to learn
    head = ridge_start(trainable, train)
    result = fine_tune(trainable, head, train, validation, config=replace(CPU, epochs=50, patience=2))
    assert len(result.history) == result.best_epoch + 2
    assert len(result.history) < 50


def test_a_training_that_only_does_harm_returns_the_start():
    trainable, train, validation = small_network(), maps(60), maps(200, seed=1)
    head = ridge_start(trainable, validation)  # knows the validation images
    spoiled = Stored(train.values, (train.labels + 1) % CLASSES)
    result = fine_tune(trainable, head, spoiled, validation, config=replace(CPU, learning_rate=0.05))
    assert result.best_epoch == 0
    np.testing.assert_array_equal(
        result.trainable.block1[0].weight.numpy(), trainable.block1[0].weight.detach().numpy()
    )


def test_with_an_empty_tail_it_trains_a_softmax_head():
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 200)
    features = (random.standard_normal((1, 200, 8)) + 2 * np.eye(CLASSES, 8)[labels]).astype(np.float32)
    start = LinearHead("softmax", np.zeros((8, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    result = fine_tune(
        nn.Identity(), start, Stored(features, labels), None, config=replace(CPU, learning_rate=1.0)
    )
    assert result.history[-1]["accuracy"] > 0.85
    assert (result.head.logits(features[0]).argmax(axis=1) == labels).mean() > 0.85


def test_from_scratch_it_learns_from_pixels_through_the_input_transform():
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 150)
    pixels = random.integers(0, 100, (1, 150, 6, 6, 4)).astype(np.uint8)
    for label in range(CLASSES):
        pixels[:, labels == label, label * 2, :, 0] += 100
    start = LinearHead("softmax", np.zeros((32, CLASSES), np.float32), np.zeros(CLASSES, np.float32))

    normalise = normalise_pixels((0.5,) * 4, (0.5,) * 4)
    config = replace(CPU, scratch=True, epochs=8)
    result = fine_tune(
        small_network(), start, Stored(pixels, labels), None, config=config, input_transform=normalise
    )
    features = run_fine_tuned(result.trainable, pixels[0], input_transform=normalise)
    assert (result.head.logits(features).argmax(axis=1) == labels).mean() > 0.9


def test_a_single_image_left_over_does_not_stop_norms_from_training():
    trainable = nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)), nn.Flatten())
    train = maps(33)
    start = LinearHead("softmax", np.zeros((4, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    result = fine_tune(trainable, start, train, None, config=replace(CPU, train_norms=True, epochs=1))
    assert result.history[0]["loss"] > 0


def test_pixels_are_normalised_as_the_preprocess_says():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3)).astype(np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = normalise_pixels(mean, std)(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(ours, ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2), atol=1e-5)


def test_pixels_without_a_transform_are_refused():
    pixels = Stored(np.zeros((1, 4, 6, 6, 4), np.uint8), np.array([0, 1, 2, 0]))
    start = LinearHead("softmax", np.zeros((32, CLASSES), np.float32), np.zeros(CLASSES, np.float32))
    with pytest.raises(OptionError, match="normalise_pixels"):
        fine_tune(small_network(), start, pixels, None, config=CPU)


def test_deeper_stages_learn_more_slowly_and_norms_do_not_decay():
    trainable = small_network()
    config = FineTuneConfig(learning_rate=0.1, stage_factor=0.5)
    groups = parameter_groups(trainable, nn.Linear(32, CLASSES), config=config)
    peaks = {id(p): group["peak"] for group in groups for p in group["params"]}
    assert peaks[id(trainable.block2[0].weight)] == 0.1
    assert peaks[id(trainable.block1[0].weight)] == 0.05
    assert min(peaks.values()) == pytest.approx(0.01), "the head's, which starts where it should be"
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays[id(trainable.block1[0].weight)] > 0
    assert decays[id(trainable.block1[1].weight)] == decays[id(trainable.block1[0].bias)] == 0
    assert {id(p) for p in trainable.parameters()} < set(peaks)


def test_the_schedule_rises_linearly_then_falls_to_nothing():
    rates = [schedule(step, steps=100, warm_up=0.1) for step in range(100)]
    assert max(rates) == rates[10] == 1
    np.testing.assert_allclose(np.diff(rates[:11]), 1 / 11)
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[-1] < 0.001
    assert schedule(0, steps=1, warm_up=0.0) == 1


def test_a_diverging_training_is_an_error_that_names_the_rate():
    trainable, train = small_network(), maps(60)
    with pytest.raises(OptionError, match=r"diverged in epoch .* lower learning rate than 1e\+20"):
        fine_tune(
            trainable, ridge_start(trainable, train), train, None, config=replace(CPU, learning_rate=1e20)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"precision": "f16"}, "precision"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"warm_up": 1.0}, "warm_up"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        FineTuneConfig(**options)


def test_labels_beyond_the_head_are_refused():
    trainable, train = small_network(), maps(60)
    head = ridge_start(trainable, train)
    train.labels = train.labels + 1
    with pytest.raises(OptionError, match="labels must be 0 to 2"):
        fine_tune(trainable, head, train, None, config=CPU)


def test_bf16_trains_to_nearly_the_same_place():
    trainable, train = small_network(), maps(120)
    head = ridge_start(trainable, train)
    exact = fine_tune(trainable, head, train, None, config=CPU)
    rough = fine_tune(trainable, head, train, None, config=replace(CPU, precision="bf16"))
    assert (exact.precision, rough.precision) == ("f32", "bf16")
    assert rough.history[-1]["loss"] == pytest.approx(exact.history[-1]["loss"], rel=0.1)
    assert rough.history[-1]["loss"] != exact.history[-1]["loss"]


def test_training_goes_on_where_no_checkpoint_can_be_written(tmp_path, caplog):
    trainable, train = small_network(), maps(40)
    head = ridge_start(trainable, train)
    (tmp_path / "file").write_text("no folder")
    plain = fine_tune(trainable, head, train, None, config=CPU)
    checkpoint = tmp_path / "file" / "checkpoint"
    assert_same(fine_tune(trainable, head, train, None, config=CPU, checkpoint=checkpoint), plain)
    assert caplog.text.count("going on without checkpoints") == 1
