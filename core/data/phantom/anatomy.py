"""Anatomy of a synthetic patient on a frontal chest radiograph.

Structures are drawn as attenuation (bright = absorbing) in film coordinates: x from -0.5 to 0.5,
with the spine near 0 and the patient's left on the right; y from 0 at the neck to 1 at the abdomen.
Lengths are fractions of the film's width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]  # (S, S), one value a pixel, float32

RIBS = 9
SIDES = (-1, 1)  # the patient's right, the patient's left


class Stream(IntEnum):
    """Independent random streams by purpose."""

    PATIENT, FILM, DISTURBANCE, LESION, LABELS, PLANTED = range(1, 7)


def between(low: float, high: float) -> float:
    """Field of Anatomy with a uniform distribution within these bounds."""
    return field(metadata={"bounds": (low, high)})


@dataclass(frozen=True)
class Anatomy:
    """Anatomy shared by all films of a patient, drawn in the order of the fields.

    Positions and lengths are in film widths; `bone`, `aeration`, `breast` and `stomach_gas` are
    amounts of attenuation, `exposure` is added to it and `contrast` multiplies it.
    """

    number: int
    texture: Field
    vessels: Field
    lung_width: float = between(0.32, 0.40)
    apex: float = between(0.09, 0.17)
    base: float = between(0.78, 0.89)
    dome: float = between(0.08, 0.13)
    heart: float = between(0.13, 0.16)
    heart_tilt: float = between(0.25, 0.6)
    mediastinum: float = between(0.04, 0.06)
    shoulder: float = between(0.3, 0.75)
    waist: float = between(0.43, 0.52)
    rib_gap: float = between(0.068, 0.084)
    rib_slope: float = between(0.05, 0.15)
    rib_width: float = between(0.011, 0.016)
    bone: float = between(0.06, 0.12)
    aeration: float = between(0.30, 0.38)
    exposure: float = between(-0.06, 0.06)
    breast: float = between(0.0, 0.1)
    contrast: float = between(0.9, 1.15)
    stomach_gas: float = between(0.0, 0.16)


@dataclass(frozen=True)
class Scene:
    """Anatomy of one film on its pixels, before lesions are added."""

    anatomy: Anatomy
    x: Field
    y: Field
    lungs: dict[int, Field]  # masks by side
    heart: Field  # mask
    air: Field  # mask of the lungs not covered by heart and great vessels


def draw_patient(seed: int, patient: int, size: int) -> Anatomy:
    """Draw the anatomy of patient number `patient`, for films of `size` pixels."""
    random = np.random.default_rng((seed, patient, Stream.PATIENT))
    bounds = {one.name: one.metadata["bounds"] for one in fields(Anatomy) if one.metadata}
    drawn = {name: random.uniform(*ends) for name, ends in bounds.items()}
    texture = noise_field(random, size, (4, 7, 13, 26, 52))
    return Anatomy(patient, texture, draw_vessels(random, size), **drawn)


def noise_field(random: np.random.Generator, size: int, cells: tuple[int, ...]) -> Field:
    """Smooth noise (S, S) of unit standard deviation, one octave per number of cells across."""
    field = np.zeros((size, size), np.float32)
    for count in cells:
        coarse = random.standard_normal((count, count), dtype=np.float32)
        field += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return field / field.std()


def draw_vessels(random: np.random.Generator, size: int) -> Field:
    """Hila and branching vessels, (S, S), about 1 at the hila."""
    canvas = np.zeros((size, size), np.uint8)
    for side in SIDES:
        for _ in range(16):
            point = np.array([side * random.uniform(0.07, 0.1), random.uniform(0.41, 0.52)])
            angle = random.uniform(-1.25, 1.25)
            for step in range(7):
                ahead = point + 0.04 * np.array([side * np.cos(angle), np.sin(angle)])
                width = max(1, round((7 - step) * size / 700))
                line = pixels(np.stack([point, ahead]), size)
                cv2.polylines(canvas, [line], False, 230 - 28 * step, width, cv2.LINE_AA, 4)
                point, angle = ahead, angle + random.normal(0.0, 0.28)
    return cv2.GaussianBlur(canvas, (0, 0), 0.005 * size).astype(np.float32) / 160.0


def pixels(points: NDArray[np.float64], size: int) -> NDArray[np.int32]:
    """Convert film coordinates (P, 2) to OpenCV's fixed-point pixels with four fractional bits."""
    return np.round((points + np.array([0.5, 0.0])) * size * 16).astype(np.int32)


