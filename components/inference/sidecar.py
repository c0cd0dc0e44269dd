"""What the Critic said, beside the photo: as JSON for programs, and as XMP for Camera Raw, Lightroom and darktable.

The XMP packet holds the suggestions twice: as develop settings of Camera Raw (namespace crs) where there is one that
means the same, and word for word with amounts and units in this project's own namespace. The develop settings belong to
the photo that was judged, not to the enhanced one, which has had its edit.

Sources: Adobe, "XMP Specification Part 1" (ISO 16684-1) and "Part 2", section 3.3 (Camera Raw schema); the names and
ranges of process version 2012 and later as Camera Raw writes them.
"""

import json
import re
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from pydantic import Field

from components import files
from components.inference.edit import EditOptions
from components.inference.seal import BLANK, check_replaceable, sealed
from components.photometry.operations import KINDS
from components.strict import Strict
from components.verdict.grammar import Suggestion, Verdict

NAMESPACE = "https://smartphotocrafter.org/ns/verdict/1.0/"
_CRS = "http://ns.adobe.com/camera-raw-settings/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMP = "http://ns.adobe.com/xap/1.0/"
_X = "adobe:ns:meta/"
_PREFIXES = {"x": _X, "rdf": _RDF, "xmp": _XMP, "crs": _CRS, "spc": NAMESPACE}
_DAYLIGHT_KELVIN = 6504.0
"""White that photos are taken to be balanced for (CIE D65) where the camera did not say."""
_NOT_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


class Sidecar(Strict):
    """Everything that is known of one photo after it was judged, and enhanced if it was."""

    format: Literal[1] = 1
    photo: str = Field(description="Name of the file that was judged.")
    enhanced: str | None = Field(default=None, description="Name of the file that was written, if one was.")
    text: str = Field(description="What the Critic wrote, word for word.")
    verdict: Verdict | None = Field(description="The same parsed; null where it is not in the grammar.")
    camera_raw: dict[str, str] = Field(description="The suggestions as Camera Raw develop settings (crs).")
    edit: EditOptions | None = Field(default=None, description="Which part of the edit was applied.")
    seed: int | None = Field(default=None, description="Of the Artist's noise.")

    @property
    def strength_in_words(self) -> str:
        """How far the edit went, for people."""
        if self.edit is None:
            return "Not edited."
        if self.edit.strength == 0:
            return "Left as it is (strength 0); --strength 1 makes the whole edit."
        return f"Edited with strength {self.edit.strength:.2f}."


def camera_raw_settings(verdict: Verdict | None, is_raw: bool, white_kelvin: float | None = None) -> dict[str, str]:
    """The suggestions as Camera Raw settings, by name without prefix; suggestions without a counterpart are left out.

    Exposure in EV is the same quantity. Contrast and saturation become the percentage by which the slope of lightness
    and the chroma change; Camera Raw's sliders use the same range but their own curves, so these two are a start, not
    an equal. Temperature is, for camera raw, the assumed colour of the light, moved by the suggestion's mired (a bluer
    light makes a warmer picture); rendered files have only an incremental slider, set to the mired.

    Args:
        verdict: what the Critic said, or None.
        is_raw: whether the photo is camera raw.
        white_kelvin: white balance as shot; CIE D65 is assumed where it is not known.
    """
    totals: dict[str, float] = {}
    for suggestion in verdict.suggestions if verdict else ():
        if suggestion.operation is not None and suggestion.amount is not None:
            totals[suggestion.operation] = totals.get(suggestion.operation, 0.0) + suggestion.amount
    settings = {}
    if "exposure" in totals:
        settings["Exposure2012"] = f"{_within(totals['exposure'], 5):+.2f}"
    for operation, name in (("contrast", "Contrast2012"), ("saturation", "Saturation")):
        if operation in totals:
            settings[name] = f"{round(_within(100 * (2 ** totals[operation] - 1), 100)):+d}"
    if "temperature" in totals:
        settings["WhiteBalance"] = "Custom"
        if is_raw:
            mired = 1e6 / (white_kelvin or _DAYLIGHT_KELVIN) - totals["temperature"]
            settings["Temperature"] = f"{round(min(max(1e6 / max(mired, 1), 2000), 50_000))}"
        else:
            settings["IncrementalTemperature"] = f"{round(_within(totals['temperature'], 100)):+d}"
    if settings:
        settings |= {"ProcessVersion": "11.0", "HasSettings": "True"}
    return settings


