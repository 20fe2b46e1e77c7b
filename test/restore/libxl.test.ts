// What libxl's layer adds to the restorer's rules: the device model's state belongs to its checkpoint, which is whole
// with CHECKPOINT_END and not before, and reaches the domain last.

import { expect } from 'chai';
import { RomulusError, codeOf } from '../../src/errors.js';
import type { MemoryDomain } from '../memory/domain.js';
import { restoreDomain, type RestoreOptions, type RestoreOutcome } from '../../src/restore/restore.js';
import { RecordType } from '../../src/stream/format.js';
import {
  CheckpointState,
  EmulatorId,
  LibxlRecordType,
  encodeEmulatorContext,
  encodeLibxlHeader,
} from '../../src/stream/libxl.js';
import { concatenate, encodeHeaders, encodeRecord } from '../../src/stream/writer.js';
import { sourceOf, targetFor } from '../save/support.js';
import { pageDataBody } from '../stream/streams.js';
import { encodeCheckpointState, encodeEmulatorXenstoreData } from '../stream/codecs.js';

const { QEMU_UPSTREAM, QEMU_TRADITIONAL } = EmulatorId;
const sde = encodeRecord(RecordType.STATIC_DATA_END);
const checkpoint = encodeRecord(RecordType.CHECKPOINT);
const checkpointEnd = encodeRecord(LibxlRecordType.CHECKPOINT_END);
const libxcEnd = encodeRecord(RecordType.END);
const libxlEnd = encodeRecord(LibxlRecordType.END);
const hvmContext = encodeRecord(RecordType.HVM_CONTEXT, Uint8Array.of(9, 9));

function page(pfn: number, fill: number): Uint8Array {
  return encodeRecord(RecordType.PAGE_DATA, pageDataBody([[pfn, 0]], fill));
}

function emulator(context: readonly number[], emulatorId: number = QEMU_UPSTREAM, index = 0): Uint8Array {
  const body = encodeEmulatorContext({ emulatorId, index, context: Uint8Array.from(context) });
  return encodeRecord(LibxlRecordType.EMULATOR_CONTEXT, body);
}

interface Restored {
  readonly domain: MemoryDomain;
  readonly outcome: RestoreOutcome | RomulusError;
  readonly acknowledged: number[];
  readonly skipped: number[];
  readonly calls: string[];
}

async function restore(
  records: readonly Uint8Array[],
  options: Partial<RestoreOptions> = {},
): Promise<Restored> {
  const domain = targetFor(4, true);
  const acknowledged: number[] = [];
  const skipped: number[] = [];
  const calls: string[] = [];
  domain.script = (call) => calls.push(call);
  const octets = concatenate([
    encodeLibxlHeader(),
    encodeRecord(LibxlRecordType.LIBXC_CONTEXT),
    encodeHeaders({ domainType: 2, xenMajor: 4, xenMinor: 17 }),
    ...records,
  ]);
  const outcome = await restoreDomain({
    domain,
    source: sourceOf(octets),
    streamType: 'remus',
    callbacks: {
      checkpoint(epoch) {
        acknowledged.push(epoch);
        return Promise.resolve('success');
      },
      skippedRecord: (type) => skipped.push(type),
    },
    ...options,
  }).catch((error: unknown) => {
    if (error instanceof RomulusError) return error;
    throw error;
  });
  return { domain, outcome, acknowledged, skipped, calls };
}

/** Of an error, or of a failover's cause. */
function causeOf({ outcome }: Restored): string | undefined {
  const error = outcome instanceof Error ? outcome : outcome.kind === 'failover' ? outcome.cause : undefined;
  return error === undefined ? undefined : codeOf(error);
}

const first = [sde, page(0, 1), checkpoint, emulator([1]), checkpointEnd];
const second = [page(0, 2), checkpoint, emulator([2]), checkpointEnd];

