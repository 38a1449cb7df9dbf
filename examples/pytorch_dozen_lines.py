"""The same dozen lines in PyTorch, and beside them what Headstart makes of the same images.

    python examples/pytorch_dozen_lines.py demo/digits                  a folder of class folders
    python examples/pytorch_dozen_lines.py photos --pretrained          ResNet-18 with torchvision's weights

The first half runs the frozen network again in every epoch. The second half, one call, runs Headstart's
default backbone once per image, chooses the head's penalty, and measures accuracy on held-out images. The
accuracies are of different networks on different images (in the first half those it trains on, in the second
held-out ones) and are not a contest; the times show where the work goes.
"""

import argparse
import time

import torch
import torchvision
from torchvision.transforms import v2

import headstart

# %% What to run
arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
arguments.add_argument("folder", help="images in one folder per class")
arguments.add_argument("--pretrained", action="store_true")
arguments.add_argument("--epochs", type=int, default=3)
options = arguments.parse_args()

# %% The dozen lines
torch.manual_seed(0)
start = time.perf_counter()
to_tensor = v2.Compose([v2.ToImage(), v2.Resize((96, 96)), v2.ToDtype(torch.float32, scale=True)])
images = torchvision.datasets.ImageFolder(options.folder, transform=to_tensor)
loader = torch.utils.data.DataLoader(images, batch_size=32, shuffle=True)
network = torchvision.models.resnet18(weights="DEFAULT" if options.pretrained else None)
network.requires_grad_(False)
network.fc = torch.nn.Linear(network.fc.in_features, len(images.classes))
optimizer = torch.optim.Adam(network.fc.parameters())
network.eval()  # the frozen batch normalisations keep their statistics
for epoch in range(options.epochs):
    right = 0
    for pixels, labels in loader:
        logits = network(pixels)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        right += int((logits.argmax(1) == labels).sum())
    print(f"PyTorch, epoch {epoch + 1}: accuracy {right / len(images):.3f} on the images it trains on")
print(f"PyTorch: {time.perf_counter() - start:.1f} s\n")

# %% Headstart's line
start = time.perf_counter()
classifier, run = headstart.fit(options.folder)
print(
    f"Headstart: accuracy {run.accuracy['test']:.3f} on held-out images, {time.perf_counter() - start:.1f} s"
)