def band(canvas: Any, points: NDArray[np.float64], width: float, value: int) -> None:
    """Draw a bone-like band of `width` around film coordinates (P, 2), with brighter edges."""
    offset = np.array([0.0, width / 2])
    outline = np.concatenate([points - offset, (points + offset)[::-1]])
    corners = pixels(outline, len(canvas))
    cv2.fillPoly(canvas, [corners], int(0.7 * value), cv2.LINE_AA, 4)
    cv2.polylines(canvas, [corners], True, value, max(1, len(canvas) // 200), cv2.LINE_AA, 4)


def ramp(distance: Any, softness: float) -> Field:
    """Soft step: 0 outside, 1 inside, linear over `softness` around `distance` 0."""
    return np.clip(distance / softness + 0.5, 0.0, 1.0)


def blob(scene: Scene, x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Field:
    """Squared elliptic radius (S, S) around a centre: 1 on the ellipse."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = scene.x - x, scene.y - y
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    return (along / rx) ** 2 + (across / ry) ** 2


def chest_wall(anatomy: Anatomy, y: Any) -> Any:
    """Distance from the midline to the inner side of the ribs at height y."""
    down = np.clip((y - anatomy.apex) / (anatomy.base - anatomy.apex), 0.0, 1.0)
    return 0.13 + (anatomy.lung_width - 0.13) * (1.0 - (1.0 - down) ** 2.2) ** 0.6


def lung(anatomy: Anatomy, x: Field, y: Field, side: int) -> Field:
    """Mask (S, S) of one lung with soft edges; side -1 is the patient's right."""
    lateral = side * x
    outer = chest_wall(anatomy, y)
    down = np.clip((y - anatomy.apex) / (anatomy.base - anatomy.apex), 0.0, 1.0)
    inner = 0.13 - (0.13 - anatomy.mediastinum) * (1.0 - (1.0 - down) ** 3) ** 0.5
    across = np.clip((lateral - anatomy.mediastinum) / anatomy.lung_width, -0.2, 1.2)
    height = anatomy.dome * (1.1 if side < 0 else 0.85)
    diaphragm = anatomy.base - height * (1.0 - ((across - 0.34) / 0.5) ** 2)
    mask = ramp(lateral - inner, 0.012) * ramp(outer - lateral, 0.012)
    return mask * ramp(diaphragm - y, 0.012) * ramp(y - anatomy.apex, 0.02)


def lay_out(anatomy: Anatomy) -> Scene:
    """Place lungs and heart on the pixels of the patient's texture."""
    size = len(anatomy.texture)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(axis - 0.5, axis)
    scene = Scene(anatomy, x, y, {side: lung(anatomy, x, y, side) for side in SIDES}, x, x)
    height = anatomy.base - 0.155
    ventricle = blob(scene, 0.055, height, anatomy.heart, 0.115, anatomy.heart_tilt)
    atrium = blob(scene, -0.03, height - 0.03, 0.25 * anatomy.heart + 0.025, 0.1)
    outflow = blob(scene, 0.035, height - 0.13, 0.055, 0.1, -0.25)
    knob = blob(scene, 0.045, anatomy.apex + 0.24, 0.045, 0.05)
    heart = np.maximum(ramp(1.0 - ventricle, 0.4), ramp(1.0 - atrium, 0.5))
    great_vessels = np.maximum(ramp(1.0 - knob, 0.7), ramp(1.0 - outflow, 0.8))
    air = (scene.lungs[-1] + scene.lungs[1]) * (1.0 - 0.88 * np.maximum(heart, great_vessels))
    return replace(scene, heart=heart, air=air)


def rib_course(anatomy: Anatomy, index: int, side: int) -> NDArray[np.float64]:
    """Points (24, 2) along the posterior part of a rib, from the spine to the chest wall."""
    along = np.linspace(0.0, 1.0, 24)
    top = anatomy.apex + 0.02 + anatomy.rib_gap * index
    y = top - 0.03 * np.sin(2.6 * along) + anatomy.rib_slope * along**2.2
    return np.stack([side * (0.03 + (chest_wall(anatomy, y) - 0.02) * along), y], axis=1)


def skeleton(scene: Scene) -> Field:
    """Ribs, clavicles and spine, (S, S), about 1 at the densest."""
    anatomy, size = scene.anatomy, len(scene.x)
    back, front, collar = np.zeros((3, size, size), np.uint8)
    along = np.linspace(0.0, 1.0, 20)
    for side in SIDES:
        for index in range(RIBS):
            band(back, rib_course(anatomy, index, side), anatomy.rib_width, 255)
        for index in range(2, RIBS - 2):
            top = anatomy.apex + anatomy.rib_gap * (index + 0.6)
            y = top + 0.16 * (1.0 - along) ** 1.5
            x = 0.14 + (chest_wall(anatomy, y) - 0.13) * along
            band(front, np.stack([side * x, y], axis=1), anatomy.rib_width * 1.3, 255)
        clavicle = anatomy.apex + 0.09 - 0.09 * along - 0.014 * np.sin(6.3 * along)
        x = side * (0.035 + 0.31 * along)
        band(collar, np.stack([x, clavicle], axis=1), 1.7 * anatomy.rib_width, 255)
        scapula = np.array([[0.3, 0.12], [0.44, 0.17], [0.37, 0.46]]) * (side, 1.0)
        cv2.fillPoly(collar, [pixels(scapula, size)], 90, cv2.LINE_AA, 4)
    bones = back.astype(np.float32) + 0.45 * front + 1.2 * collar
    bones = cv2.GaussianBlur(bones, (0, 0), 0.004 * size) / 255.0
    discs = 0.75 + 0.25 * np.cos(scene.y * (2 * np.pi / (0.8 * anatomy.rib_gap)))
    return bones + 0.9 * ramp(0.032 - np.abs(scene.x), 0.02) * discs


def expose(scene: Scene) -> Field:
    """Attenuation (S, S) of the whole chest without lesions."""
    anatomy, x, y = scene.anatomy, scene.x, scene.y
    lateral = np.abs(x)
    skin = anatomy.shoulder * anatomy.apex * ramp(lateral - 0.16, 0.15) + lateral**3
    body = ramp(anatomy.waist - lateral, 0.03) * ramp(y - skin, 0.03)
    thickness = np.sqrt(np.clip(1.0 - (lateral / (anatomy.waist + 0.03)) ** 2, 0.0, 1.0))
    soft = 0.18 + 0.26 * thickness + 0.14 * np.exp(-((x / 0.09) ** 2))
    soft += 0.22 * ramp(y - anatomy.base, 0.35) + 0.06 * scene.heart
    for side in SIDES:
        breast = blob(scene, side * 0.22, anatomy.base - 0.1, 0.17, 0.15, 0.3 * side)
        soft += anatomy.breast * ramp(1.0 - breast, 0.7)
    gas = anatomy.stomach_gas * ramp(1.0 - blob(scene, 0.2, anatomy.base + 0.02, 0.08, 0.04), 1.2)
    trachea = ramp(0.02 - np.abs(x - 0.006), 0.02) * ramp(0.4 - y, 0.08)
    film = soft - anatomy.aeration * scene.air - 0.12 * trachea
    film += anatomy.bone * skeleton(scene) + 0.13 * anatomy.vessels * scene.air
    film += 0.024 * anatomy.texture
    return body * (film - gas * (1.0 - scene.lungs[1]))


def disturb(
    anatomy: Anatomy, findings: Mapping[str, float], random: np.random.Generator
) -> Anatomy:
    """Change the shape of the anatomy by cardiomegaly and emphysema, if present."""
    widening, inflation = random.uniform(1.12, 1.4), random.uniform(0.3, 0.9)
    if "Cardiomegaly" in findings:
        anatomy = replace(anatomy, heart=widening * anatomy.heart)
    if "Emphysema" in findings:
        anatomy = replace(
            anatomy,
            heart=0.85 * anatomy.heart,
            dome=anatomy.dome * (1.0 - 0.8 * inflation),
            base=min(0.93, anatomy.base + 0.05 * inflation),
            aeration=anatomy.aeration + 0.02 * inflation,
        )
    return anatomy
