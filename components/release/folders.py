"""Whole folders: a trained Critic and Artist as the authors' release lays them out, and theirs as this project does.

ours:     base/critic, base/artist (as data/base), critic, artist (adapters)
theirs:   see components.release.layout
"""

import json
import logging
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from components import files
from components.inference.enhancer import SETTINGS_FILE, EnhancerSettings
from components.models.artist import DESCRIPTION_FILE
from components.models.critic import END_TOKEN, PROMPT_FILE
from components.models.package import Provenance, seal_package
from components.models.published import PUBLISHED, Configurations, build_vae, read_configurations
from components.models.weights import WEIGHTS_FILE, load_weights
from components.release.adapters import (
    build_shapes,
    export_artist_adapter,
    export_critic_adapter,
    import_artist_adapter,
    import_critic_adapter,
)
from components.release.layout import (
    ARTIST_ADAPTER,
    CRITIC_ADAPTER,
    CRITIC_FOLDER,
    RECOGNISED_TRANSFORMER,
    TRANSFORMER_FILE,
    VAE_FILE,
    ReleaseError,
    fingerprint,
    require_same,
    stored_shapes,
    weight_files,
)

log = logging.getLogger(__name__)
_DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
_PARTS = 4
AS_RELEASED = EnhancerSettings(critic_short_side=512, max_new_tokens=1280, steps=20, draws=1)
"""How this project enhances photos with models of the release's size; as the release does: `picture`."""
_CARD = "# Imported\n\nModels in the layout of the authors' release, under their licence. Not evaluated here.\n"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def export_release(
    out: Path,
    base: Path,
    critic_adapter: Path | None,
    artist_adapter: Path | None,
    adapters_only: bool = False,
    diffusers: bool = False,
) -> list[Path]:
    """Write adapters and, unless told otherwise, base models as the release has them.

    Weights that a stage trained in full (`components.models.weights`) replace those of the base models.

    Args:
        out: a new or empty folder.
        base: base models as data/base has them; with `adapters_only` their configurations suffice.
        diffusers: write the Artist's adapter for diffusers' own loader, too.

    Returns:
        the files and folders that were written.

    Raises:
        ReleaseError: there is nothing to write, or an adapter belongs to weights that would not be written, or
            something is not of this model; `out` may then be incomplete.
        FileExistsError: `out` has content.
    """
    _require_empty(out)
    if adapters_only:
        _require_adapters(critic_adapter, artist_adapter)
    configurations = read_configurations(base)
    written = []
    if artist_adapter is not None:
        export_artist_adapter(artist_adapter, out / ARTIST_ADAPTER, configurations, diffusers)
        written.append(out / ARTIST_ADAPTER)
    if critic_adapter is not None:
        export_critic_adapter(critic_adapter, out / CRITIC_ADAPTER, configurations)
        written.append(out / CRITIC_ADAPTER)
    if adapters_only:
        return written
    _join(weight_files(base / "artist" / "transformer"), out / TRANSFORMER_FILE, _whole_weights(artist_adapter))
    if (found := fingerprint(stored_shapes([out / TRANSFORMER_FILE]))) != RECOGNISED_TRANSFORMER:
        log.warning(
            "%s has the fingerprint %s: the release's loader recognises %s only, the full-size transformer",
            out / TRANSFORMER_FILE,
            found,
            RECOGNISED_TRANSFORMER,
        )
    (out / VAE_FILE).parent.mkdir(parents=True)
    _join(weight_files(base / "artist" / "vae"), out / VAE_FILE)
    _copy_critic(base / "critic", out / CRITIC_FOLDER)
    _replace_critic(out / CRITIC_FOLDER, critic_adapter)
    _add_files_of_transformers_4(out / CRITIC_FOLDER)
    return [*written, out / TRANSFORMER_FILE, out / VAE_FILE, out / CRITIC_FOLDER]


