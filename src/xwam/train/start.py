"""What a run begins with: the weights of an earlier one, and the account of them that its own export will keep."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from safetensors import safe_open
from torch import Tensor, nn

from xwam.core.files import read_json, write_json
from xwam.model.autoencoders import SmallAutoencoder
from xwam.model.config import TransformerConfig
from xwam.model.fingerprint import fingerprint, fingerprint_of_files
from xwam.model.growing import VIEWS, parts_to_grow, views_for
from xwam.model.text import SmallTextEncoder
from xwam.model.weights import wan_trunk
from xwam.saved import CONFIG, WEIGHTS, described, references_of
from xwam.train import checkpoint, parallel
from xwam.train.encoding import autoencoder_file, load_autoencoder
from xwam.train.pieces import names_in, put, read_files_into, read_into

STARTED = "started_from.json"
NETWORK = "transformer."


def begin(run: Path, start_from: str | None, fill: Callable[[Path], None], frozen: bool = False) -> None:
    """Lets `fill` give a fresh run the weights of `start_from`; a resumed run has its own in its checkpoint.

    If they stay `frozen`, checkpoints do without them: a resumed run is given them again, and raises ValueError if
    they are others now.
    """
    resumed = checkpoint.latest(run) is not None
    if start_from is None or (resumed and not frozen):
        return
    place = Path(start_from)
    fill(place)
    if parallel.rank() != 0:
        return
    account = account_of(place)
    if resumed and account["fingerprint"] != read_json(run / STARTED)["fingerprint"]:
        raise ValueError(f"the weights in {place} are not those that {run} began with: put them back")
    write_json(run / STARTED, account)


def check_base(base: Path, network: TransformerConfig, autoencoder: nn.Module) -> None:
    """Raises unless an adapter can be trained on what is in `base`: a whole model of this network and autoencoder."""
    found, asked = _network_of(base).model_dump(mode="json"), network.model_dump(mode="json")
    if changed := [name for name in asked if asked[name] != found[name]]:
        its = f"model.transformer.{changed[0]}={found[changed[0]]}"
        raise ValueError(f"{base} is no base of this run, it has {its}: set it so, or train it as a whole first")
    inside = isinstance(autoencoder, SmallAutoencoder)
    known = references_of(base).get("autoencoder")
    expected = fingerprint(load_autoencoder(base, autoencoder.config)) if inside else known and known.fingerprint
    if expected not in (None, fingerprint(autoencoder)):
        raise ValueError(f"{base} was trained with another autoencoder than this run: give `autoencoder` its own")


class Prior(NamedTuple):
    """Weights on disk, and what a WorldActionModel calls a tensor that has this name there."""

    files: list[Path]
    own_name: Callable[[str], str]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Of an exported model, or of Wan2.2's transformer in Wan's own layout or in diffusers'."""
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            if "base" in references_of(folder):
                raise ValueError(f"{folder} is an adapter: merge it first, by `xwam export-weights RUN OUT --merge`")
            return cls([folder / WEIGHTS], lambda name: name)
        files, names = wan_trunk(folder)
        return cls(files, lambda name: NETWORK + next(iter(names.to_here({name: None}))))

    def places(self) -> dict[str, tuple[Path, str]]:
        """File and name there of each tensor."""
        return {self.own_name(name): (path, name) for path in self.files for name in names_in(path)}


def fill_model(model: nn.Module, folder: Path) -> None:
    """Copies weights of any precision into a WorldActionModel, sharded or not: an exported model's, or Wan2.2's.

    The autoencoder stays as it is, and so does a text encoder that is not trained. What a prior lacks begins as
    `xwam.model.growing` says. Raises ValueError if the folder holds no weights, or if some are missing, superfluous or
    of another shape, and names the first of them.
    """
    prior, network = Prior.of(folder), model.transformer
    if (folder / CONFIG).is_file() and _network_of(folder).heads != network.config.heads:  # shapes do not tell
        heads = f"{_network_of(folder).heads} heads, this model {network.config.heads}"
        raise ValueError(f"the model in {folder} has {heads}: set model.transformer.heads to the former")
    places = prior.places()
    grown = parts_to_grow(network, [name.removeprefix(NETWORK) for name in places if name.startswith(NETWORK)])
    learns_text = isinstance(model.text_encoder, SmallTextEncoder)
    own_text = learns_text and any(name.startswith("text_encoder.") for name in places)
    apart = ("autoencoder.", NETWORK + VIEWS, *(() if own_text else ("text_encoder.",)))
    new = (*apart, *(NETWORK + part for part in grown))
    tensors = {name: x for name, x in model.state_dict().items() if not name.startswith(new)}

    def own_name(name: str) -> str | None:
        own = prior.own_name(name)
        return None if own.startswith(apart) else own

    read_files_into(prior.files, tensors, own_name)
    views = _tensor(*places[NETWORK + VIEWS]) if NETWORK + VIEWS in places else None
    put(views_for(network, views), network.view_embedding.weight)
    if "depth_" in grown:
        network.copy_trunk_to_depth()


def fill_autoencoder(model: SmallAutoencoder, place: Path) -> None:
    """Copies an exported autoencoder, or that of an exported model, into `model`; raises as `fill_model` does."""
    path, prefix = autoencoder_file(place)
    tensors = {prefix + name: x for name, x in model.state_dict().items()}
    read_into(path, tensors, beside=(NETWORK, "text_encoder.") if prefix else ())


def account_of(place: Path) -> dict:
    """What is to be remembered of weights: their folder's name, which they are, and where they came from themselves."""
    if (place / CONFIG).is_file() and (place / WEIGHTS).is_file():
        return _account(place.name, [place / WEIGHTS], described(place)["provenance"])
    if place.is_dir() and list(place.rglob("diffusion_pytorch_model*.safetensors")):
        return _account(place.name, Prior.of(place).files, {})
    path, _ = autoencoder_file(place)
    earlier = path.with_name(STARTED)
    return _account(path.parent.name, [path], {"started_from": read_json(earlier)} if earlier.is_file() else {})


def with_earlier(run: Path, provenance: dict) -> dict:
    """A run's provenance with that of what it began with; what either was trained on is in `trained_on`."""
    if not (run / STARTED).is_file():
        return provenance
    began = read_json(run / STARTED)
    earlier = began["provenance"].pop("trained_on", [])
    episodes = [*map(list, earlier), *map(list, provenance["trained_on"])]
    once = {json.dumps(episode): episode for episode in episodes}
    return provenance | {"trained_on": list(once.values()), "started_from": began}


def _network_of(folder: Path) -> TransformerConfig:
    return TransformerConfig.parse(described(folder)["model"]["transformer"])


def _account(name: str, files: list[Path], provenance: dict) -> dict:
    return {"folder": name, "fingerprint": fingerprint_of_files(files), "provenance": provenance}


def _tensor(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)
