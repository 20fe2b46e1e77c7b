// What went wrong with an image, in words that name it.

import { getSystemErrorName } from 'node:util';
import { HypervisorError, failed } from '../../../port.js';
import type { LocalDisk } from '../drives.js';
import { NbdError } from '../nbd/error.js';

/** `what`: was asked of it ("write"). */
export function explained({ id, file }: LocalDisk, what: string, error: Error): HypervisorError {
  const facts = { disk: id, file };
  if (error instanceof HypervisorError) {
    return new HypervisorError(error.code, error.message, { ...facts, ...error.facts }, { cause: error });
  }
  if (!(error instanceof NbdError)) return failed(`the image ${file} fails`, facts, error);
  if (error.code === 'HUNG') {
    const message = `the image ${file} of the disk ${id} does not ${what}: its disk hangs`;
    return new HypervisorError('HUNG', message, facts, { cause: error });
  }
  // Its connections end with it.
  if (error.code === 'CLOSED' || error.code === 'FAILED') {
    return failed(`the image ${file} of the disk ${id} does not ${what}: ${error.message}`, facts, error);
  }
  const { errno, offset, length } = error.facts;
  const code = typeof errno === 'number' && errno > 0 ? getSystemErrorName(-errno) : error.code;
  const where = { ...facts, code, offset, length };
  return failed(`the image ${file} of the disk ${id} does not ${what}: ${code}`, where, error);
}
