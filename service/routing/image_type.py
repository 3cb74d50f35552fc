"""What ImageType says about how an image came to be (PS3.3 C.7.6.1.1.2; CT: C.8.2.1.1.1; Enhanced CT: C.8.16.1)."""

COMPUTED = {
    "a localiser": ("LOCALIZER", "SCOUT", "TOPOGRAM"),
    "a reformat": ("MPR", "CURVED MPR", "CPR", "MPR THICK", "MPR THIN", "REFORMATTED", "RESAMPLED"),
    "a projection": (
        "PROJECTION IMAGE", "MIP", "MINIP", "MAXIP", "MIN IP", "MAX IP", "MIN_IP", "MAX_IP", "MAXIMUM", "MINIMUM",
        "VRT", "SSD", "VOLUME RENDERING",
    ),
    "a map": ("QUANTITY", "SUBTRACTION", "STD_DEVIATION", "RCBF", "RCBV", "MTT", "TTP", "TMAX"),
    "a copy of a screen": ("SCREEN SAVE", "SCREENSHOT", "DOSE_INFO", "DOSE INFO"),
}  # fmt: skip
"""Words for images that were computed from others, as scanners and workstations write them.

Only a whole value counts, from the third on. A word within one does not: Siemens scanners name the reconstruction task
in the fourth value, so that a primary reconstruction may say ``ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 MPR``.
"""


def not_primary(image_type: tuple[str, ...]) -> str:
    """Why an image is not a primary one; empty where it is, or where ImageType does not say.

    ``DERIVED`` in the first value is no reason: lossy compression and the choice of an energy make it, too.
    """
    for word in image_type[2:]:
        for kind, words in COMPUTED.items():
            if word in words:
                return f"{kind} (ImageType {word})"
    if image_type[1:2] == ("SECONDARY",):
        return "made from other images (ImageType SECONDARY)"
    return ""
