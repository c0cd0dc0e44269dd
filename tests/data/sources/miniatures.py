"""One small, complete copy of each published dataset, laid out as its authors do, for tests over all of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
from PIL import Image

from components.data.sources.kadid10k import DISTORTIONS
from tests.data.sources.layouts import picture, save, write
from tests.data.sources.raws import write_prophoto
from tests.raw_files import write_raw

SIZE = (96, 64)
"""Width and height of all their pictures: large enough to be used."""


def ava(root: Path) -> None:
    pictures(root, ["image/1.jpg", "image/2.jpg"])
    write(root / "AVA.txt", "1 1 0 1 5 17 38 36 15 6 5 1 1 22 1396", "2 2 10 7 15 26 26 21 10 8 1 2 15 21 1396")


def bokehdiff(root: Path) -> None:
    cutout = picture(1, SIZE).convert("RGBA")
    alpha = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    alpha[10:55, 20:70] = 255
    cutout.putalpha(Image.fromarray(alpha))
    (root / "fg").mkdir(parents=True)
    cutout.save(root / "fg" / "1.png")
    pictures(root, ["bg/1.jpg"])


def filmset(root: Path) -> None:
    looks = ("input", "Cinema", "ClassNeg", "Velvia")
    pictures(root, [f"{split}/{look}/{split}1.png" for split in ("train", "test") for look in looks])


def fivek(root: Path) -> None:
    pictures(root, [f"{folder}/JPG/480p/{name}.jpg" for folder in ("input", "expertC") for name in ("a1", "a2", "a3")])
    for name, line in (("train_input.txt", "a1"), ("train_label.txt", "a2"), ("test.txt", "a3")):
        write(root / name, line)


def fivek_originals(root: Path) -> None:
    for seed, name in enumerate(("a0001-jmac", "a0002-dgw")):
        colour = 0.6 * (np.asarray(picture(seed, SIZE)) / 255) ** 2.2
        write_raw(root / "raw_photos" / "HQa1to700" / "photos" / f"{name}.dng", colour)
        for expert in "ac":
            write_prophoto(root / f"tiff16_{expert}" / f"{name}.tif", colour)
    write(root / "categories.txt", "a0001-jmac,outdoor,day,sun_sky,nature", "a0002-dgw,indoor,None,artificial,people")


def foundir(root: Path) -> None:
    groups = ("01Blur", "02Blur_Noise", "03JPEG", "04Haze", "05Rain", "06Raindrop", "07NightRain", "08Lowlight_Noise")
    pictures(root, [f"{group}/{side}/{group[:2]}1.png" for group in groups for side in ("GT", "LQ")])
    lines = [f"{group}/GT/{group[:2]}1.png, {group}/LQ/{group[:2]}1.png" for group in groups]
    write(root / "Testset_meta_info.txt", *lines)


def gopro(root: Path) -> None:
    kinds = ("blur", "blur_gamma", "sharp")
    names = ("train/GOPR0372_07_00", "test/GOPR0384_11_00")
    pictures(root, [f"GOPRO_Large/{name}/{kind}/000047.png" for name in names for kind in kinds])


def istd(root: Path) -> None:
    splits = ("train", "test")
    pictures(
        root, [f"{split}/{split}_{letter}/1-{number}.png" for split in splits for letter in "ABC" for number in "12"]
    )


def kadid10k(root: Path) -> None:
    names = [f"I01_{kind:02d}_03.png" for kind in range(1, len(DISTORTIONS) + 1)]
    pictures(root, [f"images/{name}" for name in ("I01.png", *names)])
    write(root / "dmos.csv", "dist_img,ref_img,dmos,var", *(f"{name},I01.png,3.5,0.4" for name in names))


def koniq10k(root: Path) -> None:
    pictures(root, ["1024x768/1.jpg", "1024x768/2.jpg"])
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set"
    rows = ("1.jpg,0,0,25,73,7,105,71.08,0.55,training", "2.jpg,0,3,45,47,1,96,59.33,0.62,test")
    write(root / "koniq10k_distributions_sets.csv", header, *rows)


def lol(root: Path) -> None:
    pictures(root, [f"{part}/{side}/{part}.png" for part in ("our485", "eval15") for side in ("low", "high")])


def rdd(root: Path) -> None:
    pictures(root, [f"{split}/{side}/{split}1.JPG" for split in ("train", "test") for side in ("img", "gt")])


def realblur(root: Path) -> None:
    folder = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    for number, split in enumerate(("train", "test"), start=1):
        names = [f"{folder}/scene00{number}/{side}/{side}_1.png" for side in ("gt", "blur")]
        pictures(root, names)
        write(root / f"RealBlur_J_{split}_list.txt", " ".join(names))


def realbokeh(root: Path) -> None:
    for split in ("train", "test"):
        targets = {f"gt/7/7_f{f_number:.1f}.JPG": f_number for f_number in (2.0, 5.6)}
        scene = {
            "id": 7,
            "source_image": "in/7_f22.JPG",
            "source_av": 22.0,
            "target_images": list(targets),
            "target_avs": list(targets.values()),
            "focal_length": 60,
            "focus_plane_distance": 1.92,
            "focus_plane_uncertainty": 0.12,
        }
        pictures(root, [f"{split}/in/7_f22.JPG", *(f"{split}/{name}" for name in targets)])
        write(root / split / "metadata" / "7.json", json.dumps(scene))


def spaq(root: Path) -> None:
    pictures(root, ["TestImage/00001.jpg", "TestImage/00002.jpg"])
    book = openpyxl.Workbook()
    book.active.append(["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"])
    book.active.append(["00001.jpg", 41.6, 54.2, 46.0, 49.5, 36.4, 33.0])
    book.active.append(["00002.jpg", 80, 61.25, 60, 62, 90, 78])
    (root / "Annotations").mkdir()
    book.save(root / "Annotations" / "MOS and Image attribute scores.xlsx")


def srd(root: Path) -> None:
    pictures(root, ["Train/shadow/A.jpg", "Train/shadow_free/A_no_shadow.jpg"])
    pictures(root, ["Test/shadow/B.jpg", "Test/shadow_free/B_free.jpg"])


def tmm22(root: Path) -> None:
    for split in ("train", "test"):
        pictures(root, [f"{split}set/moire_RGB/{split}1_m.png", f"{split}set/gt_RGB/{split}1_gt.png"])


MINIATURES: dict[str, Callable[[Path], None]] = {
    made.__name__: made
    for made in (
        *(ava, bokehdiff, filmset, fivek, foundir, gopro, istd, kadid10k, koniq10k, lol, rdd, realblur, realbokeh),
        *(spaq, srd, tmm22),
    )
}
"""The dataset's files below a folder that is given, by its name."""


def pictures(root: Path, names: list[str]) -> None:
    """A different picture for each name."""
    for name in names:
        save(root / name, hash_of(name), SIZE)


def hash_of(name: str) -> int:
    """A seed of its own for a name, the same in every process."""
    return sum(byte * 31**place for place, byte in enumerate(name.encode())) % 2**31
