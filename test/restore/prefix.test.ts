// The promise of the prefix: wherever a stream is cut, and whatever its octets become, the domain equals the last
// checkpoint that was committed, or the restore fails with a typed error before there was one.

import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import { GuestError } from '../../src/guest/error.js';
import type { MemoryDomain } from '../memory/domain.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { RestoreError } from '../../src/restore/error.js';
import { restoreDomain, type RestoreOutcome } from '../../src/restore/restore.js';
import { StreamError } from '../../src/stream/error.js';
import { sourceOf, targetFor } from '../save/support.js';
import { seeded } from '../stream/streams.js';
import {
  LAYERS,
  record,
  recordEmbedded,
  replay,
  type RecordedLayer,
  type Recording,
  type Snapshot,
} from './recorded.js';

interface Restored {
  readonly target: MemoryDomain;
  readonly outcome: RestoreOutcome | Error;
  /** Epochs that were acknowledged, and those that were applied. */
  readonly acknowledged: number;
  readonly applied: number;
  readonly bufferedMax: number;
}

async function restore(
  { layer, pages, disks = [] }: Pick<Recording, 'layer' | 'pages'> & Partial<Recording>,
  octets: Uint8Array,
  chunk: number,
  limit: number,
): Promise<Restored> {
  const target = targetFor(pages, layer === 'libxl', disks);
  let acknowledged = 0;
  let applied = 0;
  let bufferedMax = 0;
  const outcome = await restoreDomain({
    domain: target,
    source: sourceOf(octets, chunk),
    streamType: 'remus',
    bufferLimitBytes: limit,
    disks: { streamUuid: 'recorded' },
    callbacks: {
      checkpoint(epoch) {
        expect(epoch).to.equal(acknowledged);
        acknowledged++;
        return Promise.resolve('success');
      },
      applied({ epoch, bufferedBytes }) {
        expect(epoch).to.equal(applied);
        applied++;
        bufferedMax = Math.max(bufferedMax, bufferedBytes);
      },
    },
  }).catch((error: unknown) => {
    if (error instanceof Error) return error;
    throw error;
  });
  return { target, outcome, acknowledged, applied, bufferedMax };
}

function expectEquals(target: MemoryDomain, snapshot: Snapshot | undefined, what: string): void {
  for (const part of ['memory', 'context', 'emulatorState'] as const) {
    const expected = snapshot?.[part] ?? expect.fail('no snapshot');
    expect(Buffer.compare(target[part], expected), `${part} ${what}`).to.equal(0);
  }
  const disk = snapshot?.disk;
  if (disk)
    expect(Buffer.compare(target.disks?.image(0) ?? Buffer.alloc(0), disk), `disk ${what}`).to.equal(0);
}

for (const [name, make] of [
  ['a domain in memory', () => record('libxc', 24, 6, 5)],
  ['a domain with a device model', () => record('libxl', 24, 6, 5)],
  ['the embedded machine', () => recordEmbedded(8)],
] as const) {
  describe(`a checkpointed stream of ${name} that is cut`, () => prefixTests(make));
}

function prefixTests(make: () => Promise<Recording>): void {
  let recording: Recording;
  before(async () => {
    recording = await make();
  });

  async function expectPrefix(cut: number, chunk: number): Promise<void> {
    const { octets, boundaries, snapshots, recordOffsets } = recording;
    const checkpoints = boundaries.filter(({ offset, end }) => !end && offset <= cut).length;
    const cutOff = octets.subarray(0, cut);
    const { target, outcome, acknowledged, applied } = await restore(recording, cutOff, chunk, 1e8);
    expect(acknowledged).to.equal(checkpoints);
    expect(applied).to.equal(checkpoints);
    if (cut === octets.length) {
      expect(outcome).to.deep.equal({ kind: 'complete', epochs: checkpoints });
    } else if (checkpoints > 0) {
      expect(outcome).to.deep.equal({ kind: 'failover', epoch: checkpoints - 1 });
    } else {
      expect(outcome).to.be.instanceOf(RomulusError);
      expect((outcome as RomulusError).code).to.equal(
        cut < (recordOffsets[0] ?? 0) ? 'TRUNCATED' : 'NO_CONSISTENT_CHECKPOINT',
      );
      return;
    }
    expectEquals(target, snapshots[checkpoints - 1], `cut at ${cut}`);
  }

  it('at every record, and an octet to either side of it, restores to the last whole checkpoint', async () => {
    const { recordOffsets, octets } = recording;
    expect(recordOffsets.length).to.be.greaterThan(30);
    for (const offset of [0, 16, 24, ...recordOffsets]) {
      for (const cut of [offset - 1, offset, offset + 1]) {
        if (cut >= 0 && cut <= octets.length) await expectPrefix(cut, 100_000);
      }
    }
  });

  it('at 2,000 random offsets does too', async () => {
    const random = seeded(2);
    for (let n = 0; n < 2000; n++) await expectPrefix(random(recording.octets.length), 1 + random(100_000));
  });
}

