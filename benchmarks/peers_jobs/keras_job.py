"""What Keras's guide to transfer learning does: a frozen head first, then the last blocks at a low rate."""

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import lite0
import tensorflow as tf

folder, weights, size, epochs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
keras.utils.set_random_seed(0)


def load(split, shuffle):
    return keras.utils.image_dataset_from_directory(
        folder / split,
        image_size=(size, size),
        crop_to_aspect_ratio=True,
        batch_size=32,
        shuffle=shuffle,
        verbose=False,
    )


train, validation, test = load("train", True), load("val", False), load("test", False)
names, files = train.class_names, test.file_paths
count = len(train.file_paths)
train, validation, test = (data.cache().prefetch(tf.data.AUTOTUNE) for data in (train, validation, test))
base = lite0.build(size, weights + ".npz")
base.trainable = False
inputs = keras.Input((size, size, 3))
x = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(inputs))
x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
x = keras.layers.Dropout(0.2)(base(x, training=False))
model = keras.Model(inputs, keras.layers.Dense(len(names), activation="softmax")(x))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, validation_data=validation, epochs=epochs, verbose=0)
base.trainable = True
for layer in base.layers:
    layer.trainable = layer.name.startswith(("block7", "last"))
model.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, validation_data=validation, epochs=epochs, verbose=0)
labels = [names[k] for k in model.predict(test, verbose=0).argmax(1)]
print(
    json.dumps(
        {
            "train": count,
            "test": {str(Path(f).relative_to(folder)): k for f, k in zip(files, labels, strict=True)},
        }
    )
)
