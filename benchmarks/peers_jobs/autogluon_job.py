"""What an AutoGluon user writes: a table of files and `MultiModalPredictor`."""

import json
import sys
from pathlib import Path

import pandas
import timm
from autogluon.multimodal import MultiModalPredictor

folder, weights, size, epochs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
made = timm.create_model
timm.create_model = lambda *a, **k: made(
    *a, **{**k, "pretrained_cfg_overlay": {"file": weights + ".safetensors"}}
)
tables = {
    split: pandas.DataFrame(
        [{"image": str(f), "label": f.parent.name} for f in sorted((folder / split).glob("*/*"))]
    )
    for split in ("train", "val", "test")
}
predictor = MultiModalPredictor(label="label", path=str(folder / "autogluon"), verbosity=0)
predictor.fit(
    tables["train"],
    tuning_data=tables["val"],
    hyperparameters={
        "model.names": ["timm_image"],
        "model.timm_image.checkpoint_name": "tf_efficientnet_lite0",
        "optim.max_epochs": epochs,
        "env.num_workers": 0,
    },
)
labels = predictor.predict(tables["test"])
files = [str(Path(f).relative_to(folder)) for f in tables["test"]["image"]]
print(json.dumps({"train": len(tables["train"]), "test": dict(zip(files, map(str, labels), strict=True))}))