def import_release(
    source: Path, out: Path, models: Path = PUBLISHED, vae: Path | None = None, prompt: Path | None = None
) -> list[Path]:
    """Turn what is there of a release folder into base models and adapters that `Critic.load` and `Artist.load` take.

    Args:
        out: a new or empty folder.
        models: configurations of the models; by default the published ones.
        vae: weights of the autoencoder, if they are not in `source`.
        prompt: file with the text that the release's Critic was trained with.

    Returns:
        the folders that were written; `out` itself, last, where all parts are there, so that it is a package.

    Raises:
        ReleaseError: nothing of a release is there, or a prompt without a Critic, or something is not of these models.
        FileExistsError: `out` has content.
    """
    _require_empty(out)
    configurations, written = read_configurations(models), []
    vae = vae or source / VAE_FILE
    if (source / TRANSFORMER_FILE).is_file() or vae.is_file():
        _import_artist(source / TRANSFORMER_FILE, vae, out / "base" / "artist", configurations)
        written.append(out / "base" / "artist")
    if (source / CRITIC_FOLDER).is_dir():
        _copy_critic(source / CRITIC_FOLDER, out / "base" / "critic")
        written.append(out / "base" / "critic")
    for name, target, convert in (
        (ARTIST_ADAPTER, "artist", import_artist_adapter),
        (CRITIC_ADAPTER, "critic", import_critic_adapter),
    ):
        if (source / name).is_dir():
            convert(source / name, out / target, configurations)
            written.append(out / target)
    if not written:
        raise ReleaseError(
            f"{source}: expected some of {TRANSFORMER_FILE}, {CRITIC_FOLDER}/, {ARTIST_ADAPTER}/, {CRITIC_ADAPTER}/ "
            f"and {VAE_FILE}; found none of them"
        )
    _add_prompt(prompt, out / "base" / "critic")
    if len(written) == _PARTS:
        files.write_text(out / SETTINGS_FILE, AS_RELEASED.model_dump_json(indent=2) + "\n")
        origin = Provenance(data_revision="unknown", code_revision="unknown", pipeline_run="imported")
        seal_package(out, origin, _CARD)
        written.append(out)
    return written


def _add_prompt(prompt: Path | None, critic: Path) -> None:
    if prompt is None and critic.is_dir():
        log.warning("the Critic will be asked as this project asks: name the text of infer.py with --prompt")
    elif prompt is not None and not critic.is_dir():
        raise ReleaseError(f"{prompt}: a prompt goes with the Critic, and {CRITIC_FOLDER}/ is not there")
    elif prompt is not None:
        files.write_text(critic / PROMPT_FILE, prompt.read_text(encoding="utf-8"))


def _import_artist(transformer: Path, vae: Path, out: Path, configurations: Configurations) -> None:
    for path in (transformer, vae):
        if not path.is_file():
            raise ReleaseError(f"{path}: not there; the Artist needs its transformer and its autoencoder")
    with torch.device("meta"):
        autoencoder = {name: tuple(tensor.shape) for name, tensor in build_vae(configurations).state_dict().items()}
    require_same(stored_shapes([transformer]), build_shapes("artist", configurations), str(transformer))
    require_same(stored_shapes([vae]), autoencoder, str(vae))
    for name, weights, config in (
        ("transformer", transformer, {"_class_name": "QwenImageTransformer2DModel", **configurations.transformer}),
        ("vae", vae, {"_class_name": "AutoencoderKLQwenImage", **configurations.vae}),
    ):
        (out / name).mkdir(parents=True)
        shutil.copyfile(weights, out / name / _DIFFUSERS_WEIGHTS)
        files.write_text(out / name / "config.json", json.dumps(config, indent=2) + "\n")
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", **configurations.scheduler}
    files.write_text(out / "scheduler" / "scheduler_config.json", json.dumps(scheduler, indent=2) + "\n")
    files.write_text(out / DESCRIPTION_FILE, json.dumps({"area": configurations.area}) + "\n")


