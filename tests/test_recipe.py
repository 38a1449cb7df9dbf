"""The recipe of the built-in backbones, on a small synthetic data set with a small synthetic teacher."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the recipe needs PyTorch: pip install 'headstart[torch]'")
pytest.importorskip("timm", reason="the recipe needs timm: pip install 'headstart[torch]'")

RECIPE = Path(__file__).parent.parent / "recipes" / "builtin"
sys.path.insert(0, str(RECIPE))

import accelerated  # noqa: E402
import canvas  # noqa: E402
import inherit  # noqa: E402
import losses  # noqa: E402
import networks  # noqa: E402
import pictures  # noqa: E402
import plans  # noqa: E402
import probe  # noqa: E402
import synthetic  # noqa: E402
import teacher  # noqa: E402
import train  # noqa: E402
import views  # noqa: E402

PLAN = replace(synthetic.PLAN, start="teacher", turns=(0, 1), mosaics=(1,))
STOP = 5  # steps before a training is stopped: in the second size, and far from the end


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def every_step_kept(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(accelerated, "CHECKPOINT_SECONDS", 0.0)


def stopping(step):
    """`step`, which works `STOP` times."""
    seen = []

    def stopped(*arguments, **named):
        if len(seen) == STOP:
            raise KeyboardInterrupt
        seen.append(arguments)
        return step(*arguments, **named)

    return stopped


def assert_equal(one, other):
    """The same averaged weights, bit for bit."""
    for name, tensor in one.average.items():
        assert torch.equal(tensor, other.average[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training from beginning to end: what it leaves, and where."""
    place = tmp_path_factory.mktemp("whole")
    return train.train(PLAN, synthetic.sources(place), out=place, weights=None), place


def test_another_seed_gives_another_curve(whole, tmp_path):
    expected = synthetic.losses_of(whole[1])
    assert len(expected) == PLAN.steps
    other = replace(PLAN, phases=(plans.Phase(32, 64),), seed=1)
    train.train(other, synthetic.sources(tmp_path), out=tmp_path / "other", weights=None)
    assert synthetic.losses_of(tmp_path / "other")[0] != expected[0]


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(whole, tmp_path, monkeypatch, every_step_kept):
    state, place = whole
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "one_step", stopping(train.one_step))
        train.train(PLAN, synthetic.sources(tmp_path), out=tmp_path / "parts", weights=None)
    assert len(synthetic.losses_of(tmp_path / "parts")) == STOP
    resumed = train.train(PLAN, synthetic.sources(tmp_path), out=tmp_path / "parts", weights=None)
    assert resumed.step == state.step == PLAN.steps
    assert synthetic.losses_of(tmp_path / "parts") == synthetic.losses_of(place)
    assert_equal(state, resumed)


@pytest.fixture(scope="module")
def long_whole(tmp_path_factory):
    """A long training from beginning to end: what it leaves, and where."""
    place = tmp_path_factory.mktemp("long")
    states, answering, pixels = synthetic.long_states(place)
    accelerated.train(states, synthetic.LONG, answering, pixels, out=place)
    return states["student"], place


def test_another_seed_gives_another_long_training(long_whole, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "LONG", replace(synthetic.LONG, images=16, seed=1))
    states, answering, pixels = synthetic.long_states(tmp_path)
    accelerated.train(states, synthetic.LONG, answering, pixels, out=tmp_path)
    expected = synthetic.losses_of(long_whole[1], "student")
    assert synthetic.losses_of(tmp_path, "student")[0] != expected[0]


def test_a_long_training_comes_nearer_to_the_teacher_and_keeps_weights_on_its_way(long_whole):
    _, place = long_whole
    found = synthetic.losses_of(place, "student")
    assert np.mean(found[-3:]) < 0.8 * np.mean(found[:3])
    assert {p.name for p in place.glob("student*")} >= {"student.safetensors", "student-50.safetensors"}


