// What can go wrong in a restore, besides bad bytes (StreamError), the hypervisor's errors and the guest type's.

import { RomulusError } from '../errors.js';

export type RestoreErrorCode =
  | 'BAD_OPTIONS' // an option of restoreDomain that cannot be
  | 'NO_CONSISTENT_CHECKPOINT' // the stream broke before it had brought a whole domain
  | 'SOURCE_FAILED' // reading the stream failed; the cause is attached
  | 'BACK_CHANNEL_BROKEN' // COLO: the list of dirty pages could not be sent; the cause of a failover
  | 'NOT_SUSPENDED' // COLO: the suspend callback came back and the domain is not suspended
  | 'BUFFER_LIMIT' // a checkpoint larger than may be buffered
  | 'SPILL_FAILED' // what of a checkpoint does not fit into memory cannot be kept in a file; facts `directory`, `code`
  | 'DISKS_DIFFER' // the stream's disks are not the domain's; facts `stream`, `domain`
  | 'UNKNOWN_RECORD' // a mandatory record that nothing here knows
  | 'NO_EMULATOR' // the state of a device model that the domain does not have
  | 'UNEXPECTED_RECORD' // a record that must not stand where it stands
  | 'NOT_COPIED' // of the domain there is no whole copy: why, says the message
  | 'CLEANUP_FAILED'; // the restore itself succeeded, or failed with an error that is the cause

export class RestoreError extends RomulusError<RestoreErrorCode> {}
