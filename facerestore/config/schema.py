"""The engine's own sections of an option file: what each key means, its type, its range, its default.

Networks, data sets, losses, metrics and methods are not here: their constructors' signatures are their schema.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from facerestore.config.tree import Tree
from facerestore.errors import CheckpointError, DataError
from facerestore.registry import NEVER, Iteration, Parameter, Period, parameters_of

# Upper bounds lie far beyond what is used: they catch a slip of the hand.
Count = Annotated[int, Meta(ge=1, le=65_536)]
Share = Annotated[float, Meta(ge=0, le=1)]
Decay = Annotated[float, Meta(ge=0, lt=1)]
Rate = Annotated[float, Meta(ge=0, le=100)]
FilePath = Annotated[str, Meta(min_length=1, pattern="^[^\\x00]+$")]
OtherFolder = str | dict[str, str]  # checked with what they say (msgspec 0.22 crashes on FilePath | dict)
Component = dict[str, Any]  # {"type": ..., **keywords}, checked by its own signature


class Warned(str):
    """A note of which the log warns."""


def derived(default_factory: Callable[[], Any] = dict) -> Any:
    """A field that is filled from keys of the section that are not the engine's own, or from around it."""
    return field(default_factory=default_factory, metadata={"derived": True})


def net_of(key: str) -> str:
    """`network_g` of the options is `net_g` of a model."""
    return "net_" + key.removeprefix("network_")


def key_of(network: str) -> str:
    """`net_g` of a model is `network_g` of the options."""
    return "network_" + network.removeprefix("net_")


def own_fields(section: type) -> list[Parameter]:
    """The keys of a section that the engine itself reads."""
    others = {f.name for f in dataclasses.fields(section) if f.metadata.get("derived")}
    return [p for p in parameters_of(section) if p.name not in others]


@dataclass(frozen=True)
class DatasetOptions:
    """One entry of `datasets`.  All other keys are the data set's own.

    Args:
        type: the data set's class
        name: how logs and reports call it; its key by default
        batch_size_per_gpu: samples of a batch on each process
        num_worker_per_gpu: loader processes for each training process; 0 loads in the training process itself
        dataset_enlarge_ratio: how often every picture comes in an epoch
        use_shuffle: whether each epoch has an order of its own
        crops_per_image: how many successive samples are drawn from one picture
        others: results of other programs to measure beside the run's own: a name for each, and the folder that holds them
            (`results/GFPGAN`, or `results/GFPGAN/{}_out` where `_out` follows the pictures' names); or in its place
            `{folder: results/GFPGAN, missing: skip}`, which measures the pictures that it has where it lacks some
        protocol: name of a file of options/protocols/ whose pictures these are: refused where they are not, named in results
    """

    type: str
    name: str = ""
    batch_size_per_gpu: Count = 1
    num_worker_per_gpu: Annotated[int, Meta(ge=0, le=1024)] = 0
    dataset_enlarge_ratio: Annotated[int, Meta(ge=1, le=10**6)] = 1
    use_shuffle: bool = True
    crops_per_image: Count = 1
    others: dict[str, OtherFolder] | None = None
    protocol: str | None = None
    component: Component = derived()


@dataclass(frozen=True)
class NetworkOptions:
    """One `network_X` section.  All other keys are the network's own.

    Args:
        type: the network's class
        weights: file to start from, 'random', or another network of this file to start as a copy of (`network_g`)
        init_std: draw convolution and linear weights from N(0, init_std²), with zero biases, not as the network does
    """

    type: str
    weights: str | None = None
    init_std: Annotated[float, Meta(gt=0, le=10)] | None = None
    component: Component = derived()


@dataclass(frozen=True)
class OptimizerOptions:
    """One `optim_X` section.  All other keys are the optimizer's own (`weight_decay`, `eps`, `amsgrad`, ...).

    Args:
        type: a class of torch.optim, or any other optimizer as `package.module.Class`
        lr: learning rate
        betas: coefficients of Adam's running averages; the method's published ones by default
    """

    type: str
    lr: Rate
    betas: tuple[Decay, Decay] | None = None
    component: Component = derived()


