"""What a fastai user writes: `fine_tune` with its default augmentation."""

import json
import sys
from pathlib import Path

from fastai.vision.all import (
    ImageDataLoaders,
    Resize,
    aug_transforms,
    get_image_files,
    set_seed,
    vision_learner,
)

folder, weights, size, epochs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
set_seed(0)
data = ImageDataLoaders.from_folder(
    folder,
    train="train",
    valid="val",
    bs=32,
    num_workers=0,
    item_tfms=Resize(size),
    batch_tfms=aug_transforms(size=size),
)
learner = vision_learner(
    data,
    "tf_efficientnet_lite0",
    pretrained=True,
    pretrained_cfg_overlay={"file": weights + ".safetensors"},
    path=folder,
)
with learner.no_bar(), learner.no_logging():
    learner.fine_tune(epochs)
    files = get_image_files(folder / "test")
    found, _ = learner.get_preds(dl=data.test_dl(files))
labels = [data.vocab[k] for k in found.argmax(1).tolist()]
print(
    json.dumps(
        {
            "train": len(data.train_ds),
            "test": {str(f.relative_to(folder)): k for f, k in zip(files, labels, strict=True)},
        }
    )
)
