"""The attributes of a derived Video Endoscopic Image: what it keeps of its source, and what it says of itself.

A derived object belongs to the same patient and study, so that a PACS files it beside its source; it is a series of its
own (PS3.3, A.32.5; the modules that are meant stand above each part).
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

from streamsr import __version__
from streamsr.dicom.bitstreams import Bitstream
from streamsr.dicom.syntaxes import METHODS, VideoSyntax, codec_of

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
MANUFACTURER = "streamsr"
LONGEST_VECTOR = 4000
"""Values of a Frame Time Vector that fit the 65,534 bytes of an explicit DS, at 16 bytes each and then some."""

DERIVED_SERIES = 1000
"""Added to the number of the source's series, so that the derived one is listed behind it."""

KEPT = (
    # Patient, Clinical Trial Subject
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientBirthDate"),
    *("PatientSex", "OtherPatientIDsSequence", "PatientComments", "EthnicGroup", "PatientSpeciesDescription"),
    *("PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence", "ResponsiblePerson"),
    *("BreedRegistrationSequence", "ResponsiblePersonRole", "ResponsibleOrganization"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
    # General Study, Patient Study
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    *("IssuerOfAccessionNumberSequence", "StudyDescription", "ProcedureCodeSequence", "PatientAge", "PatientSize"),
    *("PatientWeight", "AdmissionID", "LongitudinalTemporalInformationModified"),
    # of the picture
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "Laterality", "BodyPartExamined", "PatientOrientation"),
    *("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "AcquisitionNumber", "AcquisitionContextSequence"),
    *("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence", "BurnedInAnnotation"),
    *("RecognizableVisualFeatures", "DeviceSequence", "MultiplexedAudioChannelsDescriptionCodeSequence"),
)
"""What is the same for the derived object. All else, private attributes too, stays behind."""

EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber", "PatientOrientation"),
)
"""Attributes of type 2: they must be there, and may be empty."""

SOMEWHERE = ("123037004", "SCT", "Body structure")
"""The anatomic region, which has to be stated, where nobody said which: SNOMED's name for any."""

RESAMPLED = ("113085", "DCM", "Spatial resampling")
COMPRESSED = ("113040", "DCM", "Lossy Compression")
SOURCE_IMAGE = ("121322", "DCM", "Source image for image processing operation")
ACQUIRED = ("109101", "DCM", "Acquisition Equipment")
PROCESSED = ("109102", "DCM", "Processing Equipment")
"""Codes of PS3.16, CID 7203, 7202 and 7005."""

EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "InstitutionName")


@dataclass(frozen=True)
class Derivation:
    """How the pictures of a derived object were made.

    Attributes:
        description: in words, ASCII, at most 1024 characters.
        synthetic: whether a generator drew part of the content.
        model: what made them, for the equipment that contributed; at most 64 characters.
        history: (ratio, method) of each lossy compression before, oldest first, where no source object says.
    """

    description: str
    synthetic: bool
    model: str
    history: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Place:
    """Where an object is filed.

    Attributes:
        study_uid: of a study of its own, for an object without a source; others go into their source's.
        series_uid: of its series.
        number: in its series.
    """

    study_uid: str
    series_uid: str
    number: int = 1


def describe_derived(
    source: Any | None,
    source_bytes: int,
    video: Bitstream,
    syntax: VideoSyntax,
    derivation: Derivation,
    place: Place,
) -> Any:
    """Return the data set of a derived object, without its pixel data.

    Args:
        source: data set of the object that it is derived from; None where there is none.
        source_bytes: of that object's bitstream.
        video: that the object will hold.
        syntax: that holds it.
        derivation: how it was made.
        place: where it is filed.
    """
    from pydicom.dataset import Dataset

    made = Dataset()
    _keep(made, source)
    if not video.has_sound:
        made.pop("MultiplexedAudioChannelsDescriptionCodeSequence", None)
    _identify(made, place)
    _describe_picture(made, video)
    _describe_time(made, video)
    _describe_derivation(made, source, derivation)
    _describe_compression(made, source, source_bytes, video, syntax, derivation)
    made.SeriesNumber = 1 if source is None else int(source.get("SeriesNumber") or 0) + DERIVED_SERIES
    if source is not None:
        _refer(made, source)
    return made