@dataclass(frozen=True)
class TrainOptions:
    """`train`.  All other keys are the method's own (its losses, their weights, its periods).

    Args:
        total_iter: iterations in all
        warmup_iter: iterations over which the learning rate rises linearly to its value; -1 for none
        scheduler: how the learning rate falls; constant by default
        ema_decay: decay of the moving average of the generator's weights; 0 for none; the method's published one by default
        ema_half_life_kimg: in place of the decay, thousands of pictures after which a weight counts half in the average
        ema_start_iter: iterations up to which the average is the network itself
        randomize_noise: whether a StyleGAN2 decoder draws new noise in training
        clip_grad_norm: upper bound on the norm of each phase's gradient
        precision: arithmetic of the forward pass; fp16 scales each phase's loss, and skips what follows an overflow
        channels_last: whether pictures lie in memory channel by channel within each pixel
        skip_limit: how many iterations in a row may be skipped, as a loss or gradient is not finite, before the training goes
            back to its last checkpoint
        loss_limit: absolute value of a loss beyond which the training goes back to its last checkpoint; none by default
        rollback_limit: how often it goes back to the same checkpoint before it ends
        accumulate: equal slices in which each batch is worked through one after the other, with the memory of one
        compile: whether networks are compiled (torch.compile), except where a method differentiates them twice
    """

    total_iter: Annotated[int, Meta(ge=1, le=10**9)]
    warmup_iter: Annotated[int, Meta(ge=-1, le=NEVER, extra={"iterations": "after"})] = -1
    scheduler: Component | None = None
    ema_decay: Decay | None = None
    ema_half_life_kimg: Annotated[float, Meta(ge=1e-3, le=1e6)] | None = None
    ema_start_iter: Iteration = 0
    randomize_noise: bool = True
    clip_grad_norm: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    skip_limit: Count = 10
    loss_limit: Annotated[float, Meta(gt=0, le=1e30)] | None = None
    rollback_limit: Annotated[int, Meta(ge=0, le=1000)] = 3
    accumulate: Count = 1
    compile: bool = False
    optimizers: dict[str, OptimizerOptions] = derived()
    method: dict[str, Any] = derived()


@dataclass(frozen=True)
class MetricOptions:
    """One entry of `val.metrics`.  All other keys are the metric's own.

    Args:
        type: the metric's function
        better: which values the report calls the best; known for the metrics that are here
    """

    type: str
    better: Literal["higher", "lower"] | None = None
    component: Component = derived()


@dataclass(frozen=True)
class ValOptions:
    """`val`: what is measured, when, and what is kept.  All other keys are the method's own, as in `train`.

    Args:
        val_freq: iterations from one validation to the next; only after the last by default
        save_img: whether restored pictures are written
        suffix: ending of their file names in a test; the run's name by default
        baseline: what the restorations are compared with: the input, enlarged bicubically where it is smaller than the truth
        pbar: whether a progress bar is shown
        tile: side of the parts in which larger pictures are restored, in pixels of the input; all at once by default
        tile_overlap: by how many pixels of the input such parts overlap, their borders blended; 64 by default, or half of
            `tile` where that is less
        report: whether report.html is written
        report_pictures: how many pictures of each data set the report shows, from the first on
        report_worst: how many it shows beside them: the worst of each method by each metric
        keep_best: metrics by each of which the best weights are kept, as models/net_X_best_METRIC
    """

    val_freq: Period | None = None
    save_img: bool = True
    suffix: str | None = None
    baseline: Literal["none", "bicubic"] = "bicubic"
    pbar: bool = True
    tile: Annotated[int, Meta(ge=16, le=65_536, multiple_of=8)] | None = None
    tile_overlap: Annotated[int, Meta(ge=8, le=32_768, multiple_of=8)] | None = None
    report: bool = True
    report_pictures: Count = 24
    report_worst: Annotated[int, Meta(ge=0, le=65_536)] = 10
    keep_best: tuple[str, ...] = ()
    metrics: dict[str, MetricOptions] = derived()  # by a name of the user's choice
    method: dict[str, Any] = derived()


@dataclass(frozen=True)
class LoggerOptions:
    """`logger`.

    Args:
        print_freq: iterations from one line of the log to the next
        save_checkpoint_freq: iterations from one checkpoint to the next; only the last by default
        keep_checkpoints: how many checkpoints are kept; all by default
        checkpoint_format: of the networks' files: torch's own, or safetensors, which any program reads
        use_tb_logger: whether TensorBoard's files are written
        wandb: `project` of Weights & Biases to which curves go, none by default; `resume_id` names a run of it to go on with
    """

    print_freq: Period = 100
    save_checkpoint_freq: Period | None = None
    keep_checkpoints: Count | None = None
    checkpoint_format: Literal["pth", "safetensors"] = "pth"
    use_tb_logger: bool = True
    wandb: dict[Literal["project", "resume_id"], str | None] | None = None


