// The steps of a save, taken by hand: what each does at the port, in which order, and what fails the next one.

import { expect } from 'chai';
import type { RomulusError } from '../../src/errors.js';
import type { SaveOps } from '../../src/guest/ops.js';
import { saveOpsX86Hvm } from '../../src/guest/x86-hvm/save.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { SaveError } from '../../src/save/error.js';
import type { SaveStepOptions } from '../../src/save/context.js';
import { openSave, type SaveSteps } from '../../src/save/steps.js';
import { MemoryDomain } from '../memory/domain.js';
import { RecordingSink, sourceOf, targetFor } from './support.js';

const PAGES = 40;

interface Trial {
  readonly domain: MemoryDomain;
  readonly sink: RecordingSink;
  readonly steps: SaveSteps;
  /** What happened outside the saver. */
  readonly log: string[];
}

async function trial(options: Partial<SaveStepOptions> = {}): Promise<Trial> {
  const domain = new MemoryDomain({ pages: PAGES });
  const sink = new RecordingSink();
  const log: string[] = [];
  const ops: SaveOps = {
    ...saveOpsX86Hvm,
    cleanup(context) {
      log.push('cleanup');
      return saveOpsX86Hvm.cleanup(context);
    },
  };
  await domain.start();
  const steps = await openSave({
    domain,
    sink,
    streamType: 'remus',
    live: true,
    ops,
    callbacks: {
      async suspend(epoch) {
        log.push(`suspend ${epoch}`);
        await domain.suspend();
      },
      async postcopy(epoch) {
        log.push(`postcopy ${epoch}`);
        await domain.resume();
      },
    },
    ...options,
  });
  return { domain, sink, steps, log };
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'none';
  } catch (error) {
    return (error as RomulusError).code;
  }
}

describe('the steps of a save', () => {
  it('capture, let the domain run, send and end; a restore of it is the domain as it was last captured', async () => {
    const { domain, sink, steps, log } = await trial();
    const last = (): Uint8Array => domain.memory.slice();
    expect(await steps.capture()).to.equal('captured');
    expect(domain.state).to.equal('suspended');
    // Captured, not sent: the boundary is not behind it.
    expect(sink.boundaries).to.deep.equal([]);
    await steps.resume();
    expect(domain.state).to.equal('running');
    expect((await steps.send()).epoch).to.equal(0);
    expect(sink.boundaries.map(({ epoch, end }) => [epoch, end])).to.deep.equal([[0, false]]);

    domain.memory.fill(9, 0, 4096);
    domain.dirty([0]);
    expect(await steps.capture()).to.equal('captured');
    const expected = last();
    await steps.resume();
    const sent = steps.send();
    expect(await steps.end('finished')).to.include({ ended: 'finished', checkpoints: 2 });
    expect(await sent).to.include({ epoch: 1, dirtyPages: 1 });
    expect(sink.boundaries.map(({ epoch, end }) => [epoch, end])).to.deep.equal([
      [0, false],
      [1, false],
      [2, true],
    ]);
    expect(log).to.deep.equal(['suspend 0', 'postcopy 0', 'suspend 1', 'postcopy 1']);
    expect(await steps.close(null)).to.equal(null);
    expect(log.slice(4)).to.deep.equal(['cleanup']);
    expect(domain.loggingDirty).to.equal(false);

    const target = targetFor(PAGES);
    const source = sourceOf(sink.octets());
    const callbacks = { checkpoint: () => Promise.resolve('success' as const) };
    await restoreDomain({ domain: target, source, streamType: 'remus', callbacks });
    expect(Buffer.compare(target.memory, expected)).to.equal(0);
  });

  it('send before the resume leave the pause to whoever takes them (COLO), and a plain save has no CHECKPOINT', async () => {
    const plain = await trial({ streamType: 'plain', live: false });
    expect(await plain.steps.capture()).to.equal('captured');
    expect(await plain.steps.end('complete')).to.include({ ended: 'complete', checkpoints: 0 });
    expect(plain.sink.boundaries.map(({ epoch, end }) => [epoch, end])).to.deep.equal([[0, true]]);
    expect(plain.domain.state).to.equal('suspended');
    expect(await plain.steps.close(null)).to.equal(null);

    const back = { read: () => Promise.resolve(null) };
    const colo = await trial({ streamType: 'colo', back });
    await colo.steps.capture();
    const { phases } = await colo.steps.send();
    expect(colo.domain.state).to.equal('suspended');
    expect(phases.resume).to.equal(0);
    await colo.steps.resume();
    expect(await codeOf(colo.steps.capture())).to.equal('BACK_CHANNEL_BROKEN');
    await colo.steps.close(null);
  });

  it('tell that the domain ended by itself, after which the stream ends with what was captured', async () => {
    const gone = await trial({
      callbacks: {
        suspend: (epoch) =>
          epoch === 0
            ? gone.domain.suspend()
            : Promise.reject(new HypervisorError('DOMAIN_GONE', 'it has ended')),
        postcopy: () => gone.domain.resume(),
      },
    });
    const { steps, sink } = gone;
    await steps.capture();
    await steps.resume();
    await steps.send();
    expect(await steps.capture()).to.equal('gone');
    expect(await steps.end('domain-gone')).to.include({ ended: 'domain-gone', checkpoints: 1 });
    expect(sink.boundaries.map(({ epoch, end }) => [epoch, end])).to.deep.equal([
      [0, false],
      [1, true],
    ]);
    expect(await steps.close(null)).to.equal(null);
  });

  it('keep the failure of a send, and the next capture fails with it', async () => {
    const broken = new Error('broken');
    const { steps, log } = await trial({
      sink: {
        write: () => Promise.resolve(),
        boundary: () => Promise.reject(broken),
        drain: () => Promise.resolve(),
      },
    });
    await steps.capture();
    await steps.resume();
    await codeOf(steps.send());
    const failure = await steps.capture().catch((error: unknown) => error);
    expect(failure).to.equal(broken);
    expect(await steps.close(broken)).to.equal(broken);
    // Given up because of it: the sink's error says more.
    expect(log.filter((what) => what === 'cleanup')).to.have.lengthOf(1);
    const given = await trial({
      sink: { write: () => Promise.reject(broken), boundary: nothing, drain: nothing },
    });
    await codeOf(given.steps.capture());
    expect(await given.steps.close(new SaveError('ABORTED', 'given up'))).to.equal(broken);
  });

  it('close when the step under way has come to its end, not before', async () => {
    let suspended: () => void = () => undefined;
    const { steps, log } = await trial({
      callbacks: {
        suspend: () => new Promise((resolve) => (suspended = resolve)),
        postcopy: nothing,
        prepareSuspend: () => {
          prepared();
          return Promise.resolve();
        },
      },
    });
    let prepared: () => void = () => undefined;
    const suspending = new Promise<void>((resolve) => (prepared = resolve));
    const capturing = codeOf(steps.capture());
    await suspending;
    const closed = steps.close(null);
    await new Promise((resolve) => setImmediate(resolve));
    expect(log).to.deep.equal([]);
    suspended();
    expect(await capturing).to.equal('NOT_SUSPENDED');
    expect(await closed).to.equal(null);
    expect(log).to.deep.equal(['cleanup']);
  });

  it('that were not taken leave nothing to end', async () => {
    const { domain, steps, sink, log } = await trial();
    expect(await steps.close(null)).to.equal(null);
    expect(log).to.deep.equal(['cleanup']);
    expect([domain.state, domain.loggingDirty, sink.bytes]).to.deep.equal(['running', false, 0]);
  });
});

function nothing(): Promise<void> {
  return Promise.resolve();
}