def _copy_critic(source: Path, out: Path) -> None:
    weight_files(source)
    if pickles := [path.name for path in source.iterdir() if path.suffix in _PICKLES]:
        raise ReleaseError(f"{source}: {', '.join(pickles)} would have to be unpickled; remove them or convert them")
    shutil.copytree(source, out)


def _require_adapters(*adapters: Path | None) -> None:
    given = [adapter for adapter in adapters if adapter is not None]
    if not given:
        raise ReleaseError("adapters alone were asked for and none was given: name the Critic's, the Artist's or both")
    for adapter in given:
        if _whole_weights(adapter):
            raise ReleaseError(
                f"{adapter}: this adapter belongs to the weights beside it, {WEIGHTS_FILE}, and does something else on "
                "the base model; export the base models with it"
            )


def _whole_weights(adapter: Path | None) -> Path | None:
    """The file of weights that a stage trained in full, if there is one beside its adapter."""
    file = adapter and adapter / WEIGHTS_FILE
    return file if file and file.exists() else None


def _replace_critic(folder: Path, adapter: Path | None) -> None:
    """Put weights that were trained in full into a Critic's folder."""
    if not _whole_weights(adapter):
        return
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype="auto")
    load_weights(model, adapter)
    for path in weight_files(folder):
        path.unlink()
    model.save_pretrained(folder)


def _add_files_of_transformers_4(folder: Path) -> None:
    """Beside what transformers 5 writes, what the release's transformers 4.57 reads: it knows neither
    `rope_parameters` nor `processor_config.json`, takes `extra_special_tokens` for a mapping, and its Qwen2Tokenizer
    wants `vocab.json` and `merges.txt`. The release's script ends a completion at the tokenizer's end token, and it
    would penalise the repeated words of the Critic's grammar by what `generation_config.json` says."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    if (rope := text.get("rope_parameters")) and "rope_theta" not in text:
        text["rope_theta"] = rope["rope_theta"]
        text["rope_scaling"] = {"type": "default", "rope_type": "default", "mrope_section": rope["mrope_section"]}
        config["torch_dtype"] = config.get("dtype", "float32")
        files.write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    processor = folder / "processor_config.json"
    if processor.is_file() and not (folder / "preprocessor_config.json").exists():
        images = json.loads(processor.read_text(encoding="utf-8"))["image_processor"]
        if size := images.get("size"):
            images |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        files.write_text(folder / "preprocessor_config.json", json.dumps(images, indent=2) + "\n")
    described = folder / "tokenizer_config.json"
    if described.is_file():
        tokens = json.loads(described.read_text(encoding="utf-8"))
        if isinstance(tokens.get("extra_special_tokens"), list):
            tokens["additional_special_tokens"] = tokens.pop("extra_special_tokens")
        files.write_text(described, json.dumps(tokens | {"eos_token": END_TOKEN}, indent=2, ensure_ascii=False) + "\n")
    generation = folder / "generation_config.json"
    decoding = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
    files.write_text(generation, json.dumps(decoding | {"repetition_penalty": 1.0}, indent=2) + "\n")
    tokenizer = folder / "tokenizer.json"
    if tokenizer.is_file() and not (folder / "vocab.json").exists():
        model = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        files.write_text(folder / "vocab.json", json.dumps(model["vocab"], ensure_ascii=False))
        files.write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")


def _join(parts: list[Path], out: Path, replacing: Path | None = None) -> None:
    """Copy a model's one file; or join its shards and put other weights in (all of it is then in memory at once)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(out) as temporary:
        if len(parts) == 1 and replacing is None:
            shutil.copyfile(parts[0], temporary)
            return
        tensors = {name: tensor for part in parts for name, tensor in load_file(part).items()}
        for name, tensor in load_file(replacing).items() if replacing else ():
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise ReleaseError(f"{replacing}: {name} {tuple(tensor.shape)} is no weight of {parts[0].parent}")
            tensors[name] = tensor.to(tensors[name].dtype)
        save_file(tensors, temporary, metadata={"format": "pt"})


def _require_empty(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} has content; name a new folder")