@dataclass(frozen=True)
class DistOptions:
    """`dist_params`.

    Args:
        backend: how processes talk; nccl on CUDA and gloo on the CPU by default
    """

    backend: Literal["nccl", "gloo"] | None = None


def path_keys(network: str) -> dict[str, tuple[str, Parameter]]:
    """The keys of `path` for one network: `pretrain_network_g` and so on, each with the field that gathers its kind."""
    kinds = (
        ("pretrain_network_", "pretrain", FilePath | None, "file of weights to start from"),
        ("param_key_", "param_key", str | None, "which weights of that file: params or params_ema"),
        ("strict_load_", "strict_load", bool | None, "whether the file must hold just the network's weights; true by default"),
    )
    short = network.removeprefix("network_")
    return {prefix + short: (kind, Parameter(prefix + short, hint, None, doc)) for prefix, kind, hint, doc in kinds}


@dataclass(frozen=True)
class PathOptions:
    """`path`.  For each network X: `pretrain_network_X`, `param_key_X` (params or params_ema), `strict_load_X`.

    Args:
        experiments_root: the folder under which the run's own folder is made
        results_root: the folder under which test results are written
        resume_state: a training state to go on from
        ignore_resume_networks: networks that are not read from the checkpoint on resume
    """

    experiments_root: FilePath = "experiments"
    results_root: FilePath = "results"
    resume_state: FilePath | None = None
    ignore_resume_networks: tuple[str, ...] = ()
    pretrain: dict[str, str] = derived()  # network_X -> file
    param_key: dict[str, str] = derived()
    strict_load: dict[str, bool] = derived()


@dataclass(frozen=True)
class Options:
    """A whole option file, checked.

    Args:
        name: the run's name: its results lie in experiments/NAME
        model_type: the method's class
        scale: how many times larger the output is than the input; data sets take it from here
        num_gpu: 0 for the CPU; otherwise a GPU for each process where there is one (torchrun says how many processes)
        manual_seed: what every random draw comes from
        legacy: whether published behaviour that is wrong is brought back
    """

    name: str
    model_type: str
    scale: Annotated[int, Meta(ge=1, le=64)] | None = None
    num_gpu: Annotated[int, Meta(ge=0, le=65_536)] | Literal["auto"] = "auto"
    manual_seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    legacy: bool = False
    datasets: dict[str, DatasetOptions] = derived()
    networks: dict[str, NetworkOptions] = derived()
    path: PathOptions = derived(PathOptions)
    train: TrainOptions | None = derived(lambda: None)
    val: ValOptions = derived(ValOptions)
    logger: LoggerOptions = derived(LoggerOptions)
    dist_params: DistOptions = derived(DistOptions)
    notes: tuple[str, ...] = derived(tuple)  # what a reader of the log should know about these options
    training_notes: tuple[str, ...] = derived(tuple)  # those among them that mean nothing to a test
    source: str | None = derived(lambda: None)  # the file, where it was one
    raw: dict[str, Any] = derived()  # the tree as it was read, base files and overrides in it
    tree: Tree = derived(lambda: Tree({}))  # the same, with the places of its keys

    @contextmanager
    def naming(self, *path: str | int) -> Iterator[None]:
        """What is wrong with a file of weights or with data inside is told with the option at `path`, and where it stands."""
        try:
            yield
        except CheckpointError as error:
            raise CheckpointError(self.tree.sentence(error.message, path + error.path)) from None
        except DataError as error:
            raise type(error)(self.tree.sentence(str(error), path)) from None

    def to_test(self) -> Options:
        """Of a training's file, what testing needs: no losses, no optimizers, and nothing is said of them."""
        notes = tuple(note for note in self.notes if note not in self.training_notes)
        return dataclasses.replace(self, train=None, notes=notes, training_notes=())

    @property
    def inherited(self) -> dict[str, Any]:
        """What networks, losses and methods take from elsewhere in the file where their signatures have a place for it."""
        return {"legacy": self.legacy} | ({"randomize_noise": self.train.randomize_noise} if self.train else {})

    @property
    def method(self) -> dict[str, Any]:
        """The method's own keywords, of `train` and of `val`."""
        return (self.train.method if self.train else {}) | self.val.method

    @property
    def inherited_by_data(self) -> dict[str, Any]:
        """What data sets take from the top of the file."""
        return {"legacy": self.legacy} | ({"scale": self.scale} if self.scale is not None else {})
