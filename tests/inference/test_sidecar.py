"""Sidecars, read back by a general XML parser, and the develop settings against the units they are defined in."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from components.inference.edit import EditOptions
from components.inference.seal import ForeignFileError
from components.inference.sidecar import NAMESPACE, Sidecar, camera_raw_settings, write_sidecars, xmp_packet
from components.verdict.grammar import Suggestion, Verdict, render, suggest

CRS = "{http://ns.adobe.com/camera-raw-settings/1.0/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
VERDICT = Verdict(
    reasoning=("sharp", "dark & <blue>", "c", "d", "e"),
    suggestions=(
        suggest("exposure", 0.5),
        suggest("contrast", -0.3),
        suggest("temperature", 40),
        suggest("noise"),
        Suggestion(text="Crop it."),
    ),
    score=61.5,
)


def described(packet: str) -> ElementTree.Element:
    assert packet.startswith('<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    assert packet.rstrip().endswith('<?xpacket end="w"?>')
    return ElementTree.fromstring(packet).find(f"{RDF}RDF/{RDF}Description")


def sidecar(text: str = "words", verdict: Verdict | None = VERDICT) -> Sidecar:
    return Sidecar(
        photo="in.dng",
        enhanced="out.tif",
        text=text,
        verdict=verdict,
        camera_raw=camera_raw_settings(verdict, is_raw=True),
        edit=EditOptions(),
        seed=3,
    )


def test_suggestions_become_develop_settings() -> None:
    settings = camera_raw_settings(VERDICT, is_raw=True, white_kelvin=5000)
    assert settings["Exposure2012"] == "+0.50"
    assert settings["Contrast2012"] == "-20"  # the canonical sentence says 20%
    assert settings["WhiteBalance"] == "Custom"
    assert int(settings["Temperature"]) == pytest.approx(1e6 / (200 - 40), abs=1)  # warmer: a bluer light is assumed
    assert "Saturation" not in settings
    assert camera_raw_settings(VERDICT, is_raw=False)["IncrementalTemperature"] == "+40"


def test_extreme_and_absent_suggestions() -> None:
    wild = Verdict(reasoning=("",) * 5, suggestions=(suggest("exposure", 6), suggest("temperature", 400)), score=1)
    settings = camera_raw_settings(wild, is_raw=True)
    assert (settings["Exposure2012"], settings["Temperature"]) == ("+5.00", "50000")
    assert camera_raw_settings(None, is_raw=True) == {}
    nothing = Verdict(reasoning=("",) * 5, suggestions=(suggest("noise"),), score=1)
    assert camera_raw_settings(nothing, is_raw=True) == {}


def test_the_packet_holds_settings_and_the_whole_verdict() -> None:
    about = described(xmp_packet(sidecar(render(VERDICT))))
    assert about.get(f"{CRS}Exposure2012") == "+0.50"
    assert about.get(f"{CRS}HasSettings") == "True"
    assert about.get(f"{{{NAMESPACE}}}score") == "61.5"
    assert about.find(f"{{{NAMESPACE}}}text").text == render(VERDICT)
    reasoning = [item.text for item in about.iterfind(f"{{{NAMESPACE}}}reasoning/{RDF}Seq/{RDF}li")]
    assert reasoning == list(VERDICT.reasoning)
    items = about.findall(f"{{{NAMESPACE}}}suggestions/{RDF}Seq/{RDF}li")
    texts = [item.find(f"{{{NAMESPACE}}}text").text for item in items]
    assert texts == [suggestion.text for suggestion in VERDICT.suggestions]
    assert items[2].find(f"{{{NAMESPACE}}}amount").text == "40"
    assert items[3].find(f"{{{NAMESPACE}}}operation").text == "noise"


def test_words_that_xml_cannot_hold_are_replaced() -> None:
    about = described(xmp_packet(sidecar("a\x00b\x1b]]>\ud800\uffff", None)))
    assert about.find(f"{{{NAMESPACE}}}text").text == "a\ufffdb\ufffd]]>\ufffd\ufffd"


def test_files_are_written_and_another_programs_is_kept(tmp_path: Path) -> None:
    write_sidecars(sidecar(), tmp_path / "a.json")
    fields = json.loads((tmp_path / "a.json").read_text())
    assert fields.pop("seal").startswith("smartphotocrafter:") and Sidecar.model_validate(fields) == sidecar()
    write_sidecars(sidecar("other"), tmp_path / "a.json")
    (tmp_path / "b.xmp").write_text("<x:xmpmeta/>")
    with pytest.raises(ForeignFileError, match=r"b\.xmp belongs to another program"):
        write_sidecars(sidecar(), tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("suffix", [".json", ".xmp"])
def test_its_own_that_somebody_changed_is_kept(tmp_path: Path, suffix: str) -> None:
    write_sidecars(sidecar(), tmp_path / "a.json")
    path = tmp_path / f"a{suffix}"
    changed = path.read_text().replace("sharp", "soft")
    path.write_text(changed)
    with pytest.raises(ForeignFileError, match="or was changed since"):
        write_sidecars(sidecar("other"), tmp_path / "a.json")
    assert path.read_text() == changed
