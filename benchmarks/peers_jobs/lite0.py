"""EfficientNet-Lite0 in Keras, which has none of its own; not counted among the peer's lines."""

import keras
import numpy as np

BLOCKS = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Kernel, stride, expansion, channels and repeats."""


def build(size, file):
    """The network up to its pooled features, with the weights of an .npz in the network's order."""
    layers = keras.layers

    def convolution(x, channels, kernel, stride, name, *, depthwise=False, limited=True):
        options = {"strides": stride, "padding": "same", "use_bias": False, "name": name}
        x = (
            layers.DepthwiseConv2D(kernel, **options)
            if depthwise
            else layers.Conv2D(channels, kernel, **options)
        )(x)
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}-norm")(x)
        return layers.ReLU(6.0)(x) if limited else x

    image = keras.Input((size, size, 3))
    x = convolution(image, 32, 3, 2, "stem")
    for number, (kernel, stride, expansion, channels, repeats) in enumerate(BLOCKS, start=1):
        for position in range(repeats):
            before, name, step = x, f"block{number}-{position}", stride if position == 0 else 1
            if expansion > 1:
                x = convolution(x, expansion * x.shape[-1], 1, 1, f"{name}-expand")
            x = convolution(x, None, kernel, step, f"{name}-depthwise", depthwise=True)
            x = convolution(x, channels, 1, 1, f"{name}-project", limited=False)
            if step == 1 and before.shape[-1] == channels:
                x = layers.Add()([before, x])
    x = convolution(x, 1280, 1, 1, "last")
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    values = iter(np.load(file).values())
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            layer.set_weights([next(values).transpose(2, 3, 0, 1)])
        elif isinstance(layer, layers.Conv2D):
            layer.set_weights([next(values).transpose(2, 3, 1, 0)])
        elif isinstance(layer, layers.BatchNormalization):
            layer.set_weights([next(values) for _ in range(4)])
    return model
