// What the primary is told of the images over a link: sums of chunks, as it asks for them, and what is durable.

import {
  EMPTY,
  concatMap,
  filter,
  ignoreElements,
  map,
  merge,
  switchMap,
  takeUntil,
  tap,
  type Observable,
} from 'rxjs';
import { asError } from '../errors.js';
import { ofKind } from '../flow/of-kind.js';
import type { DiskTarget } from '../hypervisor/port-disks.js';
import { ChannelError, type SecondaryLink } from '../channel/contract.js';

export type DiskLink = Pick<SecondaryLink, 'events$' | 'sumsWanted$' | 'answerSums' | 'durable' | 'destroy'>;

/**
 * `disks$`: one value, as soon as there is a domain: its disks. What is asked for waits until then. Never fails: an image
 * that cannot be read ends the link.
 */
export function diskAnswers(link: DiskLink, disks$: Observable<DiskTarget | null>): Observable<never> {
  const sums$ = link.sumsWanted$.pipe(
    filter((range) => range !== null),
    concatMap((range) => disks$.pipe(map((disks) => ({ disks, ...range })))),
    concatMap(async ({ disks, disk, first, count }) => {
      try {
        const sums = await disks?.sums(disk, first, count);
        if (sums) link.answerSums({ disk, first, count }, sums);
        else link.destroy(new ChannelError('BAD_MESSAGE', 'sums of a disk that is not here', { disk }));
      } catch (thrown) {
        const { message } = asError(thrown);
        link.destroy(new ChannelError('STANDBY_LOST', `disk ${disk} cannot be read: ${message}`, { disk }));
      }
    }),
  );
  const durable$ = disks$.pipe(
    switchMap((disks) => disks?.durable$ ?? EMPTY),
    tap((point) => {
      if (point) link.durable(point);
    }),
  );
  return merge(sums$, durable$).pipe(ignoreElements(), takeUntil(link.events$.pipe(ofKind('lost'))));
}
