"""Kernels against the published figures, and what is true of every kernel."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from facerestore.data.degradations.kernels import (
    Kernel,
    KernelNoise,
    KernelType,
    check_kernel_choice,
    make_kernel,
    sample_kernel,
    sample_motion,
    sample_sinc,
    vary_kernel,
)
from facerestore.errors import OptionError
from tests import parity
from tests.data.degradations.distribution import check_distribution

FIXED, FIXED_ARRAYS = parity.load("data_kernels")
RANDOM, RANDOM_ARRAYS = parity.load("data_random_kernels")
CODEFORMER, CODEFORMER_ARRAYS = parity.load("data_codeformer_kernels")
FORMS = {"bivariate_Gaussian": "", "bivariate_generalized_Gaussian": "generalized_", "bivariate_plateau": "plateau_"}
DRAWS = 400


def fixed(call: dict) -> Kernel:
    """A case's call as parameters."""
    size = call["kernel_size"]
    if call["function"] == "circular_lowpass_kernel":
        return Kernel("sinc", size, cutoff=call["cutoff"], pad_to=call["pad_to"])
    shape = {"sigma_x": call["sig_x"], "sigma_y": call["sig_y"], "rotation": call["theta"], "beta": call.get("beta", 1.0)}
    if call["function"] in FORMS:
        return Kernel(FORMS[call["function"]] + ("iso" if call["isotropic"] else "aniso"), size, **shape)
    if call["function"].startswith("skew"):
        skew = tuple(np.ravel(call["D"]).tolist())
        return Kernel("skew", size, **shape, skew=skew, centred=call["function"] == "skew_center")
    return Kernel({"generalized": "generalized", "plateau": "plateau_aniso"}[call["function"]], size, **shape)


def published(state: np.random.RandomState, name: str, options: dict, codeformer: bool) -> Kernel:
    """The parameters that the published code draws from numpy's generator."""
    kernel = Kernel(name, options["kernel_size"], sigma_x=state.uniform(*options["sigma_x_range"]))
    if name not in ("iso", "generalized_iso", "plateau_iso"):
        sigma_y = state.uniform(*options["sigma_y_range"])
        kernel = kernel._replace(sigma_y=sigma_y, rotation=state.uniform(*options["rotation_range"]))
    if name == "skew":
        limit = 3 / max(kernel.sigma_x, kernel.sigma_y)
        kernel = kernel._replace(skew=tuple(state.uniform(-limit, limit, 4).tolist()))
    if name.startswith(("generalized", "plateau")):
        family = "betap_range" if name.startswith("plateau") else "betag_range"
        low, high = options["beta_range" if codeformer else family]
        if not (codeformer and name == "plateau_iso"):
            low, high = (low, 1) if state.uniform() < 0.5 else (1, high)
        kernel = kernel._replace(beta=state.uniform(low, high))
    return kernel


@pytest.mark.parametrize("call", FIXED["config"]["calls"], ids=lambda call: call["name"])
def test_fixed(call):
    key = f"kernel.{call['name']}"
    assert parity.relative_error(make_kernel(fixed(call)), FIXED_ARRAYS[key]) <= FIXED["tolerance"][key]


@pytest.mark.parametrize("call", CODEFORMER["config"]["calls"], ids=lambda call: call["name"])
def test_fixed_of_codeformer(call):
    key = f"kernel.{call['name']}"
    assert parity.relative_error(make_kernel(fixed(call)), CODEFORMER_ARRAYS[key]) <= CODEFORMER["tolerance"][key]


@pytest.mark.parametrize("call", RANDOM["config"]["calls"], ids=lambda call: call["type"])
def test_same_draws(call):
    kernel = published(np.random.RandomState(call["seed"]), call["type"], call["options"], codeformer=False)
    key = f"kernel.{call['type']}"
    assert parity.relative_error(make_kernel(kernel), RANDOM_ARRAYS[key]) <= RANDOM["tolerance"][key]


