"""Whether weights that one training takes from another will fit, told by the options of both before either runs."""

from __future__ import annotations

import re

from torch import nn

from facerestore.checkpoint import Checkpoint, declared_state, refuse_other_weights
from facerestore.config import Options
from facerestore.config.schema import key_of
from facerestore.errors import CheckpointError, OptionError
from facerestore.registry import ARCHS, weight_files


def refuse_misfit(option: str, options: Options, source: str, made_by: Options) -> None:
    """OptionError where weights go into a network that they do not fit.

    Args:
        option: what names their file: `path.pretrain_network_X`, `network_X.weights`, or a keyword of network_X; what others
            do with a file is not known here
        options: in which it stands
        source: STAGE.net_X, whose weights they are
        made_by: the options of that stage
    """
    section, *keys = re.split("[.:]", option)
    keyword = ".".join(keys)
    key = keyword.removeprefix("pretrain_") if section == "path" else section
    if key not in options.networks:
        return
    network, maker = _unallocated(key, options), _unallocated(key_of(source.split(".")[1]), made_by)
    file = Checkpoint(source, {"params": maker.state_dict()})
    try:
        if declared := weight_files(type(network)).get(keyword):
            declared_state(network, keyword, declared, file)
        elif section == "path" or keyword == "weights":
            strict = section != "path" or options.path.strict_load.get(key, True)
            refuse_other_weights(network, file.state(), file.path, strict)
    except CheckpointError as error:
        raise OptionError(error.message) from None


def _unallocated(key: str, options: Options) -> nn.Module:
    return ARCHS.build_unallocated(options.networks[key].component, options.inherited)
