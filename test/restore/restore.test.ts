// The restorer's rules, one by one: what is applied when, what is refused where, what a broken channel means.

import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import type { RecordResult, RestoreOps } from '../../src/guest/ops.js';
import { restoreOpsX86Hvm } from '../../src/guest/x86-hvm/restore.js';
import { MemoryDomain } from '../memory/domain.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import type { AppliedCheckpoint, CheckpointVerdict, VerifyMismatch } from '../../src/restore/callbacks.js';
import { restoreDomain, type RestoreOptions, type RestoreOutcome } from '../../src/restore/restore.js';
import { DomainType, PAGE_SIZE, PageType, RecordType } from '../../src/stream/format.js';
import { encodeHvmParams } from '../../src/stream/records/hvm.js';
import { LibxlRecordType, encodeLibxlHeader } from '../../src/stream/libxl.js';
import { concatenate, encodeDomainHeader, encodeImageHeader, encodeRecord } from '../../src/stream/writer.js';
import { sourceOf, targetFor } from '../save/support.js';
import { pageDataBody } from '../stream/streams.js';
import { LAYERS, type RecordedLayer } from './recorded.js';

const OPTIONAL = 0x80000000;

const sde = encodeRecord(RecordType.STATIC_DATA_END);
const end = encodeRecord(RecordType.END);
const verify = encodeRecord(RecordType.VERIFY);
const checkpoint = encodeRecord(RecordType.CHECKPOINT);
const context = encodeRecord(RecordType.HVM_CONTEXT, Uint8Array.of(1, 2, 3));

function page(pfn: number, fill: number, type: number = PageType.NOTAB): Uint8Array {
  return encodeRecord(RecordType.PAGE_DATA, pageDataBody([[pfn, type]], fill));
}

function params(...list: readonly (readonly [index: bigint, value: bigint])[]): Uint8Array {
  return encodeRecord(
    RecordType.HVM_PARAMS,
    encodeHvmParams(list.map(([index, value]) => ({ index, value }))),
  );
}

interface StreamShape {
  readonly version?: number;
  readonly domainType?: DomainType;
}

/** In libxl's layer each CHECKPOINT and END is followed by libxl's. */
function streamIn(
  layer: RecordedLayer,
  records: readonly Uint8Array[],
  { version = 3, domainType = DomainType.X86_HVM }: StreamShape = {},
): Uint8Array {
  const headers = [encodeImageHeader(version), encodeDomainHeader({ domainType, xenMajor: 4, xenMinor: 17 })];
  if (layer === 'libxc') return concatenate([...headers, ...records]);
  const { LIBXC_CONTEXT, CHECKPOINT_END, END } = LibxlRecordType;
  const more = new Map([
    [checkpoint, encodeRecord(CHECKPOINT_END)],
    [end, encodeRecord(END)],
  ]);
  return concatenate([
    encodeLibxlHeader(),
    encodeRecord(LIBXC_CONTEXT),
    ...headers,
    ...records.flatMap((one) => [one, more.get(one) ?? new Uint8Array(0)]),
  ]);
}

const success = { checkpoint: (): Promise<CheckpointVerdict> => Promise.resolve('success') };