def _keep(made: Any, source: Any | None) -> None:
    for keyword in KEPT:
        if source is not None and keyword in source:
            made[keyword] = copy.deepcopy(source[keyword])
    for keyword in EMPTY:
        if keyword not in made:
            setattr(made, keyword, "")
    if "BodyPartExamined" not in made and "Laterality" not in made:
        made.Laterality = ""  # of a part of the body that nobody named; of a named one the source says so, or need not
    if source is None:
        made.SpecificCharacterSet = "ISO_IR 192"
    if "AcquisitionContextSequence" not in made:
        made.AcquisitionContextSequence = []
    if not made.get("AnatomicRegionSequence"):
        made.AnatomicRegionSequence = [_code(*SOMEWHERE)]


def _identify(made: Any, place: Place) -> None:
    """SOP Common, General Series, General Equipment, General Image."""
    from pydicom.uid import generate_uid

    now = _now(str(made.get("TimezoneOffsetFromUTC") or ""))
    made.SOPClassUID, made.SOPInstanceUID = SOP_CLASS, generate_uid(prefix=None)
    if not made.get("StudyInstanceUID"):
        made.StudyInstanceUID = place.study_uid
    made.SeriesInstanceUID, made.InstanceNumber = place.series_uid, place.number
    made.Modality, made.SeriesDescription = "ES", "Enlarged by streamsr, research use"
    made.InstanceCreationDate = made.ContentDate = f"{now:%Y%m%d}"
    made.InstanceCreationTime = made.ContentTime = f"{now:%H%M%S}"
    made.Manufacturer, made.ManufacturerModelName, made.SoftwareVersions = MANUFACTURER, MANUFACTURER, __version__
    made.DeviceSerialNumber = None


def _now(offset: str) -> datetime:
    """Return the time, in the zone that the object's other times are in (``+0100``), or else in the local one.

    >>> _now("-0330").utcoffset() == timedelta(hours=-3.5)
    True
    """
    now = datetime.now(timezone.utc)
    if not re.fullmatch(r"[+-]([01]\d)[0-5]\d", offset.strip()):
        return now.astimezone()
    hours, minutes = int(offset[1:3]), int(offset[3:5])
    ahead = timedelta(hours=hours, minutes=minutes)
    return now.astimezone(timezone(-ahead if offset[0] == "-" else ahead))


def _describe_picture(made: Any, video: Bitstream) -> None:
    """Image Pixel and VL Image, as PS3.5, 8.2.7 to 8.2.10, demand for video."""
    made.Rows, made.Columns = video.height, video.width
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "YBR_PARTIAL_420", 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0


def _describe_time(made: Any, video: Bitstream) -> None:
    """Multi-frame and Cine; the bitstream's own times stay what counts."""
    from pydicom.tag import Tag

    rate, times_s = float(video.rate), video.times_s
    made.NumberOfFrames = len(times_s)
    made.CineRate = made.RecommendedDisplayFrameRate = max(1, round(rate))
    made.PreferredPlaybackSequencing = 0
    if video.has_sound and "MultiplexedAudioChannelsDescriptionCodeSequence" not in made:
        made.MultiplexedAudioChannelsDescriptionCodeSequence = []  # where the sound comes from nobody said
    if video.is_constant or len(times_s) > LONGEST_VECTOR:
        made.FrameTime = f"{1000 / rate:.6g}"
        made.FrameIncrementPointer = Tag("FrameTime")
        return
    steps_ms = [0.0, *(float(1000 * (later - earlier)) for earlier, later in pairwise(times_s))]
    made.FrameTimeVector = [f"{step_ms:.6g}" for step_ms in steps_ms]
    made.FrameIncrementPointer = Tag("FrameTimeVector")


