// What goes wrong with disks while they are saved: the stream fails with a code, and whatever it was, nothing of the
// source's is kept, and it marks what is written again.

import { expect } from 'chai';
import type { DirtyMap } from '../../src/disk/dirty-map.js';
import { RomulusError } from '../../src/errors.js';
import type { CopiedExtents, DiskCopyOrder, DiskWrites } from '../../src/hypervisor/port-disks.js';
import type { SaveStepOptions } from '../../src/save/context.js';
import { openSave, type SaveSteps } from '../../src/save/steps.js';
import type { StreamSink } from '../../src/stream/flow.js';
import { MemoryDisks } from '../memory/disks.js';
import { MemoryDomain } from '../memory/domain.js';
import { until } from '../support/until.js';
import { PAGES, TWO_DISKS, noise } from './disk-support.js';
import { RecordingSink } from './support.js';

interface Trial {
  readonly domain: MemoryDomain;
  readonly disks: MemoryDisks;
  readonly steps: SaveSteps;
}

async function trial(
  options: Partial<SaveStepOptions> = {},
  disks = new MemoryDisks({ disks: TWO_DISKS }),
): Promise<Trial> {
  const domain = new MemoryDomain({ pages: PAGES, disks });
  await domain.start();
  await disks.attach();
  const steps = await openSave({
    ...{ domain, sink: new RecordingSink(), streamType: 'remus', live: true },
    callbacks: { suspend: () => domain.suspend(), postcopy: () => domain.resume() },
    ...options,
  });
  return { domain, disks, steps };
}

async function failureOf(work: Promise<unknown>): Promise<RomulusError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof RomulusError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

async function closed({ steps, disks }: Trial, failure: Error): Promise<void> {
  expect(await steps.close(failure)).to.equal(failure);
  expect([disks.slabsOut, disks.mode, disks.calls]).to.deep.equal([0, 'map', ['rest']]);
}

const checkpoint = async ({ steps }: Trial): Promise<void> => {
  await steps.capture();
  await steps.resume();
  await steps.send();
};

describe('disks that are saved', () => {
  it('and lost while they are copied end the capture', async () => {
    const one = await trial({
      callbacks: {
        suspend: () => Promise.resolve(),
        postcopy: () => Promise.resolve(),
        diskProgress: () => one.disks.loses(1),
      },
    });
    const failure = await failureOf(one.steps.capture());
    expect(failure).to.include({ code: 'FAILED', name: 'HypervisorError' });
    await closed(one, failure);
  });

  it('and lost between two checkpoints end the stream when the domain runs again', async () => {
    const one = await trial();
    await checkpoint(one);
    one.disks.guestWrites(
      0,
      0,
      noise(512, () => 7),
    );
    one.disks.loses(0);
    expect(await one.steps.capture()).to.equal('captured');
    const failure = await failureOf(one.steps.resume());
    expect([failure.code, one.domain.state]).to.deep.equal(['FAILED', 'running']);
    await closed(one, failure);
  });

  it('and written to faster than is kept end the stream, and say how far they are behind', async () => {
    const disks = new MemoryDisks({ disks: TWO_DISKS, poolBytes: 1024 * 1024 });
    const one = await trial({}, disks);
    await checkpoint(one);
    disks.guestWrites(
      0,
      0,
      noise(1024 * 1024, () => 7),
    );
    disks.guestWrites(
      1,
      5 * 65_536,
      noise(512, () => 8),
    );
    await one.steps.capture();
    const failure = await failureOf(one.steps.resume());
    expect(failure).to.deep.include({ code: 'DISK_BEHIND', facts: { disk: 'data', bytes: 65_536 } });
    await closed(one, failure);
  });

  it('before the first checkpoint they are given up only if it does not end', async () => {
    const disks = new MemoryDisks({ disks: TWO_DISKS });
    disks.losesData = () => true;
    const callbacks = {
      suspend: () => Promise.resolve(),
      postcopy: () => Promise.resolve(),
      diskProgress: () =>
        disks.guestWrites(
          1,
          0,
          noise(512, () => 1),
        ),
    };
    const one = await trial({ callbacks }, disks);
    const failure = await failureOf(one.steps.capture());
    expect(failure).to.deep.include({ code: 'DISK_BEHIND', facts: { disk: 'data', bytes: 65_536 } });
    await closed(one, failure);
  });

  it('are not copied any more when the signal says so, or the steps are closed', async () => {
    const given = new AbortController();
    const signalled = await trial({
      disks: { signal: given.signal },
      callbacks: {
        suspend: () => Promise.resolve(),
        postcopy: () => Promise.resolve(),
        diskProgress: () => given.abort(),
      },
    });
    const failure = await failureOf(signalled.steps.capture());
    expect(failure.code).to.equal('ABORTED');
    await closed(signalled, failure);

    let asked = false;
    const todo = (_: unknown, signal: AbortSignal) =>
      new Promise<never>((_resolve, reject) => {
        asked = true;
        signal.addEventListener('abort', () => reject(signal.reason as Error));
      });
    const left = await trial({ disks: { todo } });
    const capturing = failureOf(left.steps.capture());
    await until('the other side is asked', () => asked);
    await left.steps.close(null);
    expect((await capturing).code).to.equal('ABORTED');
    expect([left.disks.mode, left.disks.slabsOut]).to.deep.equal(['map', 0]);
  });

  it('and told to somebody who fails give back what was sealed', async () => {
    const wrong = new Error('wrong');
    const one = await trial({
      callbacks: {
        suspend: () => one.domain.suspend(),
        postcopy: () => one.domain.resume(),
        diskWrites: () => {
          throw wrong;
        },
      },
    });
    await checkpoint(one);
    one.disks.guestWrites(
      0,
      0,
      noise(512, () => 7),
    );
    await one.steps.capture();
    expect(await one.steps.resume().catch((error: unknown) => error)).to.equal(wrong);
    await closed(one, wrong);
  });

  it('and closed in a pause give back what was sealed', async () => {
    const one = await trial();
    await checkpoint(one);
    one.disks.guestWrites(
      0,
      0,
      noise(512, () => 7),
    );
    await one.steps.capture();
    await until('it is sealed', () => one.disks.slabsOut > 0);
    expect(await one.steps.close(null)).to.equal(null);
    expect([one.disks.slabsOut, one.disks.mode]).to.deep.equal([0, 'map']);
  });

  it('fail with the sink', async () => {
    const broken = new Error('broken');
    let pieces = 0;
    const sink: StreamSink = {
      write: () => (pieces++ > 6 ? Promise.reject(broken) : Promise.resolve()),
      boundary: () => Promise.resolve(),
      drain: () => Promise.resolve(),
    };
    const disks = new MemoryDisks({ disks: TWO_DISKS });
    disks.image(0).fill(1);
    const one = await trial({ sink, slabBytes: 8192 }, disks);
    expect(await one.steps.capture().catch((error: unknown) => error)).to.equal(broken);
    await closed(one, broken);
  });

  it('fail if a part of the copy comes behind writes that follow it', async () => {
    class Late extends MemoryDisks {
      override copy(order: DiskCopyOrder) {
        const take = async (copied: CopiedExtents) => {
          await until('a seal', () => this.seals > copied.seals + 1);
          await order.take(copied);
        };
        return super.copy({ ...order, take });
      }
    }
    const one = await trial({}, new Late({ disks: TWO_DISKS }));
    const failure = await failureOf(one.steps.capture());
    expect(failure.message).to.equal('a part of the copy came behind the writes that follow it');
    await closed(one, failure);
  });
});

