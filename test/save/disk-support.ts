// What the tests of disks in a stream share: a guest that writes whenever it runs, and a recording of a save of its domain,
// with what its memory and disks were in each pause.

import { DirtyMap } from '../../src/disk/dirty-map.js';
import { WriteKind } from '../../src/disk/extents.js';
import type { ReplicatedDisk } from '../../src/hypervisor/port-disks.js';
import { restoreDomain, type RestoreOptions, type RestoreOutcome } from '../../src/restore/restore.js';
import type { SaveStepCallbacks } from '../../src/save/callbacks.js';
import type { SaveStepOptions } from '../../src/save/context.js';
import { saveDomain } from '../../src/save/save.js';
import { MemoryDisks } from '../memory/disks.js';
import { MemoryDomain } from '../memory/domain.js';
import { seeded } from '../stream/streams.js';
import { RecordingSink, driver, pagePattern, sourceOf } from './support.js';

export const TWO_DISKS: readonly ReplicatedDisk[] = [
  { id: 'root', bytes: 20 * 64 * 1024 + 512 },
  { id: 'data', bytes: 6 * 64 * 1024 },
];
export const PAGES = 12;

type Random = (below: number) => number;

/** Writes, zeroes and discards what it likes, in every turn of the event loop in which it runs. */
export class ScribblingGuest {
  readonly #domain: MemoryDomain;
  readonly #disks: MemoryDisks;
  readonly #random: Random;
  #stopped = false;

  constructor(domain: MemoryDomain, disks: MemoryDisks, random: Random) {
    this.#domain = domain;
    this.#disks = disks;
    this.#random = random;
    this.#run();
  }

  stop(): void {
    this.#stopped = true;
  }