def _describe_derivation(made: Any, source: Any | None, derivation: Derivation) -> None:
    """General Image, and the equipment that contributed (PS3.3, C.12.1)."""
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.DerivationDescription = derivation.description[:1024]
    made.DerivationCodeSequence = [_code(*RESAMPLED), _code(*COMPRESSED)]
    drawn = derivation.synthetic or (source is not None and source.get("SyntheticData") == "YES")
    made.SyntheticData = "YES" if drawn else "NO"
    ours = _equipment(PROCESSED, made, "Enlarged the pictures")
    ours.ManufacturerModelName, ours.DeviceSerialNumber = derivation.model[:64], None
    now = datetime.now(timezone.utc)
    ours.ContributionDateTime = f"{now:%Y%m%d%H%M%S}+0000"
    made.ContributingEquipmentSequence = [ours]
    if source is not None:
        before = copy.deepcopy(list(source.get("ContributingEquipmentSequence") or ()))
        if _values(source.get("ImageType"))[:1] != ["DERIVED"]:
            before.append(_equipment(ACQUIRED, source, "Made the source object"))
        made.ContributingEquipmentSequence = [*before, ours]


def _describe_compression(
    made: Any, source: Any | None, source_bytes: int, video: Bitstream, syntax: VideoSyntax, derivation: Derivation
) -> None:
    """Lossy compression, all of it: that of the source first."""
    history = list(derivation.history) if source is None else _history(source, source_bytes, derivation)
    history.append(
        (estimate_ratio(video.width, video.height, len(video.times_s), video.num_bytes), METHODS[syntax.codec])
    )
    made.LossyImageCompression = "01"
    made.LossyImageCompressionRatio = [f"{ratio:.6g}" for ratio, _ in history]
    made.LossyImageCompressionMethod = [method for _, method in history]


def _history(source: Any, source_bytes: int, derivation: Derivation) -> list[tuple[float, str]]:
    """Return the (ratio, method) of each lossy compression of the source: as it says, or as it can be worked out."""
    ratios, methods = (_values(source.get(f"LossyImageCompression{part}")) for part in ("Ratio", "Method"))
    if ratios and len(ratios) == len(methods):
        return [(float(ratio), str(method)) for ratio, method in zip(ratios, methods, strict=True)]
    codec = codec_of(str(source.file_meta.TransferSyntaxUID)) or ""
    width, height, num_frames = (int(source.get(name) or 0) for name in ("Columns", "Rows", "NumberOfFrames"))
    if derivation.history or not width * height * num_frames or codec not in METHODS:
        return list(derivation.history)
    return [(estimate_ratio(width, height, num_frames, source_bytes), METHODS[codec])]


def estimate_ratio(width: int, height: int, num_frames: int, num_bytes: int) -> float:
    """Return the size of pictures of three 8-bit samples a pixel, as the attributes say, over that of their code."""
    return max(1.0, 3 * width * height * num_frames / max(1, num_bytes))


def _refer(made: Any, source: Any) -> None:
    """Name the source: General Image, and Common Instance Reference."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    plain = copy.deepcopy(item)
    item.PurposeOfReferenceCodeSequence = [_code(*SOURCE_IMAGE)]
    made.SourceImageSequence = [item]
    if source.get("SeriesInstanceUID"):
        series = Dataset()
        series.SeriesInstanceUID, series.ReferencedInstanceSequence = source.SeriesInstanceUID, [plain]
        made.ReferencedSeriesSequence = [series]


def _equipment(purpose: tuple[str, str, str], described: Any, contribution: str) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code(*purpose)]
    for keyword in EQUIPMENT:
        if described.get(keyword):
            item[keyword] = copy.deepcopy(described[keyword])
    if "Manufacturer" not in item:
        item.Manufacturer = "unknown"  # type 1 here
    item.ContributionDescription = contribution
    return item


def _code(value: str, scheme: str, meaning: str) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _values(value: Any) -> list[Any]:
    if value in (None, ""):
        return []
    return [value] if isinstance(value, (str, float, int)) else list(value)
