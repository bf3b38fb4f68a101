"""The Python interface: images from files and from memory, and what to do with a result."""

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from cxrg import ground, load

model = load()
file = Path(__file__).with_name("left_basal_opacity.dcm")
result = ground(file, "left basal opacity", model=model)

print(result)
for box in result.boxes:  # pixels of the file, half-open, the highest score first
    print(f"x {box.x0:.0f}..{box.x1:.0f}  y {box.y0:.0f}..{box.y1:.0f}  score {box.score:.2f}")
print("heatmap", result.heatmap.shape, "highest", f"{result.heatmap.max():.2f}")
for layer, maps in result.maps.layers.items():  # attention before it is joined to the heatmap
    print(layer, maps.shape, "at timesteps", result.maps.timesteps)

# The files that `cxrg ground` writes; result.show() shows the picture, result.to_dict() the record.
for name, path in result.save("cxrg-out").items():
    print(name, path)

# Several phrases at little more than the cost of one: the image is inverted once.
for each in ground(file, ["left lung", "right pleural effusion"], model=model):
    print(each)

# The same image from memory: as a pydicom data set, whose window and orientation count as in a
# file; as an array of floats from 0 (black) to 1 (white), or of uint8 or uint16; from Pillow.
dataset = pydicom.dcmread(file)
grey = dataset.pixel_array / (2**dataset.BitsStored - 1)
for image in (dataset, grey, Image.fromarray(np.rint(grey * 255).astype(np.uint8))):
    print(ground(image, "left basal opacity", model=model))