describe('the restorer, of the state of a device model', () => {
  it('sets it last, once, as the last whole checkpoint has it', async () => {
    const ended = await restore([...first, ...second, libxcEnd, libxlEnd]);
    expect(ended.outcome).to.deep.equal({ kind: 'complete', epochs: 2 });
    expect(ended.acknowledged).to.deep.equal([0, 1]);
    expect(ended.domain.emulatorState).to.deep.equal(Uint8Array.of(2));
    expect(ended.domain.context).to.have.length(0);
    expect(ended.calls.filter((call) => call.startsWith('set'))).to.deep.equal(['setEmulatorContext']);
    expect(ended.calls.at(-1)).to.equal('setEmulatorContext');

    // Xen's own streams have an HVM context, too.
    const both = await restore([sde, hvmContext, ...first.slice(1)]);
    expect(both.calls.slice(-2)).to.deep.equal(['setHvmContext', 'setEmulatorContext']);
  });

  it('does not take CHECKPOINT for the end of a checkpoint, nor libxc’s END for that of the stream', async () => {
    for (const [cut, code] of [
      [[page(0, 2), checkpoint], undefined],
      [[page(0, 2), checkpoint, emulator([2])], undefined],
      [[page(0, 2), checkpoint, emulator([2]), checkpointEnd.subarray(0, 7)], undefined],
      [[libxcEnd], undefined],
      [[page(0, 2), checkpoint, libxlEnd], 'BAD_RECORD'],
      [[page(0, 2), libxcEnd, libxlEnd], 'UNEXPECTED_RECORD'],
      [[libxcEnd, emulator([2]), libxlEnd], 'UNEXPECTED_RECORD'],
    ] as const) {
      const restored = await restore([...first, ...cut]);
      expect(restored.outcome).to.include({ kind: 'failover', epoch: 0 });
      expect(causeOf(restored)).to.equal(code);
      expect(restored.acknowledged).to.deep.equal([0]);
      expect(restored.domain.page(0)[0]).to.equal(1);
      expect(restored.domain.emulatorState).to.deep.equal(Uint8Array.of(1));
    }
    const early = await restore(first.slice(0, -1));
    expect(causeOf(early)).to.equal('NO_CONSISTENT_CHECKPOINT');
    expect(early.acknowledged).to.deep.equal([]);
  });

  const bad: readonly (readonly [name: string, code: string, record: Uint8Array])[] = [
    ['an empty state', 'BAD_RECORD', emulator([])],
    ['a record too short', 'BAD_RECORD', encodeRecord(LibxlRecordType.EMULATOR_CONTEXT, new Uint8Array(7))],
    ['a state of another emulator', 'NO_EMULATOR', emulator([2], QEMU_TRADITIONAL)],
    ['a state of a second emulator', 'NO_EMULATOR', emulator([2], QEMU_UPSTREAM, 1)],
    [
      'what xenstore should hold',
      'UNKNOWN_RECORD',
      encodeRecord(
        LibxlRecordType.EMULATOR_XENSTORE_DATA,
        encodeEmulatorXenstoreData({ emulatorId: QEMU_UPSTREAM, index: 0, entries: [['k', 'v']] }),
      ),
    ],
    [
      'COLO’s control record',
      'UNKNOWN_RECORD',
      encodeRecord(LibxlRecordType.CHECKPOINT_STATE, encodeCheckpointState(CheckpointState.NEW)),
    ],
    ['an unknown mandatory record', 'UNKNOWN_RECORD', encodeRecord(0x77)],
    [
      'an end that is not empty',
      'BAD_RECORD',
      encodeRecord(LibxlRecordType.CHECKPOINT_END, new Uint8Array(8)),
    ],
  ];
  for (const [name, code, record] of bad) {
    it(`refuses ${name} before it acknowledges the checkpoint`, async () => {
      const restored = await restore([...first, page(0, 2), checkpoint, record, checkpointEnd]);
      expect(restored.outcome).to.include({ kind: 'failover', epoch: 0 });
      expect(causeOf(restored)).to.equal(code);
      expect(restored.acknowledged).to.deep.equal([0]);
      expect(restored.domain.page(0)[0]).to.equal(1);
      expect(restored.domain.emulatorState).to.deep.equal(Uint8Array.of(1));
    });
  }

  it('skips optional records of libxl that it does not know, and says so', async () => {
    const unknown = encodeRecord(0x80000077, Uint8Array.of(1));
    const between = [page(0, 2), checkpoint, unknown, emulator([2]), unknown, checkpointEnd];
    const restored = await restore([...first, ...between, libxcEnd, unknown, libxlEnd]);
    expect(restored.outcome).to.deep.equal({ kind: 'complete', epochs: 2 });
    expect(restored.skipped).to.deep.equal([0x80000077, 0x80000077, 0x80000077]);
  });

  it('refuses a domain without registers: neither HVM context nor device model', async () => {
    const plain = await restore([sde, page(0, 1), libxcEnd, libxlEnd], { streamType: 'plain' });
    expect(causeOf(plain)).to.equal('INCOMPLETE');
    const checkpointed = await restore([sde, page(0, 1), checkpoint, checkpointEnd]);
    expect(causeOf(checkpointed)).to.equal('INCOMPLETE');
    expect(checkpointed.acknowledged).to.deep.equal([]);
  });

  it('takes a plain image, whose state follows libxc’s END', async () => {
    const whole = [sde, page(0, 1), libxcEnd, emulator([5]), libxlEnd];
    const { outcome, domain } = await restore(whole, { streamType: 'plain' });
    expect(outcome).to.deep.equal({ kind: 'complete', epochs: 0 });
    expect(domain.emulatorState).to.deep.equal(Uint8Array.of(5));
    const cut = await restore(whole.slice(0, -1), { streamType: 'plain' });
    expect(causeOf(cut)).to.equal('NO_CONSISTENT_CHECKPOINT');
  });

  it('counts it against the buffer’s limit', async () => {
    const large = emulator(new Array<number>(5000).fill(7));
    const records = [...first, page(0, 2), checkpoint, large, checkpointEnd];
    expect(causeOf(await restore(records, { bufferLimitBytes: 9000 }))).to.equal('BUFFER_LIMIT');
    expect((await restore(records, { bufferLimitBytes: 10_000 })).acknowledged).to.deep.equal([0, 1]);
  });

  it('fails as the domain does that does not take it', async () => {
    const domain = targetFor(4, true);
    domain.script = (call) => {
      if (call === 'setEmulatorContext') throw new RomulusError('REFUSED', 'as scripted', {});
    };
    expect(causeOf(await restore([...first], { domain }))).to.equal('REFUSED');
  });
});
