"""Named sets of views of an image at test time, in pixel space, before normalisation."""

from core.prediction import View, as_it_is, mirror

VIEWS: dict[str, tuple[View, ...]] = {
    "none": (as_it_is,),
    # a mirror swaps the patient's left and right
    "flip": (as_it_is, mirror),
}
