"""Convert weights: GFPGAN's original form to the clean one and back, other StyleGAN2s' names to ours, .pth and .safetensors.

    python scripts/convert_checkpoint.py net_g.pth clean.pth --to clean              # GFPGANBilinear -> GFPGANv1Clean
    python scripts/convert_checkpoint.py GFPGANv1.4.pth original.pth --to original   # and back: GFPGANBilinear
    python scripts/convert_checkpoint.py stylegan2-ffhq-config-f.pt prior.pth        # rosinality's names, or NVIDIA's
    python scripts/convert_checkpoint.py net_g.pth net_g.safetensors

Clean weights draw the same pictures as the bilinear network that they are made of.  GFPGANv1 and StyleGAN2Generator have the
same keys, but resample by FIR filters: clean weights made of theirs are a start for a fine-tuning, not an equal.  NVIDIA's
.pkl files hold code, which is not run here: save the state dicts with NVIDIA's own program first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.archs.conversion import BILINEAR_OF, CLEAN_OF, LR_MLP, ONLY_EQUALIZED, to_bilinear, to_clean, with_our_names
from facerestore.checkpoint import (
    SUFFIXES,
    Checkpoint,
    State,
    network_of,
    read_checkpoint,
    refuse_no_numbers,
    save_checkpoint,
)
from facerestore.errors import CheckpointError, listed
from scripts.common import Parser, run

PLAIN, AVERAGED = ("params", "g", "G"), ("params_ema", "g_ema", "G_ema")  # what files call a network and its average
NVIDIAS = (b"torch_utils.persistence", b"dnnlib")  # modules that NVIDIA's pickles name


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("convert_checkpoint.py", description=__doc__.splitlines()[0])
    parser.add_argument("input", help="the file: .pth, .pt or .safetensors")
    parser.add_argument("output", type=Path, help="the file to write, .pth or .safetensors")
    parser.add_argument(
        "--to",
        choices=("same", "clean", "original"),
        default="same",
        help="form: clean or original, of StyleGAN2's generators and GFPGAN; same changes names and format alone (default)",
    )
    parser.add_argument("--key", help="which weights of the file, such as d (default: the generator's and its average)")
    given = parser.parse_args(argv)
    if given.output.suffix not in SUFFIXES:
        parser.error(f"output {given.output}: let its name end with {' or '.join(SUFFIXES)}")
    return given


def convert(given: argparse.Namespace) -> None:
    refuse_nvidias_pickle(given.input)
    file = read_checkpoint(given.input)
    converted = {name: one(file, state, given.to) for name, state in chosen(file, given.key).items()}
    kind, keywords, _ = next(iter(converted.values()))
    if unlike := [name for name, (*about, _) in converted.items() if about != [kind, keywords]]:
        raise CheckpointError(
            f"{file.path}: its weights are not those of one network ({unlike[0]} has other keywords): convert each with --key"
        )
    about = {key: value for key, value in file.meta.items() if key not in ("type", "keywords")}
    save_checkpoint(
        given.output, {k: state for k, (*_, state) in converted.items()}, about | {"type": kind, "keywords": keywords}
    )
    print(f"{given.output}: {kind}({', '.join(f'{k}={v!r}' for k, v in keywords.items())}), {' and '.join(converted)}")


def refuse_nvidias_pickle(path: str) -> None:
    if path.lower().endswith(".pkl") and Path(path).is_file():
        with open(path, "rb") as file:
            start = file.read(1 << 16)
        whose = "NVIDIA's pickle" if any(name in start for name in NVIDIAS) else "a pickle"
        raise CheckpointError(
            f"{path}: this is {whose}, which runs code when it is opened, so it is not: open it with the program that wrote it,"
            " torch.save({'G_ema': G_ema.state_dict(), 'D': D.state_dict()}, 'weights.pth') there, and convert weights.pth"
        )


def chosen(file: Checkpoint, key: str | None) -> dict[str, State]:
    """The weights to convert, under the names that they will have."""
    if key is not None:
        return {"params": file.state(key)}
    found = {
        name: file.states[k] for name, keys in (("params", PLAIN), ("params_ema", AVERAGED)) for k in keys if k in file.states
    }
    if not found and len(file.states) > 1:
        raise CheckpointError(f"{file.path}: holds {listed(sorted(file.states))}: say with --key which to convert")
    return found or {"params": file.state()}


def one(file: Checkpoint, state: State, form: str) -> tuple[str, dict[str, Any], State]:
    """Type and keywords of the network whose weights come out, and the weights."""
    refuse_no_numbers(state, str(file.path))
    state = with_our_names(state)
    kind, keywords = network_of(file, state)
    lr_mlp = keywords.get("lr_mlp", LR_MLP)
    if form == "clean":
        if kind not in CLEAN_OF:
            raise CheckpointError(f"{file.path}: {kind} has no clean form: only {listed(list(CLEAN_OF))} have")
        if "Bilinear" not in kind:
            print(
                f"{file.path}: these may be weights of FIR filters, which the clean form has not: it will draw other pictures "
                "(the same if they were trained as the bilinear network)",
                file=sys.stderr,
            )
        kept = {k: v for k, v in keywords.items() if k not in ONLY_EQUALIZED}
        return CLEAN_OF[kind], kept, to_clean(state, lr_mlp)
    if form == "original":
        if kind not in BILINEAR_OF:
            raise CheckpointError(f"{file.path}: {kind} is not the clean form of anything: {listed(list(BILINEAR_OF))} are")
        return BILINEAR_OF[kind], keywords, to_bilinear(state, kind, keywords, lr_mlp)
    return kind, keywords, state


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    return run("convert_checkpoint.py", lambda: convert(given))


if __name__ == "__main__":
    sys.exit(main())