@pytest.mark.parametrize("seed", CODEFORMER["config"]["seeds"])
@pytest.mark.parametrize("name", CODEFORMER["config"]["types"])
def test_same_draws_of_codeformer(name, seed):
    kernel = published(np.random.RandomState(seed), name, CODEFORMER["config"]["options"], codeformer=True)
    key = f"random.{name}.{seed}"
    assert parity.relative_error(make_kernel(kernel), CODEFORMER_ARRAYS[key]) <= CODEFORMER["tolerance"][key]


@pytest.mark.parametrize("name", CODEFORMER["config"]["types"])
def test_noise_comes_once(name):
    seed, (low, high) = CODEFORMER["config"]["seeds"][0], CODEFORMER["config"]["noise_range"]
    state = np.random.RandomState(seed)
    plain = make_kernel(published(state, name, CODEFORMER["config"]["options"], codeformer=True))
    key = f"noise_once.{name}.{seed}"
    once = vary_kernel(plain, state.uniform(low, high, plain.shape))
    assert parity.relative_error(once, CODEFORMER_ARRAYS[key]) <= CODEFORMER["tolerance"][key]
    twice = vary_kernel(once, state.uniform(low, high, plain.shape))  # the published fault, to know what is avoided
    assert parity.relative_error(twice, CODEFORMER_ARRAYS[f"random.{name}.{seed}.noise"]) <= 1e-6


def figures(values: np.ndarray) -> tuple[float, float, float]:
    """Peak, and the square roots of the larger and the smaller eigenvalue of the second moments about the middle."""
    middle = (len(values) - 1) / 2
    y, x = np.mgrid[: len(values), : len(values)] - middle
    moments = [[(values * x * x).sum(), (values * x * y).sum()], [(values * x * y).sum(), (values * y * y).sum()]]
    minor, major = np.sqrt(np.linalg.eigvalsh(moments).clip(0))
    return values.max(), major, minor


def check_draws(name: str, arrays: dict, draws: int, **keywords) -> None:
    rng = np.random.default_rng(list(name.encode()))
    kernels = [make_kernel(sample_kernel(rng, [name], [1.0], **keywords)) for _ in range(DRAWS)]
    columns = zip(*map(figures, kernels), strict=True)
    for figure, values in zip(("peak", "sigma_major", "sigma_minor"), columns, strict=True):
        check_distribution(values, arrays, f"{name}.{figure}", draws)


@pytest.mark.parametrize("name", RANDOM["config"]["statistics"]["types"])
def test_draws_have_the_published_distribution(name):
    options = {**RANDOM["config"]["statistics"]["options"]}
    check_draws(name, RANDOM_ARRAYS, RANDOM["config"]["statistics"]["draws"], size=options.pop("kernel_size"), **options)


@pytest.mark.parametrize("name", CODEFORMER["config"]["types"])
def test_draws_have_the_published_distribution_of_codeformer(name):
    options = {**CODEFORMER["config"]["options"]}
    beta = options.pop("beta_range")
    options |= {"size": options.pop("kernel_size"), "betag_range": beta, "betap_range": beta, "split_plateau_iso": False}
    check_draws(name, CODEFORMER_ARRAYS, CODEFORMER["config"]["statistics"]["draws"], **options)


def test_types_come_as_often_as_they_should():
    types, weights = CODEFORMER["config"]["kernel_list"], CODEFORMER["config"]["kernel_prob"]
    draws = CODEFORMER["config"]["statistics"]["draws"]
    rng = np.random.default_rng(0)
    names = [sample_kernel(rng, types, [10 * w for w in weights], 21).type for _ in range(4000)]  # weights are relative
    for name, weight, share in zip(types, weights, CODEFORMER_ARRAYS["choice.mean"], strict=True):
        mine = names.count(name) / len(names)
        assert abs(mine - weight) <= 4 * math.sqrt(weight * (1 - weight) / len(names))
        assert abs(mine - share) <= 4 * math.sqrt(weight * (1 - weight) * (1 / len(names) + 1 / draws))
    assert {sample_kernel(rng, ["iso", "aniso"], [0, 1], 21).type for _ in range(50)} == {"aniso"}


