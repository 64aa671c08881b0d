"""Files of every kind, damaged: each is told by its name with the way out, or made again with a warning, never used.

A change in a byte that nothing reads, as in the padding of an archive, may pass, if what is read is the same.
"""

import random
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
from archives import tar_of, to_png, zip_of
from conftest import generator, photos_in, small_prffn, tiny_settings
from torchvision.models import alexnet

from prffn.apps.photos import read_photo
from prffn.apps.upscale import network
from prffn.config import experiment
from prffn.data.download import unpack
from prffn.data.images import image_set, lr_images
from prffn.evaluation import metrics
from prffn.evaluation.cost import StepCase
from prffn.files import read_record, save_record, weights_sha256
from prffn.losses import fused, pixel_contrast
from prffn.losses import vgg as backbone
from prffn.models import build
from prffn.models.pretrained import save_pretrained
from prffn.study import timings
from prffn.study.ensure import ensure
from prffn.study.evaluations import AUTHORS, ensure_evaluations, weights_from_files
from prffn.training.loop import train

WAY_OUT = re.compile("again|is not used|replace|remove|git checkout|bring it back|save its state_dict")


@dataclass
class Place:
    """Where a test puts its files, and what it changes for itself."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    photo: np.ndarray

    def images(self, suffix: str = ".png") -> Path:
        """A folder of three small photographs."""
        return photos_in(self.folder / "photos", self.photo, suffix)

    def weights(self) -> Path:
        """An empty folder in place of the user's weights."""
        folder = self.folder / "weights"
        folder.mkdir()
        self.monkeypatch.setenv("PRFFN_WEIGHTS", str(folder))
        return folder

    def only(self, pattern: str) -> Path:
        """The one file of that pattern."""
        (path,) = self.folder.glob(pattern)
        return path


Use = Callable[[], Any]
"""Uses the file as the kit does; what it gives must not depend on the damage."""


def checkpoint(place: Place) -> tuple[Path, Use]:
    e, path = experiment(tiny_settings(place.images())), place.folder / "run.ckpt"
    train(e, checkpoint=path, progress=False)
    return path, lambda: weights_sha256(train(e, checkpoint=path, progress=False).model)


def run_record(place: Place) -> tuple[Path, Use]:
    e = experiment(tiny_settings(place.images()))

    def use() -> Any:
        record = ensure({"a": [e]}, "quick", progress=False)["a"][0].record
        return record["evaluation"], record["curve"], record["weights_sha256"]

    use()
    return place.only("reports/quick/runs/*.json"), use


def timing_record(place: Place) -> tuple[Path, Use]:
    place.monkeypatch.setattr(timings, "in_rounds", lambda cases, *_: {"step": [0.5]})
    use = lambda: dict(timings.ensure_timings({"step": StepCase()}, "quick", device="cpu"))  # noqa: E731
    use()
    return place.only("reports/quick/timings/*.json"), use


def image_cache(pattern: str, place: Place) -> tuple[Path, Use]:
    images = str(place.images())

    def use() -> Any:
        image_set.cache_clear()
        hr = image_set(images)
        return hr.checksum, [image.tobytes() for image in (*hr.images, *lr_images(hr, 2))]

    use()
    return place.only(f"cache/images/{pattern}"), use


def compiled_code(place: Place) -> tuple[Path, Use]:
    place.monkeypatch.setattr(fused, "LIBRARY", (*fused.LIBRARY, "-O0"))  # for each damage it is compiled again
    place.monkeypatch.setattr(fused, "_library", cache(fused._library.__wrapped__))  # which no later test gets
    if not fused.works():
        pytest.skip("there is no C compiler here")
    image = torch.rand(1, 3, 8, 8, generator=generator())

    def use() -> float:
        fused._library.cache_clear()
        return pixel_contrast(image.flip(3), image, 16, implementation="compiled").item()

    use()
    return place.only("cache/compiled/*.so"), use