describe('disks in a save', () => {
  it('cost no pause: what is sealed is waited for when the domain runs again', async () => {
    class Slow extends MemoryDisks {
      answer: (() => void) | null = null;
      isSlow = false;
      override async seal(): Promise<readonly DiskWrites[]> {
        const sealed = await super.seal();
        if (this.isSlow) await new Promise<void>((resolve) => (this.answer = resolve));
        return sealed;
      }
    }
    const disks = new Slow({ disks: TWO_DISKS });
    const one = await trial({}, disks);
    await checkpoint(one);
    disks.isSlow = true;
    disks.guestWrites(
      0,
      512,
      noise(512, () => 7),
    );
    expect(await one.steps.capture()).to.equal('captured');
    const resuming = one.steps.resume();
    await until('the domain runs', () => one.domain.state === 'running');
    // It is of the next epoch.
    disks.guestWrites(
      0,
      1024,
      noise(512, () => 8),
    );
    await until('it is sealed', () => disks.answer !== null);
    disks.answer?.();
    await resuming;
    await one.steps.send();
    disks.isSlow = false;
    expect(await one.steps.close(null)).to.equal(null);
  });

  it('are sealed at once where there is little room', async () => {
    const disks = new MemoryDisks({ disks: TWO_DISKS });
    const todo = async (marked: readonly (DirtyMap | null)[]) => {
      const before = performance.now();
      for (let times = 1; times <= 30; times++) {
        const { seals } = disks;
        disks.events$.next({ kind: 'pressure' });
        await until('it is sealed', () => disks.seals > seals);
      }
      // A tenth of what it would be otherwise.
      expect(performance.now() - before).to.be.lessThan(1500);
      return marked.map(() => 'nothing' as const);
    };
    const one = await trial({ disks: { todo } }, disks);
    await one.steps.capture();
    expect(await one.steps.close(null)).to.equal(null);
  });

  it('are refused in COLO', async () => {
    const back = { read: () => Promise.resolve(null) };
    const failure = await failureOf(trial({ streamType: 'colo', back }));
    expect(failure).to.include({ code: 'BAD_OPTIONS', message: 'disks are not replicated in COLO' });
  });
});