def shares(values: np.ndarray | list[float], edges: list[float]) -> np.ndarray:
    return np.histogram(values, edges)[0] / np.size(values)


def test_every_number_is_uniform_in_its_range():
    rng, count = np.random.default_rng(0), 2000
    ranges = {"sigma_x_range": (1.0, 3.0), "sigma_y_range": (5.0, 7.0), "betag_range": (0.5, 4.0), "betap_range": (0.2, 2.0)}

    def drawn(name: str, **keywords) -> list[Kernel]:
        return [sample_kernel(rng, [name], [1], 21, **ranges, **keywords) for _ in range(count)]

    skew = drawn("skew")
    assert shares([k.sigma_x for k in skew], [1, 2, 3]) == pytest.approx([0.5] * 2, abs=0.045)
    assert shares([k.sigma_y for k in skew], [5, 6, 7]) == pytest.approx([0.5] * 2, abs=0.045)
    assert shares([k.rotation for k in skew], [-math.pi, 0, math.pi]) == pytest.approx([0.5] * 2, abs=0.045)
    scaled = np.array([np.array(k.skew) * max(k.sigma_x, k.sigma_y) for k in skew])
    assert shares(scaled, [-3, -1.5, 0, 1.5, 3]) == pytest.approx([0.25] * 4, abs=0.02)
    for name in ("generalized_aniso", "generalized_iso"):
        assert shares([k.beta for k in drawn(name)], [0.5, 0.75, 1, 2.5, 4]) == pytest.approx([0.25] * 4, abs=0.04)
    for name in ("plateau_aniso", "plateau_iso"):
        assert shares([k.beta for k in drawn(name)], [0.2, 0.6, 1, 1.5, 2]) == pytest.approx([0.25] * 4, abs=0.04)
    whole = [k.beta for k in drawn("plateau_iso", split_plateau_iso=False)]
    assert shares(whole, [0.2, 0.65, 1.1, 1.55, 2]) == pytest.approx([0.25] * 4, abs=0.04)


ALL = [sample_kernel(np.random.default_rng(seed), [name], [1], 21) for name in get_args(KernelType) for seed in range(3)]


def offset(values: np.ndarray) -> float:
    """How far a kernel moves the picture, in pixels."""
    y, x = np.mgrid[: len(values), : len(values)] - (len(values) - 1) / 2
    return math.hypot((values * x).sum(), (values * y).sum())


@pytest.mark.parametrize("kernel", ALL, ids=lambda k: k.type)
def test_every_kernel(kernel):
    values = make_kernel(kernel)
    assert values.shape == (21, 21) and values.dtype == np.float64
    assert values.sum() == pytest.approx(1)
    assert np.array_equal(values, make_kernel(kernel)) and values.flags.writeable
    if kernel.type != "skew":
        assert offset(values) < 1e-9
    if kernel.type != "skew" and not kernel.bend:
        assert np.allclose(values, values[::-1, ::-1])
    noisy = make_kernel(kernel._replace(noise=KernelNoise(0.5, 1.5, seed=3)))
    assert noisy.sum() == pytest.approx(1) and not np.allclose(noisy, values)
    assert np.array_equal(noisy, make_kernel(kernel._replace(noise=KernelNoise(0.5, 1.5, seed=3))))


def test_a_draw_is_of_its_generator_alone():
    options = {"types": list(get_args(KernelType)), "probabilities": [1.0] * 10, "size": 15, "noise_range": (0.7, 1.3)}
    np.random.seed(0)
    first = [sample_kernel(np.random.default_rng(seed), **options) for seed in range(40)]
    np.random.seed(1)
    assert first == [sample_kernel(np.random.default_rng(seed), **options) for seed in range(40)]
    assert len({kernel.type for kernel in first}) > 5 and len({kernel.noise.seed for kernel in first}) == 40
    assert eval(repr(first[0]), {"Kernel": Kernel, "KernelNoise": KernelNoise}) == first[0]  # plain numbers