def archive(name: str, make: Callable[[dict[str, bytes]], bytes], place: Place) -> tuple[Path, Use]:
    path, target = place.folder / name, place.folder / "Set5"
    path.write_bytes(make({f"set/{n}.png": to_png(place.photo[9 * n : 9 * n + 40, :50]) for n in range(5)}))

    def use() -> dict[str, bytes]:
        shutil.rmtree(target, ignore_errors=True)
        try:
            unpack(path, "set", target, count=5)
        except ValueError:
            assert not target.exists()
            raise
        return {path.name: path.read_bytes() for path in target.iterdir()}

    return path, use


def image_of_a_set(suffix: str, place: Place) -> tuple[Path, Use]:
    """JPEG has no checksum: damage gives other pixels. They are told, and are other images to every record."""
    images = place.images(suffix)

    def use() -> str:
        image_set.cache_clear()
        return image_set(str(images)).checksum

    return images / f"1{suffix}", use


def photograph(place: Place) -> tuple[Path, Use]:
    return (path := place.images() / "2.png"), lambda: read_photo(path).rgb.tobytes()


def shipped_network(place: Place) -> tuple[Path, Use]:
    path = place.folder / "prffn_x2.safetensors"
    settings: dict[str, Any] = {"data.scale": 2, "model.channels": 4, "model.groups": 1, "model.blocks": 1}
    settings["model.dilation_rates"] = [1, 2, 4]
    save_pretrained(small_prffn(), path, settings, "0123", weights_sha256(small_prffn()))
    lr = torch.rand(1, 3, 9, 8, generator=generator(1))
    return path, lambda: network(2, path)(lr).tolist()


def authors_weights(place: Place) -> tuple[Path, Use]:
    path = place.folder / "fsrcnn.pt"
    torch.save({"state_dict": build("FSRCNN", 2, generator=generator()).state_dict()}, path)
    return path, lambda: weights_sha256(network(2, path))


def backbone_weights(place: Place) -> tuple[Path, Use]:
    """torchvision's VGG-19, cut to its first convolution; a part of its checksum stands in its name."""
    folder = place.weights()
    state = {"features.0.weight": torch.rand(64, 3, 3, 3, generator=generator()), "features.0.bias": torch.rand(64)}
    torch.save(state, folder / "weights", _use_new_zipfile_serialization=False)  # the older format has no sums
    path = folder / f"vgg19-{backbone._file_sha256(folder / 'weights')[:8]}.pth"
    (folder / "weights").rename(path)
    short = replace(backbone.BACKBONES["vgg19"], convolutions=(1,), files=(path.name,))
    place.monkeypatch.setitem(backbone.BACKBONES, "vgg19", short)

    def use() -> str:
        backbone._sha256.cache_clear()
        backbone._network.cache_clear()
        return backbone.backbone_sha256("vgg19")

    return path, use


def alexnet_weights(place: Place) -> tuple[Path, Use]:
    path = place.weights() / "alexnet_features.pth"
    torch.save({f"features.{name}": value for name, value in alexnet().features.state_dict().items()}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in metrics
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)

    def use() -> str:
        metrics._load_alexnet(network, path)
        return weights_sha256(network)

    return path, use


MAKERS = [
    checkpoint, run_record, timing_record, compiled_code,
    *(partial(image_cache, f"photos-*/{name}") for name in ("hr/00001.npy", "x2/00001.npy", "hr/images.json")),
    partial(archive, "a.zip", zip_of), partial(archive, "a.tar", partial(tar_of, mode="w")),
    partial(archive, "a.tgz", tar_of),
    partial(image_of_a_set, ".png"), partial(image_of_a_set, ".jpg"), photograph,
    shipped_network, authors_weights, backbone_weights, alexnet_weights,
]  # fmt: skip


def flipped(whole: bytes, draw: random.Random, start: int, count: int = 1) -> bytes:
    """With a bit flipped in each of `count` bytes."""
    changed = bytearray(whole)
    for place in range(start, start + count):
        changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a flipped bit": lambda whole, draw: flipped(whole, draw, draw.randrange(len(whole))),
    "changed bytes": lambda whole, draw: flipped(whole, draw, draw.randrange(len(whole) - 8), 8),
    "cut off": lambda whole, draw: whole[: draw.randrange(1, len(whole))],
    "empty": lambda whole, draw: b"",
    "another kind": lambda whole, draw: b"PK\x03\x04, or whatever else it is, it is not what its name says\n" * 9,
}

