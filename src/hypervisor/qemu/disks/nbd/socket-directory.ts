// Where the sockets of the exports stand.

import path from 'node:path';
import { asError } from '../../../../errors.js';
import { makeOwnDirectory, ownDirectoryPath } from '../../process/own-directory.js';
import { NbdError } from './error.js';

/** The longest path of a socket, in octets (Linux, without the zero at its end). */
const SOCKET_PATH_BYTES_MAX = 107;
const KIND = 'romulus-nbd';

/** @throws NbdError BAD_PATH, FAILED */
export async function socketDirectory(parent: string): Promise<string> {
  const longest = path.join(ownDirectoryPath(parent, KIND), 'socket');
  if (Buffer.byteLength(longest) > SOCKET_PATH_BYTES_MAX) {
    throw new NbdError('BAD_PATH', `no socket can stand in ${parent}: its path would be too long`, {
      path: longest,
    });
  }
  try {
    return await makeOwnDirectory(parent, KIND);
  } catch (thrown) {
    const cause = asError(thrown);
    throw new NbdError('FAILED', `no directory can be made in ${parent}: ${cause.message}`, {}, { cause });
  }
}
