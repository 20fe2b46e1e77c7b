// The shape of a checkpointed save in time: what leaves when, what waits for what, how it ends.

import { expect } from 'chai';
import { saveOpsX86Hvm } from '../../src/guest/x86-hvm/save.js';
import type { SaveOps } from '../../src/guest/ops.js';
import { MemoryDomain } from '../memory/domain.js';
import { restoreDomain } from '../../src/restore/restore.js';
import type { PrecopyStats, SavedCheckpoint } from '../../src/save/callbacks.js';
import { precopyPolicy, simplePrecopyPolicy } from '../../src/save/callbacks.js';
import { saveDomain } from '../../src/save/save.js';
import type { StreamPiece } from '../../src/stream/flow.js';
import { PageType, RecordType } from '../../src/stream/format.js';
import { decodePageData, PageBatch } from '../../src/stream/page-data.js';
import { LibxlRecordType } from '../../src/stream/libxl.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { driver, firstDifference, pagePattern, RecordingSink, sourceOf, targetFor } from './support.js';

function recordsOf(octets: Uint8Array): StreamRecord[] {
  const reader = new RecordReader();
  reader.push(octets);
  const records: StreamRecord[] = [];
  for (let record = reader.next(); record !== null; record = reader.next()) records.push(record);
  reader.end();
  return records;
}

function nameOf({ layer, type }: StreamRecord): string {
  const types = Object.entries(layer === 'libxl' ? LibxlRecordType : RecordType);
  const name = types.find(([, value]) => value === type)?.[0] ?? '?';
  return layer === 'libxl' ? `libxl ${name}` : name;
}

function* numbers(from: number, count: number): Generator<number> {
  for (let n = from; n < from + count; n++) yield n;
}

