// What a standby tells of its images over a link: also where its domain is made anew while the primary asks already.

import { expect } from 'chai';
import { BehaviorSubject, Subject } from 'rxjs';
import { ChannelError, type ChunkRange, type LinkEvent } from '../../src/channel/contract.js';
import type { DiskPoint } from '../../src/hypervisor/port-disks.js';
import { diskAnswers } from '../../src/secondary/disk-answers.js';
import { MemoryDisks } from '../memory/disks.js';
import { until } from '../support/until.js';

const DISKS = [{ id: 'root', bytes: 3 * 65_536 }];
const POINT: DiskPoint = { streamUuid: 'one', epoch: 4 };

const range: ChunkRange = { disk: 0, first: 1, count: 2 };

function linked(domain: { readonly disks?: MemoryDisks } | null) {
  const said: string[] = [];
  const wanted$ = new BehaviorSubject<ChunkRange | null>(null);
  const events$ = new Subject<LinkEvent>();
  const domain$ = new BehaviorSubject(domain);
  const link = {
    events$,
    sumsWanted$: wanted$,
    answerSums: ({ first, count }: ChunkRange, sums: Uint8Array) =>
      void said.push(`sums ${first} ${count} ${sums.length}`),
    durable: ({ epoch }: DiskPoint) => void said.push(`durable ${epoch}`),
    destroy: ({ code }: ChannelError) => void said.push(`destroy ${code}`),
  };
  diskAnswers(link, domain$).subscribe();
  const lost = () => events$.next({ kind: 'lost', error: new ChannelError('LINK_CLOSED', 'cut') });
  return { said, wanted$, domain$, lost };
}

describe('secondary/disk-answers', () => {
  it('what is asked before the domain is made, waits for it', async () => {
    const { said, wanted$, domain$ } = linked(null);
    wanted$.next(range);
    const disks = new MemoryDisks({ disks: DISKS });
    domain$.next({ disks });
    await until('the answer', () => said.length > 0);
    expect(said).to.deep.equal(['sums 1 2 32']);
    disks.durable$.next(POINT);
    expect(said).to.deep.equal(['sums 1 2 32', 'durable 4']);
  });

  it('a domain without disks that are replicated has no sums', async () => {
    const { said, wanted$ } = linked({});
    wanted$.next(range);
    await until('the answer', () => said.length > 0);
    expect(said).to.deep.equal(['destroy BAD_MESSAGE']);
  });

  it('the next domain tells what is durable, and nobody does after the link', () => {
    const first = new MemoryDisks({ disks: DISKS });
    const second = new MemoryDisks({ disks: DISKS });
    const { said, wanted$, domain$, lost } = linked({ disks: first });
    domain$.next(null);
    domain$.next({ disks: second });
    first.durable$.next(POINT);
    second.durable$.next({ ...POINT, epoch: 7 });
    lost();
    second.durable$.next({ ...POINT, epoch: 8 });
    wanted$.next(range);
    expect(said).to.deep.equal(['durable 7']);
  });
});
