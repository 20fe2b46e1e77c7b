// What can go wrong in asking a witness. After a failed write none of these says that it was not done: settle() finds out.

import { RomulusError } from '../errors.js';

export type WitnessErrorCode =
  | 'UNREACHABLE' // no answer, or one that says that there can be none now (no leader, no directory)
  | 'TIMEOUT' // no answer in time
  | 'DENIED' // a certificate, user, password or permission that is not accepted, on either side
  | 'CORRUPT' // what was read is no register, or no answer of such a witness; it is never taken for an absent one
  | 'FENCE_FAILED' // the command that has to turn the other host off did not say that it is off
  | 'NO_WITNESS' // nobody can be asked, and without anybody that may not be
  | 'BAD_CLAIM' // a domain, host, stream, token or register that cannot be one: an error of the caller
  | 'BAD_OPTIONS' // a witness that cannot be: no endpoint, no command, a mount point for a directory
  | 'ABORTED' // the caller did not want to wait any longer
  | 'CLOSED'; // the witness was closed

export class WitnessError extends RomulusError<WitnessErrorCode> {}