describe('a checkpointed save', () => {
  it('that somebody else disturbs takes another pass, and holds what the domain was at the end of the last', async () => {
    const domain = new MemoryDomain({ pages: 200 });
    await domain.start();
    let generation = 0;
    const scribble = (): void => {
      generation++;
      for (let pfn = generation % 7; pfn < 200; pfn += 7) domain.write(pfn, pagePattern(pfn, generation));
    };
    const disturbed = [2, 0, 1, 3, 0];
    let epoch = 0;
    Object.assign(domain, {
      stoodStill: async () => {
        if ((disturbed[epoch] ?? 0) === 0) return true;
        disturbed[epoch] = (disturbed[epoch] ?? 0) - 1;
        await domain.resume();
        scribble();
        return false;
      },
    });
    const sink = new RecordingSink();
    const callbacks = driver({
      domain,
      checkpoints: 5,
      between: (done) => {
        epoch = done + 1;
        if (epoch < 5) scribble();
      },
    });
    await saveDomain({ domain, sink, streamType: 'remus', live: true, callbacks });
    expect(disturbed).to.deep.equal([0, 0, 0, 0, 0]);
    const target = targetFor(200);
    await restoreDomain({
      domain: target,
      source: sourceOf(sink.octets()),
      streamType: 'remus',
      callbacks: { checkpoint: () => Promise.resolve('success') },
    });
    expect(firstDifference(domain, target)).to.equal(-1);
  });

  it('writes the records in libxc’s order, page data in records of at most 1024 pfns', async () => {
    const domain = new MemoryDomain({
      pages: 2500,
      params: [
        { index: 19n, value: 1n },
        { index: 4n, value: 0n },
      ],
    });
    await domain.start();
    const sink = new RecordingSink();
    await saveDomain({
      domain,
      sink,
      streamType: 'remus',
      live: true,
      callbacks: driver({ domain, checkpoints: 2, between: () => domain.dirty(numbers(10, 60)) }),
    });
    const batch = new PageBatch();
    const shape = recordsOf(sink.octets()).map((record) => {
      if (record.type !== RecordType.PAGE_DATA) return record.type;
      decodePageData(record, batch);
      return `${batch.count} pages`;
    });
    const checkpoint = [
      RecordType.X86_TSC_INFO,
      RecordType.HVM_CONTEXT,
      RecordType.HVM_PARAMS,
      RecordType.CHECKPOINT,
    ];
    expect(shape).to.deep.equal([
      RecordType.STATIC_DATA_END,
      '1024 pages',
      '1024 pages',
      '452 pages',
      ...checkpoint,
      '60 pages',
      ...checkpoint,
      RecordType.END,
    ]);
  });

  it('of a domain with a device model is libxl’s, its state captured in the pause', async () => {
    const shapes: string[][] = [];
    for (const streamType of ['remus', 'plain'] as const) {
      const domain = new MemoryDomain({ pages: 3, emulator: true });
      await domain.start();
      const states: string[] = [];
      domain.script = (call) => {
        if (call === 'emulatorContext') states.push(domain.state);
      };
      const sink = new RecordingSink();
      await saveDomain({
        domain,
        sink,
        streamType,
        live: false,
        callbacks: driver({ domain, checkpoints: 2 }),
      });
      expect(states).to.deep.equal(streamType === 'plain' ? ['suspended'] : ['suspended', 'suspended']);
      const octets = sink.octets();
      const records = recordsOf(octets);
      shapes.push(records.map(nameOf));
      // A boundary stands where libxl's word ends.
      const ends = records.filter(
        ({ layer, type }) =>
          layer === 'libxl' && (type === LibxlRecordType.CHECKPOINT_END || type === LibxlRecordType.END),
      );
      expect(sink.boundaries.map(({ offset }) => offset)).to.deep.equal(ends.map(({ offset }) => offset + 8));
    }
    const state = ['X86_TSC_INFO', 'CHECKPOINT', 'libxl EMULATOR_CONTEXT', 'libxl CHECKPOINT_END'];
    expect(shapes).to.deep.equal([
      ['STATIC_DATA_END', 'PAGE_DATA', ...state, ...state, 'END', 'libxl END'],
      ['STATIC_DATA_END', 'PAGE_DATA', 'X86_TSC_INFO', 'END', 'libxl EMULATOR_CONTEXT', 'libxl END'],
    ]);
  });

  it('sends nothing while the domain is suspended, as long as the slab holds what is dirty', async () => {
    const domain = new MemoryDomain({ pages: 600 });
    await domain.start();
    const sink = new RecordingSink();
    const states: string[] = [];
    const write = sink.write.bind(sink);
    sink.write = (piece: StreamPiece) => {
      states.push(domain.state);
      return write(piece);
    };
    const save = (slabPages: number): Promise<unknown> =>
      saveDomain({
        domain,
        sink,
        streamType: 'remus',
        live: true,
        callbacks: driver({ domain, checkpoints: 5, between: () => domain.dirty(numbers(0, 100)) }),
        slabBytes: 4 * 24 + slabPages * 4104 + 1024,
      });
    expect(await save(100)).to.include({ suspendedFlushes: 0, ended: 'finished' });
    expect(new Set(states)).to.deep.equal(new Set(['running']));

    // Memory is bounded first: what does not fit has to leave during the pause.
    expect(await save(40)).to.include({ suspendedFlushes: 4 * 2 });
    expect(states).to.include('suspended');
  });

  it('has a whole slab for the first suspended pass, whatever pre-copy left of the last', async () => {
    const domain = new MemoryDomain({ pages: 650 });
    await domain.start();
    domain.script = (call) => {
      if (call === 'suspend') domain.dirty(numbers(0, 100));
    };
    const result = await saveDomain({
      domain,
      sink: new RecordingSink(),
      streamType: 'remus',
      live: true,
      callbacks: driver({ domain, checkpoints: 1 }),
      slabBytes: 24 + 100 * 4104,
    });
    expect(result.suspendedFlushes).to.equal(0);
  });

  it('captures the next epoch while the last is on its way, and waits outside the pause when no slab is free', async () => {
    const domain = new MemoryDomain({ pages: 50 });
    await domain.start();
    const sink = new RecordingSink();
    let open = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const drain = sink.drain.bind(sink);
    let gated = false;
    sink.drain = async () => {
      if (gated) await gate;
      await drain();
    };
    const order: string[] = [];
    const saving = saveDomain({
      domain,
      sink,
      streamType: 'remus',
      live: true,
      slabCount: 2,
      callbacks: {
        async suspend(epoch) {
          order.push(`suspend ${epoch}`);
          await domain.suspend();
        },
        async postcopy(epoch) {
          order.push(`postcopy ${epoch}`);
          await domain.resume();
        },
        async checkpoint(epoch, sent) {
          void sent.then(() => order.push(`sent ${epoch}`));
          if (epoch === 0) await sent;
          gated = true;
          domain.dirty([epoch]);
          await Promise.resolve();
          return epoch === 3 ? 'finish' : 'continue';
        },
      },
    });
    while (order.length < 6) await new Promise((resolve) => setImmediate(resolve));
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    // Epochs 1 and 2 fill both slabs; the third cannot even be suspended before one has drained.
    expect(order.filter((step) => step.startsWith('suspend'))).to.deep.equal([
      'suspend 0',
      'suspend 1',
      'suspend 2',
    ]);
    expect(domain.state).to.equal('running');
    open();
    await saving;
    expect(order.filter((step) => step.startsWith('sent'))).to.deep.equal([
      'sent 0',
      'sent 1',
      'sent 2',
      'sent 3',
    ]);
    expect(sink.boundaries.map(({ epoch, end }) => [epoch, end])).to.deep.equal([
      [0, false],
      [1, false],
      [2, false],
      [3, false],
      [4, true],
    ]);
  });

  it('measures its phases with the clock that it is given', async () => {
    const domain = new MemoryDomain({ pages: 10 });
    await domain.start();
    let now = 0;
    const saved: SavedCheckpoint[] = [];
    domain.script = (call) => {
      if (call === 'suspend') now += 1000;
      if (call === 'copyPages' && domain.state === 'suspended') now += 2000;
      if (call === 'hvmContext') now += 3000;
      if (call === 'resume') now += 4000;
    };
    const sink = new RecordingSink();
    const boundary = sink.boundary.bind(sink);
    sink.boundary = (epoch, end) => {
      now += 5000;
      return boundary(epoch, end);
    };
    await saveDomain({
      domain,
      sink,
      streamType: 'remus',
      live: true,
      clock: () => now,
      callbacks: {
        prepareSuspend: () => {
          expect(domain.state).to.equal('running');
          now += 6000; // no part of the pause
          return Promise.resolve();
        },
        suspend: () => domain.suspend(),
        postcopy: () => domain.resume(),
        async checkpoint(epoch, sent) {
          saved.push(await sent);
          domain.dirty([4, 5]);
          return epoch === 1 ? 'finish' : 'continue';
        },
      },
    });
    const last = saved[1];
    expect(last?.dirtyPages).to.equal(2);
    expect(last?.phases).to.deep.equal({ suspend: 1, copy: 2, state: 3, resume: 4, send: 5 });
    expect(last?.bytes).to.equal((sink.boundaries[1]?.offset ?? 0) - (sink.boundaries[0]?.offset ?? 0));
    expect((saved[0]?.bytes ?? 0) + (last?.bytes ?? 0) + 8).to.equal(sink.bytes);
  });

  it('ends with END when the domain has shut down by itself', async () => {
    const domain = new MemoryDomain({ pages: 10 });
    await domain.start();
    const sink = new RecordingSink();
    let memory: Uint8Array = new Uint8Array(0);
    const result = await saveDomain({
      domain,
      sink,
      streamType: 'remus',
      live: true,
      callbacks: driver({
        domain,
        checkpoints: 9,
        suspended: () => {
          memory = domain.memoryCopy();
        },
        between(epoch) {
          domain.write(epoch, pagePattern(epoch, 1));
          if (epoch === 2) domain.shutdown();
        },
      }),
    });
    expect(result).to.include({ ended: 'domain-gone', checkpoints: 3, bytes: sink.bytes });
    expect(sink.boundaries.at(-1)).to.include({ epoch: 3, end: true });
    const target = targetFor(10);
    const outcome = await restoreDomain({
      domain: target,
      source: sourceOf(sink.octets()),
      streamType: 'remus',
      callbacks: { checkpoint: () => Promise.resolve('success') },
    });
    expect(outcome).to.deep.equal({ kind: 'complete', epochs: 3 });
    expect(target.memoryCopy()).to.deep.equal(memory);
  });

  it('fails when the domain shuts down before its first checkpoint', async () => {
    const domain = new MemoryDomain({ pages: 10 });
    await domain.start();
    domain.script = (call) => {
      if (call === 'suspend') domain.shutdown();
    };
    const sink = new RecordingSink();
    let code = '';
    await saveDomain({
      domain,
      sink,
      streamType: 'remus',
      live: true,
      callbacks: driver({ domain, checkpoints: 1 }),
    }).catch((error: unknown) => {
      code = (error as { code: string }).code;
    });
    expect(code).to.equal('DOMAIN_GONE');
    expect(sink.boundaries).to.deep.equal([]);
  });
});

