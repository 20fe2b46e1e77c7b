// A job of QEMU's block layer, from its order to its end: what takes longer than an answer may.

import { filter, lastValueFrom, takeWhile, tap } from 'rxjs';
import { withinAwake } from '../../../../flow/awake.js';
import { HypervisorError, failed } from '../../../port.js';
import { isObject, type JsonObject } from '../../monitor/qmp-parser.js';
import type { QmpClient, QmpEvent } from '../../monitor/qmp.js';

/** QEMU says why a job has failed in the system's words only. */
const CODES: readonly (readonly [RegExp, string])[] = [
  [/No space left/i, 'ENOSPC'],
  [/Input\/output error/i, 'EIO'],
  [/Read-only file system/i, 'EROFS'],
  [/Operation not permitted/i, 'EPERM'],
  [/Permission denied/i, 'EACCES'],
  [/quota exceeded/i, 'EDQUOT'],
  [/File too large/i, 'EFBIG'],
];

/**
 * Resolves when the job is over, and well. One that is ready is told to complete.
 * @throws HypervisorError FAILED, with the fact `code` where the system's is known; HUNG; DOMAIN_GONE
 */
export async function runJob(
  qmp: QmpClient,
  id: string,
  [command, order]: readonly [string, JsonObject],
  timeoutMs: number,
): Promise<void> {
  const statusOf = ({ name, data }: QmpEvent) =>
    name === 'JOB_STATUS_CHANGE' && data['id'] === id ? data['status'] : null;
  const over = lastValueFrom(
    qmp.events$.pipe(
      filter((event) => statusOf(event) !== null),
      tap((event) => {
        // If it has failed meanwhile, it is over.
        if (statusOf(event) === 'ready') qmp.execute('job-complete', { id }).catch(() => undefined);
      }),
      takeWhile((event) => statusOf(event) !== 'concluded'),
    ),
    { defaultValue: null },
  );
  await qmp.execute(command, { 'job-id': id, ...order });
  const late = () =>
    new HypervisorError('HUNG', `QEMU does not come to the end of ${command}`, { timeoutMs });
  await withinAwake(timeoutMs, over, late);
  const [jobs] = await Promise.all(qmp.executeAll([['query-jobs'], ['job-dismiss', { id }]]));
  const job = Array.isArray(jobs) && (jobs as unknown[]).find((one) => isObject(one) && one['id'] === id);
  if (!isObject(job)) throw failed(`QEMU does not know what became of ${command}`, { id });
  const { error } = job;
  if (typeof error === 'string') throw failed(`${command} fails: ${error}`, { code: codeIn(error) });
}

/** The system's code that QEMU's words stand for, if they are known. */
export function codeIn(words: string): string | undefined {
  return CODES.find(([pattern]) => pattern.test(words))?.[1];
}
