// A stream's saver, over a domain in memory: what belongs to a pause, in its order, and how it lets go.

import { expect } from 'chai';
import { NEVER, lastValueFrom, tap, toArray, type Observable } from 'rxjs';
import { pino } from 'pino';
import type { PrimaryLink } from '../../src/channel/contract.js';
import { codeOf } from '../../src/errors.js';
import { Work } from '../../src/flow/work.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { DomainStop } from '../../src/hypervisor/standstill.js';
import { Capture } from '../../src/primary/capture.js';
import { Shared } from '../../src/primary/shared.js';
import { withLimits } from '../../src/primary/limits.js';
import { OrderedGate } from '../../src/primary/ordered-gate.js';
import type { CheckpointReport } from '../../src/report/reports.js';
import { makeSlabs } from '../../src/save/slab.js';
import { ByteGate } from '../../src/output/byte-gate.js';
import { MemoryDomain } from '../memory/domain.js';
import { primaryDomain } from '../support/domains.js';

const LIMIT_MS = 100;
const SLAB_BYTES = 1024 * 1024;

/** `boundary`: told of each epoch that is whole in the sink. */
function linkOf(boundary: PrimaryLink['sink']['boundary'], order: string[]): PrimaryLink {
  return {
    streamUuid: 'A',
    pairing: 'A',
    resumes: false,
    digestOf: () => 1n,
    peer: 'there',
    events$: NEVER,
    bufferedBytes: 0,
    hello: {} as PrimaryLink['hello'],
    setOutputBytes: () => undefined,
    setTrial: (epoch) => order.push(`trial ${epoch}`),
    setHandOver: (epoch) => order.push(`last ${epoch}`),
    handedOver: () => undefined,
    sums: () => Promise.reject(new Error('there are no disks')),
    bye: () => Promise.resolve(true),
    destroy: () => undefined,
    closed: Promise.resolve(),
    sink: { write: () => Promise.resolve(), drain: () => Promise.resolve(), boundary },
  };
}

/** A capture and its world; `order` tells what was asked of the domain, the gates and the sink. */
async function made(held: Partial<Record<string, Promise<void>>> = {}) {
  const config = primaryDomain({ checkpoint: { hypervisorTimeoutMs: LIMIT_MS } });
  const order: string[] = [];
  const note = async (what: string): Promise<void> => {
    order.push(what);
    await held[what];
  };
  const slabs = makeSlabs(2, SLAB_BYTES);
  const filled = new Set<ArrayBufferLike>();
  let hung = 0;
  const memory = new MemoryDomain({ pages: 64 });
  await memory.start();
  const domain = withLimits(
    Object.assign(memory, {
      suspend: () => note('suspend').then(() => MemoryDomain.prototype.suspend.call(memory)),
      resume: () => note('resume').then(() => MemoryDomain.prototype.resume.call(memory)),
      copyPages: async (...[gfns, count, slab, offset]: Parameters<MemoryDomain['copyPages']>) => {
        filled.add(slab.buffer);
        await held['copy'];
        await MemoryDomain.prototype.copyPages.call(memory, gfns, count, slab, offset);
      },
    }),
    LIMIT_MS,
    0,
  );
  const network = {
    seal: (epoch: number) => note(`seal ${epoch}`),
    hold: () => note('hold'),
    release: () => Promise.resolve(),
    discard: () => Promise.resolve(),
    pass: () => Promise.resolve(),
    restart: () => Promise.resolve(),
    ...{ heldBytes: 0, emittedBytes: 0, releasedBytes: 0 },
  };
  const console = new ByteGate({ outlet: { write: () => 0, close: () => undefined }, limitBytes: 1 });
  const tasks = new Work(() => undefined);
  const reports: CheckpointReport[] = [];
  const capture = new Capture({
    config,
    world: {
      domain,
      info: await domain.info(),
      inherited: false,
      stop: new DomainStop(domain),
      gate: new OrderedGate(network, console, tasks),
      waitingBytes: 0,
      reopen: () => Promise.resolve([]),
      listen: () => undefined,
      close: () => Promise.resolve(),
    },
    disks: null,
    shared: new Shared(domain),
    link: linkOf((epoch, end) => note(`${end ? 'END' : 'boundary'} ${epoch}`), order),
    slabs: () => slabs,
    hung: () => hung++,
    log: pino({ level: 'silent' }),
    reported: (report) => reports.push(report),
    ready: Promise.resolve(),
  });
  const stages = (work$: Observable<unknown>): Promise<unknown[]> =>
    lastValueFrom(
      work$.pipe(
        tap((stage) => order.push(`(${String(stage)})`)),
        toArray(),
      ),
    );
  return { capture, memory, order, reports, stages, slabs, filled, hung: () => hung };
}

/** A promise, and what resolves it. */
function gateway(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open: () => void = () => undefined;
  return { opened: new Promise((resolve) => (open = resolve)), open: () => open() };
}

async function codeOfFailure(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return codeOf(error);
  }
  return 'none';
}