describe('pre-copy', () => {
  async function statsOf(
    dirtyPerPass: readonly number[],
    policy = simplePrecopyPolicy,
  ): Promise<PrecopyStats[]> {
    const domain = new MemoryDomain({ pages: 400 });
    await domain.start();
    const seen: PrecopyStats[] = [];
    let pass = 0;
    domain.script = (call) => {
      if (call === 'cleanLogDirty') domain.dirty(numbers(0, dirtyPerPass[pass++] ?? 0));
    };
    await saveDomain({
      domain,
      sink: new RecordingSink(),
      streamType: 'plain',
      live: true,
      callbacks: {
        ...driver({ domain, checkpoints: 0 }),
        precopyPolicy(stats) {
          seen.push(stats);
          return policy(stats);
        },
      },
    });
    return seen;
  }

  it('stops when fewer than 50 pages are dirty', async () => {
    expect(await statsOf([300, 50, 49, 400])).to.deep.equal([
      { iteration: 0, totalWritten: 0, dirtyCount: 400 },
      { iteration: 1, totalWritten: 400, dirtyCount: -1 },
      { iteration: 1, totalWritten: 400, dirtyCount: 300 },
      { iteration: 2, totalWritten: 700, dirtyCount: -1 },
      { iteration: 2, totalWritten: 700, dirtyCount: 50 },
      { iteration: 3, totalWritten: 750, dirtyCount: -1 },
      { iteration: 3, totalWritten: 750, dirtyCount: 49 },
    ]);
  });

  it('stops after 5 iterations', async () => {
    const seen = await statsOf([400, 400, 400, 400, 400, 400, 400]);
    expect(seen.at(-1)).to.deep.equal({ iteration: 5, totalWritten: 2000, dirtyCount: -1 });
  });

  it('takes other limits', async () => {
    const seen = await statsOf([300, 300, 300], precopyPolicy({ targetDirtyPages: 0, maxIterations: 2 }));
    expect(seen.at(-1)).to.deep.equal({ iteration: 2, totalWritten: 700, dirtyCount: -1 });
  });

  it('reports its progress', async () => {
    const domain = new MemoryDomain({ pages: 1500 });
    await domain.start();
    const seen: string[] = [];
    await saveDomain({
      domain,
      sink: new RecordingSink(),
      streamType: 'plain',
      live: true,
      debug: true,
      callbacks: {
        ...driver({ domain, checkpoints: 0, suspended: () => domain.dirty([3]) }),
        progress: ({ stage, pagesDone, pagesTotal }) => seen.push(`${stage} ${pagesDone}/${pagesTotal}`),
      },
    });
    expect(seen).to.deep.equal([
      'Frames iteration 0 1024/1500',
      'Frames iteration 0 1500/1500',
      'Frames iteration 1 1/1',
      'Frames verify 1024/1500',
      'Frames verify 1500/1500',
    ]);
  });
});

