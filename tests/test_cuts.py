"""Cuts of small graphs: what carries everything on, which stages that gives, what a classifier reads."""

import numpy as np
import pytest

from headstart.backbones.cuts import Cut, Staging, cuts_of, joined, staging_of
from headstart.backbones.openvino import openvino
from headstart.errors import BackboneError

ov = openvino()
ops = ov.opset13


def weights(*shape):
    return ops.constant(np.random.default_rng(0).normal(0, 1, shape).astype(np.float32))


def image(side=32, batch=2):
    return ops.parameter([batch, 3, side, side], np.float32, name="image")


def conv(x, channels, *, stride=1, kernel=3):
    pad = [kernel // 2] * 2
    kernel = weights(channels, x.get_output_shape(0)[1], kernel, kernel)
    return ops.convolution(x, kernel, [stride] * 2, pad, pad, [1, 1])


def dense(x, channels):
    return ops.matmul(x, weights(x.get_output_shape(0)[-1], channels), False, False)


def pooled(x):
    return ops.reduce_mean(x, np.array([2, 3], np.int64), False)


def residual(x, channels, *, stride=1):
    inner = conv(ops.relu(conv(x, channels, stride=stride)), channels)
    return ops.relu(ops.add(inner, conv(x, channels, stride=stride, kernel=1) if stride > 1 else x))


def classified(features, classes=5):
    return ops.softmax(ops.add(dense(features, classes), weights(1, classes)), 1)


def model_of(out, parameter, names=("answer",)):
    outs = out if isinstance(out, list) else [out]
    for each, name in zip(outs, names, strict=True):
        each.output(0).get_tensor().set_names({name})
    return ov.Model(outs, [parameter], "small")


def transformer(blocks=4, *, prefix=1, width=12, turned=False):
    """Patches of 8 x 8 pixels; each block has two residual branches, one of them with attention."""
    x = image(32)
    grid = ops.convolution(x, weights(width, 3, 8, 8), [8, 8], [0, 0], [0, 0], [1, 1])
    flat = ops.reshape(grid, np.array([2, width, 16], np.int64), False)
    tokens = ops.transpose(flat, np.array([0, 2, 1], np.int64))
    if prefix:
        # As exporters write it: the class token is widened to the batch, which is read off the image.
        batch = ops.gather(ops.shape_of(x), np.array([0], np.int64), np.array(0, np.int64))
        shape = ops.concat([batch, ops.constant(np.array([prefix, width], np.int64))], 0)
        tokens = ops.concat([ops.broadcast(weights(1, prefix, width), shape), tokens], 1)
    tokens = ops.add(tokens, weights(1, 16 + prefix, width))
    for _ in range(blocks):
        normed = ops.mvn(tokens, np.array([2], np.int64), True, 1e-6, "INSIDE_SQRT")
        mixed = ops.matmul(ops.softmax(ops.matmul(normed, normed, False, True), 2), normed, False, False)
        tokens = ops.add(tokens, dense(mixed, width))
        tokens = ops.add(tokens, dense(ops.gelu(dense(tokens, 4 * width), "erf"), width))
    return x, tokens


def shapes(staging: Staging):
    return [cut.shape for cut in staging.stages]


def test_a_residual_network_is_cut_between_its_blocks_and_once_for_each_image_size():
    x = image()
    stem = ov.opset1.max_pool(ops.relu(conv(x, 8)), [2, 2], [0, 0], [0, 0], [2, 2])
    y = residual(residual(residual(stem, 8), 16, stride=2), 32, stride=2)
    staging = staging_of(model_of(classified(pooled(y)), x))
    assert shapes(staging) == [(8, 16, 16), (8, 16, 16), (16, 8, 8), (32, 4, 4)]
    assert staging.names == ("stem", "block1", "block2", "block3")
    assert {cut.kind for cut in staging.stages} == {"map"}
    assert (staging.features.shape, staging.features.kind, staging.features.pooling) == ((32,), "vector", "")
    assert staging.classifier  # left out


def test_no_cut_lies_beside_a_skip_connection():
    x = image()
    before = conv(x, 8)
    inner = conv(before, 8)
    cuts = cuts_of(model_of(ops.add(conv(inner, 8), before), x))
    assert [cut.port.get_node().get_friendly_name() for cut in cuts[:-1]] == [before.get_friendly_name()]


def test_work_and_weights_are_counted_up_to_each_cut_for_one_image():
    for batch in (1, 3):
        x = image(16, batch)
        first = conv(x, 4)
        cuts = cuts_of(model_of(conv(ops.relu(first), 6, stride=2), x))
        work = [4 * 16 * 16 * 27, 4 * 16 * 16 * 27, 4 * 16 * 16 * 27 + 6 * 8 * 8 * 36]
        assert [cut.multiply_adds for cut in cuts] == work
        assert [cut.parameters for cut in cuts] == [108, 108, 108 + 216]


def test_a_transformer_is_cut_into_stages_of_equal_work_and_its_class_token_is_known():
    x, tokens = transformer(8)
    staging = staging_of(model_of(tokens, x), most=5)
    assert shapes(staging) == [(17, 12)] * 4
    works = [cut.multiply_adds for cut in staging.stages]
    shares = np.diff(works) / works[-1]
    assert shares.max() < 1.5 * shares.min()
    assert {(cut.kind, cut.prefix_tokens, cut.side) for cut in staging.stages} == {
        ("tokens with a class token", 1, 4)
    }
    assert staging.features.pooling == "class token"
    assert staging.classifier == ""


@pytest.mark.parametrize("prefix", [0, 5])
def test_tokens_before_the_patches_are_counted(prefix):
    x, tokens = transformer(2, prefix=prefix)
    features = staging_of(model_of(tokens, x)).features
    assert features.prefix_tokens == prefix
    assert features.pooling == ("class token" if prefix else "mean of the patches")


def test_the_classifier_of_a_transformer_reads_the_vector_that_was_taken_from_the_tokens():
    x, tokens = transformer(2)
    token = ops.gather(tokens, np.array(0, np.int64), np.array(1, np.int64))
    staging = staging_of(model_of(classified(token), x))
    assert staging.features.shape == (12,)
    assert staging.features.port.get_node().get_friendly_name() == token.get_friendly_name()


def test_tokens_that_the_features_are_taken_of_end_the_last_stage_and_hide_none_before_it():
    x, tokens = transformer(4)
    patches = ops.slice(tokens, [1], [17], [1], [1])
    staging = staging_of(model_of(classified(ops.reduce_mean(patches, [1], False)), x))
    assert shapes(staging)[-1] == (16, 12)
    assert set(shapes(staging)[:-1]) == {(17, 12)}


def test_densely_connected_layers_have_cuts_only_where_all_of_them_are_joined():
    x = image()
    maps = [ops.relu(conv(x, 8, stride=2))]
    for _ in range(3):
        joined = ops.concat(maps, 1) if len(maps) > 1 else maps[0]
        maps.append(ops.relu(conv(joined, 4)))
    narrow = conv(ops.concat(maps, 1), 10, kernel=1)
    out = ops.relu(conv(narrow, 20, stride=2))
    staging = staging_of(model_of(classified(pooled(out)), x))
    assert shapes(staging) == [(8, 16, 16), (10, 16, 16), (20, 8, 8)]


def test_two_branches_that_meet_in_a_vector_are_one_stage():
    x = image()
    left, right = pooled(ops.relu(conv(x, 4))), pooled(ops.relu(conv(x, 6, kernel=1)))
    features = ops.concat([left, right], 1)
    staging = staging_of(model_of(classified(features), x))
    assert shapes(staging) == [(10,)] == [staging.features.shape]


def test_without_any_tensor_that_carries_everything_a_network_is_refused():
    x = image()
    strips = conv(ops.reshape(x, np.array([2, 3, 16, 64], np.int64), False), 4)
    with pytest.raises(BackboneError, match="nowhere in the network one tensor alone"):
        cuts_of(model_of(strips, x))


def test_a_layer_with_an_activation_behind_it_is_no_classifier():
    x = image()
    vector = pooled(ops.relu(conv(x, 8)))
    staging = staging_of(model_of(ops.hswish(dense(vector, 24)), x))
    assert (staging.features.shape, staging.classifier) == ((24,), "")


def test_scores_of_imagenet_are_no_features_though_an_activation_made_them():
    x = image()
    y = ops.relu(conv(x, 8, stride=4))
    staging = staging_of(model_of(pooled(ops.relu(conv(y, 1000, kernel=1))), x))
    assert (staging.features.shape, staging.features.pooling) == ((8, 8, 8), "mean of the map")


def test_an_embedding_that_is_scaled_to_length_one_was_projected_by_what_is_left_out():
    x = image()
    vector = pooled(ops.relu(conv(x, 8)))
    embedding = dense(vector, 6)
    length = ops.reduce_l2(embedding, np.array([1], np.int64), True)
    assert staging_of(model_of(ops.divide(embedding, length), x)).features.shape == (8,)


def test_widened_tensors_inside_inverted_bottlenecks_are_no_stages():
    x = image()
    y = ops.relu(conv(x, 8, stride=2))
    y = conv(ops.relu(conv(y, 48, kernel=1)), 12, stride=2)
    y = conv(ops.relu(conv(y, 72, kernel=1)), 16, stride=2)
    assert {cut.channels for cut in staging_of(model_of(pooled(y), x)).stages} == {8, 12, 16}


def test_maps_with_channels_last_are_told_apart_by_their_square():
    x = image()
    y = ops.transpose(ops.relu(conv(x, 8, stride=2)), np.array([0, 2, 3, 1], np.int64))
    last = cuts_of(model_of(y, x))[-1]
    assert (last.layout, last.shape, last.side) == ("NHWC", (8, 16, 16), 16)


def test_there_are_never_more_stages_than_asked_for():
    x = image(64)
    y = x
    for channels in (4, 6, 8, 10, 12):
        y = residual(y, channels, stride=2)
    model = model_of(pooled(y), x)
    for most in range(1, 7):
        staging = staging_of(model, most=most)
        assert len(staging.stages) <= most
        assert staging.stages[-1].shape == (12, 2, 2)


def test_what_is_joined_is_of_one_image_size_and_has_the_least_arithmetic():
    works = np.cumsum([10, 1, 2, 30, 3, 4, 50])
    sides = [32, 32, 32, 16, 16, 16, 8]
    ends = [Cut("", "NCHW", (8, side, side), work, 0) for side, work in zip(sides, works, strict=True)]
    found = joined(ends, most=5)
    assert [(cut.side, cut.multiply_adds) for cut in found] == [
        (32, 10),
        (32, 13),
        (16, 43),
        (16, 50),
        (8, 100),
    ]
    assert [cut.side for cut in joined(ends, most=3)] == [32, 16, 8]
    assert [cut.multiply_adds for cut in joined(ends, most=2)] == [50, 100]


def test_an_output_is_chosen_by_its_name():
    x = image()
    y = ops.relu(conv(x, 8, stride=2))
    model = model_of([y, pooled(y)], x, ("map", "vector"))
    assert cuts_of(model, output="map")[-1].shape == (8, 16, 16)
    with pytest.raises(BackboneError, match="expected one output; the network has map, vector"):
        cuts_of(model)
    with pytest.raises(BackboneError, match="expected an output other; the network has map, vector"):
        cuts_of(model, output="other")


def test_a_map_of_as_many_channels_as_rows_is_told_by_where_a_corner_of_the_image_changes_it():
    x = image(16)
    first = conv(x, 8, stride=2)
    turned = ops.transpose(first, np.array([0, 2, 3, 1], np.int64))
    last = dense(ops.gelu(dense(turned, 8), "erf"), 8)
    cuts = cuts_of(model_of(ops.reduce_mean(last, np.array([1, 2], np.int64), False), x))
    assert [cut.layout for cut in cuts] == ["NCHW", *["NHWC"] * 4, "NC"]
    assert {cut.shape for cut in cuts[:-1]} == {(8, 8, 8)}