describe('primary/capture', () => {
  it('holds before it seals epoch 0, seals the network before it suspends, resumes before anything follows', async () => {
    const { capture, order, reports, stages } = await made();
    await stages(capture.capture(0, null));
    await stages(capture.capture(1, null));
    await capture.close();
    expect(order).to.deep.equal([
      ...['(suspending)', 'hold', 'seal 0', '(stopping)', 'suspend', 'resume', '(captured)', 'boundary 0'],
      ...['(suspending)', 'seal 1', '(stopping)', 'suspend', 'resume', '(captured)', 'boundary 1'],
    ]);
    expect(reports).to.deep.equal([]);
  });

  it('tells of an epoch that is tried; behind the last the domain stands still, and the link is told before that leaves', async () => {
    const { capture, memory, order, stages } = await made();
    await stages(capture.capture(0, null));
    order.length = 0;
    await stages(capture.capture(1, 'trial'));
    await stages(capture.capture(2, 'last'));
    expect(order).to.deep.equal([
      ...['(suspending)', 'seal 1', '(stopping)', 'suspend', 'trial 1', 'resume', '(captured)', 'boundary 1'],
      ...['(suspending)', 'seal 2', '(stopping)', 'suspend', 'last 2', '(captured)', 'boundary 2'],
    ]);
    await capture.close();
    expect((await memory.info()).state, 'whose it is is not for us to say').to.equal('suspended');
  });

  it('reports an epoch when it is acknowledged, with its pause and what it took', async () => {
    const { capture, reports, stages } = await made();
    await stages(capture.capture(0, null));
    await new Promise((resolve) => setImmediate(resolve));
    capture.report(0);
    capture.report(0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(reports).to.have.length(1);
    expect(reports[0]).to.include({ domain: 'web', streamUuid: 'A', epoch: 0 });
    await capture.close();
  });

  it('fills the slabs that it was given, one epoch after another', async () => {
    const { capture, memory, stages, slabs, filled } = await made();
    for (let epoch = 0; epoch < 5; epoch++) {
      await stages(capture.capture(epoch, null));
      memory.write(0, Buffer.from([epoch]));
    }
    await capture.close();
    expect([...filled]).to.have.members(slabs.map(({ memory: { buffer } }) => buffer));
  });

  it('given up while it seals: the domain is not suspended, its dirty log ends', async () => {
    const { opened, open } = gateway();
    const { capture, memory, order, stages } = await made({ 'seal 0': opened });
    const failed = codeOfFailure(stages(capture.capture(0, null)));
    while (!order.includes('seal 0')) await new Promise((resolve) => setImmediate(resolve));
    expect(memory.loggingDirty).to.equal(true);
    const closed = capture.close();
    open();
    await closed;
    expect([await failed, memory.state, memory.loggingDirty]).to.deep.equal(['ABORTED', 'running', false]);
    expect(order).not.to.include('suspend');
  });

  it('given up while it suspends: it is awaited, nothing is sealed, and the domain runs again', async () => {
    const { opened, open } = gateway();
    const { capture, memory, order, stages } = await made({ suspend: opened });
    const failed = codeOfFailure(stages(capture.capture(0, null)));
    while (!order.includes('suspend')) await new Promise((resolve) => setImmediate(resolve));
    let closed = false;
    const closing = capture.close().then(() => (closed = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(closed).to.equal(false);
    open();
    await closing;
    expect([await failed, memory.state, memory.loggingDirty]).to.deep.equal(['ABORTED', 'running', false]);
    expect(order.slice(-2)).to.deep.equal(['suspend', 'resume']);
  });

  it('given up before it has begun: nothing is asked of the domain', async () => {
    const { capture, order } = await made();
    await capture.close();
    expect(order).to.deep.equal([]);
  });

  it('a domain that has shut down: gone, and END is what follows', async () => {
    const { capture, memory, order, stages } = await made();
    await stages(capture.capture(0, null));
    memory.shutdown();
    expect(await stages(capture.capture(1, null))).to.deep.equal(['suspending', 'stopping', 'gone']);
    await stages(capture.end());
    await capture.close();
    // It is told that END leaves before it does: its acknowledgement cannot come first.
    expect(order.slice(-3)).to.deep.equal(['(gone)', '(1)', 'END 1']);
  });

  it('a domain that has crashed is no reason for END', async () => {
    const { capture, memory, stages } = await made();
    await stages(capture.capture(0, null));
    memory.crash();
    expect(await codeOfFailure(stages(capture.capture(1, null)))).to.equal('FAILED');
    await capture.close();
  });

  it('a domain that is gone in the middle of it: how it ended is told before the capture has failed', async () => {
    const gone = Promise.reject(new HypervisorError('DOMAIN_GONE', 'The connection is lost.'));
    gone.catch(() => undefined);
    const { capture, memory, stages } = await made({ copy: gone });
    const told: string[] = [];
    memory.events$.subscribe(({ kind }) => told.push(kind));
    setTimeout(() => memory.crash(), 20);
    const failure = await codeOfFailure(stages(capture.capture(0, null)));
    expect([failure, ...told]).to.deep.equal(['DOMAIN_GONE', 'crashed']);
    await capture.close();
  });

  for (const what of ['hold', 'seal 0', 'suspend', 'copy']) {
    it(`a hypervisor that does not answer (${what}): HUNG, and the slabs are left to it`, async () => {
      const { opened, open } = gateway();
      const { capture, stages, hung } = await made({ [what]: opened });
      expect(await codeOfFailure(stages(capture.capture(0, null)))).to.equal('HUNG');
      expect(hung()).to.equal(1);
      open();
      await capture.close();
    });
  }

  it('given up while it copies, and the hypervisor does not answer: the slabs are left to it', async () => {
    const { opened, open } = gateway();
    const { capture, stages, filled, hung } = await made({ copy: opened });
    const failed = codeOfFailure(stages(capture.capture(0, null)));
    while (filled.size === 0) await new Promise((resolve) => setImmediate(resolve));
    await capture.close();
    expect([await failed, hung()]).to.deep.equal(['HUNG', 1]);
    open();
  });
});
