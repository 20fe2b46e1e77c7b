// What a standby tells of its images over a link: also where its domain is made anew while the primary asks already.

import { expect } from 'chai';
import { BehaviorSubject, Subject } from 'rxjs';
import { ChannelError, type ChunkRange, type LinkEvent } from '../../src/channel/contract.js';
import type { DiskPoint } from '../../src/hypervisor/port-disks.js';
import { diskAnswers, type Filled } from '../../src/secondary/disk-answers.js';
import { MemoryDisks } from '../memory/disks.js';
import { until } from '../support/until.js';

const DISKS = [{ id: 'root', bytes: 3 * 65_536 }];
const POINT: DiskPoint = { streamUuid: 'one', epoch: 4 };

const range: ChunkRange = { disk: 0, first: 1, count: 2 };

const OURS = 'a stream';
const filled = (disks: MemoryDisks | null, streamUuid = OURS): Filled => ({ streamUuid, disks });

function linked(present: Filled | null) {
  const said: string[] = [];
  const wanted$ = new BehaviorSubject<ChunkRange | null>(null);
  const events$ = new Subject<LinkEvent>();
  const filled$ = new BehaviorSubject(present);
  const link = {
    welcome: { streamUuid: OURS },
    events$,
    sumsWanted$: wanted$,
    answerSums: ({ first, count }: ChunkRange, sums: Uint8Array) =>
      void said.push(`sums ${first} ${count} ${sums.length}`),
    durable: ({ epoch }: DiskPoint) => void said.push(`durable ${epoch}`),
    destroy: ({ code }: ChannelError) => void said.push(`destroy ${code}`),
  };
  diskAnswers(link, filled$).subscribe();
  const lost = () => events$.next({ kind: 'lost', error: new ChannelError('LINK_CLOSED', 'cut') });
  return { said, wanted$, filled$, lost };
}

describe('secondary/disk-answers', () => {
  it('what is asked before the domain is made, waits for it', async () => {
    const { said, wanted$, filled$ } = linked(null);
    wanted$.next(range);
    const disks = new MemoryDisks({ disks: DISKS });
    filled$.next(filled(disks));
    await until('the answer', () => said.length > 0);
    expect(said).to.deep.equal(['sums 1 2 32']);
    disks.durable$.next(POINT);
    expect(said).to.deep.equal(['sums 1 2 32', 'durable 4']);
  });

  it('a domain that another stream has filled is not asked', async () => {
    const [before, disks] = [new MemoryDisks({ disks: DISKS }), new MemoryDisks({ disks: DISKS })];
    const asked: string[] = [];
    for (const [name, each] of Object.entries({ before, disks })) {
      const sums = each.sums.bind(each);
      each.sums = (...given) => {
        asked.push(name);
        return sums(...given);
      };
    }
    const { said, wanted$, filled$ } = linked(filled(before, 'the one before'));
    wanted$.next(range);
    before.durable$.next(POINT);
    await new Promise((resolve) => setImmediate(resolve));
    expect(said).to.deep.equal([]);
    filled$.next(filled(disks));
    await until('the answer', () => said.length > 0);
    expect(asked).to.deep.equal(['disks']);
  });

  it('a domain without disks that are replicated has no sums', async () => {
    const { said, wanted$ } = linked(filled(null));
    wanted$.next(range);
    await until('the answer', () => said.length > 0);
    expect(said).to.deep.equal(['destroy BAD_MESSAGE']);
  });

  it('the next domain tells what is durable, and nobody does after the link', () => {
    const first = new MemoryDisks({ disks: DISKS });
    const second = new MemoryDisks({ disks: DISKS });
    const { said, wanted$, filled$, lost } = linked(filled(first));
    filled$.next(null);
    filled$.next(filled(second));
    first.durable$.next(POINT);
    second.durable$.next({ ...POINT, epoch: 7 });
    lost();
    second.durable$.next({ ...POINT, epoch: 8 });
    wanted$.next(range);
    expect(said).to.deep.equal(['durable 7']);
  });
});