describe('log-dirty', () => {
  it('is taken over from whoever has it', async () => {
    const domain = new MemoryDomain({ pages: 10 });
    await domain.start();
    await domain.enableLogDirty();
    const sink = new RecordingSink();
    await saveDomain({
      domain,
      sink,
      streamType: 'plain',
      live: true,
      callbacks: driver({ domain, checkpoints: 0 }),
    });
    expect(domain.loggingDirty).to.equal(false);
  });
});

describe('deferred pages', () => {
  /** Pages that begin with 0xee cannot be normalised while the domain runs. */
  const stubborn: SaveOps = {
    ...saveOpsX86Hvm,
    normalisePage: (context, _type, slab, offset) =>
      context.live && slab[offset] === 0xee && !suspended ? 'again' : 'done',
  };
  let suspended = false;

  it('go as XTAB first, and with their content in the suspended pass', async () => {
    suspended = false;
    const domain = new MemoryDomain({ pages: 60 });
    for (let pfn = 0; pfn < 60; pfn++) {
      const page = pagePattern(pfn, 0);
      page[0] = pfn % 7 === 0 || pfn > 56 ? 0xee : 1;
      domain.write(pfn, page);
    }
    await domain.start();
    const sink = new RecordingSink();
    await saveDomain({
      domain,
      sink,
      streamType: 'plain',
      live: true,
      ops: stubborn,
      callbacks: driver({
        domain,
        checkpoints: 0,
        suspended() {
          suspended = true;
        },
      }),
    });
    const [first, second] = recordsOf(sink.octets()).filter(({ type }) => type === RecordType.PAGE_DATA);
    const batch = new PageBatch();
    decodePageData(first ?? expect.fail('no page data'), batch);
    const xtab = [...numbers(0, 60)].filter((pfn) => batch.types[pfn] === PageType.XTAB);
    expect(xtab).to.deep.equal([0, 7, 14, 21, 28, 35, 42, 49, 56, 57, 58, 59]);
    decodePageData(second ?? expect.fail('no second pass'), batch);
    expect([...batch.pfns.subarray(0, batch.count)]).to.deep.equal(xtab);

    const target = targetFor(60);
    await restoreDomain({
      domain: target,
      source: sourceOf(sink.octets()),
      streamType: 'plain',
      callbacks: { checkpoint: () => Promise.resolve('success') },
    });
    expect(firstDifference(domain, target)).to.equal(-1);
  });

  it('that still cannot be normalised when the domain is suspended fail the save', async () => {
    const domain = new MemoryDomain({ pages: 10 });
    await domain.start();
    const ops: SaveOps = { ...saveOpsX86Hvm, normalisePage: () => 'again' };
    let failure: unknown;
    await saveDomain({
      domain,
      sink: new RecordingSink(),
      streamType: 'plain',
      live: true,
      ops,
      callbacks: driver({ domain, checkpoints: 0 }),
    }).catch((error: unknown) => {
      failure = error;
    });
    expect(failure).to.include({ code: 'NOT_NORMALISED' });
    expect((failure as { facts: unknown }).facts).to.deep.equal({ pfn: 0, type: 0 });
  });

  it('are those without a frame too', async () => {
    suspended = false;
    const domain = new MemoryDomain({ pages: 20 });
    for (let pfn = 0; pfn < 20; pfn++) domain.write(pfn, pagePattern(pfn, 3));
    await domain.start();
    // Ballooned out while the domain runs, back when it is suspended.
    const ops: SaveOps = {
      ...saveOpsX86Hvm,
      pfnToGfn: (_context, pfn) => (pfn === 9 && !suspended ? 0xffffffff : pfn),
    };
    const sink = new RecordingSink();
    await saveDomain({
      domain,
      sink,
      streamType: 'plain',
      live: true,
      ops,
      callbacks: driver({
        domain,
        checkpoints: 0,
        suspended() {
          suspended = true;
        },
      }),
    });
    const target = targetFor(20);
    await restoreDomain({
      domain: target,
      source: sourceOf(sink.octets()),
      streamType: 'plain',
      callbacks: { checkpoint: () => Promise.resolve('success') },
    });
    expect(firstDifference(domain, target)).to.equal(-1);
  });
});