WITHOUT_MEANING = "in bytes that nothing reads"


def put(path: Path, content: bytes) -> None:
    """Replaces a file by another one: what is mapped into memory of the old one stays."""
    path.unlink()
    path.write_bytes(content)


def what_came_of(path: Path, use: Use, expected: Any) -> str:
    """Uses a damaged file; fails if it passes for a whole one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, refusal = None, ""
        try:
            found = use()
        except (ValueError, OSError, RuntimeError) as error:
            refusal = str(error)
    if refusal:
        assert path.name in refusal
        assert WAY_OUT.search(refusal), refusal
        return "told by name, with the way out"
    told = [str(warning.message) for warning in caught]
    told = [text for text in told if path.name in text or str(path.parent) in text]
    if not told:
        assert found == expected
        return WITHOUT_MEANING
    assert WAY_OUT.search(told[0]), told[0]
    if path.suffix == ".jpg":
        assert found != expected
        return "told by name, with the way out"
    assert found == expected
    return "made again, with a warning"


@pytest.mark.parametrize("make", MAKERS)
def test_a_damaged_file(make, tmp_path, monkeypatch, photo):
    path, use = make(Place(tmp_path, monkeypatch, photo))
    expected, whole = use(), path.read_bytes()
    draw = random.Random(path.name)
    for damage in DAMAGES.values():
        outcome = WITHOUT_MEANING
        while outcome == WITHOUT_MEANING:  # in the padding of an archive, for instance: the next place, then
            put(path, damage(whole, draw))
            outcome = what_came_of(path, use, expected)
        put(path, whole)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an image is another again
            assert use() == expected


def test_a_record_of_something_else(tmp_path, monkeypatch, photo):
    """Whole by its checksum, but of something else than its key says, or of another kind."""
    path, use = timing_record(Place(tmp_path, monkeypatch, photo))
    expected, record = use(), read_record(path)
    for other in ({**record, "cases": "another"}, {"key": record["key"]}):
        save_record(path.parent, path.stem, other)
        assert what_came_of(path, use, expected) == "made again, with a warning"


@pytest.mark.parametrize("known", [True, False])
def test_authors_weights_that_are_others_now(known, tmp_path, monkeypatch, photo):
    """Files of PyTorch's older format have no checksum: a changed one is not called the authors', and is told."""
    place = Place(tmp_path, monkeypatch, photo)
    images, folder = str(place.images()), place.weights()
    network = build("FSRCNN", 2, generator=generator())
    path = folder / "fsrcnn_x2.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    if known:
        monkeypatch.setitem(AUTHORS, weights_sha256(network), "FSRCNN x2")
    first = ensure_evaluations(weights_from_files(["FSRCNN"], (2,)), [images], "quick")["FSRCNN", 2, "photos"]
    content = bytearray(path.read_bytes())
    content[content.index(next(network.parameters()).detach().numpy().tobytes())] ^= 1
    path.write_bytes(content)
    weights = weights_from_files(["FSRCNN"], (2,))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", ".*makes a smooth image")  # it is not trained
        second = ensure_evaluations(weights, [images], "quick")["FSRCNN", 2, "photos"]
    assert [first["origin"], second["origin"]] == ["authors'" if known else "file fsrcnn_x2.pt", "file fsrcnn_x2.pt"]
    assert first["key"] != second["key"]
    told = [str(warning.message) for warning in caught]
    assert len(told) == known
    assert all(re.search("FSRCNN x2 from file fsrcnn_x2.pt is not the authors'.*get it again", text) for text in told)


@pytest.mark.parametrize("text", ["settings", "record", "weights_sha256", "sha256", "dilation_rates"])
def test_any_text_of_a_shipped_network_counts(text, tmp_path, monkeypatch, photo):
    """A changed dilation rate shows in no shape of the weights, and gives another network."""
    path, use = shipped_network(Place(tmp_path, monkeypatch, photo))
    place = path.read_bytes().index(text.encode()) + (text == "dilation_rates") * len('dilation_rates\\": [')
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"prffn_x2.safetensors (is damaged|does not say)"):
        use()
