"""The plain linear probe: timm features, scikit-learn's logistic regression."""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.data import create_transform, resolve_data_config

folder, weights, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
model = timm.create_model(
    "tf_efficientnet_lite0",
    pretrained=True,
    num_classes=0,
    pretrained_cfg_overlay={"file": weights + ".safetensors"},
).eval()
transform = create_transform(**resolve_data_config({"input_size": (3, size, size)}, model=model))


def features(files):
    rows = []
    with torch.inference_mode():
        for start in range(0, len(files), 32):
            batch = [transform(Image.open(file).convert("RGB")) for file in files[start : start + 32]]
            rows.append(model(torch.stack(batch)).numpy())
    return np.concatenate(rows)


train, test = (sorted((folder / split).glob("*/*")) for split in ("train", "test"))
probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
probe.fit(features(train), [file.parent.name for file in train])
labels = probe.predict(features(test))
print(
    json.dumps(
        {
            "train": len(train),
            "test": {str(f.relative_to(folder)): str(k) for f, k in zip(test, labels, strict=True)},
        }
    )
)
