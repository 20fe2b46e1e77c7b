// What the kernel keeps of an image in memory is not what is on its disk, where that has failed to write it: the kernel
// shows it as if it were, until it needs the room, and a flush that follows says that all is well. So what is compared,
// and built upon, is read anew: before an image is opened for the first time, and after each failure.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { withinAwake } from '../../../../flow/awake.js';
import { HypervisorError, failed } from '../../../port.js';
import { syncFile } from './durability.js';

const TIMEOUT_MS = 30_000;
const run = promisify(execFile);

/** What can be written is written before. @throws HypervisorError FAILED, HUNG */
export async function readAnew(file: string): Promise<void> {
  await syncFile(file);
  // There is no such call in Node; coreutils have it (posix_fadvise, DONTNEED, for the whole file).
  const dropped = run('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none']).catch(
    (error: unknown) =>
      Promise.reject(
        failed(`what is kept in memory of the image ${file} cannot be dropped`, { file }, error),
      ),
  );
  const late = () => new HypervisorError('HUNG', `the image ${file} does not answer`, { file });
  await withinAwake(TIMEOUT_MS, dropped, late);
}
