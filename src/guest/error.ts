// What the ops tables refuse.

import { RomulusError } from '../errors.js';

export type GuestErrorCode =
  | 'UNSUPPORTED_DOMAIN_TYPE' // a type of guest that has no ops table (yet)
  | 'DOMAIN_TYPE_MISMATCH' // the stream is of one type of guest, the domain of another
  | 'BAD_PAGE_SIZE' // the stream's page size is not the domain's
  | 'INCOMPLETE' // records are missing without which the domain cannot run
  | 'UNEXPECTED_RECORD' // a record that must not stand where it stands
  | 'BAD_GUEST_WIDTH' // neither 4 nor 8 octets, or not what the stream says
  | 'BAD_P2M' // the guest's p2m is not where it says, or not within it
  | 'P2M_CHANGED' // the guest moved its p2m while it was saved
  | 'BAD_FRAME' // a frame number that is not of the domain, where the domain uses one
  | 'BAD_PAGE_TYPE' // a page of a type that it cannot have where it is used
  | 'SUPERPAGE' // a page table of a PV guest that maps a superpage
  | 'BAD_VCPU'; // a vCPU that the domain does not have, or whose state cannot be

export class GuestError extends RomulusError<GuestErrorCode> {}