function restore(
  octets: Uint8Array,
  options: Partial<RestoreOptions> & { readonly domain: MemoryDomain },
): Promise<RestoreOutcome> {
  return restoreDomain({ source: sourceOf(octets), streamType: 'remus', callbacks: success, ...options });
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

function causeOf(outcome: RestoreOutcome): string | undefined {
  if (outcome.kind !== 'failover') throw new Error(`the outcome is ${outcome.kind}`);
  return (outcome.cause as RomulusError | undefined)?.code;
}

const restorer = (layer: RecordedLayer) => (): void => {
  const stream = (records: readonly Uint8Array[], shape?: StreamShape): Uint8Array =>
    streamIn(layer, records, shape);

  it('applies the first checkpoint as it comes, later ones only when they are whole and acknowledged', async () => {
    const domain = targetFor(4);
    const log: string[] = [];
    domain.script = (call) => {
      if (call === 'writePages') log.push('write');
    };
    const applied: AppliedCheckpoint[] = [];
    const first = [page(0, 1), page(1, 1), context, checkpoint];
    const second = [page(0, 2), page(1, 2), context, checkpoint];
    const outcome = await restore(stream([sde, ...first, ...second, end]), {
      domain,
      callbacks: {
        checkpoint(epoch) {
          log.push(`acknowledge ${epoch}`);
          return Promise.resolve('success');
        },
        applied(one) {
          log.push(`applied ${one.epoch}`);
          applied.push({ ...one, applySeconds: 0 });
        },
      },
    });
    expect(outcome).to.deep.equal({ kind: 'complete', epochs: 2 });
    expect(log).to.deep.equal([
      'write',
      'write',
      'acknowledge 0',
      'applied 0',
      'acknowledge 1',
      'write',
      'write',
      'applied 1',
    ]);
    const bufferedBytes = 2 * (8 + 16 + PAGE_SIZE) + 16;
    expect(applied).to.deep.equal([
      { epoch: 0, records: 4, bufferedBytes: 0, pages: 2, applySeconds: 0 },
      { epoch: 1, records: 3, bufferedBytes, pages: 2, applySeconds: 0 },
    ]);
  });

  it('sets the parameters before the context, whatever their order on the wire', async () => {
    for (const records of [
      [context, params([19n, 1n], [12n, 5n])],
      [params([19n, 1n], [12n, 5n]), context],
    ]) {
      const domain = targetFor(4);
      const calls: string[] = [];
      domain.script = (call) => calls.push(call);
      await restore(stream([sde, page(0, 1), ...records, end]), { domain, streamType: 'plain' });
      expect(calls.filter((call) => call.startsWith('setHvm'))).to.deep.equal([
        'setHvmParam',
        'setHvmParam',
        'setHvmContext',
      ]);
    }
  });

  it('clears the rings’ pages, leaves PAE_ENABLED out, says where console and xenstore are', async () => {
    const domain = targetFor(8);
    const endpoints = {
      xenstoreGfn: 0,
      consoleGfn: 0,
      xenstoreEvtchn: 7,
      consoleEvtchn: 8,
      xenstoreDomid: 0,
      consoleDomid: 0,
    };
    const pages = [0, 1, 2, 3].map((pfn) => page(pfn, 9));
    const list = params([1n, 1n], [5n, 2n], [6n, 7n], [17n, 3n], [4n, 1n]);
    await restore(stream([sde, ...pages, context, list, end]), { domain, streamType: 'plain', endpoints });
    // 7 has no memory: there is nothing to clear, and none is given.
    expect([0, 1, 2, 3, 7].map((pfn) => domain.page(pfn)[0])).to.deep.equal([9, 0, 0, 9, 0]);
    expect(domain.populated.has(7)).to.equal(false);
    expect(endpoints).to.include({ xenstoreGfn: 1, consoleGfn: 3 });
    expect([...domain.params]).to.deep.equal([
      [1n, 1n],
      [5n, 2n],
      [6n, 7n],
      [17n, 3n],
      [2n, 7n],
      [18n, 8n],
    ]);
  });

  it('populates each page once, and only those whose type has memory', async () => {
    const domain = targetFor(20_000);
    const populated: number[] = [];
    const populate = domain.populate.bind(domain);
    domain.populate = (pfns, count, gfns) => {
      populated.push(...pfns.subarray(0, count));
      return populate(pfns, count, gfns);
    };
    const body = pageDataBody([
      [3, PageType.NOTAB],
      [4, PageType.XTAB],
      [5, PageType.XALLOC],
      [6, PageType.BROKEN],
      [3, PageType.NOTAB],
      [19_999, PageType.L1TAB],
    ]);
    const octets = stream([sde, encodeRecord(RecordType.PAGE_DATA, body), page(3, 1), context, end]);
    await restore(octets, { domain, streamType: 'plain' });
    expect(populated).to.deep.equal([3, 5, 19_999]);
  });

  it('takes records of more than 1024 pfns', async () => {
    const domain = targetFor(3000);
    const entries = Array.from({ length: 3000 }, (_, pfn) => [pfn, PageType.NOTAB] as const);
    const body = pageDataBody(entries, 5);
    const outcome = await restore(stream([sde, encodeRecord(RecordType.PAGE_DATA, body), context, end]), {
      domain,
      streamType: 'plain',
    });
    expect(outcome.kind).to.equal('complete');
    expect(domain.memory.every((octet) => octet === 5)).to.equal(true);
  });

  it('compares instead of writing after VERIFY', async () => {
    const domain = targetFor(4);
    const mismatches: VerifyMismatch[] = [];
    await restore(stream([sde, page(0, 1), page(1, 2), verify, page(0, 1), page(1, 3), context, end]), {
      domain,
      streamType: 'plain',
      callbacks: { ...success, verifyMismatch: (some) => mismatches.push(...some) },
    });
    expect(mismatches).to.deep.equal([{ pfn: 1, type: 0 }]);
    expect(domain.page(1)[0]).to.equal(2);
  });

  it('says what static data is missing, from a version 3 stream and, inferred, from a version 2 one', async () => {
    const cpuid = encodeRecord(RecordType.X86_CPUID_POLICY, new Uint8Array(24));
    for (const [version, records] of [
      [3, [cpuid, sde, page(0, 1), context, end]],
      [2, [cpuid, page(0, 1), page(1, 1), context, end]],
    ] as const) {
      const domain = targetFor(2);
      const missing: unknown[] = [];
      await restore(stream(records, { version }), {
        domain,
        streamType: 'plain',
        callbacks: {
          ...success,
          staticDataDone(what) {
            missing.push(what, domain.populated.count());
            return Promise.resolve();
          },
        },
      });
      expect(missing).to.deep.equal([{ cpuid: false, msr: true }, 0]);
      expect(domain.policy.cpuid).to.have.length(24);
    }
  });

  it('skips optional records that it does not know, and says so, inside a buffered checkpoint too', async () => {
    const domain = targetFor(4);
    const skipped: number[] = [];
    const unknown = encodeRecord(OPTIONAL + 0x77, Uint8Array.of(1, 2, 3));
    const outcome = await restore(
      stream([unknown, sde, page(0, 1), context, checkpoint, unknown, page(0, 2), unknown, checkpoint, end]),
      { domain, callbacks: { ...success, skippedRecord: (type) => skipped.push(type) } },
    );
    expect(outcome).to.deep.equal({ kind: 'complete', epochs: 2 });
    expect(skipped).to.deep.equal([OPTIONAL + 0x77, OPTIONAL + 0x77, OPTIONAL + 0x77]);
    expect(domain.page(0)[0]).to.equal(2);
  });

  const bad: readonly (readonly [name: string, code: string, record: Uint8Array])[] = [
    ['an unknown mandatory record', 'UNKNOWN_RECORD', encodeRecord(0x77)],
    [
      'a record of the other type of guest',
      'UNKNOWN_RECORD',
      encodeRecord(RecordType.X86_PV_INFO, new Uint8Array(8)),
    ],
    ['a second STATIC_DATA_END', 'UNEXPECTED_RECORD', sde],
    ['VERIFY', 'UNEXPECTED_RECORD', verify],
    ['a pfn that the domain does not have', 'PFN_OUT_OF_RANGE', page(4, 1)],
    ['a ring that the domain does not have', 'PFN_OUT_OF_RANGE', params([1n, 4n])],
    ['a page type that does not exist', 'UNKNOWN_PAGE_TYPE', page(0, 1, 7)],
    ['an empty context', 'BAD_RECORD', encodeRecord(RecordType.HVM_CONTEXT)],
  ];
  for (const [name, code, record] of bad) {
    it(`refuses ${name} before it acknowledges the checkpoint`, async () => {
      const domain = targetFor(4);
      const acknowledged: number[] = [];
      const outcome = await restore(
        stream([sde, page(0, 1), context, checkpoint, page(0, 2), record, page(1, 2), checkpoint, end]),
        {
          domain,
          callbacks: {
            checkpoint(epoch) {
              acknowledged.push(epoch);
              return Promise.resolve('success');
            },
          },
        },
      );
      expect(outcome).to.include({ kind: 'failover', epoch: 0 });
      expect(causeOf(outcome)).to.equal(code);
      expect(acknowledged).to.deep.equal([0]);
      expect(domain.page(0)[0]).to.equal(1);
    });
  }

  it('does not take an END in the middle of a checkpoint for the end', async () => {
    const domain = targetFor(4);
    const outcome = await restore(stream([sde, page(0, 1), context, checkpoint, page(0, 2), end]), {
      domain,
    });
    expect(outcome).to.include({ kind: 'failover', epoch: 0 });
    expect(causeOf(outcome)).to.equal('UNEXPECTED_RECORD');
    expect(domain.page(0)[0]).to.equal(1);
  });

  it('refuses what does not belong where it stands, before the first checkpoint', async () => {
    const cases: readonly (readonly [
      code: string,
      streamType: 'plain' | 'remus',
      records: readonly Uint8Array[],
    ])[] = [
      ['UNEXPECTED_RECORD', 'plain', [page(0, 1), sde, context, end]],
      ['UNEXPECTED_RECORD', 'plain', [sde, sde, context, end]],
      ['UNEXPECTED_RECORD', 'plain', [sde, page(0, 1), context, checkpoint, end]],
      ['UNEXPECTED_RECORD', 'remus', [context, checkpoint, end]],
      ['UNEXPECTED_RECORD', 'remus', [sde, page(0, 1), context, end]],
      ['INCOMPLETE', 'remus', [sde, page(0, 1), checkpoint, end]],
      ['INCOMPLETE', 'plain', [sde, page(0, 1), end]],
      ['UNKNOWN_RECORD', 'plain', [sde, encodeRecord(0x40), end]],
      ['NO_CONSISTENT_CHECKPOINT', 'remus', [sde, page(0, 1), context]],
      ['NO_CONSISTENT_CHECKPOINT', 'plain', [sde, page(0, 1), context]],
    ];
    for (const [code, streamType, records] of cases) {
      const error = await failureOf(restore(stream(records), { domain: targetFor(4), streamType }));
      expect(error.code, error.message).to.equal(code);
    }
  });

  it('takes a version 2 stream whose first checkpoint has no memory', async () => {
    const outcome = await restore(
      stream([context, checkpoint, page(0, 1), checkpoint, end], { version: 2 }),
      {
        domain: targetFor(4),
      },
    );
    expect(outcome).to.deep.equal({ kind: 'complete', epochs: 2 });
  });

  it('never buffers more than the limit', async () => {
    const domain = targetFor(4);
    const records = [
      sde,
      page(0, 1),
      context,
      checkpoint,
      page(0, 2),
      page(1, 2),
      page(2, 2),
      checkpoint,
      end,
    ];
    const limited = await restore(stream(records), { domain, bufferLimitBytes: 12_000 });
    expect(limited).to.include({ kind: 'failover', epoch: 0 });
    expect(causeOf(limited)).to.equal('BUFFER_LIMIT');
    expect(domain.page(0)[0]).to.equal(1);
    const enough = await restore(stream(records), { domain: targetFor(4), bufferLimitBytes: 13_000 });
    expect(enough.kind).to.equal('complete');
    // Small records are not free.
    const many = Array.from({ length: 1000 }, () => params());
    const small = await restore(stream([sde, context, checkpoint, ...many, checkpoint, end]), {
      domain: targetFor(4),
      bufferLimitBytes: 100_000,
    });
    expect(causeOf(small)).to.equal('BUFFER_LIMIT');
  });

  it('fails over when the driver says that the channel broke, and drops what was not acknowledged', async () => {
    const domain = targetFor(4);
    const octets = stream([
      sde,
      page(0, 1),
      context,
      checkpoint,
      page(0, 2),
      checkpoint,
      page(0, 3),
      checkpoint,
      end,
    ]);
    const outcome = await restore(octets, {
      domain,
      callbacks: { checkpoint: (epoch) => Promise.resolve(epoch === 2 ? 'failover' : 'success') },
    });
    expect(outcome).to.deep.equal({ kind: 'failover', epoch: 1 });
    expect(domain.page(0)[0]).to.equal(2);
    expect(domain.context).to.deep.equal(Uint8Array.of(1, 2, 3));

    const early = restore(octets, {
      domain: targetFor(4),
      callbacks: { checkpoint: () => Promise.resolve('failover') },
    });
    expect((await failureOf(early)).code).to.equal('NO_CONSISTENT_CHECKPOINT');
  });

  it('finishes applying an acknowledged checkpoint though an op says that the channel broke', async () => {
    const domain = targetFor(4);
    let broken = false;
    const ops: RestoreOps = {
      ...restoreOpsX86Hvm,
      async processRecord(state, record): Promise<RecordResult> {
        const result = await restoreOpsX86Hvm.processRecord(state, record);
        return broken && record.type === RecordType.HVM_PARAMS ? 'BROKEN_CHANNEL' : result;
      },
    };
    const octets = stream([
      sde,
      page(0, 1),
      context,
      checkpoint,
      params(),
      page(0, 2),
      checkpoint,
      page(0, 3),
      checkpoint,
    ]);
    const outcome = await restore(octets, {
      domain,
      ops,
      callbacks: {
        checkpoint() {
          broken = true;
          return Promise.resolve('success');
        },
      },
    });
    expect(outcome).to.deep.equal({ kind: 'failover', epoch: 1 });
    expect(domain.page(0)[0]).to.equal(2);

    const unprocessed: RestoreOps = {
      ...restoreOpsX86Hvm,
      processRecord: () => Promise.resolve('RECORD_NOT_PROCESSED'),
    };
    const error = await failureOf(restore(octets, { domain: targetFor(4), ops: unprocessed }));
    expect(error.code).to.equal('UNKNOWN_RECORD');
  });

  it('gives a read error of the source a code', async () => {
    const octets = stream([sde, page(0, 1), context, checkpoint, page(0, 2)]);
    const source = sourceOf(octets);
    const read = source.read.bind(source);
    source.read = async () => {
      const record = await read();
      if (record === null) throw new Error('disk on fire');
      return record;
    };
    const outcome = await restore(octets, { domain: targetFor(4), source });
    expect(causeOf(outcome)).to.equal('SOURCE_FAILED');
  });

  it('cleans up exactly once, and fails with the hypervisor’s error, when any of its calls fails', async () => {
    const octets = stream([
      encodeRecord(RecordType.X86_CPUID_POLICY, new Uint8Array(24)),
      sde,
      page(0, 1),
      encodeRecord(RecordType.X86_TSC_INFO, new Uint8Array(24)),
      context,
      params([1n, 0n], [19n, 1n]),
      checkpoint,
      page(1, 2),
      params([19n, 2n]),
      checkpoint,
      end,
    ]);
    let cleanups = 0;
    const ops: RestoreOps = {
      ...restoreOpsX86Hvm,
      cleanup(state) {
        cleanups++;
        return restoreOpsX86Hvm.cleanup(state);
      },
    };
    const whole = targetFor(4);
    await restore(octets, { domain: whole, ops });
    expect(cleanups).to.equal(1);
    expect(whole.calls).to.be.greaterThan(10);
    for (let fail = 0; fail < whole.calls; fail++) {
      cleanups = 0;
      const domain = targetFor(4);
      domain.script = (_call, number) => {
        if (number === fail) throw new HypervisorError('FAILED', 'as scripted', { number });
      };
      const error = await failureOf(restore(octets, { domain, ops }));
      expect(error.facts).to.deep.equal({ number: fail });
      expect(cleanups).to.equal(fail === 0 ? 0 : 1);
    }
  });

  it('keeps the failure of the clean-up', async () => {
    const failing: RestoreOps = {
      ...restoreOpsX86Hvm,
      cleanup: () => Promise.reject(new Error('no clean-up')),
    };
    const good = stream([sde, page(0, 1), context, end]);
    const only = await failureOf(restore(good, { domain: targetFor(4), streamType: 'plain', ops: failing }));
    expect(only.code).to.equal('CLEANUP_FAILED');
    const both = await failureOf(restore(good, { domain: targetFor(4), streamType: 'remus', ops: failing }));
    expect(both.code).to.equal('UNEXPECTED_RECORD');
    expect(both.suppressed.map(({ message }) => message)).to.deep.equal(['no clean-up']);
  });

  it('refuses domains and streams that do not fit, before it touches the domain', async () => {
    const hvm = stream([sde, end]);
    const pv = stream([sde, end], { domainType: DomainType.X86_PV });
    const domain = targetFor(4);
    const calls = (): number => domain.calls;
    expect((await failureOf(restore(pv, { domain }))).code).to.equal('DOMAIN_TYPE_MISMATCH');
    expect((await failureOf(restore(hvm, { domain, streamType: 'colo' }))).code).to.equal('BAD_OPTIONS');
    for (const bufferLimitBytes of [0, -1, NaN]) {
      expect((await failureOf(restore(hvm, { domain, bufferLimitBytes }))).code).to.equal('BAD_OPTIONS');
    }
    expect((await failureOf(restore(new Uint8Array(64), { domain }))).code).to.equal('BAD_MARKER');
    // Each has asked who the domain is, at most.
    expect(calls()).to.be.at.most(2);
    const paravirtual = new MemoryDomain({ pages: 4, type: DomainType.X86_PV, empty: true });
    expect((await failureOf(restore(pv, { domain: paravirtual }))).code).to.equal('UNSUPPORTED_DOMAIN_TYPE');
  });

  it('reports that the domain has no memory left', async () => {
    const domain = new MemoryDomain({ pages: 4, empty: true, pagesMax: 1 });
    const error = await failureOf(
      restore(stream([sde, page(0, 1), page(1, 1), context, end]), { domain, streamType: 'plain' }),
    );
    expect(error.code).to.equal('OUT_OF_MEMORY');
  });
};
for (const layer of LAYERS) describe(`the restorer, of a stream of ${layer}`, restorer(layer));
