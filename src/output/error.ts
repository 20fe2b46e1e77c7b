// What can go wrong on the way out, beside the system errors of files, pipes and terminals themselves.

import { RomulusError } from '../errors.js';

export type OutputErrorCode =
  | 'OPEN_TIMEOUT' // a file did not open in time: its file system hangs
  | 'WRITER_ENDED' // the process that writes to files has ended
  | 'BAD_COUNT'; // an outlet says that it took more octets than it was given

export class OutputError extends RomulusError<OutputErrorCode> {}
