"""Everything that can go wrong, by what the person on the other side can do about it.

::

    ChestXrayError
    ├── UnreadableError              the bytes are no image that is read here: send another file
    │   ├── EmptyFileError
    │   ├── TruncatedFileError
    │   ├── DamagedFileError
    │   ├── UnsupportedFormatError
    │   ├── UnsupportedTransferSyntaxError
    │   └── AnimatedFileError
    ├── LimitError                   more than is accepted: send less
    │   ├── TooManyBytesError
    │   ├── TooManyPixelsError
    │   ├── TooManyFilesError
    │   └── TooCostlyError           decoding it was given up
    ├── RefusedError                 readable, but not what the model may judge
    │   ├── TooSmallError
    │   ├── WrongModalityError       what a DICOM file says of itself
    │   ├── WrongBodyPartError
    │   ├── WrongViewError
    │   ├── MultiFrameError
    │   ├── ColourError
    │   ├── NoPixelDataError
    │   ├── OutsidePopulationError   a patient of an age that the bundle does not know
    │   └── NotAChestRadiographError
    ├── RequestError                 the question is malformed: ask differently
    │   ├── MissingFieldError
    │   ├── MalformedBodyError
    │   ├── InvalidQueryError
    │   ├── UnknownOperatingPointError
    │   ├── UnknownModelError
    │   ├── SlowBodyError
    │   └── UnauthorizedError
    ├── UnavailableError             not now: ask again later
    │   ├── OverloadedError
    │   └── NotReadyError
    ├── BundleError                  the model on disk cannot be used: install another
    │   ├── BundleMissingError
    │   ├── BundleDamagedError
    │   └── BundleVersionError
    ├── DatasetError                 the folder of radiographs cannot be used
    │   ├── EmptyDatasetError
    │   └── LeakError
    ├── ConfigError                  a setting or a training configuration is wrong: mend it
    ├── NodeError                    the DICOM node cannot work here
    ├── CannotOpenError              a file of an archive is missing or may not be read
    ├── ClusterError                 the Ray cluster cannot do the work
    └── LearningError                training or export cannot go on
        ├── WeightsError
        ├── RunMismatchError
        └── ParityError

Every class carries a stable ``code`` for programs; the message is for people and never contains a
file's name, pixels or a patient's data unless the caller of the raising function put it there.

Does not: know of HTTP statuses or exit codes (``service`` and ``cli`` do), nor import anything.
"""

from typing import ClassVar


class ChestXrayError(Exception):
    """Root of everything this package raises on purpose."""

    code: ClassVar[str] = "error"


class UnreadableError(ChestXrayError):
    code = "unreadable"


class EmptyFileError(UnreadableError):
    code = "empty_file"


class TruncatedFileError(UnreadableError):
    code = "truncated_file"


class DamagedFileError(UnreadableError):
    code = "damaged_file"


class UnsupportedFormatError(UnreadableError):
    code = "unsupported_format"


class UnsupportedTransferSyntaxError(UnreadableError):
    code = "unsupported_transfer_syntax"


class AnimatedFileError(UnreadableError):
    code = "animated_file"


class LimitError(ChestXrayError):
    code = "limit"


class TooManyBytesError(LimitError):
    code = "too_many_bytes"


class TooManyPixelsError(LimitError):
    code = "too_many_pixels"


class TooManyFilesError(LimitError):
    code = "too_many_files"


class TooCostlyError(LimitError):
    """Decoding a file takes more time or memory than a picture of its size can need."""

    code = "too_costly"


class RefusedError(ChestXrayError):
    code = "refused"


class TooSmallError(RefusedError):
    code = "too_small"


class WrongModalityError(RefusedError):
    code = "wrong_modality"


class WrongBodyPartError(RefusedError):
    code = "wrong_body_part"


class WrongViewError(RefusedError):
    """A view that the bundle does not know: lateral, say."""

    code = "wrong_view"


class MultiFrameError(RefusedError):
    code = "multi_frame"


class ColourError(RefusedError):
    code = "colour"


class NoPixelDataError(RefusedError):
    code = "no_pixel_data"


class OutsidePopulationError(RefusedError):
    """The patient's age is known, and is none that the bundle knows."""

    code = "outside_population"


class NotAChestRadiographError(RefusedError):
    """The input check refuses; ``score`` in [0, 1], higher is more like a chest radiograph."""

    code = "not_a_chest_radiograph"

    def __init__(self, message: str, score: float) -> None:
        super().__init__(message)
        self.score = score


class RequestError(ChestXrayError):
    code = "request"


class MissingFieldError(RequestError):
    code = "missing_field"


class MalformedBodyError(RequestError):
    code = "malformed_body"


class InvalidQueryError(RequestError):
    code = "invalid_query"


class UnknownOperatingPointError(RequestError):
    code = "unknown_operating_point"


class UnknownModelError(RequestError):
    code = "unknown_model"


class SlowBodyError(RequestError):
    code = "slow_body"


class UnauthorizedError(RequestError):
    """A key is demanded, and there is none or another."""

    code = "unauthorized"


class UnavailableError(ChestXrayError):
    code = "unavailable"


class OverloadedError(UnavailableError):
    """The queue is full or the wait in it too long; ask again after ``retry_after_s`` seconds."""

    code = "overloaded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReadyError(UnavailableError):
    code = "not_ready"


class BundleError(ChestXrayError):
    code = "bundle"


class BundleMissingError(BundleError):
    code = "bundle_missing"


class BundleDamagedError(BundleError):
    code = "bundle_damaged"


class BundleVersionError(BundleError):
    code = "bundle_version"


class DatasetError(ChestXrayError):
    code = "dataset"


class EmptyDatasetError(DatasetError):
    code = "empty_dataset"


class LeakError(DatasetError):
    """A subject, or a duplicate image, stands on both sides of a split."""

    code = "leak"


class ConfigError(ChestXrayError):
    code = "config"


class NodeError(ChestXrayError):
    """Another node works in the same folder, or the port is taken."""

    code = "node"


class CannotOpenError(ChestXrayError):
    code = "cannot_open"


class ClusterError(ChestXrayError):
    """Nothing answers at the address, or its nodes fail for good."""

    code = "cluster"


class LearningError(ChestXrayError):
    code = "learning"


class WeightsError(LearningError):
    code = "weights"


class RunMismatchError(LearningError):
    code = "run_mismatch"


class ParityError(LearningError):
    """An exported model does not compute what the trained network computes."""

    code = "parity"
