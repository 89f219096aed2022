"""The errors of Wakeline: one tree, one code each, one thing to do about each.

    WakelineError
    ├── RequestError                 the request cannot be accepted
    │   ├── RequestInvalidError        400 request_invalid
    │   ├── BodyInvalidError           400 body_invalid
    │   ├── SchemaInvalidError         400 schema_invalid
    │   ├── ValueInvalidError          400 value_invalid
    │   ├── EncodingInvalidError       400 encoding_invalid
    │   ├── SessionNameInvalidError    400 session_name_invalid
    │   ├── TopicInvalidError          400 topic_invalid
    │   ├── CursorInvalidError         400 cursor_invalid
    │   ├── ImportInvalidError         400 import_invalid
    │   ├── TokenMissingError          401 token_missing
    │   ├── TokenInvalidError          401 token_invalid
    │   ├── TokenExpiredError          401 token_expired
    │   ├── OriginRefusedError         403 origin_refused
    │   ├── NotAllowedError            403 not_allowed
    │   ├── NotFoundError              404 not_found
    │   ├── SessionNotFoundError       404 session_not_found
    │   ├── WorkflowNotFoundError      404 workflow_not_found
    │   ├── NotificationNotFoundError  404 notification_not_found
    │   ├── InputNotFoundError         404 input_not_found
    │   ├── RequestNotFoundError       404 request_not_found
    │   ├── MethodNotAllowedError      405 method_not_allowed
    │   ├── RequestTimeoutError        408 request_timeout
    │   ├── CursorAheadError           409 cursor_ahead
    │   ├── SessionExistsError         409 session_exists
    │   ├── InputConflictError         409 input_conflict
    │   ├── RequestConflictError       409 request_conflict
    │   ├── AlreadyResolvedError       409 already_resolved
    │   ├── ClaimedError               409 claimed
    │   ├── ClaimRequiredError         409 claim_required
    │   ├── DigestChangedError         409 digest_changed
    │   ├── StaleError                 409 stale
    │   ├── RunClosedError             409 run_closed
    │   ├── StreamConflictError        409 stream_conflict
    │   ├── EpochChangedError          410 epoch_changed
    │   ├── OffsetGoneError            410 offset_gone
    │   ├── BodyTooLargeError          413 body_too_large
    │   ├── EventTooLargeError         413 event_too_large
    │   ├── BatchTooLargeError         413 batch_too_large
    │   ├── EncodingUnknownError       415 encoding_unknown
    │   ├── ExpectationFailedError     417 expectation_failed
    │   ├── LimitReachedError          429 limit_reached
    │   └── NotImplementedHereError    501 not_implemented
    ├── AppendError                  the log refuses an append
    │   ├── SequenceGapError           409 sequence_gap
    │   ├── AttemptFencedError         409 attempt_fenced
    │   ├── PublisherTakenError        403 publisher_taken
    │   ├── TooManyPublishersError     409 too_many_publishers
    │   ├── SessionClosedError         409 session_closed
    │   └── SessionDeletedError        410 session_deleted
    ├── UnavailableError             503 unavailable: retry later
    │   ├── TemporalUnavailableError   503 temporal_unavailable
    │   ├── SessionImportingError      503 session_importing
    │   ├── StorageFailedError         503 storage_failed
    │   │   └── StorageLostError         503 storage_lost
    │   └── StorageFullError           507 storage_full
    ├── RecordConflictError            409 record_conflict (a compare-and-set lost)
    ├── RecordTooLargeError            413 record_too_large
    ├── InternalError                  500 internal
    └── StartupError                 the server cannot start as asked
        ├── SettingsInvalidError       settings_invalid
        ├── ListenRefusedError         listen_refused
        ├── DataInUseError             data_in_use
        ├── EngineRefusedError         engine_refused
        ├── SchemaTooNewError          schema_too_new
        └── ProgramMissingError        program_missing

Every error has one shape on the wire, `{"error": {"code", "message", "hint"}}`: PROTOCOL.md §11.
"""

from __future__ import annotations

from wakeline.errors.appends import *
from wakeline.errors.availability import *
from wakeline.errors.base import *
from wakeline.errors.requests import *
from wakeline.errors.startup import *

__all__ = [
    "AlreadyResolvedError",
    "AppendError",
    "AttemptFencedError",
    "BatchTooLargeError",
    "BodyInvalidError",
    "BodyTooLargeError",
    "ClaimRequiredError",
    "ClaimedError",
    "CursorAheadError",
    "CursorInvalidError",
    "DataInUseError",
    "DigestChangedError",
    "EncodingInvalidError",
    "EncodingUnknownError",
    "EngineRefusedError",
    "EpochChangedError",
    "EventTooLargeError",
    "ExpectationFailedError",
    "ImportInvalidError",
    "InputConflictError",
    "InputNotFoundError",
    "InternalError",
    "LimitReachedError",
    "ListenRefusedError",
    "MethodNotAllowedError",
    "NotAllowedError",
    "NotFoundError",
    "NotImplementedHereError",
    "NotificationNotFoundError",
    "OffsetGoneError",
    "OriginRefusedError",
    "ProgramMissingError",
    "PublisherTakenError",
    "RecordConflictError",
    "RecordTooLargeError",
    "RequestConflictError",
    "RequestError",
    "RequestInvalidError",
    "RequestNotFoundError",
    "RequestTimeoutError",
    "RunClosedError",
    "SchemaInvalidError",
    "SchemaTooNewError",
    "SequenceGapError",
    "SessionClosedError",
    "SessionDeletedError",
    "SessionExistsError",
    "SessionImportingError",
    "SessionNameInvalidError",
    "SessionNotFoundError",
    "SettingsInvalidError",
    "StaleError",
    "StartupError",
    "StorageFailedError",
    "StorageFullError",
    "StorageLostError",
    "StreamConflictError",
    "TemporalUnavailableError",
    "TokenExpiredError",
    "TokenInvalidError",
    "TokenMissingError",
    "TooManyPublishersError",
    "TopicInvalidError",
    "UnavailableError",
    "ValueInvalidError",
    "WakelineError",
    "WorkflowNotFoundError",
]

for _name in __all__:
    # Tracebacks name an error's module: this is the one to import it from.
    globals()[_name].__module__ = __name__
