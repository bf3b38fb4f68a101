"""The Python interface in three lines, and what comes back."""

from pathlib import Path

from cxrg import ground, load

model = load()
image = Path(__file__).with_name("left_basal_opacity.dcm")
result = ground(image, "left basal opacity", model=model)

print(result.status, f"{result.score:.2f}")
for box in result.boxes:  # pixels of the file, half-open, the highest score first
    print(f"x {box.x0:.0f}..{box.x1:.0f}  y {box.y0:.0f}..{box.y1:.0f}  score {box.score:.2f}")
print("heatmap", result.heatmap.shape, "highest", f"{result.heatmap.max():.2f}")

# Several phrases at little more than the cost of one: the image is inverted once.
for each in ground(image, ["left lung", "right pleural effusion"], model=model):
    print(f"{each.phrase}: {each.status}")
