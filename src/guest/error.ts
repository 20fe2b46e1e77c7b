// What the ops tables refuse.

import { RomulusError } from '../errors.js';

export type GuestErrorCode =
  | 'UNSUPPORTED_DOMAIN_TYPE' // a type of guest that has no ops table (yet)
  | 'DOMAIN_TYPE_MISMATCH' // the stream is of one type of guest, the domain of another
  | 'BAD_PAGE_SIZE' // the stream's page size is not the domain's
  | 'INCOMPLETE'; // records are missing without which the domain cannot run

export class GuestError extends RomulusError<GuestErrorCode> {}
