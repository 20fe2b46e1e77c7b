// What can go wrong in a save, besides the hypervisor's own errors and the sink's, which pass through as they are.

import { RomulusError } from '../errors.js';

export type SaveErrorCode =
  | 'BAD_OPTIONS' // an option of saveDomain that cannot be
  | 'ABORTED' // the pre-copy policy or the checkpoint callback gave the save up
  | 'NOT_SUSPENDED' // the suspend callback came back and the domain is not suspended
  | 'UNKNOWN_PAGE_TYPE' // the hypervisor names a page type that the stream does not have
  | 'DISK_BEHIND' // a disk is written to faster than it can be sent: not all was kept; facts `disk` (id), `bytes`
  | 'EMPTY_CONTEXT' // the domain's device model gives a state of no octets
  | 'BACK_CHANNEL_BROKEN' // COLO: the secondary can no longer say what it has changed
  | 'UNEXPECTED_RECORD' // COLO: a record that must not stand on the back channel
  | 'NOT_NORMALISED' // a page of a suspended domain that still cannot be made generic
  | 'BAD_PLACE' // what stands where an image shall be read or written cannot hold one: a folder, a terminal, …
  | 'PLACE_IN_USE' // a block device that is mounted, or that something else holds
  | 'PLACE_TOO_SMALL' // a block device that is smaller than the image; facts `room`, `bytes`
  | 'READER_GONE' // whoever read the image (a pipe, a FIFO, a socket) went away before it was whole
  | 'CLEANUP_FAILED'; // the save itself succeeded, or failed with an error that is the cause

export class SaveError extends RomulusError<SaveErrorCode> {}
