"""BatchEnsemble and LP-BNN for semantic segmentation, and a shape that training never saw.

    python -m examples.studies.segmentation --seeds 0 1 2 3 --out docs/tables

torchvision's deeplabv3_resnet50, 39.6 million weights from a random start, on 480 small scenes
made on the spot: ellipses, boxes and triangles that hide each other, a label for every pixel. Test
scenes have known shapes, the same under noise, or one cross each, whose pixels are out of
distribution. All methods go on from one network a seed.

Writes segmentation.md and segmentation.png. About five minutes of CPU time a seed on one core;
what a method gave on a seed is kept under --runs, so a stopped run goes on.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from examples.studies.common import kept, study
from examples.studies.segmentation import report
from examples.studies.segmentation.judged import numbers, questions
from examples.studies.segmentation.methods import CHOSEN, METHODS, PUBLISHED, SMOKE, SWEPT, begin, held_loss

IMAGES = 4 if SMOKE else 60


def one_seed(seed: int, folder: Path) -> report.Run:
    """{method: numbers} of a seed; methods that are not in the folder are
    trained and put there.
    """
    file = folder / f"seed_{seed}.json"
    found: report.Run = kept.read(file) or {}
    missing = [name for name in METHODS if name not in found]
    if missing:
        task, asked = begin(seed, folder), questions(seed, IMAGES)
        for first in tqdm(missing, desc=f"seed {seed}", unit="method"):
            for name, trained in METHODS[first](task).items():
                held = held_loss(trained.predictor(task.held.x), task.held)
                found[name] = numbers(trained, asked) | {"held": held, "start_seconds": task.seconds}
            kept.write(file, found)
    swept = [row for name, row in found.items() if name.startswith((PUBLISHED, SWEPT))]
    return found | {CHOSEN: min(swept, key=lambda row: float(row["held"]))}


def main() -> None:
    """Every seed, then tables and figure."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.segmentation",
        description="BatchEnsemble and LP-BNN for semantic segmentation.",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0] if SMOKE else [0, 1, 2, 3], help="one run each")
    parser.add_argument("--out", type=Path, default=Path("output/segmentation"), help="folder of tables and figure")
    parser.add_argument("--runs", type=Path, default=Path("output/segmentation/runs"), help="folder of what seeds gave")
    given = parser.parse_args()
    for folder in (given.out, given.runs):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    runs = [one_seed(seed, given.runs) for seed in given.seeds]
    unseen = [questions(seed, IMAGES).unseen for seed in given.seeds]
    markdown = report.to_markdown(runs, unseen)
    (given.out / "segmentation.md").write_text(markdown, encoding="utf-8")
    report.figure(runs[0], unseen[0]).savefig(study.pictures(given.out) / "segmentation.png", dpi=130)
    print(markdown)


if __name__ == "__main__":
    main()
