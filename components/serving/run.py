"""Load a package and serve an application of it with uvicorn; what `make serve` and `make demo` share."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from components.champion.service import REPAIR, champion, state_folder
from components.models.package import PackageError
from components.serving.app import create_app
from components.serving.service import PhotoService, ServingLimits


def main(arguments: Sequence[str] | None = None, build: Callable[[PhotoService], FastAPI] = create_app) -> int:
    """Serve until interrupted; 1 when the package cannot be loaded, 2 for a limit out of range.

    Args:
        build: makes the application of a service.
    """
    options = _parser().parse_args(arguments)
    try:
        limits = ServingLimits.model_validate({name: getattr(options, name) for name in ServingLimits.model_fields})
    except ValidationError as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    from components.inference.enhancer import Enhancer  # takes seconds, which `--help` need not wait for
    from components.models.compute import ComputeSettings

    try:
        placement = ComputeSettings(device=options.device, dtype=options.dtype).place()
        with nullcontext(options.package) if options.package else champion(state_folder()) as package:
            enhancer = Enhancer.load(package, placement=placement)
    except PackageError as error:
        print(f"{error}{'' if options.package else REPAIR}", file=sys.stderr)
        return 1
    except RuntimeError as error:  # of NoChampion and of the device
        print(error, file=sys.stderr)
        return 1
    app = build(PhotoService(enhancer, limits))
    print(f"serving {package} on http://{options.host}:{options.port} (stop with Ctrl-C)", flush=True)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_keep_alive=30)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m components.serving", description=__doc__)
    parser.add_argument("--package", type=Path, help="directory of a package (default: the champion)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    for name, field in ServingLimits.model_fields.items():
        option, kind = f"--{name.replace('_', '-')}", type(field.default)
        parser.add_argument(option, type=kind, default=field.default, help=f"{field.description} Default: %(default)s")
    return parser
