// A COLO pair in one process: a saver and a restorer, a guest on each side that writes what the test says, and a link
// of two pipes, each of which can be cut at an octet. The primary stands until the secondary has applied a checkpoint:
// that moment both are compared.

import { expect } from 'chai';
import { MemoryDomain } from '../memory/domain.js';
import { ChunkSource } from '../../src/restore/file-source.js';
import type { CheckpointVerdict } from '../../src/restore/callbacks.js';
import { type RestoreOutcome, restoreDomain } from '../../src/restore/restore.js';
import { type SaveResult, saveDomain } from '../../src/save/save.js';
import { HEADROOM, type StreamPiece, type StreamSink } from '../../src/stream/flow.js';
import { firstDifference, pagePattern, targetFor } from './support.js';

/** A promise that is resolved from outside. */
export class Signal {
  readonly promise: Promise<void>;
  #resolve: () => void = () => undefined;

  constructor() {
    this.promise = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  raise(): void {
    this.#resolve();
  }
}

/** One direction of a link: a sink at one end, chunks at the other. It carries `cutAt` octets and breaks. */
export class Pipe implements StreamSink {
  readonly broken = new Signal();
  bytes = 0;
  boundaries: number[] = [];
  readonly #cutAt: number;
  readonly #kept: Uint8Array[] = [];
  #read = 0;
  #cut = false;
  #arrival = new Signal();

  constructor(cutAt = Infinity) {
    this.#cutAt = cutAt;
  }

