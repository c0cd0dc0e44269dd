"""The quick start of the command: what is put off comes when asked for, and the photos are those of a slow start."""

import importlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import nn

from components import quick_start
from components.quick_start import PutOff
from tests.conftest import make_photo

NOT_NEEDED = (
    "bitsandbytes.nn",
    "botocore",
    "diffusers.models.autoencoders.autoencoder_kl_wan",
    "diffusers.models.transformers.transformer_flux",
    "diffusers.models.unets.unet_2d_condition",
    "numba",
    "pandas",
    "peft",
    "requests.sessions",
    "scipy.integrate._ode",
    "scipy.optimize._optimize",
    "scipy.stats._stats_py",
    "sklearn",
    "torch._dynamo.convert_frame",
    "torch._inductor.compile_fx",
    "torchvision.models.resnet",
)
"""What an enhanced photo need not wait for: a module of each package, which a release of a library may rename."""
NEVER_THERE = ("numba", "pandas", "sklearn")
"""Those of them that a start without `quick_start` does not import either."""
COMMAND = """
import json, sys
from components import quick_start
from pipelines.__main__ import main

quick, *arguments = sys.argv[1:]
begun = quick_start.end

def end(status):
    put_off = {name for name, module in sys.modules.items() if type(module) is quick_start.PutOff}
    print(json.dumps([name for name in sys.modules if name not in put_off or name in quick_start._begun]))
    return begun(status)

quick_start.end = end
if quick == "quick":
    sys.argv = ["smartphotocrafter", *arguments]
    sys.exit(main())
sys.exit(end(main(arguments)))
"""