const damage = (layer: RecordedLayer) => (): void => {
  const LIMIT = 20_000;

  it('gives a typed error or a whole checkpoint, 20,000 times', async () => {
    const { octets, pages, recordOffsets } = await record(layer, 7, 4, 2);
    const random = seeded(20_000);
    const seen = new Map<string, number>();
    for (let n = 0; n < 20_000; n++) {
      const mutant = mutate(octets, recordOffsets, random);
      const restored = await restore({ layer, pages }, mutant, 30_000, LIMIT);
      const { target, outcome, acknowledged, applied, bufferedMax } = restored;
      expect(bufferedMax).to.be.at.most(LIMIT);
      let kind: string;
      if (outcome instanceof Error) {
        if (!isTyped(outcome)) throw outcome;
        kind = `error ${outcome.code}`;
      } else {
        const epochs = outcome.kind === 'complete' ? outcome.epochs : outcome.epoch + 1;
        // Whatever was acknowledged was applied, and nothing of what was not.
        expect(epochs).to.equal(acknowledged);
        expect(epochs).to.equal(applied);
        const cause = outcome.kind === 'failover' ? outcome.cause : undefined;
        if (cause !== undefined && !isTyped(cause)) throw cause;
        kind = `${outcome.kind} ${cause?.code ?? ''}`;
        expectEquals(target, replay(mutant, pages, epochs), `of mutant ${n}`);
      }
      seen.set(kind, (seen.get(kind) ?? 0) + 1);
    }
    // The mutations reach all the places that they are meant to reach.
    expect([...seen.keys()]).to.include.members([
      'complete ',
      'failover ',
      'failover BAD_RECORD',
      'failover UNKNOWN_RECORD',
      'failover UNEXPECTED_RECORD',
      'failover PFN_OUT_OF_RANGE',
      'failover UNKNOWN_PAGE_TYPE',
      'failover BUFFER_LIMIT',
      'error BAD_MARKER',
      'error BAD_RECORD',
      'error UNEXPECTED_RECORD',
      'error NO_CONSISTENT_CHECKPOINT',
      ...(layer === 'libxl' ? ['failover NO_EMULATOR', 'error BAD_ID'] : []),
    ]);
  }).timeout(60_000);
};
for (const layer of LAYERS) describe(`a checkpointed stream of ${layer} that is damaged`, damage(layer));

function isTyped(error: Error): error is RomulusError {
  return (
    error instanceof StreamError ||
    error instanceof RestoreError ||
    error instanceof HypervisorError ||
    error instanceof GuestError
  );
}

/** One to three changes: mostly where the structure is, for a changed octet of a page is only another page. */
function mutate(
  octets: Uint8Array,
  records: readonly number[],
  random: (below: number) => number,
): Uint8Array {
  let mutant = Uint8Array.from(octets);
  for (let changes = 1 + random(3); changes > 0; changes--) {
    const record = records[random(records.length)] ?? 0;
    const next = records[random(records.length)] ?? 0;
    const at = Math.min(mutant.length - 1, random(4) === 0 ? random(mutant.length) : record + random(40));
    switch (random(8)) {
      case 0:
      case 1:
        mutant[at] = random(256);
        break;
      case 2:
        mutant[at] = (mutant[at] ?? 0) ^ (1 << random(8));
        break;
      case 3: // a type or a length becomes another small number
        mutant[Math.min(record + 4 * random(2), mutant.length - 1)] = random(20);
        break;
      case 4: // a run of records goes missing
        mutant = splice(mutant, Math.min(record, next), Math.max(record, next), new Uint8Array(0));
        break;
      case 5: // a run of records comes twice
        mutant = splice(
          mutant,
          record,
          record,
          octets.subarray(Math.min(record, next), Math.max(record, next)),
        );
        break;
      case 6: // some octets go missing
        mutant = splice(mutant, at, Math.min(mutant.length, at + random(64)), new Uint8Array(0));
        break;
      default:
        mutant = random(4) === 0 ? mutant.slice(0, at) : mutant;
        if (random(12) === 0) mutant[random(64)] = random(256);
        break;
    }
  }
  return mutant;
}

function splice(octets: Uint8Array, from: number, to: number, added: Uint8Array): Uint8Array<ArrayBuffer> {
  const start = Math.min(from, octets.length);
  const end = Math.min(Math.max(start, to), octets.length);
  const result = new Uint8Array(octets.length - (end - start) + added.length);
  result.set(octets.subarray(0, start));
  result.set(added, start);
  result.set(octets.subarray(end), start + added.length);
  return result;
}
