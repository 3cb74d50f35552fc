"""What the node accepts: SOP classes (PS3.4 B.5) and transfer syntaxes (PS3.5 section 10)."""

from pydicom import uid

from service.results.storage import LABEL_MAP
from service.settings import NodeSettings

PROCESSED = (
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
)
"""Images that models may run on."""

CARRIED_ALONG = (
    uid.SegmentationStorage,
    uid.UID(LABEL_MAP),
    uid.SurfaceSegmentationStorage,
    uid.RTStructureSetStorage,
    uid.BasicTextSRStorage,
    uid.EnhancedSRStorage,
    uid.ComprehensiveSRStorage,
    uid.Comprehensive3DSRStorage,
    uid.XRayRadiationDoseSRStorage,
    uid.KeyObjectSelectionDocumentStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    uid.EncapsulatedPDFStorage,
    uid.ParametricMapStorage,
)
"""What a study carries along: stored when the configuration says so, never processed."""

UNCOMPRESSED = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian)

DECODABLE = (
    *UNCOMPRESSED,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
    uid.RLELossless,
)
"""Everything that `service.series.pixels` can decode; where a sender leaves the choice, the first of these."""

_DICOM_RTV = (
    uid.SMPTEST211020UncompressedProgressiveActiveVideo,
    uid.SMPTEST211020UncompressedInterlacedActiveVideo,
    uid.SMPTEST211030PCMDigitalAudio,
)

STORABLE = (
    *DECODABLE,
    *(syntax for syntax in uid.AllTransferSyntaxes if syntax not in (*DECODABLE, *_DICOM_RTV)),
    uid.UID("1.2.840.10008.1.2.1.98"),  # Encapsulated Uncompressed Explicit VR Little Endian
    *(uid.UID(f"1.2.840.10008.1.2.4.{process}") for process in (*range(52, 57), *range(58, 67))),  # JPEG, retired
    *(uid.UID(f"1.2.840.10008.1.2.4.{kind}") for kind in (94, 95)),  # JPIP Referenced, and the same deflated
    *(uid.UID(f"1.2.840.10008.1.2.4.{kind}") for kind in (110, 111, 112)),  # JPEG XL
    uid.UID("1.2.840.10008.1.2.8.1"),  # Deflated Image Frame Compression
)
"""Everything that can be stored bit for bit: whatever is a data set. Not what is none (MIME, XML, Papyrus), nor the
streams of DICOM-RTV."""


def stores(sop_class: str, node: NodeSettings) -> bool:
    """Whether instances of a SOP class are stored."""
    if sop_class in PROCESSED or (node.accept_carried_along and sop_class in CARRIED_ALONG):
        return True
    return node.accept_private and _private(sop_class)


def stores_encoded(transfer_syntax: str, node: NodeSettings) -> bool:
    """Whether instances in a transfer syntax are stored."""
    return transfer_syntax in STORABLE or (node.accept_private and _private(transfer_syntax))


def _private(value: str) -> bool:
    """Whether it is a UID outside of DICOM's own root (PS3.5 9.1)."""
    return uid.UID(value).is_valid and uid.UID(value).is_private
