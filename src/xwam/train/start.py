"""What a run begins with: the weights of an earlier one, and the account of them that its own export will keep."""

import json
from collections.abc import Callable
from pathlib import Path

from torch import nn

from xwam.data.layout import read_json, write_json
from xwam.model.autoencoders import SmallAutoencoder
from xwam.model.fingerprint import fingerprint_of_files
from xwam.train import checkpoint, parallel
from xwam.train.encoding import autoencoder_file
from xwam.train.pieces import read_into
from xwam.wam import CONFIG, WEIGHTS, described

STARTED = "started_from.json"


def begin(run: Path, start_from: str | None, fill: Callable[[Path], None]) -> None:
    """Lets `fill` give a fresh run the weights of `start_from`; a resumed run has its own in its checkpoint."""
    if start_from is None or checkpoint.latest(run) is not None:
        return
    place = Path(start_from)
    fill(place)
    if parallel.rank() == 0:
        write_json(run / STARTED, account_of(place))


def fill_model(model: nn.Module, folder: Path) -> None:
    """Copies the weights of an exported model, of any precision, into a WorldActionModel, sharded or not.

    The autoencoder stays as it is, and so does a text encoder that is not trained. Raises ValueError if the folder
    holds no exported model, or if weights are missing, superfluous or of another shape, and names the first of them.
    """
    described(folder)
    tensors = {name: x for name, x in model.state_dict().items() if not name.startswith("autoencoder.")}
    own_text = any(name.startswith("text_encoder.") for name in tensors)
    read_into(folder / WEIGHTS, tensors, beside=("autoencoder.",) if own_text else ("autoencoder.", "text_encoder."))


def fill_autoencoder(model: SmallAutoencoder, place: Path) -> None:
    """Copies an exported autoencoder, or that of an exported model, into `model`; raises as `fill_model` does."""
    path, prefix = autoencoder_file(place)
    tensors = {prefix + name: x for name, x in model.state_dict().items()}
    read_into(path, tensors, beside=("transformer.", "text_encoder.") if prefix else ())


def account_of(place: Path) -> dict:
    """What is to be remembered of weights: their folder's name, which they are, and where they came from themselves."""
    if (place / CONFIG).is_file() and (place / WEIGHTS).is_file():
        return _account(place.name, place / WEIGHTS, described(place)["provenance"])
    path, _ = autoencoder_file(place)
    earlier = path.with_name(STARTED)
    return _account(path.parent.name, path, {"started_from": read_json(earlier)} if earlier.is_file() else {})


def _account(name: str, path: Path, provenance: dict) -> dict:
    return {"folder": name, "fingerprint": fingerprint_of_files([path]), "provenance": provenance}


def with_earlier(run: Path, provenance: dict) -> dict:
    """A run's provenance with that of what it began with; what either was trained on is in `trained_on`."""
    if not (run / STARTED).is_file():
        return provenance
    began = read_json(run / STARTED)
    earlier = began["provenance"].pop("trained_on", [])
    episodes = [*map(list, earlier), *map(list, provenance["trained_on"])]
    once = {json.dumps(episode): episode for episode in episodes}
    return provenance | {"trained_on": list(once.values()), "started_from": began}