def test_a_stopped_long_training_goes_on_as_if_nothing_had_happened(
    long_whole, tmp_path, monkeypatch, every_step_kept
):
    stopped, answering, pixels = synthetic.long_states(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(accelerated, "one_step", stopping(accelerated.one_step))
        accelerated.train(stopped, synthetic.LONG, answering, pixels, out=tmp_path)
    resumed = accelerated.opened(synthetic.LONG, answering, pixels, work=tmp_path)
    assert resumed["student"].step == STOP
    accelerated.train(resumed, synthetic.LONG, answering, pixels, out=tmp_path)
    assert synthetic.losses_of(tmp_path, "student") == synthetic.losses_of(long_whole[1], "student")
    assert_equal(long_whole[0], resumed["student"])


def test_a_long_training_that_may_not_take_long_hurries_through_its_schedule(monkeypatch):
    plan, now = replace(synthetic.LONG, images=50 * 16), [100.0]
    monkeypatch.setattr(accelerated.time, "monotonic", lambda: now[0])
    patient = accelerated.Clock(plan, step=0, seconds=None)
    hurried = accelerated.Clock(plan, step=0, seconds=10.0)
    now[0] += 5.0
    assert patient.share(10) == pytest.approx(0.2)
    assert hurried.share(10) == pytest.approx(0.5)
    assert hurried.share(40) == pytest.approx(0.8)
    assert plan.sizes_at(hurried.share(10)) == (64, 96) != plan.sizes_at(hurried.share(40))


def test_both_ways_to_render_a_view_show_the_same_pixels():
    data = synthetic.some_pictures(40).pixels
    drawn = canvas.draw(0, batch=12, pictures=40, drawing=canvas.Drawing(mosaics=0, mixed=0), seed=1)
    blank = replace(drawn, colours=torch.ones(12, 3))
    for size in (32, 64, 128):  # smaller than most crops, and larger
        shown = canvas.show(torch.from_numpy(data), blank, size=size)
        for i, picture in enumerate(drawn.single.pictures.tolist()):
            box, flip = drawn.single.boxes[i].numpy(), bool(drawn.single.flips[i])
            expected = views.normalise(views.render(data[picture], box, flip=flip, size=size)[None].copy())[0]
            assert (shown[i] - expected).abs().mean() * 127.5 < 0.6  # of 255 levels


def test_a_drawn_mosaic_shows_four_whole_pictures():
    data = synthetic.some_pictures(20).pixels
    plain = views.ViewConfig(area=(1.0, 1.0), log_aspect=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
    drawing = canvas.Drawing(mosaics=1.0, view=plain, mosaic_view=plain)
    drawn = canvas.draw(5, batch=2, pictures=20, drawing=drawing, seed=0)
    shown = canvas.show(torch.from_numpy(data), drawn, size=128)[1]
    corners = [shown[:, y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    for corner, picture, flip in zip(
        corners, drawn.mosaic.pictures[4:].tolist(), drawn.mosaic.flips[4:], strict=True
    ):
        expected = views.normalise(data[[picture]])[0]
        assert torch.allclose(corner, expected.flip(2) if flip else expected, atol=1e-4)


def test_a_drawn_batch_depends_on_its_step_and_seed_alone():
    first, again, other = (
        canvas.draw(step, batch=64, pictures=50, drawing=canvas.Drawing(), seed=7) for step in (3, 3, 4)
    )
    assert torch.equal(first.single.boxes, again.single.boxes)
    assert torch.equal(first.mixing, again.mixing)
    assert not torch.equal(first.single.boxes, other.single.boxes)
    assert 0 < (first.mixing > 0).float().mean() < 0.6
    assert first.mixing.max() <= canvas.Drawing().most


def some_images(count=48, size=64):
    return views.normalise(probe.enlarge(synthetic.some_pictures(count).pixels, size))


def correlation(one, other):
    return float(np.corrcoef(one.flatten(), other.flatten())[0, 1])


def test_a_network_of_the_same_width_inherits_everything():
    wide, images = synthetic.some_teacher(), some_images()
    heir = inherit.inherit(wide, synthetic.PLAN.teacher, images)
    with torch.no_grad():
        expected, found = wide.pooled(images), heir.pooled(images)
    assert correlation(expected, found) > 0.999


def test_a_narrower_network_says_nearly_the_same_of_such_images():
    wide, images = synthetic.some_teacher("mobilenetv2_050"), some_images(96)
    heir = inherit.inherit(wide, "mobilenetv2_035", images)
    with torch.no_grad():
        expected, found = wide.pooled(images), heir.pooled(images)
        chance = networks.build("mobilenetv2_035").eval().pooled(images)
    assert correlation(expected, found) > 0.9 > 0.5 > correlation(expected, chance)


def test_what_is_inherited_is_the_same_while_training_as_after():
    images = some_images()
    heir = inherit.inherit(synthetic.some_teacher("mobilenetv2_050"), "mobilenetv2_035", images)
    with torch.no_grad():
        settled = heir.eval().pooled(images)
        training = heir.train().pooled(images)
    assert correlation(settled, training) > 0.999 and torch.allclose(settled, training, atol=2e-2, rtol=2e-2)


def test_channels_are_chosen_for_what_the_others_leave_unexplained(monkeypatch):
    monkeypatch.setattr(inherit, "RIDGE", 1e-4)  # so that the regression is nearly the exact one
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1000, generator=random)
    columns = torch.stack([a, a + 0.01 * b, 0.5 * b, torch.randn(1000, generator=random)], 1)
    moments = inherit.Moments()
    moments.add(torch.cat([columns, (2 * a + b).unsqueeze(1)], 1))
    assert inherit.choose(moments, 4, 2) in ([0, 2], [1, 2])  # never the two that say the same
    weight, bias = inherit.regression(moments, [0, 2], range(4, 5))
    assert weight.flatten().tolist() == pytest.approx([2, 2], abs=0.01) and abs(float(bias)) < 0.01


def test_a_mosaic_shows_four_pictures_as_sharply_as_they_are():
    data = synthetic.some_pictures(20).pixels
    plain = views.ViewConfig(area=(1.0, 1.0), log_aspect=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
    view = replace(views.draw_view(20, 0, seed=0, config=plain, mosaic=True), flips=np.zeros(20, bool))
    shown = views.batch_of_views(data, view, np.array([3]), size=128)[0]
    corners = [shown[:, y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    for corner, picture in zip(corners, [3, *view.beside[3]], strict=True):
        assert torch.allclose(corner, views.normalise(data[[picture]])[0], atol=1e-5)


def test_views_are_taken_in_turns_step_by_step():
    plan = replace(synthetic.PLAN, turns=(0, 2, 1))
    assert [plan.view_number(step, epoch=5) for step in range(4)] == [0, 2, 1, 0]
    assert [replace(plan, turns=(), views=2).view_number(9, epoch=e) for e in range(3)] == [0, 1, 0]


def test_the_teacher_answers_each_view_once_and_resumes(tmp_path):
    shown = []

    def counting(images):
        shown.append(len(images))
        if len(shown) == 3:
            raise RuntimeError("stopped")
        return [np.zeros((len(images), 2, 8, 8), dtype=np.float32) for _ in networks.HINTS]

    layout = teacher.Layout((2, 2, 2, 2, 2), (2, 2, 2, 2, 2))
    data = synthetic.some_pictures(4 * teacher.BATCH)
    view = views.draw_view(len(data), 0, seed=0, config=views.ViewConfig())
    original, teacher.CHUNK = teacher.CHUNK, teacher.BATCH
    try:
        store = teacher.TeacherStore(tmp_path, layout=layout, forward=counting, size=32, threads=1)
        with pytest.raises(RuntimeError, match="stopped"):
            store.fill(0, view, data.pixels)
        store.fill(0, view, data.pixels)
        done = sum(shown)
        store.fill(0, view, data.pixels)  # nothing is missing: the teacher is not asked
    finally:
        teacher.CHUNK = original
    assert sum(shown) == done
    assert len(data) < done <= len(data) + teacher.CHUNK


def test_what_is_read_is_what_the_teacher_said(tmp_path):
    sources = synthetic.sources(tmp_path)
    view = views.draw_view(len(sources.pictures), 3, seed=0, config=views.ViewConfig())
    sources.store.fill(3, view, sources.pictures.pixels)
    chosen = np.array([9, 2, 30])
    stored = sources.store.read(3, chosen)
    images = views.batch_of_views(sources.pictures.pixels, view, chosen, size=synthetic.PLAN.teacher_size)
    with torch.inference_mode():
        fresh = sources.teacher(images)
    for mine, theirs in zip(stored, fresh, strict=True):
        theirs = torch.nn.functional.adaptive_avg_pool2d(theirs, mine.shape[-1])
        torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=2e-3)


def test_a_view_depends_on_its_number_and_seed_alone():
    config = views.ViewConfig()
    first, again = (views.draw_view(50, 1, seed=7, config=config) for _ in range(2))
    other = views.draw_view(50, 2, seed=7, config=config)
    assert np.array_equal(first.boxes, again.boxes)
    assert np.array_equal(first.colours, again.colours)
    assert not np.array_equal(first.boxes, other.boxes)
    assert (first.boxes[:, :2] >= 0).all()
    assert (first.boxes[:, 2:] <= 1 + 1e-6).all()


def test_flipping_a_view_mirrors_its_pixels():
    picture = synthetic.some_pictures(1).pixels[0]
    box = np.array([0.1, 0.2, 0.9, 1.0])
    straight, flipped = (views.render(picture, box, flip=flip, size=24) for flip in (False, True))
    assert np.array_equal(straight, flipped[:, ::-1])


def test_adapters_start_at_their_least_squares_solution():
    torch.manual_seed(0)
    hidden = torch.randn(40, 6, 4, 4)
    student = losses.answers([hidden] * 5, hidden)
    mix = torch.randn(3, 6)
    theirs = torch.einsum("tc,nchw->nthw", mix, hidden)
    taught = losses.answers([theirs] * 5, theirs)
    classifier = (torch.randn(4, 3), torch.zeros(4))
    objective = losses.Objective(
        [6] * 6, [3] * 6, classifier=classifier, weights=losses.LossWeights(), labels=2
    )
    labels = torch.zeros(40, dtype=torch.int64)
    before = objective(student, taught, labels)[1]
    objective.prepare(student, taught)
    after = objective(student, taught, labels)[1]
    assert after["hint2"] < 0.1
    assert after["hint2"] < 0.1 * before["hint2"]
    assert after["pooled"] < 0.2


def test_the_probe_knows_separable_features_from_noise():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 25)
    centres = random.normal(size=(4, 20))
    separable = centres[labels] * 3 + random.normal(size=(100, 20))
    assert probe.cross_validated(separable, labels) > 0.95
    assert probe.cross_validated(random.normal(size=(100, 20)), labels) < 0.45


def test_the_schedule_warms_up_and_comes_down():
    rates = [train.learning_rate(s, steps=100, peak=1.0, warm_up=0.1) for s in range(100)]
    assert rates[9] == max(rates) == 1.0
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.01, abs=0.005)


def test_a_missing_archive_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tiny-imagenet-64\.zip: not found"):
        pictures.load(tmp_path, "train", work=tmp_path)


def test_a_grown_network_computes_what_the_small_one_computes():
    torch.manual_seed(0)
    small = networks.build("mobilenetv2_035").eval()
    wide = networks.grow(small, "mobilenetv2_050", noise=0.0).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        mine, theirs = small.pooled(images), wide.pooled(images)
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_growing_into_a_narrower_network_is_refused():
    with pytest.raises(ValueError, match="narrower"):
        networks.grow(networks.build("mobilenetv2_050"), "mobilenetv2_035")