def run(root: Path, code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module", params=["plain", "rslora"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose adapters do something; those that are not plain ones are left to PEFT."""
    from components.models.package import Provenance, write_package
    from tests.tiny_models import write_adapters, write_base

    folder = tmp_path_factory.mktemp(request.param)
    base = write_base(folder / "base")
    adapters = write_adapters(base, folder / "adapters")
    for adapter in adapters:
        teach(adapter)
        config = adapter / "adapter_config.json"
        described = json.loads(config.read_text())
        config.write_text(json.dumps(described | {"use_rslora": request.param == "rslora"}))
    provenance = Provenance(data_revision="d" * 32, code_revision="c" * 40, pipeline_run="test")
    return write_package(folder / "package", base, *adapters, provenance, "# A model for tests").folder


def teach(adapter: Path) -> None:
    """Replace the zeros of a fresh adapter."""
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(0)
    tensors = load_file(adapter / "adapter_model.safetensors")
    for tensor in tensors.values():
        nn.init.normal_(tensor, std=0.3, generator=generator)
    save_file(tensors, adapter / "adapter_model.safetensors")


@pytest.mark.slow
def test_a_quick_start_gives_the_same_photo_and_imports_less(root: Path, package: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jpg"
    Image.fromarray((make_photo() * 255).byte().permute(1, 2, 0).numpy()).save(source, quality=95)
    loaded = {}
    for start in ("slow", "quick"):
        (tmp_path / start).mkdir()
        extras = [f"--{name}" for name in ("sidecar", "cube", "compare")]
        arguments = ["enhance", str(source), str(tmp_path / start / "out.jpg"), "--model", str(package), *extras]
        done = run(root, COMMAND, start, *arguments)
        assert done.returncode == 0, done.stderr
        loaded[start] = set(json.loads(done.stdout.splitlines()[-1]))
    slow, quick = ({path.name: path.read_bytes() for path in (tmp_path / start).iterdir()} for start in loaded)
    assert len(slow) == 5 and slow == quick
    assert set(NOT_NEEDED) - loaded["slow"] == set(NEVER_THERE), "is a library built differently now?"
    if "rslora" not in str(package):
        assert not loaded["quick"].intersection(NOT_NEEDED)


@pytest.mark.slow
def test_what_is_put_off_is_there_and_its_submodules_have_their_names_to_themselves(root: Path) -> None:
    code = """
import importlib, pkgutil, sys
from types import ModuleType
from components.quick_start import PARTED, PUT_OFF

for name in sorted(PUT_OFF):
    package = importlib.import_module(name)
    for found in pkgutil.iter_modules(package.__path__ if name in PARTED else ()):
        attribute = vars(package).get(found.name)
        if attribute is not None and not isinstance(attribute, ModuleType):
            print(f"{name}.{found.name}")
"""
    done = run(root, code)
    assert done.returncode == 0, done.stderr
    assert not done.stdout, "an initialiser gives one of its submodules' names to something else"


@pytest.mark.slow
def test_everything_that_was_put_off_can_be_had_later(root: Path) -> None:
    code = """
import sys
from components import quick_start

quick_start.own_process()
quick_start.begin()
from components.models.artist import Artist
from components.models.critic import Critic

assert type(sys.modules["torch._dynamo"]) is quick_start.PutOff and "torch._dynamo" not in quick_start._begun
import torch, transformers, diffusers, requests, scipy.optimize, scipy.stats, torchvision.models, peft, bitsandbytes

assert scipy.optimize.linear_sum_assignment([[1, 0], [0, 1]])[1].tolist() == [1, 0]
from scipy.optimize import linear_sum_assignment, minimize

assert linear_sum_assignment.__module__ != quick_start.__name__
assert abs(scipy.stats.norm.cdf(0) - 0.5) < 1e-12
assert transformers.__version__ and transformers.AutoModel and transformers.BertConfig().hidden_size
assert requests.Session().headers and requests.get and diffusers.UNet2DConditionModel
assert diffusers.FluxTransformer2DModel and diffusers.models.transformers.DiTTransformer2DModel
assert torchvision.models.resnet18 and peft.PeftModel and bitsandbytes.nn
assert torch._dynamo.disable.__module__ != quick_start.__name__
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(())) == 2
"""
    done = run(root, code)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a package `toy` that is put off; what its initialiser does is written into its file."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").write_text("from toy.shelf import BOOKS\nruns = globals().get('runs', 0) + 1\n")
    (tmp_path / "toy" / "shelf.py").write_text("BOOKS = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(quick_start, "PUT_OFF", frozenset({"toy"}))
    monkeypatch.setattr(sys, "meta_path", [quick_start._Finder(), *sys.meta_path])
    monkeypatch.setattr(quick_start, "_begun", set())
    monkeypatch.setattr(quick_start, "PARTED", frozenset({"toy"}))
    yield tmp_path / "toy"
    for name in [name for name in sys.modules if name.split(".")[0] == "toy"]:
        del sys.modules[name]


def test_submodules_need_no_initialiser(later: Path) -> None:
    (later / "__init__.py").write_text("raise AssertionError\n")
    shelf = importlib.import_module("toy.shelf")
    toy = sys.modules["toy"]
    assert shelf.BOOKS == 3 and type(toy) is PutOff and toy.shelf is sys.modules["toy.shelf"]
    assert importlib.util.find_spec("toy") is toy.__spec__ and toy.__file__ == str(later / "__init__.py")
    assert not hasattr(toy, "__wrapped__")


def test_the_first_attribute_runs_the_initialiser_once(later: Path) -> None:
    toy = importlib.import_module("toy")
    assert "runs" not in vars(toy)
    assert (toy.runs, toy.BOOKS, toy.runs) == (1, 3, 1)
    with pytest.raises(AttributeError, match="'toy' has no attribute 'pages'"):
        toy.pages  # noqa: B018
    assert toy.runs == 1


def test_a_placeholder_stands_until_the_initialiser_has_run(later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_start, "PLACEHOLDERS", {"toy": lambda: {"BOOKS": 0}})
    toy = importlib.import_module("toy")
    assert toy.BOOKS == 0 and not quick_start._begun
    assert toy.runs == 1 and toy.BOOKS == 3


def test_an_initialiser_that_fails_says_so_each_time(later: Path) -> None:
    (later / "__init__.py").write_text("raise OSError('no shelf')\n")
    toy = importlib.import_module("toy")
    for _ in range(2):
        with pytest.raises(OSError, match="no shelf"):
            toy.runs  # noqa: B018


def test_an_initialiser_may_put_another_object_in_the_place_of_its_module(later: Path) -> None:
    (later / "__init__.py").write_text(
        "import sys, types\n"
        "class Lazy(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        "        return name\n"
        "sys.modules['toy'] = Lazy('toy')\n"
    )
    toy = importlib.import_module("toy")
    assert (toy.runs, toy.pages) == ("runs", "pages")
    assert type(sys.modules["toy"]).__name__ == "Lazy"


def test_what_is_not_installed_is_not_found(later: Path) -> None:
    (later / "__init__.py").unlink()
    (later / "shelf.py").unlink()
    later.rmdir()
    with pytest.raises(ModuleNotFoundError, match="No module named 'toy'"):
        importlib.import_module("toy")


def test_the_reader_of_distributions_gets_what_it_asks_for(
    later: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (later / "shelf.py").write_text(
        "import importlib.metadata, importlib.util\n"
        "FOUND = importlib.metadata.packages_distributions()\n"
        "HIDDEN = importlib.util.find_spec('hideable')\n"
    )
    (tmp_path / "hideable.py").write_text("")
    monkeypatch.setattr(quick_start, "READER", "toy.shelf")
    monkeypatch.setattr(quick_start, "HIDDEN", ("hideable",))
    read, calls = importlib.metadata.packages_distributions, []
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: calls.append(1) or read())
    shelf = importlib.import_module("toy.shelf")
    assert not calls
    assert dict(shelf.FOUND) == read() and shelf.FOUND["pydantic"] == ["pydantic"] and "no such" not in shelf.FOUND
    assert len(calls) == 1 and len(shelf.FOUND) == len(read())
    assert shelf.HIDDEN is None
    assert isinstance(importlib.import_module("hideable"), ModuleType)
    del sys.modules["hideable"]


@pytest.mark.parametrize(
    ("then", "status", "said", "complaint"),
    [
        ("sys.exit(quick_start.end(3))", 3, "working\nclosed\n", ""),
        ("sys.exit(quick_start.end(0))", 0, "working\nclosed\n", ""),
        ("raise ValueError('no photo')", 1, "working\nclosed\n", "ValueError: no photo"),
    ],
)
def test_a_process_ends_with_its_status_once_all_have_had_their_turn(
    root: Path, then: str, status: int, said: str, complaint: str
) -> None:
    code = f"""
import atexit, sys
from components import quick_start

quick_start.own_process()
atexit.register(print, "closed")
print("working")
{then}
"""
    done = run(root, code)
    assert (done.returncode, done.stdout) == (status, said)
    assert complaint in done.stderr and bool(done.stderr) == bool(complaint)


def test_garbage_is_collected_again_when_the_models_are_loaded(root: Path) -> None:
    code = """
import gc
from components import quick_start

usual = gc.get_threshold()
quick_start.loaded()
assert not gc.get_freeze_count()
quick_start.begin()
assert gc.get_threshold() == usual, "not in a process that others share"
quick_start.own_process()
quick_start.begin()
assert gc.get_threshold()[0] > 100 * usual[0]
quick_start.loaded()
assert gc.get_threshold() == usual and gc.get_freeze_count()
"""
    done = run(root, code)
    assert done.returncode == 0, done.stderr