  write(piece: StreamPiece): Promise<void> {
    if (this.#cut) return Promise.reject(new Error('the link is lost'));
    piece.memory.fill(0xa5, piece.start - HEADROOM, piece.start);
    const octets = piece.memory.slice(piece.start, piece.end).subarray(0, this.#cutAt - this.bytes);
    this.#kept.push(octets);
    this.bytes += octets.length;
    if (octets.length < piece.end - piece.start) {
      this.cut();
      return Promise.reject(new Error('the link is lost'));
    }
    this.#wake();
    return Promise.resolve();
  }

  boundary(epoch: number): Promise<void> {
    this.boundaries.push(epoch);
    return Promise.resolve();
  }

  drain(): Promise<void> {
    return Promise.resolve();
  }

  /** What has been written still arrives. */
  cut(): void {
    this.#cut = true;
    this.broken.raise();
    this.#wake();
  }

  octets(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#kept));
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const arrival = this.#arrival;
      const chunk = this.#kept[this.#read];
      if (chunk !== undefined) {
        this.#read++;
        yield chunk;
      } else if (this.#cut) {
        return;
      } else {
        await arrival.promise;
      }
    }
  }

  #wake(): void {
    this.#arrival.raise();
    this.#arrival = new Signal();
  }
}

/** Pfns that a guest writes, after the checkpoint of that index. */
export type Writes = readonly (readonly number[])[];

export type SecondaryCallback = 'checkpoint' | 'postcopy' | 'waitCheckpoint' | 'suspend';

export interface PairOptions {
  readonly pages: number;
  readonly checkpoints: number;
  readonly live?: boolean;
  /** The domain has a device model. */
  readonly emulator?: boolean;
  readonly primaryWrites: Writes;
  readonly secondaryWrites: Writes;
  readonly forwardCutAt?: number;
  readonly backCutAt?: number;
  /** The secondary's callback that says 'failover', and at which checkpoint. */
  readonly failover?: { readonly at: SecondaryCallback; readonly epoch: number };
  /** Called with both domains before anything is saved. */
  readonly prepare?: (primary: MemoryDomain, secondary: MemoryDomain) => Promise<void> | void;
}

export interface PairResult {
  readonly primary: MemoryDomain;
  readonly secondary: MemoryDomain;
  /** What the secondary must hold: the last checkpoint that it completed, and its own writes since. */
  readonly expected: { memory: Uint8Array; context: Uint8Array } | null;
  /** Checkpoints after which both were found equal. */
  readonly compared: number;
  readonly saved: SaveResult | Error;
  readonly restored: RestoreOutcome | Error;
  readonly forward: Pipe;
  readonly back: Pipe;
}

export async function runPair(options: PairOptions): Promise<PairResult> {
  const { pages, checkpoints, failover } = options;
  const hole = pages - 1;
  const emulator = options.emulator ?? false;
  const primary = new MemoryDomain({ pages, emulator, holes: [hole], params: [{ index: 12n, value: 5n }] });
  for (let pfn = 0; pfn < hole; pfn++) primary.write(pfn, pagePattern(pfn, 0));
  const secondary = targetFor(pages, emulator);
  const forward = new Pipe(options.forwardCutAt);
  const back = new Pipe(options.backCutAt);
  const lost = Promise.race([forward.broken.promise, back.broken.promise]);
  const applied = Array.from({ length: checkpoints }, () => new Signal());
  const diverged = Array.from({ length: checkpoints }, () => new Signal());
  let expected: PairResult['expected'] = null;
  let compared = 0;
  let epochSaved = 0;
  let epochRestored = 0;

  const write = (domain: MemoryDomain, side: number, writes: Writes, epoch: number): void => {
    for (const pfn of writes[epoch] ?? []) {
      domain.write(pfn, pagePattern(pfn, 1 + side + epoch * 2).subarray(0, 512), (pfn % 7) * 512);
    }
  };
  const orLost = (signal: Signal): Promise<CheckpointVerdict> =>
    Promise.race([signal.promise.then(() => 'success' as const), lost.then(() => 'failover' as const)]);
  const verdict = (at: SecondaryCallback, epoch: number): CheckpointVerdict =>
    failover?.at === at && failover.epoch === epoch ? 'failover' : 'success';

  const cutBoth = (): void => {
    forward.cut();
    back.cut();
  };
  await primary.start();
  await options.prepare?.(primary, secondary);
  const save = saveDomain({
    domain: primary,
    sink: forward,
    streamType: 'colo',
    live: options.live ?? true,
    back: new ChunkSource(back.chunks(), { withoutHeaders: true }),
    callbacks: {
      async suspend(epoch) {
        await primary.suspend();
        primary.context = Uint8Array.from({ length: 24 }, (_, i) => i + epoch);
        if (emulator) primary.emulatorState = Uint8Array.from({ length: 99 }, (_, i) => i * epoch);
      },
      async checkpoint(epoch, sent) {
        epochSaved = epoch;
        expect(primary.state).to.equal('suspended');
        const { phases } = await sent;
        expect(phases.resume).to.equal(0);
        const signal = applied[epoch];
        if (signal === undefined || (await orLost(signal)) === 'failover') return 'abort';
        return 'continue';
      },
      postcopy: () => primary.resume(),
      waitCheckpoint() {
        write(primary, 0, options.primaryWrites, epochSaved);
        diverged[epochSaved]?.raise();
        return Promise.resolve(epochSaved + 1 === checkpoints ? 'finish' : 'continue');
      },
    },
  });
  const restore = restoreDomain({
    domain: secondary,
    source: new ChunkSource(forward.chunks(), { nothingAfterEnd: false }),
    streamType: 'colo',
    callbacks: { checkpoint: (epoch) => Promise.resolve(verdict('checkpoint', epoch)) },
    colo: {
      dirtyLog: secondary,
      back,
      restoreResults() {
        if (primary.state === 'suspended') {
          expect(firstDifference(primary, secondary)).to.equal(-1);
          expect(secondary.context).to.deep.equal(primary.context);
          expect(secondary.emulatorState).to.deep.equal(primary.emulatorState);
          expect(secondary.params).to.deep.equal(primary.params);
          compared++;
        }
        expected = { memory: secondary.memoryCopy(), context: secondary.context };
        return Promise.resolve();
      },
      async postcopy(epoch) {
        epochRestored = epoch;
        await (secondary.state === 'created' ? secondary.start() : secondary.resume());
        const told = verdict('postcopy', epoch);
        if (told === 'success') applied[epoch]?.raise();
        return told;
      },
      async waitCheckpoint() {
        expect(secondary.state).to.equal('running');
        expect(secondary.loggingDirty).to.equal(true);
        write(secondary, 1, options.secondaryWrites, epochRestored);
        expected = { memory: secondary.memoryCopy(), context: secondary.context };
        if (verdict('waitCheckpoint', epochRestored) === 'failover') return 'failover';
        const signal = diverged[epochRestored];
        return signal === undefined ? 'failover' : orLost(signal);
      },
      async suspend(epoch) {
        await secondary.suspend();
        return verdict('suspend', epoch);
      },
    },
  });
  const settled = <T>(work: Promise<T>): Promise<T | Error> =>
    work.catch((error: unknown) => {
      cutBoth();
      return error instanceof Error ? error : new Error(String(error));
    });
  const [saved, restored] = await Promise.all([
    settled(save),
    settled(restore).then((outcome) => {
      cutBoth();
      return outcome;
    }),
  ]);
  return { primary, secondary, expected, compared, saved, restored, forward, back };
}

/** After a failover: it runs, with its own state, and logs no more. */
export function expectRunsOn({ secondary, expected }: PairResult): void {
  expect(secondary.state).to.equal('running');
  expect(secondary.loggingDirty).to.equal(false);
  expect(expected).to.not.equal(null);
  expect(Buffer.compare(secondary.memory, expected?.memory ?? new Uint8Array(0))).to.equal(0);
  expect(secondary.context).to.deep.equal(expected?.context);
}
