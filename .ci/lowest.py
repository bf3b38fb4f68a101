"""Print the lowest version of every dependency that pyproject.toml admits, as requirements.

torch is left out: its builds are large, and pip is given one beforehand.
"""

import sys
import tomllib
from pathlib import Path

EXTRAS = ("tagger", "t5", "gen2ground", "plots", "dicom", "test")

text = Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
project = tomllib.loads(text)["project"]
groups = [project["dependencies"], *(project["optional-dependencies"][name] for name in EXTRAS)]
for requirement in (each for group in groups for each in group):
    name, mark, version = requirement.partition(">=")
    if mark and name != "torch":
        sys.stdout.write(f"{name}=={version}.*\n")
