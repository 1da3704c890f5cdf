"""Cuts the two fonts of the charts out of Inter (OFL 1.1, see OFL.txt): Latin and a few signs, no layout tables.

    python make_subset.py FOLDER_WITH_INTER_OTF

Ascent and descent are set to sum to 1.24 em, the ratio by which plotters turns a text's size into ems for SVG, so that
SVG and PNG texts are equally large. Needs fonttools.
"""

import pathlib
import sys

from fontTools import subset
from fontTools.ttLib import TTFont

SIGNS = "–—‘’“”…×·−±≥≤≠→←↑↓•²³½°µΔασβτκ≈∞✓✗"
HERE = pathlib.Path(__file__).parent
for style in ["Regular", "SemiBold"]:
    font = TTFont(pathlib.Path(sys.argv[1]) / f"Inter-{style}.otf")
    cut = subset.Subsetter(subset.Options(layout_features=[], hinting=False, name_IDs=[0, 1, 2, 13, 14], notdef_outline=True))
    cut.populate(unicodes=[*range(0x20, 0x7F), *range(0xA0, 0x180), *map(ord, SIGNS)])
    cut.subset(font)
    em = font["head"].unitsPerEm
    font["hhea"].ascent, font["hhea"].descent, font["hhea"].lineGap = round(0.97 * em), -round(0.27 * em), 0
    font["OS/2"].sTypoAscender, font["OS/2"].sTypoDescender, font["OS/2"].sTypoLineGap = round(0.97 * em), -round(0.27 * em), 0
    font.save(HERE / f"Inter-{style}.subset.otf")
