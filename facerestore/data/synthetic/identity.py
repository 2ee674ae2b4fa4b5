"""What makes a person: the same in all of their pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facerestore.data.synthetic.streams import around, chance, stream

DOMAINS = ("feminine", "masculine")

STYLES = {  # hair styles and how often they are seen
    "feminine": {"long": 0.34, "wavy": 0.24, "curly": 0.1, "bob": 0.12, "fringe": 0.1, "bun": 0.1},
    "masculine": {"short": 0.34, "side": 0.2, "quiff": 0.16, "crop": 0.12, "tousled": 0.1, "bald": 0.08},
}
HAIR_COLOURS = {  # sRGB of a strand in full light, and how often it is seen
    "black": ((52, 42, 38), 0.2),
    "dark brown": ((88, 60, 42), 0.22),
    "brown": ((126, 86, 56), 0.18),
    "auburn": ((150, 74, 40), 0.09),
    "red": ((188, 92, 44), 0.07),
    "dark blond": ((190, 140, 84), 0.1),
    "blond": ((234, 188, 116), 0.14),
}
IRIS_COLOURS = {
    "brown": ((96, 56, 30), 0.38),
    "dark brown": ((58, 34, 22), 0.22),
    "hazel": ((128, 96, 48), 0.12),
    "green": ((108, 124, 82), 0.1),
    "blue": ((104, 144, 178), 0.12),
    "gray": ((134, 146, 152), 0.06),
}
BEARDS = {"none": 0.38, "stubble": 0.26, "moustache": 0.08, "goatee": 0.1, "full": 0.18}


@dataclass(frozen=True)
class Person:
    """Shapes are factors about 1 or strengths in 0..1; lengths in distances between the pupils; colours sRGB in 0..255."""

    number: int
    domain: int
    age: float  # 0: about 18, 1: about 75
    # head
    width: float
    length: float
    crown: float
    jaw: float
    chin_width: float
    chin_forward: float
    cheekbone: float
    brow_ridge: float
    hollow: float
    cleft: float
    ears: float
    neck: float
    # eyes and brows
    eye_distance: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    deep_eyes: float
    crease: float
    iris: str
    lashes: float
    brow_height: float
    brow_arch: float
    brow_slope: float
    brow_thick: float
    brow_dense: float
    # nose and mouth
    nose_length: float
    nose_width: float
    nose_tip: float
    nose_out: float
    bridge: float
    mouth_width: float
    mouth_height: float
    upper_lip: float
    lower_lip: float
    cupid_bow: float
    # skin
    melanin: float
    ruddy: float
    freckles: float
    moles: int
    texture: float
    # made up and grown
    lipstick: float
    lipstick_hue: float
    shadow: float
    liner: float
    blush: float
    hair: str
    style: str
    gray: float
    parting: float
    volume: float
    recede: float
    beard: str
    glasses: str
    earrings: bool


def pick(rng: np.random.Generator, table: dict) -> str:
    """A key of {key: weight} or {key: (value, weight)}."""
    weights = np.array([w[1] if isinstance(w, tuple) else w for w in table.values()], float)
    return list(table)[rng.choice(len(table), p=weights / weights.sum())]


def draw_person(seed: int, number: int, domain: int | None = None) -> Person:
    """Person `number` of the world `seed`; `domain` overrules theirs."""

    def rng(part: str) -> np.random.Generator:
        return stream(seed, "person", number, part)

    drawn = int(rng("domain").random() < 0.5)
    d = drawn if domain is None else domain
    man = float(d == DOMAINS.index("masculine"))
    age = float(rng("age").beta(1.2, 2.2))
    return Person(
        number=number, domain=d, age=age,
        **_head(rng("head"), man), **_eyes(rng("eyes"), man), **_brows(rng("brows"), man),
        **_nose(rng("nose"), man), **_mouth(rng("mouth"), man, age), **_skin(rng("skin"), man),
        **_makeup(rng("makeup"), man), **_hair(rng("hair"), DOMAINS[d], age), **_worn(rng("worn"), man, age),
        **_colours(rng("colours"), rng("skin")),
    )  # fmt: skip


def _head(rng: np.random.Generator, man: float) -> dict:
    return {
        "width": around(rng, 0.955 + 0.035 * man, 0.025),
        "length": around(rng, 1.0 + 0.03 * man, 0.03),
        "crown": around(rng, 1.0, 0.02),
        "jaw": around(rng, 0.86 + 0.16 * man, 0.045),
        "chin_width": around(rng, 0.85 + 0.4 * man, 0.16),
        "chin_forward": around(rng, 0.0 + 0.02 * man, 0.025),
        "cheekbone": around(rng, 1.0, 0.08),
        "brow_ridge": float(np.clip(around(rng, 0.1 + 0.6 * man, 0.25), 0, 1.2)),
        "hollow": around(rng, 0.5 + 0.3 * man, 0.5),
        "cleft": max(0.0, around(rng, -0.3 + 0.4 * man, 0.4)),
        "ears": around(rng, 1.0 + 0.06 * man, 0.06),
        "neck": around(rng, 0.86 + 0.16 * man, 0.04),
    }


def _eyes(rng: np.random.Generator, man: float) -> dict:
    return {
        "eye_distance": around(rng, 1.0, 0.03),
        "eye_width": around(rng, 1.03 - 0.03 * man, 0.045),
        "eye_height": around(rng, 1.06 - 0.14 * man, 0.09),
        "eye_tilt": around(rng, 0.09 - 0.04 * man, 0.06),
        "deep_eyes": around(rng, 0.3 + 0.5 * man, 0.5),
        "crease": float(np.clip(around(rng, 0.75, 0.35), 0, 1.3)),
        "lashes": around(rng, 1.15 - 0.5 * man, 0.15),
    }


def _brows(rng: np.random.Generator, man: float) -> dict:
    return {
        "brow_height": around(rng, 1.06 - 0.14 * man, 0.06),
        "brow_arch": around(rng, 1.05 - 0.55 * man, 0.3),
        "brow_slope": around(rng, 0.08 - 0.02 * man, 0.03),
        "brow_thick": around(rng, 0.72 + 0.5 * man, 0.14),
        "brow_dense": around(rng, 0.85 + 0.2 * man, 0.15),
    }


def _nose(rng: np.random.Generator, man: float) -> dict:
    return {
        "nose_length": around(rng, 0.97 + 0.06 * man, 0.045),
        "nose_width": around(rng, 0.9 + 0.13 * man, 0.09),
        "nose_tip": around(rng, 0.92 + 0.13 * man, 0.1),
        "nose_out": around(rng, 0.86 + 0.18 * man, 0.12),
        "bridge": around(rng, 0.88 + 0.2 * man, 0.1),
    }


def _mouth(rng: np.random.Generator, man: float, age: float) -> dict:
    return {
        "mouth_width": around(rng, 0.97 + 0.06 * man, 0.06),
        "mouth_height": around(rng, 1.0 + 0.015 * man, 0.025),
        "upper_lip": around(rng, 1.22 - 0.3 * man - 0.3 * age, 0.17),
        "lower_lip": around(rng, 1.18 - 0.22 * man - 0.25 * age, 0.14),
        "cupid_bow": around(rng, 1.0, 0.3),
    }


def _skin(rng: np.random.Generator, man: float) -> dict:
    melanin = float(rng.beta(1.1, 1.7))
    return {
        "melanin": melanin,
        "ruddy": float(rng.uniform(0.2, 1.0)) * (1 - 0.5 * melanin),
        "freckles": max(0.0, around(rng, -0.1, 0.35)) * (melanin < 0.4),
        "moles": int(rng.integers(0, 6)),
        "texture": around(rng, 0.75 + 0.35 * man, 0.15),
    }


def _colours(rng: np.random.Generator, skin: np.random.Generator) -> dict:
    """Hair and eyes go darker with the skin, more often than not."""
    dark = skin.beta(1.1, 1.7) > 0.45  # the first number of `_skin`
    hair, iris = pick(rng, HAIR_COLOURS), pick(rng, IRIS_COLOURS)
    other_hair, other_iris = pick(rng, {"black": 0.7, "dark brown": 0.3}), pick(rng, {"dark brown": 0.6, "brown": 0.4})
    return {"hair": other_hair, "iris": other_iris} if dark else {"hair": hair, "iris": iris}


def _makeup(rng: np.random.Generator, man: float) -> dict:
    return {
        "lipstick": (1 - man) * float(rng.uniform(0, 1)) * chance(rng, 0.75),
        "lipstick_hue": float(rng.uniform(0, 1)),
        "shadow": (1 - man) * float(rng.uniform(0, 1)) * chance(rng, 0.6),
        "liner": (1 - man) * float(rng.uniform(0.2, 1)) * chance(rng, 0.7),
        "blush": (1 - man) * float(rng.uniform(0.1, 1)),
    }


def _hair(rng: np.random.Generator, domain: str, age: float) -> dict:
    style = pick(rng, STYLES[domain])
    man = domain == "masculine"
    dyed = chance(rng, 0.25 if man else 0.6)
    gray = float(np.clip((age - 0.5) * 2.6 + 0.3 * rng.standard_normal(), 0, 1)) * (age > 0.42) * (not dyed)
    return {
        "style": style,
        "gray": gray,
        "parting": float(rng.choice([-1, 1])) * float(rng.uniform(0.15, 0.5)) * (not chance(rng, 0.35 * (1 - man))),
        "volume": around(rng, 1.0, 0.2),
        "recede": float(np.clip(man * (0.1 + age + 0.3 * rng.standard_normal()), 0, 1)),
    }


def _worn(rng: np.random.Generator, man: float, age: float) -> dict:
    beard = pick(rng, BEARDS)
    shape = ("round", "square", "oval")[rng.integers(3)]
    return {
        "beard": beard if man else "none",
        "glasses": shape if chance(rng, 0.14 + 0.2 * age) else "none",
        "earrings": chance(rng, 0.45 * (1 - man)),
    }
