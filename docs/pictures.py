"""The pictures of README and the guide, from what `make demo` made of a radiograph: `make pictures`.

docs/report.png is a case in the report, docs/heatmap.jpg one of its heat maps. Needs playwright and Chromium.
"""

import shutil
import sys
from pathlib import Path

import cv2
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent
NAME = "RG1_UNCR.dcm"
HEIGHT = 600  # pixels of the heat map


def main(demo: str) -> None:
    """Write both from the folder of the demonstration."""
    (heatmap,) = Path(demo, "heatmaps", NAME).glob("1-*.png")
    picture = cv2.imread(str(heatmap))
    size = (round(picture.shape[1] * HEIGHT / len(picture)), HEIGHT)
    cv2.imwrite(str(FOLDER / "heatmap.jpg"), cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1240, "height": 960})
        page.goto(Path(demo, "report.html").resolve().as_uri())
        page.get_by_label(f"Open {NAME}").click()
        page.wait_for_timeout(1000)
        page.get_by_role("dialog").screenshot(path=FOLDER / "report.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
