// What can go wrong between us and whoever is at the other end of an NBD socket, or in the thread that serves ours.

import { RomulusError } from '../../../../errors.js';

export type NbdErrorCode =
  | 'PROTOCOL' // the other side says what NBD does not allow, or what we have not offered; facts as far as they apply
  | 'REFUSED' // a server refuses an option; facts `option`, `reply`, and what it says
  | 'REQUEST_FAILED' // a server answers a request with an error; facts `errno`, `offset`, `length`
  | 'OUT_OF_RANGE' // a request for octets that the export does not have, or for too many at once
  | 'TOO_MANY' // more requests at once than a connection may have
  | 'CLOSED' // the connection has ended, by either side
  | 'HUNG' // the other side does not answer within the time it is given
  | 'BAD_PATH' // no socket can stand there; facts `path`
  | 'THREAD_ENDED' // the thread that serves our exports has ended; the cause is attached
  | 'FAILED'; // the system refuses a socket, a file or memory; the cause is attached

/** Facts: `option`, `reply`, `type`, `magic`, `offset`, `length`, `errno`, `export`, … as far as they apply. */
export class NbdError extends RomulusError<NbdErrorCode> {}