def test_skew_is_centred():
    kernel = Kernel("skew", 41, 3.0, 2.0, rotation=0.5, skew=(0.8, -0.3, 0.1, 0.6))
    assert offset(make_kernel(kernel)) < 0.01 < 1 < offset(make_kernel(kernel._replace(centred=False)))


def test_a_turn_is_a_turn():
    values = make_kernel(Kernel("aniso", 21, sigma_x=4, sigma_y=1, rotation=0.0))
    assert figures(values)[1:] == pytest.approx((4, 1), rel=0.05)
    assert values[10, 14] > values[14, 10]  # sigma_x is along x
    assert np.allclose(make_kernel(Kernel("aniso", 21, 4, 1, math.pi / 2)), values.T)
    downwards = make_kernel(Kernel("aniso", 21, 4, 1, math.pi / 4))
    assert downwards[13, 13] > downwards[13, 7]


def test_sinc_is_a_low_pass():
    values = make_kernel(Kernel("sinc", 41, cutoff=1.2))
    response = np.abs(np.fft.fft2(values, (256, 256)))
    frequency = np.hypot(*np.meshgrid(*[2 * math.pi * np.fft.fftfreq(256)] * 2))
    assert response[frequency < 0.9].min() > 0.8 and response[frequency > 1.6].max() < 0.15
    for size, low in ((7, math.pi / 3), (21, math.pi / 5)):
        cutoffs = [sample_sinc(np.random.default_rng(seed), size).cutoff for seed in range(300)]
        assert low <= min(cutoffs) < low + 0.1 and math.pi - 0.1 < max(cutoffs) < math.pi
    padded = make_kernel(sample_sinc(np.random.default_rng(0), 7, (1.0, 2.0), pad_to=21))
    assert padded.shape == (21, 21) and not padded[:7].any()


@pytest.mark.parametrize("rotation", [0.0, 0.4, 1.1, math.pi / 2, -2.0])
def test_motion_is_a_thin_line_of_its_length_and_angle(rotation):
    values = make_kernel(Kernel("motion", 41, length=30.0, rotation=rotation))
    y, x = np.mgrid[:41, :41] - 20
    _, along, across = figures(values)
    assert along == pytest.approx(30 / math.sqrt(12), rel=0.03) and across < 0.6
    covariance = (values * x * y).sum()
    angle = 0.5 * math.atan2(2 * covariance, (values * (x * x - y * y)).sum())
    assert math.sin(angle - rotation) == pytest.approx(0, abs=0.01)
    brightest = values.max(0 if abs(math.cos(rotation)) > 0.7 else 1)
    assert brightest[10:31].min() > 0.4 * brightest.max()  # no gaps


def test_motion_bends_about_the_middle():
    straight, bent = (make_kernel(Kernel("motion", 41, length=30.0, bend=bend)) for bend in (0.0, 1.0))
    assert figures(bent)[2] > 2 * figures(straight)[2]
    assert np.allclose(bent, bent[:, ::-1])  # its middle direction is along x
    assert make_kernel(Kernel("motion", 5))[2, 2] == 1  # no motion is no blur
    for seed in range(200):  # whatever is drawn fits
        kernel = sample_motion(np.random.default_rng(seed), 9, length_range=(8.0, 8.0), bend_range=(-3.0, 3.0))
        assert make_kernel(kernel).min() >= 0
    with pytest.raises(ValueError, match="does not fit"):
        make_kernel(Kernel("motion", 9, length=8.5))


def test_wrong_choices_are_refused():
    check_kernel_choice(["iso", "motion"], [0.2, 0.3])
    for types, probabilities, message in [
        (["iso", "anisso"], [1, 1], "did you mean 'aniso'"),
        (["iso"], [0.5, 0.5], "1 types of kernels have 2"),
        ([], [], "0 types"),
        (["iso", "aniso"], [0, 0], "nor all zero"),
        (["iso", "aniso"], [2, -1], "none may be negative"),
    ]:
        with pytest.raises(OptionError, match=message):
            check_kernel_choice(types, probabilities)