  scribble(): void {
    const random = this.#random;
    const disk = random(this.#disks.disks.length);
    const { length: bytes } = this.#disks.image(disk);
    const sectors = 1 + (random(8) === 0 ? random(300) : random(16));
    const offset = 512 * random(bytes / 512);
    const length = Math.min(512 * sectors, bytes - offset);
    const kind = random(10);
    if (kind === 0) this.#disks.guestCovers(WriteKind.ZERO, disk, offset, length);
    else if (kind === 1) this.#disks.guestCovers(WriteKind.DISCARD, disk, offset, length);
    else this.#disks.guestWrites(disk, offset, noise(length, random));
    // Epochs end at any time while a disk is copied, not only when it is time.
    if (random(3) === 0) this.#disks.events$.next({ kind: 'pressure' });
    if (kind === 2) this.#domain.write(random(PAGES), pagePattern(random(100), random(100)));
  }

  #run(): void {
    if (this.#stopped) return;
    if (this.#domain.state === 'running') for (let n = this.#random(4); n > 0; n--) this.scribble();
    setImmediate(() => this.#run());
  }
}

export function noise(length: number, random: Random): Uint8Array {
  const octets = new Uint8Array(length);
  new Uint32Array(octets.buffer).fill(random(2 ** 31));
  for (let at = 0; at < length; at += 512) octets[at] = random(256);
  return octets;
}

export interface DiskSnapshot {
  readonly memory: Uint8Array;
  readonly disks: readonly Uint8Array[];
}

export interface DiskRecording {
  readonly octets: Uint8Array;
  readonly boundaries: RecordingSink['boundaries'];
  /** In each pause. */
  readonly snapshots: readonly DiskSnapshot[];
  readonly source: MemoryDisks;
  /** What the images were when the disks were attached, and which chunks of them the other side is to lack. */
  readonly before: readonly Uint8Array[];
  readonly lacks: readonly DirtyMap[];
  /** Chunks that were not kept, and seals, before the first pause. */
  readonly seals: number;
}

export interface RecordOptions {
  readonly seed: number;
  readonly checkpoints: number;
  readonly disks?: readonly ReplicatedDisk[];
  /** Before the first checkpoint the data of some writes are not kept. */
  readonly losing?: boolean;
  readonly save?: Partial<SaveStepOptions>;
  readonly callbacks?: Partial<SaveStepCallbacks>;
  readonly emulator?: boolean;
  /** Turns between two checkpoints. */
  readonly turns?: number;
  /** How often somebody else lets the domain run in each of its pauses. */
  readonly disturbed?: readonly number[];
}

export async function recordDisks(options: RecordOptions): Promise<DiskRecording> {
  const { seed, checkpoints, losing = false, turns = 4, emulator = false } = options;
  const random = seeded(seed);
  const disks = filledDisks(options.disks ?? TWO_DISKS, random);
  const domain = new MemoryDomain({ pages: PAGES, disks, emulator });
  await domain.start();
  await disks.attach();
  const before = disks.imageCopies();
  const lacks = disks.disks.map(({ bytes }) => someChunks(bytes, random));
  const guest = new ScribblingGuest(domain, disks, random);
  // Marked, before they are kept.
  for (let n = 0; n < 5; n++) guest.scribble();
  const sink = new RecordingSink();
  const snapshots: DiskSnapshot[] = [];
  let seals = 0;
  let losses = random(20);
  const pass = async (): Promise<void> => {
    for (let n = turns; n > 0; n--) await new Promise((resolve) => setImmediate(resolve));
  };
  let isCopying = false;
  disks.losesData = () => losing && isCopying && losses-- > 0;
  let open = 0;
  disturb(domain, [...(options.disturbed ?? [])], () => open, pass);
  const drive = driver({
    domain,
    checkpoints,
    suspended(epoch) {
      open = epoch;
      if (epoch === 0) seals = disks.seals;
      snapshots[epoch] = { memory: domain.memoryCopy(), disks: disks.imageCopies() };
    },
  });
  try {
    await saveDomain({
      ...{ domain, sink, streamType: 'remus', live: true },
      disks: { todo: (marked) => Promise.resolve(marked.map((map, disk) => union(map, lacks[disk]))) },
      ...options.save,
      callbacks: {
        ...drive,
        diskProgress: ({ doneBytes, totalBytes }) => (isCopying = doneBytes < totalBytes),
        checkpoint: async (epoch, sent) => {
          const decision = await drive.checkpoint(epoch, sent);
          await pass();
          return decision;
        },
        ...options.callbacks,
      },
    });
  } finally {
    guest.stop();
  }
  const octets = sink.octets();
  return { octets, boundaries: sink.boundaries, snapshots, source: disks, before, lacks, seals };
}

/** Of noise, and of holes. */
function filledDisks(disks: readonly ReplicatedDisk[], random: Random): MemoryDisks {
  const filled = new MemoryDisks({ disks, turns: () => random(3) });
  for (const disk of disks.keys()) {
    const image = filled.image(disk);
    for (let at = 0; at < image.length; at += 65_536) {
      if (random(3) > 0) image.set(noise(Math.min(65_536, image.length - at), random), at);
    }
  }
  return filled;
}

/** Somebody lets the domain run in the pause of the epoch that is open, so many times. */
function disturb(
  domain: MemoryDomain,
  disturbed: number[],
  open: () => number,
  pass: () => Promise<void>,
): void {
  Object.assign(domain, {
    stoodStill: async () => {
      const times = disturbed[open()] ?? 0;
      if (times === 0) return true;
      disturbed[open()] = times - 1;
      await domain.resume();
      await pass();
      return false;
    },
  });
}

function union(one: DirtyMap | null, other: DirtyMap | undefined): DirtyMap {
  if (one === null || other === undefined) throw new RangeError('there is no map');
  const both = new DirtyMap(one.bytes, one.words.slice());
  both.or(other);
  return both;
}

/** Images as the other side has them before the stream: as they were, but for the chunks that it lacks. */
export function imagesBefore({ before, lacks, source }: DiskRecording, turns?: () => number): MemoryDisks {
  const images = new MemoryDisks({ disks: source.disks, ...(turns && { turns }) });
  before.forEach((octets, disk) => {
    const image = images.image(disk);
    image.set(octets);
    for (const { offset, length } of lacks[disk]?.runs() ?? []) image.fill(0x5a, offset, offset + length);
  });
  return images;
}

export interface Restored {
  readonly domain: MemoryDomain;
  readonly images: MemoryDisks;
  readonly outcome: RestoreOutcome | Error;
  /** Of each checkpoint that was committed. */
  readonly after: readonly DiskSnapshot[];
}

export async function restoreDisks(
  octets: Uint8Array,
  images: MemoryDisks,
  options: Partial<RestoreOptions> & { readonly chunk?: number; readonly emulator?: boolean } = {},
): Promise<Restored> {
  const { chunk = 50_000, emulator = false } = options;
  const domain = new MemoryDomain({ pages: PAGES, empty: true, disks: images, emulator });
  const after: DiskSnapshot[] = [];
  const outcome = await restoreDomain({
    ...{ domain, source: sourceOf(octets, chunk), streamType: 'remus' },
    disks: { streamUuid: 'one' },
    ...options,
    callbacks: {
      checkpoint: () => Promise.resolve('success'),
      applied: ({ epoch }) => {
        after[epoch] = { memory: domain.memoryCopy(), disks: images.imageCopies() };
      },
      ...options.callbacks,
    },
  }).catch((error: unknown) => {
    if (error instanceof Error) return error;
    throw error;
  });
  return { domain, images, outcome, after };
}

/** The first thing that differs; null: nothing does. */
export function difference(one: DiskSnapshot | undefined, other: DiskSnapshot | undefined): string | null {
  if (one === undefined || other === undefined) return 'one is not there';
  if (Buffer.compare(one.memory, other.memory) !== 0) return 'memory';
  for (const [disk, octets] of one.disks.entries()) {
    const is = other.disks[disk] ?? new Uint8Array(0);
    if (Buffer.compare(octets, is) === 0) continue;
    return `disk ${disk} at ${octets.findIndex((octet, i) => octet !== is[i])}`;
  }
  return null;
}

function someChunks(bytes: number, random: Random): DirtyMap {
  const map = new DirtyMap(bytes);
  for (let n = random(6); n > 0; n--) map.mark(512 * random(bytes / 512), 512);
  return map;
}
