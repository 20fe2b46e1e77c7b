// What the primary is told of the images over a link: sums of chunks, as it asks for them, and what is durable.
//
// It is told of the domain that the link's stream fills. That may be made anew when the stream comes, while another one,
// with images of its own perhaps, is held yet: whoever asks before, waits.

import {
  EMPTY,
  concatMap,
  distinctUntilChanged,
  filter,
  ignoreElements,
  map,
  merge,
  switchMap,
  take,
  takeUntil,
  tap,
  type Observable,
} from 'rxjs';
import { asError } from '../errors.js';
import { ofKind } from '../flow/of-kind.js';
import type { DiskTarget } from '../hypervisor/port-disks.js';
import { ChannelError, type ChunkRange, type SecondaryLink, type Welcome } from '../channel/contract.js';

export interface DiskLink extends Pick<
  SecondaryLink,
  'events$' | 'sumsWanted$' | 'answerSums' | 'durable' | 'destroy'
> {
  readonly welcome: Pick<Welcome, 'streamUuid'>;
}

/** The domain that a stream fills. */
export interface Filled {
  readonly streamUuid: string;
  readonly disks: DiskTarget | null;
}

/** `filled$`: by the present stream; null: by none yet. Never fails: an image that cannot be read ends the link. */
export function diskAnswers(link: DiskLink, filled$: Observable<Filled | null>): Observable<never> {
  const disks$ = filled$.pipe(
    filter((filled) => filled !== null && filled.streamUuid === link.welcome.streamUuid),
    map((filled) => filled?.disks ?? null),
    distinctUntilChanged(),
  );
  const sums$ = link.sumsWanted$.pipe(
    filter((range) => range !== null),
    concatMap((range) =>
      disks$.pipe(
        take(1),
        concatMap((disks) => answer(link, disks, range)),
      ),
    ),
  );
  const durable$ = disks$.pipe(
    switchMap((disks) => disks?.durable$ ?? EMPTY),
    tap((point) => {
      if (point) link.durable(point);
    }),
  );
  return merge(sums$, durable$).pipe(ignoreElements(), takeUntil(link.events$.pipe(ofKind('lost'))));
}

async function answer(link: DiskLink, disks: DiskTarget | null, range: ChunkRange): Promise<void> {
  const { disk, first, count } = range;
  try {
    const sums = await disks?.sums(disk, first, count);
    if (sums) link.answerSums({ disk, first, count }, sums);
    else link.destroy(new ChannelError('BAD_MESSAGE', 'sums of a disk that is not here', { disk }));
  } catch (thrown) {
    const { message } = asError(thrown);
    link.destroy(new ChannelError('STANDBY_LOST', `disk ${disk} cannot be read: ${message}`, { disk }));
  }
}
