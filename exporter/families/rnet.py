"""RNet, the second network of MTCNN (Zhang et al., 2016, "Joint Face Detection and Alignment using Multi-task Cascaded
Convolutional Networks"): face or not, and a correction of the box.

The weights are those of data/rnet.pt in the wheel facenet_pytorch-2.6.0 (Tim Esler, MIT, see weights/rnet.LICENSE),
which pins a torch of its own and so is no dependency. The file was read with torch.load(weights_only=True), and its
state dict, names and values as they were, written with safetensors.torch.save.
"""

from __future__ import annotations

from torch import Tensor, nn

from exporter.families.packaged import packaged
from exporter.load import Source
from runtimes.processing.preprocessor import Image

SIDE = 24


class RNet(nn.Module):
    """Three convolutions, a dense layer, two heads: 100,178 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`[batch, 3, 24, 24]` -> `probabilities` `[batch, 2]` (not a face, face) and `box` `[batch, 4]`."""
        x = self.pool1(self.prelu1(self.conv1(image)))  # [batch, 28, 11, 11]
        x = self.pool2(self.prelu2(self.conv2(x)))  # [batch, 48, 4, 4]
        x = self.prelu3(self.conv3(x))  # [batch, 64, 3, 3]
        x = x.permute(0, 3, 2, 1).flatten(1)  # by column, row and channel, as the weights' first framework had it
        x = self.prelu4(self.dense4(x))
        return {"probabilities": self.dense5_1(x).softmax(1), "box": self.dense5_2(x)}


def load(name: str) -> Source:
    """The trained network, with real images."""
    image = Image("image", SIDE, SIDE, mean=(127.5,), std=(128.0,))
    return packaged(name, RNet(), {"image": (1, 3, SIDE, SIDE)}, (image,), output="probabilities")
