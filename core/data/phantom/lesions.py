"""Lesions, drawn as attenuation that is added to a scene, and rendering of the film."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.data.phantom.anatomy import (
    RIBS,
    SIDES,
    Anatomy,
    Field,
    Scene,
    Stream,
    band,
    blob,
    chest_wall,
    disturb,
    expose,
    lay_out,
    noise_field,
    ramp,
    rib_course,
)

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, the upper ends exclusive


def lung_point(
    scene: Scene, random: np.random.Generator, low: float, high: float
) -> tuple[float, float]:
    """Random point in either lung, between two fractions of its height from the apex."""
    anatomy = scene.anatomy
    y = anatomy.apex + (anatomy.base - anatomy.apex) * random.uniform(low, high)
    lateral = random.uniform(0.11, float(chest_wall(anatomy, y)) - 0.04)
    return float(random.choice(SIDES)) * lateral, y


def draw_effusion(scene: Scene, random: np.random.Generator) -> Field:
    """Fluid at one base, its surface climbing towards the chest wall."""
    side = int(random.choice(SIDES))
    level = scene.anatomy.base - random.uniform(0.0, 0.15)
    surface = level - 0.9 * np.clip(side * scene.x - 0.12, 0.0, 1.0) ** 1.6 + 0.02
    return 0.15 * scene.lungs[side] * ramp(scene.y - surface, 0.06)


def draw_atelectasis(scene: Scene, random: np.random.Generator) -> Field:
    """Two parallel plates of collapsed lung in a lower zone."""
    x, y = lung_point(scene, random, 0.6, 0.8)
    angle = random.uniform(-0.5, 0.5)
    plates = blob(scene, x, y, 0.1, 0.012, angle), blob(scene, x, y - 0.045, 0.07, 0.01, angle)
    return 0.24 * scene.air * np.maximum(ramp(1.0 - plates[0], 1.0), ramp(1.0 - plates[1], 1.0))


def draw_consolidation(scene: Scene, random: np.random.Generator) -> Field:
    """A fluffy, uneven opacity of part of a lobe."""
    x, y = lung_point(scene, random, 0.25, 0.75)
    patch = blob(scene, x, y, random.uniform(0.08, 0.13), random.uniform(0.07, 0.11))
    clouds = noise_field(random, len(scene.x), (8, 16, 32))
    return 0.28 * scene.air * ramp(0.6 - patch + 0.4 * clouds * (patch < 1.6), 1.6)


def draw_edema(scene: Scene, random: np.random.Generator) -> Field:
    """Haze around both hila, like the wings of a bat."""
    clouds = noise_field(random, len(scene.x), (10, 20))
    haze = np.zeros_like(scene.x)
    for side in SIDES:
        haze += ramp(0.5 - blob(scene, side * 0.14, 0.5, 0.15, 0.22, -0.2 * side), 1.6)
    return 0.13 * scene.air * haze * (1.0 + 0.25 * clouds)


def draw_nodule(scene: Scene, random: np.random.Generator) -> Field:
    """One small round opacity."""
    x, y = lung_point(scene, random, 0.2, 0.75)
    radius = random.uniform(0.027, 0.042)
    return 0.34 * ramp(1.0 - blob(scene, x, y, radius, radius), 0.7)


def draw_mass(scene: Scene, random: np.random.Generator) -> Field:
    """A large opacity with a lobulated edge."""
    x, y = lung_point(scene, random, 0.2, 0.7)
    radius = random.uniform(0.055, 0.085)
    lobes = noise_field(random, len(scene.x), (14, 20))
    shape = blob(scene, x, y, radius, radius * random.uniform(0.8, 1.2))
    return 0.3 * ramp(1.0 - shape + 0.22 * lobes * (shape < 2.0), 0.6)


def draw_pneumothorax(scene: Scene, random: np.random.Generator) -> Field:
    """Air without vessels outside a thin pleural line, widest at the apex."""
    anatomy, side = scene.anatomy, int(random.choice(SIDES))
    down = (scene.y - anatomy.apex) / (anatomy.base - anatomy.apex)
    depth = chest_wall(anatomy, scene.y) - side * scene.x
    edge = random.uniform(0.03, 0.08) * np.clip(1.2 - down, 0.0, 1.0) + 0.1 * np.exp(-12.0 * down)
    rim = ramp(edge - depth, 0.01) * (-0.08 - 0.12 * anatomy.vessels)
    line = np.clip(1.0 - np.abs(depth - edge) / 0.008, 0.0, 1.0)
    return scene.lungs[side] * ramp(0.75 - down, 0.2) * (rim + 0.16 * line)


def draw_pleural_thickening(scene: Scene, random: np.random.Generator) -> Field:
    """An uneven opaque band along the inside of the chest wall."""
    anatomy, side = scene.anatomy, int(random.choice(SIDES))
    depth = chest_wall(anatomy, scene.y) - side * scene.x
    waves = 1.0 + 0.3 * np.sin(scene.y * 60.0 + random.uniform(0.0, 6.0))
    window = ramp(random.uniform(0.1, 0.16) - np.abs(scene.y - random.uniform(0.4, 0.6)), 0.06)
    thickness = random.uniform(0.02, 0.03) * waves
    return 0.26 * scene.lungs[side] * window * ramp(thickness - depth, 0.01)


def draw_fibrosis(scene: Scene, random: np.random.Generator) -> Field:
    """A net of fine lines at both bases."""
    net = np.clip(1.0 - np.abs(noise_field(random, len(scene.x), (44,))) / 0.5, 0.0, 1.0)
    return 0.3 * scene.air * ramp(scene.y - random.uniform(0.52, 0.62), 0.15) * net


def draw_fracture(scene: Scene, random: np.random.Generator) -> Field:
    """Two or three neighbouring ribs cut through, their outer ends displaced."""
    anatomy, size = scene.anatomy, len(scene.x)
    side, uppermost = int(random.choice(SIDES)), int(random.integers(2, RIBS - 4))
    cut, step = int(random.integers(9, 18)), random.choice(SIDES) * random.uniform(0.018, 0.026)
    intact, broken = np.zeros((2, size, size), np.uint8)
    for index in range(uppermost, uppermost + int(random.integers(2, 4))):
        course = rib_course(anatomy, index, side)
        band(intact, course[cut - 1 : cut + 4], anatomy.rib_width, 255)
        band(broken, course[cut : cut + 4] + np.array([0.0, step]), 1.6 * anatomy.rib_width, 255)
    change = cv2.GaussianBlur(broken.astype(np.float32) - intact, (0, 0), 0.004 * size)
    return 3.0 * anatomy.bone / 255.0 * change


def draw_subcutaneous_emphysema(scene: Scene, random: np.random.Generator) -> Field:
    """Dark streaks of air between the muscles of one chest wall."""
    anatomy, side = scene.anatomy, int(random.choice(SIDES))
    streaks = cv2.resize(noise_field(random, 48, (48,))[:, :10], scene.x.shape)
    lateral = side * scene.x
    wall = ramp(lateral - chest_wall(anatomy, scene.y), 0.02) * ramp(anatomy.waist - lateral, 0.05)
    height = ramp(scene.y - anatomy.apex - 0.05, 0.1) * ramp(0.75 - scene.y, 0.1)
    return -0.22 * wall * height * np.clip(streaks, 0.0, 1.5)


def draw_hernia(scene: Scene, random: np.random.Generator) -> Field:
    """A round sac behind the heart, with air above a fluid level."""
    x, y = random.uniform(-0.03, 0.05), scene.anatomy.base - random.uniform(0.06, 0.12)
    radius = random.uniform(0.08, 0.11)
    shape = blob(scene, x, y, radius, 0.85 * radius)
    gas = ramp(0.75 - shape, 0.3) * ramp(y - scene.y, 0.01)
    return 0.14 * ramp(1.0 - shape, 0.25) - 0.36 * gas


# prevalence of each finding, and the attenuation of its lesion; sorted by prevalence, and the order
# seeds the lesions. `disturb` has already enlarged the heart and overinflated the lungs
DRAWINGS: dict[str, tuple[float, Callable[[Scene, np.random.Generator], Field]]] = {
    "Effusion": (0.30, draw_effusion),
    "Atelectasis": (0.20, draw_atelectasis),
    "Cardiomegaly": (0.15, lambda scene, _: 0.03 * scene.heart),
    "Consolidation": (0.12, draw_consolidation),
    "Edema": (0.10, draw_edema),
    "Nodule": (0.08, draw_nodule),
    "Mass": (0.05, draw_mass),
    "Pneumothorax": (0.04, draw_pneumothorax),
    "Emphysema": (0.03, lambda scene, _: -0.02 * (scene.lungs[-1] + scene.lungs[1])),
    "Pleural_Thickening": (0.025, draw_pleural_thickening),
    "Fibrosis": (0.02, draw_fibrosis),
    "Fracture": (0.015, draw_fracture),
    "Subcutaneous_Emphysema": (0.01, draw_subcutaneous_emphysema),
    "Hernia": (0.005, draw_hernia),
}
FINDINGS = tuple(DRAWINGS)
PREVALENCE = {name: share for name, (share, _) in DRAWINGS.items()}


def find_box(change: Field, pose: NDArray[np.floating]) -> Box:
    """Bounding box in pixels of the area above a third of the peak, after the pose (2, 3)."""
    strength, size = np.abs(change), len(change)
    y, x = np.nonzero(strength > 0.34 * strength.max())
    corners = product((x.min(), x.max() + 1.0), (y.min(), y.max() + 1.0), (1,))
    moved = np.array([*corners], dtype=float) @ pose.T
    x0, y0 = np.clip(np.floor(moved.min(axis=0)), 0, size - 1).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(moved.max(axis=0)), 1, size).astype(int).tolist()
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def draw_radiograph(
    patient: Anatomy, seed: int, image: int, findings: Mapping[str, float]
) -> tuple[NDArray[np.uint8], dict[str, Box]]:
    """Draw one film of a patient: grey pixels (S, S) and the bounding box of each finding.

    `findings` maps names of `DRAWINGS` to their visibility, 1 for clearly visible. A lesion keeps
    its place over a patient's films; severity, pose and noise differ between films.
    """
    number, size = patient.number, len(patient.texture)
    random = np.random.default_rng((seed, number, Stream.FILM, image))
    disturbance = np.random.default_rng((seed, number, Stream.DISTURBANCE))
    scene = lay_out(disturb(patient, findings, disturbance))
    film: Any = expose(scene)
    angle, scale = random.uniform(-3.0, 3.0), random.uniform(0.96, 1.05)
    pose = np.array(cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale), dtype=float)
    pose[:, 2] += random.uniform(-0.02, 0.02, 2) * size
    boxes = {}
    for place, (name, (_, draw)) in enumerate(DRAWINGS.items()):
        severity = random.uniform(0.6, 1.2)
        if name in findings:
            change = draw(scene, np.random.default_rng((seed, number, Stream.LESION, place)))
            film += severity * findings[name] * change
            boxes[name] = find_box(change, pose)
    film = cv2.warpAffine(film, pose, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return develop(patient, film, random), boxes


def develop(patient: Anatomy, film: Field, random: np.random.Generator) -> NDArray[np.uint8]:
    """Convert attenuation to grey pixels (S, S), with the patient's exposure and film grain."""
    film = patient.contrast * random.uniform(0.95, 1.05) * film + patient.exposure
    film = np.clip(film + random.uniform(0.0, 0.04), 0.0, 1.3)
    grain = random.standard_normal(film.shape, dtype=np.float32)
    grain = random.uniform(0.015, 0.03) * cv2.GaussianBlur(grain, (0, 0), 0.5)
    grey = 1.12 * (1.0 - np.exp(-1.9 * film)) + grain
    return np.clip(255.0 * grey, 0.0, 255.0).astype(np.uint8)
