"""Makes the pictures of ``tutorial.md`` from what its commands left in ``runs/tutorial``.

    .venv/bin/python docs/tutorial_pictures.py

Does not: run the commands; type them first.
"""

from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).parents[1]
MADE = REPOSITORY / "runs" / "tutorial"
IMAGES = REPOSITORY / "docs" / "images"
DRAWN = (
    "hospital/NORMAL/NORMAL2-IM-0001-0001.jpeg",
    "hospital/PNEUMONIA/person1_virus_1.jpeg",
    "clinic/PNEUMONIA/person1_virus_1.jpeg",
)
SIDE_PX = 224
GAP_PX = 8


def main() -> None:
    """Write tutorial-data.png, tutorial-curves.png and tutorial-evidence.png."""
    row = Image.new("L", (len(DRAWN) * (SIDE_PX + GAP_PX) - GAP_PX, SIDE_PX), 255)
    for at, name in enumerate(DRAWN):
        with Image.open(MADE / name) as drawing:
            row.paste(drawing.resize((SIDE_PX, SIDE_PX)), (at * (SIDE_PX + GAP_PX), 0))
    row.save(IMAGES / "tutorial-data.png", optimize=True)
    for source, name in (("run/curves.png", "curves"), ("evidence.png", "evidence")):
        with Image.open(MADE / source) as picture:
            picture.convert("RGB").save(IMAGES / f"tutorial-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