def xmp_packet(sidecar: Sidecar) -> str:
    """A sidecar as a sealed XMP packet (ISO 16684-1, with the wrapper of section 7.3.2)."""
    for prefix, uri in _PREFIXES.items():
        ElementTree.register_namespace(prefix, uri)
    meta = ElementTree.Element(f"{{{_X}}}xmpmeta", {f"{{{_X}}}xmptk": "SmartPhotoCrafter"})
    rdf = ElementTree.SubElement(meta, f"{{{_RDF}}}RDF")
    about = ElementTree.SubElement(rdf, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""})
    about.set(f"{{{_XMP}}}CreatorTool", "SmartPhotoCrafter")
    about.set(f"{{{NAMESPACE}}}seal", BLANK)
    for name, value in sidecar.camera_raw.items():
        about.set(f"{{{_CRS}}}{name}", value)
    about.set(f"{{{NAMESPACE}}}photo", _xml(sidecar.photo))
    if sidecar.enhanced is not None:
        about.set(f"{{{NAMESPACE}}}enhanced", _xml(sidecar.enhanced))
    ElementTree.SubElement(about, f"{{{NAMESPACE}}}text").text = _xml(sidecar.text)
    if sidecar.verdict is not None:
        about.set(f"{{{NAMESPACE}}}score", f"{sidecar.verdict.score:g}")
        reasoning = _sequence(about, "reasoning")
        for section in sidecar.verdict.reasoning:
            ElementTree.SubElement(reasoning, f"{{{_RDF}}}li").text = _xml(section)
        suggestions = _sequence(about, "suggestions")
        for suggestion in sidecar.verdict.suggestions:
            item = ElementTree.SubElement(suggestions, f"{{{_RDF}}}li", {f"{{{_RDF}}}parseType": "Resource"})
            for name, value in _properties(suggestion).items():
                ElementTree.SubElement(item, f"{{{NAMESPACE}}}{name}").text = _xml(value)
    ElementTree.indent(meta)
    body = ElementTree.tostring(meta, encoding="unicode")
    return sealed(f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n{body}\n<?xpacket end="w"?>\n')


def json_text(sidecar: Sidecar) -> str:
    """A sidecar as the text of a JSON file: its fields, and the seal of `components.inference.seal`."""
    fields = {"seal": BLANK} | sidecar.model_dump(mode="json")
    return sealed(json.dumps(fields, indent=2, ensure_ascii=False) + "\n")


def write_sidecars(sidecar: Sidecar, json_path: Path) -> None:
    """Write the JSON file, and the XMP file of the same name, each whole or not at all.

    Raises:
        ForeignFileError: a file of that name is not this program's, or no longer; both are left as they are.
        OSError: a file cannot be written.
    """
    check_sidecars(json_path)
    files.write_text(json_path, json_text(sidecar))
    files.write_text(json_path.with_suffix(".xmp"), xmp_packet(sidecar))


def check_sidecars(json_path: Path) -> None:
    """Raise `ForeignFileError` when a sidecar would replace a file that is not this program's, or no longer."""
    check_replaceable(json_path)
    check_replaceable(json_path.with_suffix(".xmp"))


def _properties(suggestion: Suggestion) -> dict[str, str]:
    properties = {"text": suggestion.text}
    if suggestion.operation is not None:
        properties["operation"] = suggestion.operation
        if suggestion.amount is not None:
            properties |= {"amount": f"{suggestion.amount:g}", "unit": KINDS[suggestion.operation].unit}
    return properties


def _sequence(parent: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{name}"), f"{{{_RDF}}}Seq")


def _within(value: float, most: float) -> float:
    return min(max(value, -most), most)


def _xml(text: str) -> str:
    """Text without the characters that XML 1.0 has no way to write."""
    return _NOT_XML.sub("\ufffd", text)
